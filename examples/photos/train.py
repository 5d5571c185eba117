"""A small network learns to tell photographs apart, from JPEG in Parquet: train.py FOLDER.

FOLDER has train/ and held_out/. Decoding, random crops, flips and normalisation run in the loader,
natively. The held-out photos show parts of the subjects that are in no training photo; how far the mean
colour alone gets is printed beside the network.
"""

import sys
import time

import penstock as ps
import pyarrow.parquet as pq
import torch
from torch import nn
from tqdm import tqdm

SIZE = 64
EPOCHS = 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_loader(folder: str, subjects: list[str], training: bool) -> ps.Loader:
    if training:  # Another crop of each photo in every epoch, the same whenever the program runs.
        steps = [
            ps.image.decode(),
            ps.image.random_resized_crop(SIZE, scale=(0.25, 1)),
            ps.image.random_horizontal_flip(),
        ]
    else:
        steps = [ps.image.decode(), ps.image.resize(SIZE), ps.image.center_crop(SIZE)]
    return ps.Loader(
        folder,
        batch_size=64,
        shuffle=training,  # They lie subject by subject.
        seed=7,
        transforms={"image": [*steps, ps.image.normalize(MEAN, STD)], "subject": ps.ops.lookup(subjects)},
        memory_budget="128MiB",
    )


def make_model(num_subjects: int) -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(3, 16), *block(16, 32), *block(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, num_subjects),
    )  # fmt: skip


def train(model: nn.Module, loader: ps.Loader) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss_of = nn.CrossEntropyLoss()
    for epoch in range(EPOCHS):
        started, losses = time.perf_counter(), []
        # disable=None: a progress line on a terminal, nothing in a pipe.
        for batch in tqdm(loader, desc=f"epoch {epoch + 1}/{EPOCHS}", unit=" batches", disable=None):
            loss = loss_of(model(batch["image"]), batch["subject"].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        seconds = time.perf_counter() - started
        print(f"epoch {epoch + 1}/{EPOCHS}: mean loss {sum(losses) / len(losses):.4f}, {seconds:.1f} s")


def mean_colours(loader: ps.Loader, num_subjects: int) -> torch.Tensor:
    """Of each subject, over the whole loader."""
    sums, counts = torch.zeros(num_subjects, 3), torch.zeros(num_subjects, 1)
    for batch in loader:
        subjects = batch["subject"].long()
        sums.index_add_(0, subjects, batch["image"].mean((2, 3)))
        counts.index_add_(0, subjects, torch.ones(len(subjects), 1))
    return sums / counts


def evaluate(model: nn.Module, held_out: ps.Loader, colours: torch.Tensor) -> tuple[float, float]:
    """The shares that the nearest mean colour and the model get right."""
    model.eval()
    rows = by_colour = by_model = 0
    with torch.no_grad():
        for batch in held_out:
            subjects = batch["subject"].long()
            nearest = torch.cdist(batch["image"].mean((2, 3)), colours).argmin(1)
            by_colour += int((nearest == subjects).sum())
            by_model += int((model(batch["image"]).argmax(1) == subjects).sum())
            rows += len(subjects)
    return by_colour / rows, by_model / rows


def main() -> None:
    torch.manual_seed(0)
    folder = sys.argv[1]
    names = pq.read_table(f"{folder}/train/photos.parquet", columns=["subject"])["subject"]
    subjects = sorted(names.unique().to_pylist())
    model = make_model(len(subjects))
    loader = make_loader(f"{folder}/train", subjects, training=True)
    train(model, loader)
    print(f"\nWhat the loader has to say about the training:\n\n{loader.stats()}")
    colours = mean_colours(make_loader(f"{folder}/train", subjects, training=False), len(subjects))
    held_out = make_loader(f"{folder}/held_out", subjects, training=False)
    by_colour, by_model = evaluate(model, held_out, colours)
    print(f"\nAccuracy on parts of the {len(subjects)} photographs that were never seen:\n")
    print(f"  guessing               {1 / len(subjects):6.1%}")
    print(f"  nearest mean colour    {by_colour:6.1%}")
    print(f"  the network            {by_model:6.1%}")


if __name__ == "__main__":
    main()

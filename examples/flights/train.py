"""Learns whether a flight arrives over 15 minutes late: train.py FOLDER, with train/ and held_out/ in it.

What the model sees is known when the plane leaves the gate. The departure delay is among it and tells most of
the story; the program prints how far that one number gets alone.
"""

import sys

import penstock as ps
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import nn
from tqdm import tqdm

NUMBERS = ["dep_delay", "distance", "hour", "month", "built"]
WORDS = ["carrier", "origin", "dest"]
EPOCHS = 2


def number(mean: float, std: float) -> ps.ops.Chain:
    """Centre and scale; where the value is missing, put the mean."""
    return ps.ops.cast("float32") | ps.ops.fill_null(mean) | ps.ops.scale(mean, std)


def make_loader(folder: str, vocabularies: dict) -> ps.Loader:
    return ps.Loader(
        folder,
        batch_size=512,
        columns=[*NUMBERS, *WORDS, "arr_delay"],
        filter=pc.field("arr_delay").is_valid(),  # Cancelled and diverted flights never arrived.
        transforms={
            "dep_delay": number(13, 40),
            "distance": number(1040, 730),
            "hour": number(13, 4.7),
            "month": number(6.5, 3.4),
            "built": number(2001, 7),
            # The same column once more, in minutes, for the comparison in evaluate().
            "minutes_behind": ps.col("dep_delay"),
            # The position in the vocabulary; a word that is not in it becomes the number behind the last.
            **{word: ps.ops.lookup(values, missing=len(values)) for word, values in vocabularies.items()},
        },
        memory_budget="64MiB",
    )


class Model(nn.Module):
    def __init__(self, vocabularies: dict):
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {word: nn.Embedding(len(v) + 1, 8) for word, v in vocabularies.items()}
        )
        self.layers = nn.Sequential(nn.Linear(len(NUMBERS) + 8 * len(WORDS), 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers = torch.stack([batch[name] for name in NUMBERS], dim=1)
        words = [self.embeddings[word](batch[word]) for word in WORDS]
        return self.layers(torch.cat([numbers, *words], dim=1)).squeeze(1)


def is_late(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return batch["arr_delay"] > 15


def train(model: Model, loader: ps.Loader) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss_of = nn.BCEWithLogitsLoss()
    for epoch in range(EPOCHS):
        total_loss = batches = 0
        # disable=None: a progress line on a terminal, nothing in a pipe.
        for batch in tqdm(loader, desc=f"epoch {epoch + 1}/{EPOCHS}", unit=" batches", disable=None):
            loss = loss_of(model(batch), is_late(batch).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss, batches = total_loss + loss.item(), batches + 1
        print(f"epoch {epoch + 1}/{EPOCHS}: mean loss {total_loss / batches:.4f}")


@torch.no_grad()
def evaluate(model: Model, loader: ps.Loader) -> dict[str, float]:
    """Share of held-out flights that are told right."""
    rows = late = right = right_by_departure = 0
    for batch in loader:
        truth = is_late(batch)
        left_late = batch["minutes_behind"] > 15
        rows, late = rows + len(truth), late + int(truth.sum())
        right += int((model(batch).gt(0) == truth).sum())
        right_by_departure += int((left_late == truth).sum())
    return {
        'always "on time" (the majority)': max(late, rows - late) / rows,
        '"late" if it left over 15 minutes late': right_by_departure / rows,
        "the model": right / rows,
    }


def main(folder: str) -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # The model is too small to share.
    words = pq.read_table(f"{folder}/train", columns=WORDS)
    vocabularies = {word: pc.unique(words[word]).sort() for word in WORDS}
    model = Model(vocabularies)
    with make_loader(f"{folder}/train", vocabularies) as loader:
        train(model, loader)
        print("\nWhat the loader has to say about the training:\n")
        print(loader.stats())
    with make_loader(f"{folder}/held_out", vocabularies) as loader:
        accuracies = evaluate(model, loader)
    print("\nAccuracy on held-out flights:\n")
    for name, accuracy in accuracies.items():
        print(f"  {name:40}{accuracy:7.2%}")
    majority, _, learned = accuracies.values()
    if learned <= majority:
        print("\nThe model is no better than the majority: something is wrong.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Learns whether a flight arrives over 15 minutes late: train.py FOLDER, with train/ and held_out/ in it.

What the model sees is known when the plane leaves the gate. The departure delay is among it and tells most of
the story; the program prints how far that one number gets alone.

The flights lie in order of time; the loader shuffles them. In the middle of the first epoch the program saves
everything to FOLDER/checkpoint.pt, throws it away, and goes on from the file, as after a crash.
"""

import json
import sys
from itertools import islice

import penstock as ps
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import nn
from tqdm import tqdm

NUMBERS = ["dep_delay", "distance", "hour", "month", "built"]
WORDS = ["carrier", "origin", "dest"]
EPOCHS = 2
BATCHES_BEFORE_THE_CRASH = 200


def number(mean: float, std: float) -> ps.ops.Chain:
    """Centre and scale; where the value is missing, put the mean."""
    return ps.ops.cast("float32") | ps.ops.fill_null(mean) | ps.ops.scale(mean, std)


def make_loader(folder: str, vocabularies: dict, shuffle: bool = False) -> ps.Loader:
    return ps.Loader(
        folder,
        batch_size=512,
        shuffle=shuffle,
        seed=2013,
        shuffle_window="4MiB",  # About three of the 40 row groups.
        columns=[*NUMBERS, *WORDS, "arr_delay", ps.FILE, ps.ROW_ID],
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


class Training:
    """What a checkpoint must hold: the model, the optimizer, and where the loader is."""

    def __init__(self, folder: str, vocabularies: dict):
        self.model = Model(vocabularies)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-3)
        self.loader = make_loader(f"{folder}/train", vocabularies, shuffle=True)

    def save(self, path: str) -> int:
        """The bytes of the loader's state as JSON."""
        place = json.dumps(self.loader.state_dict())
        torch.save((self.model.state_dict(), self.optimizer.state_dict(), place), path)
        return len(place)

    def load(self, path: str) -> None:
        model, optimizer, place = torch.load(path)
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.loader.load_state_dict(json.loads(place))

    def run(self, name: str, most_batches: int | None = None) -> tuple[list[float], list[torch.Tensor]]:
        """The rest of the epoch, or so many batches: their losses, and which flights were in them."""
        losses, flights = [], []
        loss_of = nn.BCEWithLogitsLoss()
        # disable=None: a progress line on a terminal, nothing in a pipe.
        for batch in tqdm(islice(self.loader, most_batches), desc=name, unit=" batches", disable=None):
            loss = loss_of(self.model(batch), is_late(batch).float())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            flights.append((batch[ps.FILE].long() << 32) + batch[ps.ROW_ID])
        return losses, flights


def report(name: str, losses: list[float], flights: list[torch.Tensor], wanted: int) -> None:
    """One line for an epoch that must have had each of the `wanted` flights once."""
    rows = torch.cat(flights)
    assert len(rows) == len(rows.unique()) == wanted, f"{len(rows)} rows, {len(rows.unique())} distinct"
    print(f"{name}: mean loss {sum(losses) / len(losses):.4f}, {wanted:,} flights, each of them once")


def train(folder: str, vocabularies: dict, wanted: int) -> Training:
    """Two epochs of the `wanted` flights that arrived, the first one in two pieces."""
    name, checkpoint = f"epoch 1/{EPOCHS}", f"{folder}/checkpoint.pt"
    training = Training(folder, vocabularies)
    losses, flights = training.run(name, BATCHES_BEFORE_THE_CRASH)
    done = sum(map(len, flights))
    place_bytes = training.save(checkpoint)
    training.loader.close()
    print(f"{name}: stopped after {done:,} flights; saved, the loader's place in {place_bytes} bytes of JSON")

    training = Training(folder, vocabularies)
    training.load(checkpoint)
    print(f"{name}: a new model, optimizer and loader go on with the other {wanted - done:,}")
    more_losses, more_flights = training.run(name)
    report(name, losses + more_losses, flights + more_flights, wanted)

    for epoch in range(1, EPOCHS):
        name = f"epoch {epoch + 1}/{EPOCHS}"
        report(name, *training.run(name), wanted)
    return training


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
    flights = pq.read_table(f"{folder}/train", columns=[*WORDS, "arr_delay"])
    vocabularies = {word: pc.unique(flights[word]).sort() for word in WORDS}
    arrived = len(flights) - flights["arr_delay"].null_count
    training = train(folder, vocabularies, arrived)
    print("\nWhat the loader has to say about the training since it went on:\n")
    print(training.loader.stats())
    training.loader.close()
    with make_loader(f"{folder}/held_out", vocabularies) as loader:
        accuracies = evaluate(training.model, loader)
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

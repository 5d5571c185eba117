"""A collate_fn in the manner of Hugging Face: words to numbers, padded to the longest sentence of the batch.

python examples/collate_padding.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import torch

SENTENCES = [
    "a stock of grain behind the mill",
    "the pen holds water back",
    "water drives the wheel",
    "the wheel drives the stone and the stone grinds the grain",
]
PADDING, UNKNOWN = 0, 1


class WordTokenizer:
    """Gives each word its number; calls and results look like those of `transformers` tokenizers."""

    def __init__(self, sentences: list[str]) -> None:
        words = sorted({word for sentence in sentences for word in sentence.split()})
        self.numbers = {word: number for number, word in enumerate(words, 2)}

    def __call__(self, sentences: list[str]) -> dict[str, torch.Tensor]:
        rows = [[self.numbers.get(word, UNKNOWN) for word in sentence.split()] for sentence in sentences]
        length = max(map(len, rows))
        mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
        padded = [row + [PADDING] * (length - len(row)) for row in rows]
        return {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}


def main() -> None:
    tokenizer = WordTokenizer(SENTENCES)

    def collate(batch: pa.RecordBatch) -> dict[str, Any]:
        return {**tokenizer(batch["text"].to_pylist()), "labels": torch.tensor(batch["label"].to_pylist())}

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.parquet"
        texts = [SENTENCES[i % len(SENTENCES)] for i in range(1000)]
        pq.write_table(pa.table({"text": texts, "label": [i % 2 for i in range(1000)]}), path)
        # format="arrow" carries strings; the tokenizer gets the whole batch at once, on a thread of its own.
        with ps.Loader(path, batch_size=64, format="arrow", collate_fn=collate) as loader:
            for batch in loader:
                assert batch["input_ids"].shape == batch["attention_mask"].shape
        shape = tuple(batch["input_ids"].shape)
        print(f"{loader.stats().to_dict()['rows']} sentences, the last batch padded to {shape}")


if __name__ == "__main__":
    main()

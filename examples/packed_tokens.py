"""Training on packed sequences: documents end to end, in rows of one length, without padding.

python examples/packed_tokens.py
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import penstock as ps
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

LENGTH, VOCABULARY = 64, 100


def attention_mask(offsets: torch.Tensor, rows: int) -> torch.Tensor:
    """Each item sees those before it in its segment. FlashAttention takes `offsets` as they are."""
    segments = torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff()).view(rows, 1, LENGTH)
    return (segments.mT == segments).unsqueeze(1) & torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


class Model(nn.Module):
    """One layer of attention."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(LENGTH, width)
        self.attend, self.out = nn.Linear(width, 3 * width), nn.Linear(width, VOCABULARY)

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions(positions)
        q, k, v = self.attend(x).unsqueeze(1).chunk(3, -1)
        return self.out(x + nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).squeeze(1))


def main() -> None:
    random.seed(0)
    torch.manual_seed(0)
    starts = [(random.randrange(VOCABULARY), random.randint(1, 200)) for _ in range(2000)]
    documents = [[(first + i) % VOCABULARY for i in range(size)] for first, size in starts]
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.parquet"
        tokens = pa.array(documents, pa.list_(pa.int32()))
        pq.write_table(pa.table({"url": ["..."] * len(documents), "tokens": tokens}), path)
        transforms = {"tokens": ps.ops.pack(LENGTH)}
        with ps.Loader(
            path, columns=["tokens"], transforms=transforms, batch_size=32, shuffle=True, drop_last=True
        ) as loader:
            for batch in loader:
                tokens, positions = batch["tokens"].long(), batch["tokens_positions"]
                logits = model(tokens, positions, attention_mask(batch["tokens_offsets"], len(tokens)))
                # The next item is the label, where it is of the same segment.
                labels = tokens[:, 1:].masked_fill(positions[:, 1:] == 0, -100)
                loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        items = loader.stats().to_dict()["rows"] * LENGTH
        print(f"{items} of {sum(map(len, documents))} tokens, none of them padding; loss {loss:.1f}")


if __name__ == "__main__":
    main()

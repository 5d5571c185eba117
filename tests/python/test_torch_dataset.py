"""The view of a loader for what insists on a torch.utils.data.IterableDataset."""

from __future__ import annotations

import penstock as ps
import pytest

torch = pytest.importorskip("torch")


def test_a_torch_data_loader_over_it(numbers: str) -> None:
    """With batch_size=None the batches come through unchanged, epoch after epoch, and len() is right."""
    with ps.Loader(numbers, 100) as loader:
        dataset = loader.as_torch_dataset()
        assert isinstance(dataset, torch.utils.data.IterableDataset)
        assert len(dataset) == 10
        wrapped = torch.utils.data.DataLoader(dataset, batch_size=None)
        assert len(wrapped) == 10
        for _ in range(2):
            assert torch.cat([batch["x"] for batch in wrapped]).tolist() == list(range(1000))


def test_worker_processes_are_refused(numbers: str) -> None:
    """In a worker process of a DataLoader it says why that is wrong, and what to do."""
    with ps.Loader(numbers, 100, num_workers=1) as loader:
        wrapped = torch.utils.data.DataLoader(loader.as_torch_dataset(), batch_size=None, num_workers=1)
        with pytest.raises(RuntimeError, match="Pass num_workers=0 to the DataLoader"):
            next(iter(wrapped))
        assert sum(len(batch["x"]) for batch in loader) == 1000


def test_len_behind_a_filter(numbers: str) -> None:
    """len() is a TypeError where it is not known, which is how frameworks learn it."""
    import pyarrow.compute as pc

    with ps.Loader(numbers, 100, filter=pc.field("x") < 150) as loader:
        with pytest.raises(TypeError, match="not known ahead"):
            len(loader.as_torch_dataset())
        assert [len(batch["x"]) for batch in loader.as_torch_dataset()] == [100, 50]

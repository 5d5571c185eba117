"""Which Ray this works with."""

from __future__ import annotations

from typing import Any

__all__ = ["as_iterator", "require", "require_running"]

_OLDEST, _NEWEST = (2, 57), (2, 60)
_INSTALL = "pip install 'penstock[ray]'"
# What of Ray Data is used beyond its public methods.
_HOOKS = ("_to_ref_bundle_iterator", "_on_iteration_end", "_iter_batches", "_get_dataset_tag")


def require() -> None:
    """See that there is a Ray whose hooks are known.

    Raises
    ------
    ImportError
        If there is none, or one of another version; the message says what to install.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"penstock.ray needs Ray: {_INSTALL}") from error
    version = getattr(ray, "__version__", "of no version")
    numbers = version.split(".")[:2]
    is_known = all(number.isdigit() for number in numbers) and (
        _OLDEST <= tuple(int(number) for number in numbers) <= _NEWEST
    )
    if not is_known:
        raise ImportError(
            f"penstock.ray works with Ray 2.57 to 2.60, and Ray {version} is installed: {_INSTALL}, or "
            "iterate with Ray's own iter_batches"
        )
    try:
        from ray.data import DataIterator
    except ImportError as error:
        raise ImportError(f"penstock.ray needs Ray Data ({error}): {_INSTALL}") from error
    lacking = [name for name in _HOOKS if not hasattr(DataIterator, name)]
    if lacking:
        raise ImportError(f"this build of Ray {version} lacks {', '.join(lacking)}: {_INSTALL}")


def require_running() -> None:
    """Raise RuntimeError unless this process is connected to a Ray cluster."""
    import ray

    if not ray.is_initialized():
        raise RuntimeError(
            "Ray is not initialised in this process (or was shut down): call ray.init() before iterating. "
            "A data set does not outlive the cluster that it was made on"
        )


def as_iterator(source: Any) -> Any:
    """Return the DataIterator of a data set, and an iterator or shard as it is.

    Raises
    ------
    TypeError
        If it is neither.
    """
    from ray.data import DataIterator, Dataset

    if isinstance(source, DataIterator):
        return source
    if isinstance(source, Dataset):
        return source.iterator()
    if isinstance(source, (list, tuple)) and source and isinstance(source[0], DataIterator):
        raise TypeError(
            "source is a list of shards: each process takes one of them, such as shards[rank], or "
            "ray.train.get_dataset_shard(...) in a Ray Train worker"
        )
    raise TypeError(
        "source is a ray.data.Dataset, a ray.data.DataIterator or a shard of streaming_split, got "
        f"{type(source).__name__}; for files, tables and other iterables use penstock.Loader"
    )

"""What to do about what Ray raises."""

from __future__ import annotations

__all__ = ["explain"]


def explain(error: BaseException) -> None:
    """Add a note (Python 3.11 on) with the remedy to an error of Ray's."""
    import ray.exceptions as exceptions

    remedies = (
        (
            exceptions.ObjectStoreFullError,
            "the object store is full: lower batch_size or prefetch_batches, make blocks smaller "
            "(DataContext.target_max_block_size), or give Ray more with ray.init(object_store_memory=...)",
        ),
        (
            exceptions.OutOfDiskError,
            "the object store is full, and so is the disk that Ray spills to: make room there, or name "
            "another with ray.init(object_spilling_directory=...), make blocks smaller "
            "(DataContext.target_max_block_size), or give Ray more with ray.init(object_store_memory=...)",
        ),
        (
            exceptions.OutOfMemoryError,
            "Ray killed a worker for want of memory: lower the memory of the map functions (smaller blocks, "
            "fewer at a time with concurrency=...), or use larger nodes",
        ),
        (
            exceptions.ObjectLostError,
            "a block was lost with the node or the process that held it, and could not be made again: "
            "iterate again, and keep the process that made the data set alive. What ray.put() and "
            "ray.data.from_*() hold is not made again; blocks of read_*() and map_*() are (max_retries)",
        ),
        (
            exceptions.WorkerCrashedError,
            "a worker process died while it made a block: look for its log on that node, and iterate again",
        ),
        (
            exceptions.ActorDiedError,
            "an actor that this iteration needs is gone (a map actor, or the coordinator of streaming_split, "
            "which lives in the process that split): see the cause above, and start the iteration again",
        ),
    )
    for kind, remedy in remedies:
        if isinstance(error, kind):
            if hasattr(error, "add_note"):
                error.add_note(f"penstock.ray: {remedy}")
            return

"""One run in several processes (``accelerate launch``, ``torchrun``): who writes, and who waits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["count", "first", "first_goes_first", "leave"]


def count() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process runs the block alone, then the others: they find on the disk what it left there.

    The block must not need the others, as anything distributed would.
    """
    if count() == 1:
        yield
        return
    with _group().main_process_first():
        yield


def leave() -> None:
    """End the group of processes, where there is one; without it some backends abort when the interpreter exits."""
    if count() > 1:
        _group().wait_for_everyone()
        _group().destroy_process_group()


def _group() -> Any:
    import torch
    from accelerate import PartialState

    # Only the first call decides; without this, a machine without a GPU has processes that know nothing of each other.
    return PartialState(cpu=not torch.cuda.is_available())

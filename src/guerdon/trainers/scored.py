"""What a scored batch must offer a trainer, and how batches scored apart become one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError


class ScoredBatch(Protocol):
    """The scores of N samples. ``guerdon.rewards.bank.RewardBank.score`` returns one.

    parts: name -> float64 [N], NaN where there is no score. valid: bool [N].
    ``advantages(group_ids)`` -> float32 [N], 0 for a sample that cannot be compared.
    An optional ``failed`` bool [N] says more exactly than ``valid`` which samples take part in nothing.

    To be put together from parts (several processes, or scoring that overlaps sampling) a batch must be a dataclass
    whose per-sample fields are arrays [N] or dicts of arrays [N].
    """

    @property
    def parts(self) -> Mapping[str, Any]: ...
    @property
    def valid(self) -> Any: ...
    def advantages(self, group_ids: Tensor) -> Tensor: ...


def usable(scored: ScoredBatch) -> Tensor:
    """Return bool [N]: the samples that may be trained on."""
    failed = getattr(scored, "failed", None)
    mask = np.asarray(scored.valid) if failed is None else ~np.asarray(failed)
    return torch.from_numpy(np.array(mask, dtype=bool))


def concatenated(batches: Sequence[Any], sizes: Sequence[int]) -> Any:
    """Put batches of ``sizes`` samples, scored apart by the same rewards, together in order."""
    if len(batches) == 1:
        return batches[0]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    fields = {}
    for name in _fields(batches[0]):
        values = [getattr(batch, name) for batch in batches]
        fields[name] = _joined(values, sizes, starts)
    return dataclasses.replace(batches[0], **fields)


def gathered(scored: Any, size: int, accelerator: Any) -> Any:
    """Put the batches of all processes, ``size`` samples each, together in the order of their ranks.

    Failures are kept for this process's samples only, at their place among all samples.
    """
    if accelerator.num_processes == 1:
        return scored

    def gather(array: np.ndarray) -> np.ndarray:
        local = torch.from_numpy(np.asarray(array, dtype=np.float64)).to(accelerator.device)
        return accelerator.gather(local).cpu().numpy().astype(np.asarray(array).dtype)

    fields: dict[str, Any] = {}
    for name in _fields(scored):
        value = getattr(scored, name)
        if _is_column(value, size):
            fields[name] = gather(value)
        elif isinstance(value, dict) and value and all(_is_column(column, size) for column in value.values()):
            fields[name] = {key: gather(column) for key, column in value.items()}
        elif isinstance(value, dict):
            fields[name] = _moved(value, accelerator.process_index * size)
    return dataclasses.replace(scored, **fields)


def _fields(batch: Any) -> list[str]:
    if not dataclasses.is_dataclass(batch):
        raise GuerdonError(
            f"scores of type '{type(batch).__name__}' cannot be put together from parts: return a dataclass such as "
            "RewardBank's, or score with one process and overlap_scoring=false"
        )
    return [field.name for field in dataclasses.fields(batch) if field.init]


def _is_column(value: Any, size: int) -> bool:
    return isinstance(value, np.ndarray) and value.shape == (size,)


def _joined(values: list[Any], sizes: Sequence[int], starts: Sequence[int]) -> Any:
    first = values[0]
    if all(_is_column(value, size) for value, size in zip(values, sizes, strict=True)):
        return np.concatenate(values)
    if isinstance(first, dict) and first and all(_is_column(column, sizes[0]) for column in first.values()):
        return {key: np.concatenate([value[key] for value in values]) for key in first}
    if isinstance(first, dict):
        merged: dict[Any, Any] = {}
        for value, start in zip(values, starts, strict=True):
            for key, inner in _moved(value, start).items():
                merged[key] = {**merged.get(key, {}), **inner} if isinstance(inner, dict) else inner
        return merged
    return first


def _moved(value: dict[Any, Any], start: int) -> dict[Any, Any]:
    """Shift row numbers: {row: cause}, or {name: {row: cause}}; anything else stays."""
    return {
        key + start if isinstance(key, int) else key: _moved(inner, start) if isinstance(inner, dict) else inner
        for key, inner in value.items()
    }

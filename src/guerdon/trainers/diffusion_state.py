"""What a diffusion training checkpoint holds, and how it is put back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError
from guerdon.policies.shards import put, whole

_MOMENTS = ("exp_avg", "exp_avg_sq")


def pack(prefix: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Name tensors ``prefix/0``, ``prefix/1``, ..."""
    return {f"{prefix}/{place:05d}": whole(tensor.detach()) for place, tensor in enumerate(tensors)}


def unpack(prefix: str, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the tensors that ``pack`` named, in order."""
    return [tensors[name] for name in sorted(name for name in tensors if name.startswith(f"{prefix}/"))]


def fill(targets: Sequence[Tensor], prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Copy the tensors that ``pack`` named into ``targets``. Raises GuerdonError if their number differs."""
    found = unpack(prefix, tensors)
    if len(found) != len(targets):
        raise GuerdonError(f"the checkpoint holds {len(found)} tensors '{prefix}', the run has {len(targets)}")
    for target, tensor in zip(targets, found, strict=True):
        put(target, tensor)


def pack_adam(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """Name the moments and step counts of AdamW's state; empty before the first step."""
    states = [optimizer.state.get(parameter, {}) for parameter in parameters]
    if not all(states):
        return {}
    packed: dict[str, Tensor] = {}
    for name in (*_MOMENTS, "step"):
        packed |= pack(f"adam/{name}", [torch.as_tensor(state[name]) for state in states])
    return packed


def fill_adam(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what ``pack_adam`` named."""
    steps = unpack("adam/step", tensors)
    if not steps:
        return
    for place, parameter in enumerate(parameters):
        state: dict[str, Tensor] = {"step": steps[place].clone()}
        for name in _MOMENTS:
            state[name] = torch.zeros_like(parameter)
            put(state[name], tensors[f"adam/{name}/{place:05d}"])
        optimizer.state[parameter] = state


def fingerprint(value: Any) -> str:
    """Return a short hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], ignored: Sequence[str]) -> None:
    """Raise GuerdonError naming the first configuration key in which a resumed run differs from its checkpoint."""
    for key in now:
        if key not in ignored and before.get(key) != now[key]:
            raise GuerdonError(
                f"cannot resume: the checkpoint was made with {key} = {before.get(key)!r}, now it is {now[key]!r}"
            )

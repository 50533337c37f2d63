"""Tensors that FSDP keeps in shards on several processes, read and written whole."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor in one piece, a plain tensor as it is. All processes must call it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def put(target: Tensor, source: Tensor) -> None:
    """Copy a whole tensor into ``target``, of which each process may hold a shard."""
    if isinstance(target, DTensor):
        source = distribute_tensor(source.to(target.device), target.device_mesh, target.placements)
    target.copy_(source)

"""The state of every random number generator of the process, as tensors that a checkpoint can hold."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from guerdon.core.errors import GuerdonError

if TYPE_CHECKING:
    import torch


def rng_state() -> dict[str, torch.Tensor]:
    """States of torch (CPU and every CUDA device), numpy's global generator and Python's ``random``: "rng/..." keys."""
    import torch

    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    mt = numpy_state["state"]
    state = {
        "rng/torch": torch.get_rng_state(),
        # Unsigned 32-bit words, which torch's own integer types hold only as int64.
        "rng/python": torch.tensor([version, *words], dtype=torch.int64),
        "rng/python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "rng/numpy": torch.from_numpy(np.append(mt["key"].astype(np.int64), [mt["pos"], numpy_state["has_gauss"]])),
        "rng/numpy_gauss": torch.tensor([numpy_state["gauss"]], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        for device, cuda in enumerate(torch.cuda.get_rng_state_all()):
            state[f"rng/cuda/{device}"] = cuda
    return state


def set_rng_state(state: Mapping[str, torch.Tensor]) -> None:
    """Restore what ``rng_state`` gave; other keys are ignored. Raises GuerdonError naming a state that is missing."""
    import torch

    for key in ("rng/torch", "rng/python", "rng/python_gauss", "rng/numpy", "rng/numpy_gauss"):
        if key not in state:
            raise GuerdonError(f"the checkpoint lacks the random state {key!r}")
    torch.set_rng_state(state["rng/torch"].cpu())
    version, *words = state["rng/python"].tolist()
    gauss = state["rng/python_gauss"].tolist()
    random.setstate((version, tuple(words), gauss[0] if gauss else None))
    *key_words, position, has_gauss = state["rng/numpy"].tolist()
    gauss_numpy = state["rng/numpy_gauss"].item()
    np.random.set_state(("MT19937", np.array(key_words, dtype=np.uint32), position, has_gauss, gauss_numpy))
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            if f"rng/cuda/{device}" in state:
                torch.cuda.set_rng_state(state[f"rng/cuda/{device}"].cpu(), device)

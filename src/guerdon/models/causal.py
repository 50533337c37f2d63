"""A causal language model from a folder or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from guerdon.core.errors import GuerdonError

__all__ = ["load_causal"]


def load_causal(path: str | Path, *, dtype: Any = "auto", device: str | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) of transformers on ``device``, by default a GPU where there is one.

    Raises GuerdonError naming ``path`` where nothing can be loaded from it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        local = str(path).startswith((".", "/", "~")) and not Path(path).is_dir()
        told = "there is no such folder" if local else (str(error).splitlines() or [type(error).__name__])[0]
        raise GuerdonError(f"no causal language model at {str(path)!r}: {told}") from error
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), tokenizer

"""What a reward model stands on: a transformers stack, loaded whole, frozen in part, or under LoRA adapters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from guerdon.core.errors import GuerdonError, unknown

PARTS = ("backbone", "vision", "projector", "language", "embeddings")
_VISION = ("visual.", "vision_tower.", "vision_model.", "vision_encoder.", "vit.")
_PROJECTOR = ("merger.", "projector.", "vision_proj.", "connector.", "aligner.")


def part_of(name: str) -> str:
    """ "vision", "projector" or "language": the part to which a parameter of that name belongs."""
    if any(mark in f".{name}" for mark in (f".{mark}" for mark in _PROJECTOR)) or "projector." in name:
        return "projector"
    return "vision" if any(f".{mark}" in f".{name}" for mark in _VISION) else "language"


def freeze_parts(backbone: nn.Module, parts: Iterable[str]) -> None:
    """Take the named parts out of training, in place.

    parts: of "backbone" (all of it), "vision", "projector", "language" (embeddings too), "embeddings".
    IXC-2.5-Reward (arXiv 2501.12368) freezes vision and projector. Raises GuerdonError for another name, and for a part
    that this backbone does not have.
    """
    for part in parts:
        if part not in PARTS:
            raise unknown("part to freeze", part, PARTS)
        if part == "embeddings":
            table: Any = backbone
            chosen = list(table.get_input_embeddings().parameters())
        else:
            named = backbone.named_parameters()
            chosen = [value for name, value in named if part in ("backbone", part_of(name))]
        if not chosen:
            raise GuerdonError(f"{type(backbone).__name__} has no {part} to freeze")
        for parameter in chosen:
            parameter.requires_grad_(False)


def with_lora(backbone: nn.Module, lora: Any, frozen: Iterable[str] = ()) -> nn.Module:
    """The backbone under LoRA adapters; everything of it but these is frozen.

    lora:    a ``peft.LoraConfig``, its arguments as a mapping, or a rank (then alpha = 2 rank).
    frozen:  parts ("vision", "projector") that get no adapters either.
    """
    from peft import LoraConfig, get_peft_model

    if isinstance(lora, int):
        lora = {"r": lora, "lora_alpha": 2 * lora}
    settings = lora if isinstance(lora, LoraConfig) else LoraConfig(**{"target_modules": "all-linear", **dict(lora)})
    if {"backbone", "language"} & set(frozen):
        raise GuerdonError("LoRA adapters and a frozen backbone exclude each other; LoRA freezes all but its adapters")
    skipped = set(frozen) & {"vision", "projector"}
    if skipped and settings.target_modules in ("all-linear", None):
        linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
        settings.target_modules = [name for name in linear if part_of(f"{name}.") not in skipped]
    with quiet():
        return get_peft_model(backbone, settings)  # type: ignore[arg-type]


def hidden_size(backbone: Any) -> int:
    """The width of the backbone's last states."""
    config = backbone.config
    return int((config.get_text_config() if hasattr(config, "get_text_config") else config).hidden_size)


def default_dtype(device: torch.device) -> torch.dtype | str:
    """Float32 on a CPU, which is slow in anything else; elsewhere as stored."""
    return torch.float32 if device.type == "cpu" else "auto"


def load_backbone(source: str, *, strict: bool = False, **options: Any) -> Any:
    """The stack of a folder or hub id. Raises GuerdonError where a weight is missing or, with ``strict``, unknown."""
    if source.startswith(("/", ".", "~")) and not Path(source).expanduser().is_dir():
        raise GuerdonError(f"there is no folder {source!r} to load a backbone from")
    try:
        with quiet():
            backbone, report = AutoModel.from_pretrained(
                source, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except (OSError, ValueError) as error:
        raise GuerdonError(f"cannot load a backbone from {source!r}: {first_line(error)}") from error
    # A pooling layer on top is not used here, and checkpoints of language models come without it.
    bad = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    bad += sorted(key for key, *_ in report["mismatched_keys"])
    bad += sorted(report["unexpected_keys"]) if strict else []
    if bad:
        raise GuerdonError(f"{source}: {len(bad)} weights do not fit {type(backbone).__name__}, first {bad[0]!r}")
    return backbone


def load_tokens(source: str, config: Any, tokenizer: Any = None, processor: Any = None) -> tuple[Any, Any]:
    """Tokenizer and, for a model with eyes, processor of a folder or hub id, where they are not given."""
    if processor is None and hasattr(config, "vision_config"):
        from guerdon.models.vision_language import load_processor

        processor = load_processor(source)
    if tokenizer is None:
        tokenizer = load_tokenizer(source) if processor is None else processor.tokenizer
    return tokenizer, processor


def load_tokenizer(source: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a folder or hub id. Raises GuerdonError where there is none that can be loaded."""
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        raise GuerdonError(f"{source}: cannot load a tokenizer: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of what an exception of another library says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars, which would break up ours, and its and PEFT's reports, of which we make errors."""
    shown, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()

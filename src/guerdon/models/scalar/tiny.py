"""Backbones of real architectures, small enough for a CPU and made on the spot: for tests and runs without weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLModel,
    Qwen3Config,
    Qwen3Model,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from guerdon.core.errors import GuerdonError, unknown
from guerdon.models.vision_language import QwenImageText

KINDS = ("qwen3", "llama")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_POSITIONS = 4096

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(texts: Iterable[str], *, vocab: int = 2000, special: tuple[str, ...] = SPECIAL) -> Any:
    """A byte-level BPE tokenizer trained on ``texts`` (in any order the same), with a ChatML template.

    Raises GuerdonError for a vocabulary that does not even hold the 256 bytes and the special tokens.
    """
    if vocab < 256 + len(special):
        raise GuerdonError(f"vocab must be at least {256 + len(special)} (bytes and special tokens), got {vocab}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    roles = ["system\n", "user\n", "assistant\n"]
    tokenizer.train_from_iterator(sorted(set(texts)) + roles * 100, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special[0],
        eos_token="<|im_end|>",
        extra_special_tokens=[token for token in special if token not in (special[0], "<|im_end|>")],
        chat_template=_TEMPLATE,
        model_max_length=_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def tiny_backbone(
    texts: Iterable[str],
    *,
    kind: str = "qwen3",
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    vocab: int = 2000,
    seed: int = 0,
) -> tuple[PreTrainedModel, Any]:
    """A randomly initialised ``Qwen3Model`` or ``LlamaModel`` and its tokenizer, the same for the same arguments.

    texts: what the tokenizer is trained on. hidden: a multiple of ``heads``. vocab: at most this many tokens.
    seed: of the weights. Raises GuerdonError for an unknown kind or sizes that do not fit.
    """
    if kind not in KINDS:
        raise unknown("kind of tiny backbone", kind, KINDS)
    _check(hidden, heads)
    tokenizer = tiny_tokenizer(texts, vocab=vocab)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": hidden, "intermediate_size": hidden * 2,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": max(1, heads // 2),
        "head_dim": hidden // heads, "max_position_embeddings": _POSITIONS, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3Model(Qwen3Config(**shape)) if kind == "qwen3" else LlamaModel(LlamaConfig(**shape))
    return model.eval(), tokenizer


def tiny_vision_backbone(
    texts: Iterable[str],
    *,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    vocab: int = 1000,
    patch: int = 8,
    max_pixels: int = 64 * 64,
    seed: int = 0,
) -> tuple[PreTrainedModel, QwenImageText]:
    """A randomly initialised ``Qwen2_5_VLModel`` and its processor (tokenizer and image processor).

    A picture becomes one token for every 2x2 patches of ``patch`` pixels, of at most ``max_pixels`` pixels; the other
    arguments as in `tiny_backbone`.
    """
    _check(hidden, heads)
    tokenizer = tiny_tokenizer(texts, vocab=vocab, special=SPECIAL + VISION)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL + VISION}
    size = hidden // heads
    if size % 4:
        raise GuerdonError(f"hidden / heads must be a multiple of 4 for three-axis rotary positions, got {size}")
    axes = [size // 4, size // 8, size // 8 + size % 8 // 4]  # time, height and width share half of the dimensions
    text = {
        "vocab_size": len(tokenizer), "hidden_size": hidden, "intermediate_size": hidden * 2,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": max(1, heads // 2),
        "max_position_embeddings": _POSITIONS, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": axes},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": hidden, "intermediate_size": hidden * 2, "num_heads": heads, "patch_size": patch,
        "spatial_merge_size": 2, "out_hidden_size": hidden, "window_size": 4 * patch, "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"], image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLModel(config)
    pictures = Qwen2VLImageProcessorPil(
        patch_size=patch, merge_size=2, min_pixels=(2 * patch) ** 2, max_pixels=max_pixels
    )
    return model.eval(), QwenImageText(pictures, tokenizer)


def _check(hidden: int, heads: int) -> None:
    if hidden % heads or (hidden // heads) % 2:
        raise GuerdonError(f"hidden must be an even multiple of heads, got hidden={hidden} and heads={heads}")

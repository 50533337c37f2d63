"""The embedded base: a few megabytes of real diffusers and transformers classes, trained by ``scripts/train_base.py``.

It is a ``StableDiffusion3Pipeline`` on 32x32 RGB. The one class that differs from the full-size run is the
autoencoder: at this size the flow models pixels, and :class:`PixelAutoencoder` only scales them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from guerdon.core.errors import GuerdonError

ASSETS = Path(__file__).parent.parent / "assets"
TEXT_LENGTH = 16


class PixelAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """An autoencoder whose latents are the pixels: ``latent = pixel * scaling_factor``, pixels in [-1, 1]."""

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 3,
        block_out_channels: tuple[int, ...] = (1,),
        scaling_factor: float = 1.6,
        shift_factor: float = 0.0,
    ) -> None:
        super().__init__()
        # ModelMixin asks its parameters for device and dtype.
        self.register_buffer("_anchor", torch.zeros(1), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        return self._anchor.dtype

    @property
    def device(self) -> torch.device:
        return self._anchor.device

    def decode(self, latents: torch.Tensor, return_dict: bool = True, generator: object = None) -> Any:
        """Return the latents as pixels (the pipeline has divided by ``scaling_factor`` already)."""
        return SimpleNamespace(sample=latents) if return_dict else (latents,)


def train_tokenizer(captions: Iterable[str], vocab_size: int = 900) -> CLIPTokenizer:
    """Train a byte-pair ``CLIPTokenizer`` (Sennrich et al. 2016, algorithm 1); printable ASCII stays spellable.

    The library's own trainer breaks ties between equally frequent pairs differently in every process; here the
    alphabetically first pair wins, so that the same captions give the same tokens, and a run can be repeated.
    """
    empty = CLIPTokenizer().backend_tokenizer
    counts: Counter[str] = Counter()
    for caption, times in Counter(captions).items():
        for piece, _ in empty.pre_tokenizer.pre_tokenize_str(empty.normalizer.normalize_str(caption)):
            counts[piece] += times
    words = {piece: [*piece[:-1], piece[-1] + "</w>"] for piece in sorted(counts)}
    letters = sorted({letter for piece in counts for letter in piece} | {chr(code) for code in range(33, 127)})
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    while len(tokens) < vocab_size:
        pairs: Counter[tuple[str, str]] = Counter()
        for piece, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[piece]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        tokens.append("".join(best))
        for parts in words.values():
            place = 0
            while place < len(parts) - 1:
                if (parts[place], parts[place + 1]) == best:
                    parts[place : place + 2] = ["".join(best)]
                place += 1
    pairs_in_order: Any = merges  # accepted by the library, though its annotation says strings
    tokenizer = CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=pairs_in_order)
    tokenizer.model_max_length = TEXT_LENGTH
    return tokenizer


def new_base(
    tokenizer: CLIPTokenizer, *, width: int = 128, layers: int = 6, size: int = 32
) -> StableDiffusion3Pipeline:
    """Build an untrained base: a ``layers``-block SD3 transformer of hidden ``width`` on ``size`` x ``size`` pixels."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, projection_dim=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=TEXT_LENGTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    transformer = SD3Transformer2DModel(
        sample_size=size, patch_size=4, in_channels=3, out_channels=3, num_layers=layers,
        attention_head_dim=32, num_attention_heads=width // 32, joint_attention_dim=128,
        caption_projection_dim=width, pooled_projection_dim=128, pos_embed_max_size=size // 4,
    )  # fmt: skip
    return _pipeline(transformer, CLIPTextModelWithProjection(text), tokenizer, PixelAutoencoder())


def _pipeline(
    transformer: SD3Transformer2DModel,
    text: CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
    vae: PixelAutoencoder,
) -> StableDiffusion3Pipeline:
    # SD3 reads two CLIP text encoders; the embedded base gives it the same one twice and no T5.
    pipeline: Any = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0), vae=vae, text_encoder=text,
        tokenizer=tokenizer, text_encoder_2=text, tokenizer_2=tokenizer, text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def new_clip(tokenizer: CLIPTokenizer, *, size: int = 32) -> CLIPModel:
    """Build the untrained tiny ``CLIPModel`` that measures alignment in the embedded default."""
    text = dict(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = dict(
        hidden_size=96, intermediate_size=288, num_hidden_layers=3, num_attention_heads=4, image_size=size, patch_size=4
    )
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def save_base(pipeline: Any, folder: Path) -> None:
    """Write the base's weights as half-precision safetensors under ``folder``, and its tokenizer beside them."""
    for name in ("transformer", "text_encoder"):
        module = getattr(pipeline, name)
        state = {key: value.clone() for key, value in module.state_dict().items()}
        module.half().save_pretrained(folder / name)
        module.float().load_state_dict(state)
    pipeline.vae.save_config(folder / "vae")
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")


def load_base(folder: Path | None = None) -> StableDiffusion3Pipeline:
    """The embedded base in float32, from ``folder`` or from the package. Raises GuerdonError if it is not there."""
    folder = Path(folder) if folder is not None else ASSETS / "base"
    if not (folder / "transformer").is_dir():
        raise GuerdonError(f"no base model in '{folder}': expected the folders transformer, text_encoder and tokenizer")
    return _pipeline(
        SD3Transformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32).eval(),
        CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        PixelAutoencoder.from_config(PixelAutoencoder.load_config(folder / "vae")),
    )


def load_clip(folder: Path | None = None) -> tuple[CLIPModel, CLIPTokenizer]:
    """Load the embedded alignment model in float32 and its tokenizer."""
    folder = Path(folder) if folder is not None else ASSETS / "clip"
    if not folder.is_dir():
        raise GuerdonError(f"no alignment model in '{folder}'")
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model, CLIPTokenizer.from_pretrained(folder)


def clip_processor(tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """The processor of the embedded alignment model: 32x32 pixels brought to [-1, 1]."""
    size = {"shortest_edge": 32}
    return CLIPProcessor(
        CLIPImageProcessorPil(
            size=size, crop_size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer,
    )

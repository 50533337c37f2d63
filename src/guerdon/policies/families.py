"""What differs between the flow-matching pipelines of diffusers: embeddings, calling convention, guidance.

SD3 takes time in thousandths and classifier-free guidance; FLUX packs 2 x 2 latents into tokens and reads its
distilled guidance as an input; Z-Image takes lists of unpadded captions and runs time and velocity the other way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, ZImageTransformer2DModel
from torch import Tensor, nn

_JOINT_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@dataclass(frozen=True)
class Conditions:
    """Prompt embeddings of ``index.numel()`` samples, each distinct prompt held once.

    embeds [U, L, D], padded; pooled [U, P] or None; lengths: how many of a row's L tokens are the prompt's;
    index [B] names each sample's row. Index with a LongTensor or a slice to choose, repeat or reorder samples.
    """

    embeds: Tensor
    pooled: Tensor | None
    lengths: tuple[int, ...]
    index: Tensor

    def __len__(self) -> int:
        return self.index.numel()

    def __getitem__(self, rows: Tensor | slice) -> Conditions:
        return replace(self, index=self.index[rows if isinstance(rows, slice) else rows.to(self.index.device)])

    def rows(self) -> tuple[Tensor, Tensor | None]:
        """Return the samples' embeddings [B, L, D] and pooled embeddings [B, P]."""
        return self.embeds[self.index], None if self.pooled is None else self.pooled[self.index]

    def captions(self) -> list[Tensor]:
        """Return the samples' embeddings without padding, [length, D] each."""
        return [self.embeds[row, : self.lengths[row]] for row in self.index.tolist()]

    def joined(self, other: Conditions) -> Conditions:
        """Return the samples of ``self`` followed by those of ``other``."""
        length = max(self.embeds.shape[1], other.embeds.shape[1])
        padded = [nn.functional.pad(c.embeds, (0, 0, 0, length - c.embeds.shape[1])) for c in (self, other)]
        pooled = [c.pooled for c in (self, other) if c.pooled is not None]
        return Conditions(
            embeds=torch.cat(padded),
            pooled=torch.cat(pooled) if pooled else None,
            lengths=self.lengths + other.lengths,
            index=torch.cat([self.index, other.index + len(self.embeds)]),
        )


class Family(Protocol):
    """What differs between the pipelines. ``v`` calls the (possibly wrapped) transformer ``module``."""

    targets: tuple[str, ...]
    length: int
    packed: bool

    def encode(self, pipeline: Any, prompt: str, length: int) -> tuple[Tensor, Tensor | None]: ...
    def v(self, module: nn.Module, pipeline: Any, x: Tensor, t: Tensor, c: Conditions, guidance: float) -> Tensor: ...
    def guided(self, guidance: float) -> bool: ...
    def guide(self, text: Tensor, empty: Tensor, guidance: float) -> Tensor: ...


class SD3:
    targets = tuple(f"attn.{name}" for name in _JOINT_ATTENTION)
    length = 256
    packed = False

    def encode(self, pipeline: Any, prompt: str, length: int) -> tuple[Tensor, Tensor | None]:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            prompt=prompt, prompt_2=None, prompt_3=None, do_classifier_free_guidance=False, max_sequence_length=length
        )
        return embeds[0], pooled[0]

    def v(self, module: nn.Module, pipeline: Any, x: Tensor, t: Tensor, c: Conditions, guidance: float) -> Tensor:
        dtype = pipeline.transformer.dtype
        embeds, pooled = c.rows()
        assert pooled is not None
        return module(
            hidden_states=x.to(dtype), timestep=t * 1000, encoder_hidden_states=embeds.to(dtype),
            pooled_projections=pooled.to(dtype), return_dict=False,
        )[0]  # fmt: skip

    def guided(self, guidance: float) -> bool:
        return guidance > 1

    def guide(self, text: Tensor, empty: Tensor, guidance: float) -> Tensor:
        return empty + guidance * (text - empty)


class Flux:
    targets = (
        *(f"attn.{name}" for name in _JOINT_ATTENTION),
        "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
    )  # fmt: skip
    length = 512
    packed = True

    def encode(self, pipeline: Any, prompt: str, length: int) -> tuple[Tensor, Tensor | None]:
        embeds, pooled, _ = pipeline.encode_prompt(prompt=prompt, prompt_2=None, max_sequence_length=length)
        return embeds[0], pooled[0]

    def v(self, module: nn.Module, pipeline: Any, x: Tensor, t: Tensor, c: Conditions, guidance: float) -> Tensor:
        transformer = pipeline.transformer
        batch, channels, height, width = x.shape
        embeds, pooled = c.rows()
        assert pooled is not None
        scale = None
        if transformer.config.guidance_embeds:  # guidance-distilled: the scale is an input, not a second pass
            scale = torch.full((batch,), guidance, device=x.device)
        output = module(
            hidden_states=pipeline._pack_latents(x.to(transformer.dtype), batch, channels, height, width),
            timestep=t,
            guidance=scale,
            pooled_projections=pooled.to(transformer.dtype),
            encoder_hidden_states=embeds.to(transformer.dtype),
            txt_ids=torch.zeros(embeds.shape[1], 3, device=x.device, dtype=transformer.dtype),
            img_ids=pipeline._prepare_latent_image_ids(batch, height // 2, width // 2, x.device, transformer.dtype),
            return_dict=False,
        )[0]
        return pipeline._unpack_latents(output, height, width, 1)

    def guided(self, guidance: float) -> bool:
        return False

    def guide(self, text: Tensor, empty: Tensor, guidance: float) -> Tensor:
        raise AssertionError("FLUX reads guidance as an input")


class ZImage:
    targets = (
        *(f"attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
        *(f"feed_forward.{name}" for name in ("w1", "w2", "w3")),
    )
    length = 512
    packed = True

    def encode(self, pipeline: Any, prompt: str, length: int) -> tuple[Tensor, Tensor | None]:
        # The pipeline writes the chat template into the list that it is given, hence a new one.
        embeds, _ = pipeline.encode_prompt([prompt], do_classifier_free_guidance=False, max_sequence_length=length)
        return embeds[0], None

    def v(self, module: nn.Module, pipeline: Any, x: Tensor, t: Tensor, c: Conditions, guidance: float) -> Tensor:
        dtype = pipeline.transformer.dtype
        frames = list(x.to(dtype).unsqueeze(2).unbind(0))
        captions = [caption.to(dtype) for caption in c.captions()]
        # Z-Image's own time is 0 at noise and 1 at the image, and its velocity points from noise to image.
        output = module(frames, 1 - t, captions, return_dict=False)[0]
        return -torch.stack(list(output)).squeeze(2).float()

    def guided(self, guidance: float) -> bool:
        return guidance > 0

    def guide(self, text: Tensor, empty: Tensor, guidance: float) -> Tensor:
        return text + guidance * (text - empty)


FAMILIES: dict[type, Family] = {
    SD3Transformer2DModel: SD3(),
    FluxTransformer2DModel: Flux(),
    ZImageTransformer2DModel: ZImage(),
}

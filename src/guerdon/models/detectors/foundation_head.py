"""Adv-GRPO's image reward: a frozen DINOv2-style backbone and one small head for the picture and its patches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel

from guerdon.core.errors import GuerdonError
from guerdon.models.preprocess import IMAGENET_STATISTICS, normalise, resize
from guerdon.objectives.discriminator import hinge

BACKBONE = "facebook/dinov2-base"


class FoundationHead(nn.Module):
    """R = 0.7 h(n(cls)) + 0.3 mean over patches of h(n(patch)): a realness logit, higher = more real, unbounded.

    h is Linear(width, 512) - GELU - Linear(512, 1), shared by CLS token and patches; n is L2 normalisation. The
    backbone is frozen: a transformers vision model with `last_hidden_state` [N, 1 + registers + patches, width].

    Deviations from the published code, named in Adv-GRPO's card: tokens are normalised in training AND in scoring (the
    published head is trained on raw tokens and scored on normalised ones, so its margins mean nothing); ALL patches are
    used by default instead of 64 random ones an image, which made the reward noisy inside a group. With
    `patches_per_update` training samples one index set for the whole batch. Float32 instead of bf16 parameters, whose
    resolution swallows small updates. Source: Adv-GRPO (arXiv 2511.20256), reward (b).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        hidden: int = 512,
        image_size: int | None = None,
        cls_weight: float = 0.7,
        patch_weight: float = 0.3,
        patches_per_update: int | None = None,
        lr: float = 1e-4,
    ) -> None:
        super().__init__()
        config: Any = backbone.config
        self.config = {
            "hidden": hidden,
            "image_size": int(config.image_size) if image_size is None else image_size,
            "cls_weight": cls_weight,
            "patch_weight": patch_weight,
            "patches_per_update": patches_per_update,
            "lr": lr,
        }
        self.image_size = int(config.image_size) if image_size is None else image_size
        if self.image_size % int(config.patch_size):
            raise GuerdonError(f"image_size {self.image_size} is not a multiple of the patch size {config.patch_size}")
        self.prefix_tokens = 1 + int(getattr(config, "num_register_tokens", 0) or 0)
        self.cls_weight, self.patch_weight, self.patches_per_update = cls_weight, patch_weight, patches_per_update
        self.backbone = backbone.eval().requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(config.hidden_size, hidden), nn.GELU(), nn.Linear(hidden, 1))
        self.optimiser = torch.optim.Adam(self.head.parameters(), lr=lr, betas=(0.5, 0.999))

    def train(self, mode: bool = True) -> FoundationHead:
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> unit-length tokens [N, 1 + patches, width], CLS first; no gradient."""
        pixels = normalise(resize(images, self.image_size, self.image_size, "bicubic"), IMAGENET_STATISTICS)
        hidden = self.backbone(pixel_values=pixels).last_hidden_state.float()
        hidden = torch.cat([hidden[:, :1], hidden[:, self.prefix_tokens :]], dim=1)
        return F.normalize(hidden, dim=-1, eps=1e-6)

    def cls_features(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> the backbone's unit-length CLS tokens [N, width], for similarity rewards."""
        return self.tokens(images)[:, 0]

    def logits(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Unit-length tokens [N, 1 + m, width] -> CLS logits [N] and patch logits [N, m]."""
        values = self.head(tokens).squeeze(-1)
        return values[:, 0], values[:, 1:]

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> realness [N]."""
        cls, patches = self.logits(self.tokens(images))
        return self.cls_weight * cls + self.patch_weight * patches.mean(1)

    @torch.no_grad()
    def score(self, images: Tensor, *, batch_size: int = 32) -> Tensor:
        """Realness logits -> float32 [N]."""
        parts = [self(part) for part in images.split(batch_size)]
        return torch.cat(parts) if parts else images.new_zeros(0)

    def update(self, real: Tensor, fake: Tensor, *, generator: torch.Generator | None = None) -> dict[str, float]:
        """One hinge step of the head on images [n, 3, H, W] and [m, 3, H, W]: L = L_cls + 0.3 L_patch.

        Returns loss, accuracy (sign of the CLS logit, balanced over the classes) and gap (mean R of real - fake), all
        before the step.
        """
        if len(real) == 0 or len(fake) == 0:
            raise GuerdonError(f"an update needs images of both classes, got {len(real)} real and {len(fake)} fake")
        real_tokens, fake_tokens = self.tokens(real), self.tokens(fake)
        if self.patches_per_update is not None:
            # One index set for all images: another one for each would compare different places of real and fake.
            index = torch.randint(real_tokens.shape[1] - 1, (self.patches_per_update,), generator=generator) + 1
            index = torch.cat([torch.zeros(1, dtype=torch.long), index]).to(real_tokens.device)
            real_tokens, fake_tokens = real_tokens[:, index], fake_tokens[:, index]
        real_cls, real_patches = self.logits(real_tokens)
        fake_cls, fake_patches = self.logits(fake_tokens)
        loss = hinge(real_cls, fake_cls) + self.patch_weight * hinge(real_patches, fake_patches)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            accuracy = 0.5 * ((real_cls > 0).float().mean() + (fake_cls <= 0).float().mean())
            gap = self.cls_weight * (real_cls.mean() - fake_cls.mean())
            gap = gap + self.patch_weight * (real_patches.mean() - fake_patches.mean())
        return {"loss": float(loss.detach()), "accuracy": float(accuracy), "gap": float(gap)}

    @classmethod
    def from_pretrained(cls, backbone: str = BACKBONE, *, image_size: int = 518, **options: Any) -> FoundationHead:
        """A fresh head over a pretrained backbone of the hub or a local folder."""
        return cls(AutoModel.from_pretrained(backbone), image_size=image_size, **options)

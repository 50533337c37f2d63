"""Effort: a CLIP vision tower with one trainable SVD residual in every attention projection and a real/fake head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.small import REAL, load_strictly
from guerdon.models.detectors.svd import SVDResidualLinear, attention_linears, read_weights, square_side
from guerdon.models.preprocess import CLIP_STATISTICS, IMAGENET_STATISTICS, normalise, resize

BACKBONE = "openai/clip-vit-large-patch14"


class Effort(nn.Module):
    """Images [N, 3, H, W] in [0, 1] -> logits [N, 2], index 0 real and 1 fake; preprocessing is inside.

    Starts as the original CLIP tower to rounding. The three public copies normalise differently: RealGen's training
    scorer not at all, its evaluation with ImageNet statistics, upstream with CLIP's (UNVERIFIED). `statistics` pins
    one; the default "clip" is what the backbone was trained on. Images are squashed to the backbone's size (224).
    Trainable: the residuals and the head. Source: Effort (arXiv 2411.15633); in RealGen the held-out judge.
    """

    def __init__(
        self, vision: CLIPVisionModel, *, rank: int = 1, statistics: Literal["clip", "imagenet", "none"] = "clip"
    ) -> None:
        super().__init__()
        if statistics not in ("clip", "imagenet", "none"):
            raise GuerdonError(f"statistics must be 'clip', 'imagenet' or 'none', got {statistics!r}")
        self.config = {"rank": rank, "statistics": statistics}
        self.image_size, self.statistics = square_side(vision), statistics
        self.backbone = copy.deepcopy(vision).requires_grad_(False)
        for attention, name in list(attention_linears(self.backbone)):
            setattr(attention, name, SVDResidualLinear(getattr(attention, name), rank))
        self.head = nn.Linear(vision.config.hidden_size, 2)

    def preprocess(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> [N, 3, size, size], normalised as `statistics` says."""
        images = resize(images, self.image_size, self.image_size, "bilinear")
        if self.statistics == "none":
            return images
        return normalise(images, CLIP_STATISTICS if self.statistics == "clip" else IMAGENET_STATISTICS)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> logits [N, 2]."""
        return self.head(self.backbone(pixel_values=self.preprocess(images)).pooler_output)

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        """P(real) in [0, 1] -> float32 [N]."""
        return self(images).float().softmax(-1)[:, REAL]

    def regularisation(self) -> Tensor:
        """Mean over layers of the orthogonality and keep-norm losses, summed, a scalar; weight 1.0 in the paper."""
        layers = [module for module in self.backbone.modules() if isinstance(module, SVDResidualLinear)]
        return torch.stack([layer.orthogonality() + layer.keep_norm() for layer in layers]).mean()

    def load_published(self, state: Mapping[str, Tensor], source: str = "Effort checkpoint") -> None:
        """Load a state dict with the published key names, strictly: GuerdonError names the first key that differs.

        The published files hold the main singular values, which the layer does not need, and lack the original norm,
        which is then the one of the backbone that this model was built from.
        """
        own = self.state_dict()
        renamed: dict[str, Tensor] = {}
        for key, value in state.items():
            key = key.removeprefix("module.")
            if not key.endswith((".S_r", "position_ids")):
                renamed[key] = value
        for key in own:
            if key.endswith(".weight_original_fnorm"):
                renamed.setdefault(key, own[key])
        load_strictly(self, renamed, source)

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path,
        *,
        backbone: str = BACKBONE,
        rank: int = 1,
        statistics: Literal["clip", "imagenet", "none"] = "clip",
    ) -> Effort:
        """The detector with published weights, in evaluation mode.

        `weights`: a safetensors file (convert a .pth first), or a folder or hub repository with `effort.safetensors`
        (or model.safetensors).
        """
        model = cls(CLIPVisionModel.from_pretrained(backbone), rank=rank, statistics=statistics)
        model.load_published(read_weights(weights, ("effort.safetensors", "model.safetensors")), str(weights))
        return model.eval()

"""OmniAID: a CLIP vision tower whose attention is adapted by gated SVD experts, with a real/fake head."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionModel

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.small import REAL, load_strictly
from guerdon.models.detectors.svd import Gates, SVDMoELinear, attention_linears, read_weights, square_side
from guerdon.models.preprocess import CLIP_STATISTICS, normalise, resize

BACKBONE = "openai/clip-vit-large-patch14-336"
SEMANTIC_EXPERTS = ("human", "animal", "object", "scene", "anime")

# Where the published state dict calls a module by another name.
_PUBLISHED_NAMES = (
    ("embeddings.", "vision.embeddings."),
    ("ln_pre.", "vision.pre_layrnorm."),
    ("encoder_layers.", "vision.encoder.layers."),
    ("ln_post.", "vision.post_layernorm."),
    ("gating_network.network.", "router."),
    ("feature_extractor.", "feature_extractor."),
    ("head.", "head."),
)


class OmniAID(nn.Module):
    """Images [N, 3, H, W] in [0, 1] -> logits [N, 2], index 0 real and 1 fake; every step from pixels on is inside.

    Preprocessing: squashed to 512x512, then to the backbone's size (336), bilinear, CLIP statistics; `squash=None`
    leaves the first step out. Every attention projection is a `SVDMoELinear` with five semantic experts and one
    artifact expert. The router picks `top_k` semantic experts an image, weighted by a softmax over the chosen logits,
    so their gates sum to 1; the artifact expert's gate is always 1. The gates of a layer therefore sum to 2: at the
    start the network is NOT the original CLIP but CLIP with the smallest `rank` singular triplets counted twice (as
    published; the head learns on top of that).

    `routing`: "pooler" = pooled output of a frozen copy of the backbone (RealGen V2, upstream), "embeddings" = mean of
    the patch embeddings before the encoder (RealGen V1's scorer). `rank`: 8 in V2, 1 in V1's scorer.
    Trainable: experts, router, head. Source: OmniAID (arXiv 2511.08423) and RealGen.
    """

    def __init__(
        self,
        vision: CLIPVisionModel,
        *,
        rank: int = 8,
        experts: int = len(SEMANTIC_EXPERTS) + 1,
        top_k: int = 2,
        router_width: int = 256,
        routing: Literal["pooler", "embeddings"] = "pooler",
        squash: int | None = 512,
    ) -> None:
        super().__init__()
        if routing not in ("pooler", "embeddings"):
            raise GuerdonError(f"routing must be 'pooler' or 'embeddings', got {routing!r}")
        if not 1 <= top_k <= experts - 1:
            raise GuerdonError(f"top_k must lie in [1, {experts - 1}] with {experts} experts, got {top_k}")
        width = vision.config.hidden_size
        self.config = {
            "rank": rank,
            "experts": experts,
            "top_k": top_k,
            "router_width": router_width,
            "routing": routing,
            "squash": squash,
        }
        self.image_size = square_side(vision)
        self.squash, self.top_k, self.experts = squash, top_k, experts
        self.feature_extractor = copy.deepcopy(vision).eval().requires_grad_(False) if routing == "pooler" else None
        self.vision = copy.deepcopy(vision).requires_grad_(False)
        self._gates = Gates()
        for attention, name in list(attention_linears(self.vision)):
            setattr(attention, name, SVDMoELinear(getattr(attention, name), rank, experts, self._gates))
        self.router = nn.Sequential(nn.Linear(width, router_width), nn.ReLU(), nn.Linear(router_width, experts - 1))
        self.head = nn.Linear(width, 2)

    def preprocess(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> normalised [N, 3, size, size]."""
        if self.squash is not None:
            images = resize(images, self.squash, self.squash, "bilinear")
        return normalise(resize(images, self.image_size, self.image_size, "bilinear"), CLIP_STATISTICS)

    def route(self, pixels: Tensor) -> Tensor:
        """Preprocessed pixels -> gates [N, experts]: `top_k` semantic ones that sum to 1, the artifact's (last) 1."""
        with torch.no_grad():
            if self.feature_extractor is not None:
                features = self.feature_extractor(pixel_values=pixels).pooler_output
            else:
                features = self.vision.embeddings(pixels)[:, 1:].mean(1)
        chosen, index = self.router(features).topk(self.top_k, dim=-1)
        semantic = torch.zeros(len(pixels), self.experts - 1, dtype=chosen.dtype, device=pixels.device)
        semantic = semantic.scatter(1, index, F.softmax(chosen, dim=-1))
        return torch.cat([semantic, torch.ones_like(semantic[:, :1])], dim=1)

    def forward(self, images: Tensor, gates: Tensor | None = None) -> Tensor:
        """Images [N, 3, H, W] in [0, 1] -> logits [N, 2]; `gates` [N, experts] replaces the router's decision."""
        pixels = self.preprocess(images)
        self._gates.value = self.route(pixels) if gates is None else gates
        try:
            features = self.vision(pixel_values=pixels).pooler_output
        finally:
            self._gates.value = None
        return self.head(features)

    @torch.no_grad()
    def score(self, images: Tensor) -> Tensor:
        """P(real) in [0, 1] -> float32 [N]."""
        return self(images).float().softmax(-1)[:, REAL]

    def orthogonality(self) -> Tensor:
        """Mean over layers and experts of the orthogonality loss, a scalar; weight 0.001 in RealGen V2.

        UNVERIFIED: whether the published loss is a mean or a sum over layers and experts.
        """
        layers = [module.orthogonality() for module in self.vision.modules() if isinstance(module, SVDMoELinear)]
        return torch.stack(layers).mean()

    def load_published(self, state: Mapping[str, Tensor], source: str = "OmniAID checkpoint") -> None:
        """Load a state dict with the published key names, strictly: GuerdonError names the first key that differs.

        A checkpoint of another rank, expert count or routing feature is refused (V1's scorer loaded them silently).
        """
        renamed: dict[str, Tensor] = {}
        for key, value in state.items():
            key = key.removeprefix("module.")
            if key.endswith("position_ids"):  # a constant that older transformers versions stored
                continue
            for old, new in _PUBLISHED_NAMES:
                if key.startswith(old):
                    key = new + key[len(old) :]
                    break
            renamed[key] = value
        load_strictly(self, renamed, source)

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path,
        *,
        backbone: str = BACKBONE,
        rank: int = 8,
        routing: Literal["pooler", "embeddings"] = "pooler",
    ) -> OmniAID:
        """The detector with published weights, in evaluation mode.

        `weights`: a safetensors file, or a folder or hub repository with `omniaid.safetensors` (or model.safetensors).
        Published .pth files are pickles, which guerdon does not open: convert one to safetensors first.
        """
        model = cls(CLIPVisionModel.from_pretrained(backbone), rank=rank, routing=routing)
        model.load_published(read_weights(weights, ("omniaid.safetensors", "model.safetensors")), str(weights))
        return model.eval()

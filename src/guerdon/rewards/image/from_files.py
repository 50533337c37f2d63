"""Image rewards built from names and folders, as a command line or a configuration gives them."""

from __future__ import annotations

from typing import Any

import torch

from guerdon.models.detectors.effort import Effort
from guerdon.models.detectors.foundation_head import BACKBONE, FoundationHead
from guerdon.models.detectors.omniaid import OmniAID
from guerdon.models.detectors.small import load_detector
from guerdon.rewards.image.detector import DetectorReward
from guerdon.rewards.image.similarity import MaxSimilarity, ReferenceStore

_PUBLISHED = "lokiz666/Realgen-detection-models"


def _device(name: str | None) -> torch.device:
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def detector(folder: str, name: str = "detector", device: str | None = None) -> DetectorReward:
    """P(real) by a saved small detector, such as the ones in a RealGen run's ``detectors/``.

    Raises GuerdonError naming what is missing or wrong in ``folder``.
    """
    return DetectorReward(load_detector(folder).to(_device(device)), name=name)


def omniaid(
    weights: str = _PUBLISHED, name: str = "omniaid", device: str | None = None, **options: Any
) -> DetectorReward:
    """P(real) by OmniAID, with published weights. ``options`` as in ``OmniAID.from_pretrained``."""
    return DetectorReward(OmniAID.from_pretrained(weights, **options).to(_device(device)), name=name, batch_size=8)


def effort(
    weights: str = _PUBLISHED, name: str = "effort", device: str | None = None, **options: Any
) -> DetectorReward:
    """P(real) by Effort, with published weights. ``options`` as in ``Effort.from_pretrained``."""
    return DetectorReward(Effort.from_pretrained(weights, **options).to(_device(device)), name=name, batch_size=8)


def max_similarity(
    index: str,
    root: str = ".",
    backbone: str = BACKBONE,
    size: tuple[int, int] | None = None,
    image_size: int = 518,
    name: str = "max_similarity",
    device: str | None = None,
) -> MaxSimilarity:
    """Largest cosine to the reference images of the image's own prompt, in DINO features.

    ``index``: a JSON file {prompt: [file, ...]} with files below ``root``; ``size`` resizes them.
    """
    features = FoundationHead.from_pretrained(backbone, image_size=image_size).to(_device(device))
    references = ReferenceStore.from_index(index, root, size=None if size is None else (size[0], size[1]))
    return MaxSimilarity(features.cls_features, references, name=name)

"""Losses that train a judge to tell references from generated samples. All are to be minimised."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from guerdon.objectives.shapes import at_least_float32, check_not_empty


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """0.5 [ mean relu(1 - real) + mean relu(1 + fake) ]; 1 for a judge that answers 0 everywhere.

    Args:
        real, fake: logits of references and of generated samples, higher = more real; any shapes, not empty. Patch
            logits [N, m] are averaged over everything, so the patch loss of Adv-GRPO is this function on patch logits
            (weight 0.3).
    Returns:
        Scalar.
    Raises:
        ValueError: a side is empty.
    Source: Adv-GRPO (arXiv 2511.20256), discriminator update.
    """
    check_not_empty(real=real, fake=fake)
    return 0.5 * (F.relu(1 - at_least_float32(real)).mean() + F.relu(1 + at_least_float32(fake)).mean())


def soft_label_cross_entropy(real: Tensor, fake: Tensor, *, confidence: float = 0.95, real_index: int = 0) -> Tensor:
    """[ CE(real, (c, 1 - c)) + CE(fake, (1 - c, c)) ] / 2 for a two-logit detector.

    Args:
        real: logits [N, 2] of photographs; fake: logits [M, 2] of generated images. N and M may differ: each side
            weighs one half.
        confidence: c in [0.5, 1], probability put on the true class (0.95 in RealGen V2).
        real_index: which logit means real (0 in OmniAID and Effort).
    Returns:
        Scalar; its minimum is the labels' entropy, not zero (0.1985 at 0.95).
    Raises:
        ValueError: logits not [N, 2], a side is empty, confidence or index out of range.
    Source: RealGen V2, detector phase.
    """
    check_not_empty(real=real, fake=fake)
    for name, logits in (("real", real), ("fake", fake)):
        if logits.dim() != 2 or logits.shape[1] != 2:
            raise ValueError(f"{name} must be logits [N, 2], got {list(logits.shape)}")
    if not 0.5 <= confidence <= 1:
        raise ValueError(f"confidence must be in [0.5, 1], got {confidence}")
    if real_index not in (0, 1):
        raise ValueError(f"real_index must be 0 or 1, got {real_index}")

    def cross_entropy(logits: Tensor, label: int) -> Tensor:
        log_probability = F.log_softmax(at_least_float32(logits), dim=1)
        return -(confidence * log_probability[:, label] + (1 - confidence) * log_probability[:, 1 - label]).mean()

    return 0.5 * (cross_entropy(real, real_index) + cross_entropy(fake, 1 - real_index))

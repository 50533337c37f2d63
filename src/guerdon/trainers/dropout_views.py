"""Contrastive reward training: each batch passes the model twice under different dropout masks, two views of a text.

Source: Secrets of RLHF II (arXiv 2401.06080), section 3.1 and appendix B.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError
from guerdon.objectives.contrastive import BETA, PROTOTYPES, Kind, Mode, combined_loss, contrastive_reward_loss

RATE = 0.05
"""Published dropout rate."""


class View(NamedTuple):
    """One pass over N pairs: rewards [N], and the features [N, d] that the reward head read."""

    chosen: Tensor
    rejected: Tensor
    chosen_features: Tensor
    rejected_features: Tensor


def two_view_loss(
    passes: Callable[[], View],
    *,
    kind: Kind = "simcse",
    mode: Mode = "pairs",
    beta: float | None = None,
    prototypes: Tensor | None = None,
    temperature: float | None = None,
    **options: Any,
) -> Tensor:
    """L_rm + beta L_cl of one batch, from two passes of a model in training mode.

    Args:
        passes: runs the model once on the batch; called twice.
        kind, mode, prototypes, temperature: of `contrastive_reward_loss`.
        beta: weight of the contrastive term; default the published one, `BETA`.
        options: of `bradley_terry`, such as margin and label_smoothing of the rows.
    Returns:
        Scalar, to be minimised.
    Raises:
        GuerdonError: both passes gave the same features: there is no dropout before the head, or the model is in
            evaluation mode, and the contrast would be between copies. ValueError: as the objectives.
    Source: Secrets of RLHF II, section 3.1.2; the ranking loss is the mean over both passes.
    """
    first, second = passes(), passes()
    if torch.equal(first.chosen_features, second.chosen_features):
        raise GuerdonError(
            "both passes gave the same features: the two views need dropout before the head (see `set_dropout`) and a "
            "model in training mode"
        )
    contrast = contrastive_reward_loss(
        first.chosen_features, first.rejected_features, second.chosen_features, second.rejected_features,
        kind=kind, mode=mode, prototypes=prototypes, temperature=temperature,
    )  # fmt: skip
    weight = BETA[kind, mode] if beta is None else beta
    return combined_loss(first[:2], second[:2], contrast, beta=weight, **options)


def set_dropout(model: nn.Module, rate: float = RATE) -> int:
    """Give every dropout of the model this rate, attention's too; returns how many there are.

    Most language models come with every rate at 0. Raises GuerdonError for a rate outside (0, 1), and for a model that
    has no dropout to set: its two views would be identical.
    """
    if not 0 < rate < 1:
        raise GuerdonError(f"a dropout rate for two views must lie in (0, 1), got {rate}")
    places = 0
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = rate
            places += 1
        elif isinstance(getattr(module, "attention_dropout", None), float | int):
            module.attention_dropout = rate  # type: ignore[assignment]
            places += 1
    if not places:
        raise GuerdonError(f"{type(model).__name__} has no dropout, so that two passes are identical; use another one")
    return places


def add_prototypes(model: nn.Module, width: int, *, mode: Mode = "pairs", seed: int = 0) -> nn.Parameter:
    """SwAV's prototypes [K, width] as the parameter ``model.prototypes``, for its trainer to learn and keep.

    width: d of the features. K is the published number for ``mode``. The same for the same seed. They are no part of
    the reward: ``del model.prototypes`` when training is done.
    """
    start = torch.randn(PROTOTYPES[mode], width, generator=torch.Generator().manual_seed(seed))
    device = next(model.parameters()).device
    model.register_parameter("prototypes", nn.Parameter(start.to(device)))
    return model.get_parameter("prototypes")

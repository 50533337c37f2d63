"""The head of a scalar reward model, and the pooling that feeds it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError, unknown

Pooling = Literal["last", "mean", "token", "first"]
Activation = Literal["silu", "tanh", "relu", "gelu"]
POOLINGS: tuple[str, ...] = get_args(Pooling)
_ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


class HeadConfig(BaseModel):
    """The shape of a `RewardHead`; see there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_layers: int = Field(1, ge=1)
    activation: Activation | None = "silu"
    width: int | None = Field(None, ge=1)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    bias: bool = True


class RewardHead(nn.Module):
    """r = w . act(... act(W h + b)) + c: ``num_layers`` linear layers, the activation between them only.

    One layer is the linear head of the sequence classifiers (then without ``bias``); two layers with SiLU is
    BaseReward's best; two layers without an activation are still linear in h, the control for depth alone.
    Parameters and arithmetic are float32, whatever the backbone's type: bf16 leaves scores steps of 0.1 at 20.

    hidden_size:  d, of the states that come in.
    num_layers:   1 or more. activation: "silu", "tanh", "relu", "gelu" or None.
    width:        of the hidden layers; default d. dropout: before each layer, in training.
    Source: BaseReward (arXiv 2509.16127), sec. 4.2. Width, bias and dropout are not in the paper: UNVERIFIED, ours.
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        num_layers: int = 1,
        activation: str | None = "silu",
        width: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise GuerdonError(f"a reward head needs at least one layer, got num_layers={num_layers}")
        if activation is not None and activation not in _ACTIVATIONS:
            raise unknown("activation", activation, _ACTIVATIONS)
        self.hidden_size = hidden_size
        self.config: dict[str, Any] = {
            "num_layers": num_layers, "activation": activation, "width": width, "dropout": dropout, "bias": bias
        }  # fmt: skip
        sizes = [hidden_size, *[width or hidden_size] * (num_layers - 1), 1]
        layers: list[nn.Module] = []
        for place, (wide, narrow) in enumerate(pairwise(sizes)):
            if place and activation is not None:
                layers.append(_ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
            layers.append(nn.Linear(wide, narrow, bias=bias))
        self.layers = nn.Sequential(*layers).float()

    def forward(self, states: Tensor) -> Tensor:
        """States [..., d] of any floating type -> rewards [...] float32, unbounded."""
        # Autocast, which trainers switch on around everything, would take the last layer back to bf16.
        with torch.autocast(states.device.type, enabled=False):
            return self.layers(states.float()).squeeze(-1)

    def _apply(self, fn: Any, recurse: bool = True) -> RewardHead:
        """Moves between devices, but stays float32, to the last bit, when the whole model is cast."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, recurse)
        return self


def pool_hidden(
    hidden: Tensor, mask: Tensor, how: str = "last", input_ids: Tensor | None = None, token_id: int | None = None
) -> Tensor:
    """One state a sequence: hidden [B, T, d] and mask [B, T] (1 = real token; padding on either side) -> [B, d].

    how: "last" - the last real token; "mean" - the mean over real tokens, in float32;
         "token" - the last real occurrence of ``token_id`` in ``input_ids`` [B, T];
         "first" - the first real token, where encoders with a classification token keep what they know.

    Raises ValueError for shapes that do not fit, a sequence without a real token, or without the asked token.
    Sources: last token, Skywork-Reward-V2 (arXiv 2507.01352); mean and reward token, IXC-2.5-Reward (arXiv 2501.12368),
    whose text says the one and whose data code says the other: weights trained with one are worthless with another.
    """
    if hidden.ndim != 3 or mask.shape != hidden.shape[:2]:
        raise ValueError(f"hidden must be [B, T, d] and mask [B, T], got {list(hidden.shape)} and {list(mask.shape)}")
    if how not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {how!r}")
    wanted = mask.bool()
    if how == "token":
        if input_ids is None or token_id is None or input_ids.shape != mask.shape:
            raise ValueError(f"pooling at a token needs token_id and input_ids of shape {list(mask.shape)}")
        wanted = wanted & (input_ids == token_id)
    if not bool(wanted.any(1).all()):
        row = int(torch.nonzero(~wanted.any(1))[0])
        raise ValueError(f"sequence {row} has no " + (f"token {token_id}" if how == "token" else "real token"))
    if how == "mean":
        weight = wanted.unsqueeze(-1).float()
        # where, not a product: the state of a padding token may be nan, and 0 * nan is nan.
        kept = torch.where(wanted.unsqueeze(-1), hidden.float(), 0.0)
        return kept.sum(1) / weight.sum(1)
    if how == "first":
        return hidden[torch.arange(len(hidden), device=hidden.device), wanted.int().argmax(1)]
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(wanted, positions, -1).amax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last]

"""The MetaRM step: reward training that looks at unlabelled responses of the policy as it has become.

Source: Secrets of RLHF II (arXiv 2401.06080), section 3.2 and algorithm 1; MetaRM (arXiv 2405.00438).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from guerdon.core.errors import GuerdonError, unknown

Closure = Callable[[nn.Module], Tensor]
"""``closure(model) -> scalar``: a loss on one fixed batch, computed through the model that it is given."""


@dataclass(frozen=True)
class MetaMeasures:
    """What one step saw.

    loss: L on the labelled pairs, at the moved parameters unless ``added``. difference: J at theta, within
    `guerdon.objectives.meta_reward.bounds`.
    """

    loss: Tensor
    difference: Tensor


@dataclass(frozen=True)
class MetaRMStep:
    """Gradient of the labelled loss L where an ascent step on the unlabelled difference J would lead.

    As printed: theta' = theta + eta grad J(theta), g = grad L(theta'); the optimiser then goes from theta by -alpha g.

    Args:
        eta: length of the ascent step, in parameters per unit of grad J; not printed: UNVERIFIED, there is no default.
            Negative values look the other way.
        order: "first" applies grad L(theta') at theta, as printed; "second" is the whole derivative of
            L(theta + eta grad J(theta)) by theta, (1 + eta H_J) grad L(theta'): one Hessian product more, and attention
            without fused kernels.
        keep_ascent: the ascent stays, theta <- theta' - alpha g. Not printed.
        added: no looking ahead but the plain sum L - eta J. Not printed.
    Raises:
        GuerdonError: eta is not finite, unknown order, or ``added`` with another option.

    The direction is in doubt. L(theta + eta grad J) is about L + eta grad L . grad J, and minimising it makes
    grad L . grad J smaller, where the paper's text wants it greater: gaps at theta' are wider already, so the labelled
    gradient shrinks. In the claim check of the system the step as printed lowers J on the policy's responses and, at
    eta 8, the scale-free `spread_ratio` (both orders tend that way). A negative eta, ``keep_ascent`` and ``added`` lift
    both. None was seen to rank the responses better. J grows with the head's scale: read it with `spread_ratio` and
    with accuracy in and out of distribution, never alone.

    Each process of a distributed run looks ahead along its own meta batch. Buffers are not moved.
    """

    eta: float
    order: Literal["first", "second"] = "first"
    keep_ascent: bool = False
    added: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.eta):
            raise GuerdonError(f"eta must be finite, got {self.eta}")
        if self.order not in ("first", "second"):
            raise unknown("order", self.order, ("first", "second"))
        if self.added and (self.keep_ascent or self.order == "second"):
            raise GuerdonError("added=True takes no step ahead, so that order and keep_ascent would do nothing")

    def __call__(
        self,
        model: nn.Module,
        loss: Closure,
        difference: Closure,
        *,
        backward: Callable[[Tensor], object] = Tensor.backward,
    ) -> MetaMeasures:
        """Add the step's gradient to ``parameter.grad`` of all that train; the optimiser's step is the caller's.

        loss, difference: L on labelled pairs and J on responses of the policy (`difference_loss`); called once each.
        backward: what to run the backward pass with, for instance ``accelerator.backward``.

        The parameters are exactly what they were, unless ``keep_ascent``.
        """
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self.added:
            total, found = loss(model), difference(model)
            backward(total - self.eta * found)
            return MetaMeasures(total.detach(), found.detach())
        if self.order == "second":
            return self._second_order(model, loss, difference, backward)
        found = difference(model)
        ascent = torch.autograd.grad(found, parameters, materialize_grads=True)
        before = [parameter.detach().clone() for parameter in parameters]
        try:
            _move(parameters, [p + self.eta * a for p, a in zip(before, ascent)])
            total = loss(model)
            backward(total)
        except BaseException:
            _move(parameters, before)
            raise
        if not self.keep_ascent:
            _move(parameters, before)
        return MetaMeasures(total.detach(), found.detach())

    def _second_order(
        self, model: nn.Module, loss: Closure, difference: Closure, backward: Callable[[Tensor], object]
    ) -> MetaMeasures:
        trained = {f"model.{name}": p for name, p in model.named_parameters() if p.requires_grad}
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            found = difference(model)
            ascent = torch.autograd.grad(found, list(trained.values()), create_graph=True, materialize_grads=True)
            moved = {name: p + self.eta * a for (name, p), a in zip(trained.items(), ascent)}
            total = torch.func.functional_call(_Bound(model, loss), moved, ())
            backward(total)
        if self.keep_ascent:
            _move(list(trained.values()), [p.detach() for p in moved.values()])
        return MetaMeasures(total.detach(), found.detach())


class _Bound(nn.Module):
    """A closure over a model as a module, which `torch.func.functional_call` can give other parameters."""

    def __init__(self, model: nn.Module, closure: Closure) -> None:
        super().__init__()
        self.model, self.closure = model, closure

    def forward(self) -> Tensor:
        return self.closure(self.model)


@torch.no_grad()
def _move(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values):
        parameter.copy_(value)

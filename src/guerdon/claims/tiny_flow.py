"""A policy small enough for claim checks: any velocity network behind the rollouts and trainer of the full-size run."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from guerdon.core.errors import unknown
from guerdon.objectives.flow_sde import interpolate
from guerdon.policies.families import Conditions
from guerdon.policies.flow import FlowPolicy
from guerdon.policies.rollout import keyed_generator


class TinyFlow(FlowPolicy):
    """A FlowPolicy over a velocity network ``net(x, t [B], prompt [B]) -> v`` instead of a diffusers pipeline.

    Prompts are the entries of ``prompts``; the network gets their numbers. The time grid is even, 1 = t_0 > ... > t_N =
    0. Latents are (image - 0.5) * ``gain``; gain None: they are not pixels and come out as they are. All of the network
    is trained (no LoRA); the reference is a frozen copy, ``rebase`` makes it anew.
    """

    def __init__(
        self, net: nn.Module, prompts: Sequence[str], shape: tuple[int, int, int], *, gain: float | None
    ) -> None:
        self.net, self.module = net, net
        self.prompts, self.latent_shape, self.gain = list(prompts), shape, gain
        self.guidance, self.detach_uncond = 1.0, False
        self.rebase()

    def rebase(self) -> None:
        """Take the network as it is now for the reference."""
        self.base = copy.deepcopy(self.net).requires_grad_(False)
        self._referring = False

    def copied(self) -> TinyFlow:
        """A policy of its own that starts where this one is, with that as its reference."""
        return TinyFlow(copy.deepcopy(self.net), self.prompts, self.latent_shape, gain=self.gain)

    @property
    def transformer(self) -> Any:
        return self.net

    def to(self, device: torch.device | str) -> TinyFlow:
        self.net.to(device)
        self.base.to(device)
        return self

    def encode(self, prompts: Sequence[str]) -> Conditions:
        numbers = []
        for prompt in prompts:
            if prompt not in self.prompts:
                raise unknown("prompt", prompt, self.prompts)
            numbers.append(self.prompts.index(prompt))
        rows = len(self.prompts)
        return Conditions(torch.zeros(rows, 1, 1), None, (1,) * rows, torch.tensor(numbers))

    def sigmas(self, num_steps: int) -> Tensor:
        return torch.linspace(1.0, 0.0, num_steps + 1)

    def velocity(self, x: Tensor, t: Tensor | float, cond: Conditions) -> Tensor:
        time = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        return (self.base if self._referring else self.module)(x, time, cond.index)

    def decode(self, latents: Tensor) -> Tensor:
        return latents if self.gain is None else (latents / self.gain + 0.5).clamp(0, 1)

    def _lora(self) -> dict[str, nn.Parameter]:
        return dict(self.net.named_parameters())

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Evaluate the frozen copy inside the block, without gradients."""
        self._referring = True
        try:
            with torch.no_grad():
                yield
        finally:
            self._referring = False


def matching_loss(policy: TinyFlow, clean: Tensor, prompts: Tensor, generator: torch.Generator) -> Tensor:
    """The rectified-flow loss, mean (v - (x_1 - x_0))^2 at uniform t, of latents [B, C, H, W] and prompt numbers [B].

    Source: Liu et al. 2022 (arXiv 2209.03003), equation 1.
    """
    noise = torch.randn(clean.shape, generator=generator)
    t = torch.rand(len(clean), generator=generator)
    return (policy.net(interpolate(clean, noise, t), t, prompts) - (noise - clean)).square().mean()


def pretrain(
    policy: TinyFlow, latents: Tensor, prompts: Tensor, *, steps: int, batch: int, lr: float, seed: int, decay: float
) -> None:
    """Fit the network to latents [N, C, H, W] and their prompt numbers [N] by flow matching; EMA weights stay in it."""
    generator = keyed_generator(seed, "pretrain")
    parameters = list(policy.net.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.0)
    average = [parameter.detach().clone() for parameter in parameters]
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = torch.randint(len(latents), (batch,), generator=generator)
        loss = matching_loss(policy, latents[rows], prompts[rows], generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        weight = 1 - min((1 + step) / (10 + step), decay)
        torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], weight)
    for parameter, mean in zip(parameters, average, strict=True):
        parameter.data.copy_(mean)
    policy.rebase()


def time_features(t: Tensor, count: int = 8) -> Tensor:
    """Sines and cosines of t [B] at octave frequencies, [B, 2 count]."""
    angles = t[:, None] * math.pi * 2.0 ** torch.arange(count) / 2
    return torch.cat([angles.sin(), angles.cos()], dim=1)

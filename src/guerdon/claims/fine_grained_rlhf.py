"""Fine-Grained RLHF (arXiv 2306.01693): a reward a segment teaches faster than their sum, and its weights are knobs.

Density. Answers of 24 segments, each one of 8 sentences of which 2 are good at that place: a good one is worth 0.5, a
bad one -0.5. A small recurrent network with a critic is trained with generalised advantage estimation, once with each
value at its own segment, once with their sum at the end (the holistic baseline: nothing else differs), and once with
the values dealt to other segments of the same answer (the negative control: as dense, and of the same sum). The same is
shown for a table of logits, as the paper's mechanism needs no network.

Customisation. Twelve things could be said, of unequal worth; coverage pays the worth of each at its place, brevity
takes something for each. The more brevity weighs, the shorter the answers must be; where one number only, their fixed
sum, is scaled by the same weights (the control), the length must not follow.

The paper's models, questions and human labels are not here: this is its mechanism, not its result on long answers.
On the seeds it is judged on the table shows the gain of density clearly; the network, from three seeds, only its sign.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from guerdon.claims.experiment import (
    Arm,
    ClaimResult,
    ProgressBar,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
)
from guerdon.core.progress import progress as default_progress
from guerdon.objectives.dense_advantages import dense_advantages
from guerdon.objectives.token_gae import token_gae, whiten

SLUG = "fine-grained-rlhf"
CLAIM = (
    "a reward placed behind every segment trains a better policy than the same reward summed at the end of the text, "
    "and the weights of its aspects set what the policy does"
)
Kind = Literal["dense", "holistic", "permuted"]
KINDS: tuple[Kind, ...] = ("dense", "holistic", "permuted")
WEIGHTS = (0.15, 0.35, 0.65, 0.85)


@dataclass(frozen=True)
class Size:
    """segments, choices, good: of an answer; updates and episodes of the network; hidden: its width."""

    segments: int = 24
    choices: int = 8
    good: int = 2
    updates: int = 150
    episodes: int = 16
    hidden: int = 32
    lr: float = 3e-3
    lam: float = 0.95
    table_updates: int = 150
    table_lr: float = 0.2
    things: int = 12
    custom_updates: int = 200


class Writer(nn.Module):
    """A recurrent network over segments, with a head for the next one and a critic."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.word = nn.Embedding(size.choices + 1, size.hidden)
        self.place = nn.Parameter(torch.randn(size.segments, size.hidden))
        self.body = nn.GRU(size.hidden, size.hidden, batch_first=True)
        self.next, self.critic = nn.Linear(size.hidden, size.choices), nn.Linear(size.hidden, 1)
        nn.init.zeros_(self.next.weight)
        nn.init.zeros_(self.next.bias)

    def forward(self, before: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, T, choices] and values [B, T] of what follows each of ``before`` [B, T]."""
        state, _ = self.body(self.word(before) + self.place[: before.shape[1]])
        return self.next(state), self.critic(state)[..., 0]

    @torch.no_grad()
    def write(self, rows: int, generator: torch.Generator) -> Tensor:
        """Sampled segments [rows, T]."""
        said = [torch.full((rows,), self.word.num_embeddings - 1)]
        state = None
        for place in self.place:
            seen, state = self.body((self.word(said[-1]) + place)[:, None], state)
            said.append(torch.multinomial(self.next(seen[:, 0]).softmax(dim=-1), 1, generator=generator)[:, 0])
        return torch.stack(said[1:], dim=1)


def place_rewards(values: Tensor, kind: Kind, generator: torch.Generator) -> Tensor:
    """Values of segments [B, T] as they are paid: at home, all at the end, or dealt to other places of the row."""
    if kind == "dense":
        return values
    if kind == "holistic":
        return torch.cat([torch.zeros_like(values[:, :-1]), values.sum(dim=1, keepdim=True)], dim=1)
    order = torch.rand(values.shape, generator=generator).argsort(dim=1)
    return values.gather(1, order)


def write(kind: Kind, size: Size, seed: int) -> float:
    """Train a `Writer` -> probability of a good segment, over the last tenth of the updates."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    good = _good(size, generator)
    model = Writer(size)
    optimiser = torch.optim.Adam(model.parameters(), lr=size.lr)
    told = []
    mask = torch.ones(size.episodes, size.segments)
    for _ in range(size.updates):
        actions = model.write(size.episodes, generator)
        before = torch.cat([torch.full((size.episodes, 1), size.choices), actions[:, :-1]], dim=1)
        values = _values(actions, good)
        logits, critic = model(before)
        rewards = place_rewards(values, kind, generator)
        advantages, returns = token_gae(rewards, critic.detach(), mask, lam=size.lam)
        log_probs = logits.log_softmax(dim=-1).gather(2, actions[..., None])[..., 0]
        loss = -(whiten(advantages, mask) * log_probs).mean() + 0.5 * (critic - returns).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        told.append(float((values > 0).float().mean()))
    return _tail(told)


def tabulate(kind: Kind, size: Size, seed: int) -> float:
    """REINFORCE on a table of logits, each place on its own, with a running baseline -> as `write`."""
    generator = torch.Generator().manual_seed(seed)
    good = _good(size, generator)
    logits, level = torch.zeros(size.segments, size.choices), torch.zeros(size.segments)
    told = []
    mask = torch.ones(size.episodes, size.segments)
    for update in range(size.table_updates):
        chance = logits.softmax(dim=1)
        actions = torch.multinomial(chance, size.episodes, replacement=True, generator=generator).T
        values = _values(actions, good)
        rewards = place_rewards(values, kind, generator)
        critic = level.expand(size.episodes, -1)
        advantages, returns = token_gae(rewards, critic, mask, lam=1.0)
        advantages = whiten(advantages, mask)
        level = returns.mean(dim=0) if update == 0 else 0.9 * level + 0.1 * returns.mean(dim=0)
        chosen = nn.functional.one_hot(actions, size.choices).float() - chance
        logits = logits + size.table_lr * (advantages[..., None] * chosen).mean(dim=0)
        told.append(float((values > 0).float().mean()))
    return _tail(told)


def said_lengths(weights: Sequence[float], size: Size, seed: int, *, summed: bool = False) -> list[float]:
    """Mean number of things said after training, a weight each: brevity weighs it beside coverage's 1.

    summed: coverage less half of brevity is one number, and the weights scale that.
    """
    found = []
    for weight in weights:
        generator = torch.Generator().manual_seed(seed)
        # Evenly spread, so that every step of the weight has things whose worth it passes.
        worth = (torch.randperm(size.things, generator=generator) + 0.5) / size.things
        logits = torch.zeros(size.things)
        rows = size.episodes
        segments = torch.arange(size.things).expand(2, rows, -1)
        mask, groups = torch.ones(rows, size.things), torch.zeros(rows, dtype=torch.long)
        lengths = []
        for _ in range(size.custom_updates):
            chance = torch.sigmoid(logits)
            said = (torch.rand(rows, size.things, generator=generator) < chance).float()
            coverage, brevity = said * worth, -said
            parts = [weight * coverage, 0.5 * weight * brevity] if summed else [coverage, weight * brevity]
            advantages = dense_advantages(torch.stack(parts), segments, mask, groups, scale="none")
            logits = logits + 2.0 * (advantages * (said - chance)).mean(dim=0)
            lengths.append(float(said.sum(dim=1).mean()))
        found.append(_tail(lengths))
    return found


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    arms = {kind: Arm(kind) for kind in KINDS}
    knobs = {name: Arm(name) for name in ("weights of two aspects", "weights of one sum")}
    with progress(len(seeds) * (len(KINDS) + 1), SLUG) as bar:
        for seed in seeds:
            for kind, arm in arms.items():
                arm.add({"good": write(kind, size, seed), "good, table": tabulate(kind, size, seed)})
                bar.advance(1, seed=seed, arm=kind)
            for name, arm in knobs.items():
                lengths = said_lengths(WEIGHTS, size, seed, summed="one sum" in name)
                falls = [a - b for a, b in zip(lengths, lengths[1:])]
                told = {f"length at {weight:g}": length for weight, length in zip(WEIGHTS, lengths)}
                arm.add(told | {"fall": lengths[0] - lengths[-1], "least fall": min(falls)})
            bar.advance(1, seed=seed, arm="aspects")
    dense, holistic, permuted = (arms[kind] for kind in KINDS)
    two, one = knobs.values()
    effect = difference(dense, holistic, "good")
    shown, gap = difference(permuted, holistic, "good"), difference(dense, permuted, "good")
    checks = [
        above("a reward a segment ends with more good segments than their sum at the end", effect),
        control_fails("the same values on other segments show no gain", effect, shown, gap),
        above("the same holds of a table of logits", difference(dense, holistic, "good, table")),
        above("answers get shorter with every step of brevity's weight", effect_of(two.values("least fall"))),
        below("scaling one sum by the same weights moves the length less than half as much",
              effect_of(one.values("fall").__abs__() - 0.5 * two.values("fall"))),
    ]  # fmt: skip
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="share of good segments",
        effect=effect,
        control=shown.value,
        checks=checks,
        arms=[*arms.values(), *knobs.values()],
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            arms_section("density: share of good segments", list(arms.values()), ["good", "good, table"]),
            arms_section(
                "customisation: things said, by brevity's weight", [two, one], [f"length at {w:g}" for w in WEIGHTS]
            ),
        ],
        notes=["by chance a quarter of the segments is good", "all arms share lambda, learning rate and updates"],
    )


def _good(size: Size, generator: torch.Generator) -> Tensor:
    """[segments, choices]: which choices are good at each place."""
    order = torch.rand(size.segments, size.choices, generator=generator).argsort(dim=1)
    return order < size.good


def _values(actions: Tensor, good: Tensor) -> Tensor:
    places = torch.arange(actions.shape[1]).expand_as(actions)
    return torch.where(good[places, actions], 0.5, -0.5)


def _tail(values: Sequence[float]) -> float:
    last = values[-max(1, len(values) // 10) :]
    return sum(last) / len(last)


quick = partial(run, size=replace(Size(), updates=4, episodes=4, table_updates=10, custom_updates=10))
"""The same in seconds, for tests: it shows that everything runs, not that the claim holds."""

"""Clip and Delta (arXiv 2410.15115): step scores beside a success reward are hacked as they are, and safe when bounded.

A tabular chain of reasoning, as in the system's card: an episode is won by a number of progress steps, no wrong one,
and then finishing. A process reward model likes filler (0.95) even more than progress (0.80), and wrong steps and an
early end little (0.30). REINFORCE with returns-to-go and a baseline for each state climbs success plus 0.2 times the
shaped scores. On a short chain, where success alone is learnt easily, raw scores must be hacked (accuracy falls while
the return rises) and Clip-Delta must cost nothing. On a long chain, where success is rare, Clip-Delta must reach 0.9
accuracy in fewer updates than success alone, and scores dealt to the wrong actions (the negative control) must not.

What is paid for an action is fixed here, so that eta is a constant of the experiment (0.85, the card's). How many
updates success alone needs varies by a factor of two between seeds: the seeds of development (1 to 3) leave the saving
unclear (0.19, -0.03 to 0.40), those it is judged on show it narrowly.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

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
from guerdon.objectives.step_rewards import Mode, reward_to_go, shape_steps

SLUG = "reward-clip-delta"
CLAIM = (
    "adding step scores to the success reward as they are makes the policy worse, because repeating plausible steps "
    "raises the return without bound; clipped and differenced they are safe, and help where success is rare"
)
PROGRESS, FILLER, WRONG, FINISH = range(4)
# Scores of (progress, filler, wrong, finish when solved, finish otherwise).
SCORES = (0.80, 0.95, 0.30, 0.90, 0.30)
SHORT = {"success alone": None, "raw scores": "none", "clip": "clip", "delta": "delta", "clip-delta": "clip_delta"}
LONG = {"success alone, long": None, "clip-delta, long": "clip_delta", "shuffled scores, long": "clip_delta"}
REACHED = 0.9


@dataclass(frozen=True)
class Size:
    """chain: progress steps that a solution needs, of the short and of the long task; cap: steps of an episode."""

    chain: tuple[int, int] = (3, 5)
    cap: int = 20
    updates: tuple[int, int] = (250, 600)
    rollouts: int = 128
    lr: float = 1.0
    alpha: float = 0.2
    eta: float = 0.85


@dataclass(frozen=True)
class Episodes:
    """Rollouts: states and actions [B, T], which steps were taken [B, T], and who won [B]."""

    states: Tensor
    actions: Tensor
    mask: Tensor
    scores: Tensor
    won: Tensor


def play(logits: Tensor, chain: int, size: Size, scores: Sequence[float], generator: torch.Generator) -> Episodes:
    """Episodes of a policy with logits [2 (chain + 1), 4]; state 2 k + w: k steps made, w = 1 once one was wrong."""
    batch = size.rollouts
    made, wrong = torch.zeros(batch, dtype=torch.long), torch.zeros(batch, dtype=torch.long)
    running, won = torch.ones(batch, dtype=torch.bool), torch.zeros(batch, dtype=torch.bool)
    chance = logits.softmax(dim=1)
    table = torch.tensor(scores)
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for _ in range(size.cap):
        state = 2 * made + wrong
        action = torch.multinomial(chance[state], 1, generator=generator)[:, 0]
        solved = (made == chain) & (wrong == 0)
        ended = (action == FINISH) & running
        score = torch.where((action == FINISH) & ~solved, table[4], table[action])
        seen.append((state, action, running.clone(), score))
        won |= ended & solved
        made = torch.where(running & (action == PROGRESS), (made + 1).clamp(max=chain), made)
        wrong = torch.where(running & (action == WRONG), torch.ones_like(wrong), wrong)
        running &= ~ended
        if not bool(running.any()):
            break
    states, actions, mask, paid = (torch.stack(part, dim=1) for part in zip(*seen))
    return Episodes(states, actions, mask, paid, won)


def train(
    mode: Mode | None, chain: int, updates: int, size: Size, seed: int, *, shuffled: bool = False
) -> dict[str, float]:
    """REINFORCE on success plus shaped step scores; ``shuffled`` deals the scores to other kinds of step.

    Returns accuracy, length and return of the last tenth of the updates, and how many updates it took until the
    accuracy of ten updates together reached 0.9 (all of them where it never did).
    """
    generator = torch.Generator().manual_seed(seed)
    scores = list(SCORES)
    if shuffled:
        # A derangement, so that no kind of step keeps its own score.
        scores = [SCORES[place] for place in (2, 3, 1, 4, 0)]
    logits = torch.zeros(2 * (chain + 1), 4)
    told: list[tuple[float, float, float]] = []
    reached = updates
    for update in range(updates):
        found = play(logits, chain, size, scores, generator)
        rewards = torch.zeros_like(found.scores)
        if mode is not None:
            rewards = shape_steps(found.scores, found.mask, mode=mode, eta=size.eta, alpha=size.alpha).per_step
        last = found.mask.sum(dim=1) - 1
        rewards[torch.arange(len(last)), last] += found.won.float()
        gains = reward_to_go(rewards, found.mask)
        logits = logits + size.lr * _gradient(logits, found, gains)
        told.append((float(found.won.float().mean()), float(last.float().mean()) + 1, float(gains[:, 0].mean())))
        if reached == updates and update >= 9 and np.mean([one[0] for one in told[-10:]]) >= REACHED:
            reached = update + 1
    tail = np.mean(told[-max(1, updates // 10) :], axis=0)
    return {"accuracy": tail[0], "length": tail[1], "return": tail[2], "updates": float(reached)}


def _gradient(logits: Tensor, found: Episodes, gains: Tensor) -> Tensor:
    """Mean over episodes of sum_t (G_t - baseline of the state) grad log pi(a_t | s_t)."""
    states, actions, returns = found.states[found.mask], found.actions[found.mask], gains[found.mask]
    sums = torch.zeros(len(logits)).index_add(0, states, returns)
    counts = torch.zeros(len(logits)).index_add(0, states, torch.ones_like(returns))
    centred = returns - (sums / counts.clamp(min=1))[states]
    directions = torch.nn.functional.one_hot(actions, 4).float() - logits.softmax(dim=1)[states]
    return torch.zeros_like(logits).index_add(0, states, centred[:, None] * directions) / len(found.won)


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar = default_progress
) -> ClaimResult:
    """Measure the claim over ``seeds``."""
    started = time.monotonic()
    size = size or Size()
    arms = {name: Arm(name) for name in (*SHORT, *LONG)}
    with progress(len(seeds) * len(arms), "reward-clip-delta") as bar:
        for seed in seeds:
            for name, arm in arms.items():
                mode: Mode | None = (SHORT | LONG)[name]  # type: ignore[assignment]
                long = name in LONG
                arm.add(train(mode, size.chain[long], size.updates[long], size, seed, shuffled="shuffled" in name))
                bar.advance(1, seed=seed, arm=name)
    success, raw, both = arms["success alone"], arms["raw scores"], arms["clip-delta"]
    rare, helped, control = (arms[name] for name in LONG)
    # Updates saved, as a share of those that success alone needs: more is better.
    saved = effect_of((rare.values("updates") - helped.values("updates")) / rare.values("updates"))
    shown = effect_of((rare.values("updates") - control.values("updates")) / rare.values("updates"))
    gap = effect_of((control.values("updates") - helped.values("updates")) / rare.values("updates"))
    checks = [
        above("Clip-Delta reaches 0.9 on the long chain in fewer updates than success alone", saved),
        control_fails("scores dealt to the wrong steps save no updates", saved, shown, gap),
        below("raw scores lose to success alone", difference(raw, success, "accuracy"), -0.1),
        above("while the return they climb rises above it", difference(raw, success, "return"), 0.5),
        above("Clip-Delta costs no accuracy on the short chain", difference(both, success, "accuracy"), -0.02),
    ]
    return ClaimResult(
        slug=SLUG,
        claim=CLAIM,
        measure="share of the updates saved on the long chain",
        effect=saved,
        control=shown.value,
        checks=checks,
        arms=list(arms.values()),
        seeds=list(seeds),
        seconds=time.monotonic() - started,
        sections=[
            arms_section("short chain, at the end", [arms[name] for name in SHORT], ["accuracy", "length", "return"]),
            arms_section("long chain", [rare, helped, control], ["updates", "accuracy", "length", "return"]),
        ],
        notes=[
            "Clip alone and Delta alone are shown, not judged: Delta alone drifts to filler, since a filler step's "
            "return is its own high score",
        ],
    )


quick = partial(run, size=replace(Size(), updates=(60, 60), rollouts=32))
"""The same in seconds, for tests: it shows that everything runs, not that the claim holds."""

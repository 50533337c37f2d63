"""RealGen (arXiv 2512.00473): detectors as the reward make pictures more real, if the detectors cannot be hacked.

The experiment of the system's card, small: a tiny flow model of textures (`textures`) whose base is over-smoothed.
(A) GRPO on detectors, with the safeguards and without, against a preference for smooth pictures and a random reward.
The safeguards: detectors that learnt from corrupted negatives and go on learning from the policy's pictures, a KL term,
and a validation judge of another family that stops the run and chooses its checkpoint. The held-out judge, of a fourth
family, only measures. "frozen, robust" is the paper's first version: corrupted negatives, no updates, no validation; no
check rests on it. The full recipe's blurred and noised views of a picture are left out (see `new_world`).
(B) A prompt rewriter that chooses among phrases, the generator frozen. (C) An arena that shows one order only.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.claims.experiment import (
    Arm,
    Check,
    ClaimResult,
    ProgressBar,
    Section,
    above,
    arms_section,
    below,
    control_fails,
    difference,
    effect_of,
)
from guerdon.claims.textures import (
    HELD_OUT,
    STYLES,
    TRAINING,
    USER_PROMPTS,
    VALIDATION,
    World,
    alignment,
    content_error,
    content_right,
    corrupted,
    eight_bit,
    grpo_settings,
    many,
    new_world,
    random_reward,
    smoothness,
)
from guerdon.core.progress import progress as default_progress
from guerdon.metrics.arena import win_rate
from guerdon.metrics.diversity import diversity
from guerdon.models.detectors.corruptions import blur
from guerdon.models.detectors.small import p_real
from guerdon.objectives.surrogate import clipped_surrogate
from guerdon.policies.rollout import keyed_generator
from guerdon.rewards.bank import BankScores, RewardBank
from guerdon.rewards.image.detector import DetectorReward, ScoreReward
from guerdon.trainers.adversarial import AdversarialDetector
from guerdon.trainers.detector import fresh_detector_accuracy
from guerdon.trainers.diffusion import DiffusionTrainer, Verdict
from guerdon.trainers.watch import HackingWatch

SLUG = "realgen"
TITLE = "RealGen: Photorealistic Text-to-Image Generation via Detector-Guided Rewards"
CLAIM = (
    "detector rewards, made hard to hack, move a generator towards real pictures by a judge that was never a reward; "
    "frozen naive detectors are hacked, and a preference for smoothness does not help"
)
ARMS = ("safeguarded", "frozen, robust", "frozen, naive", "without alignment", "smoothness", "random reward")


@dataclass(frozen=True)
class Size:
    """How large the experiment is; ``drawn`` images an evaluation, ``watched`` images a look of the hacking watch.

    tolerance: how far below the best validation score a checkpoint may be and still replace it (two standard errors of
    a look's mean). patience: looks further below, in a row, that stop the run.
    """

    base_steps: int = 600
    images: int = 384
    detector_steps: int = 300
    steps: int = 96
    group: int = 8
    groups: int = 8
    watch_every: int = 6
    patience: int = 4
    tolerance: float = 0.05
    watched: int = 96
    drawn: int = 256
    fresh_steps: int = 150
    rewriter_steps: int = 12
    lr: float = 6e-4
    adversary_lr: float = 1e-3
    kl_weight: float = 4e-4


class Game:
    """Scores each training step's pictures, lets adversarial detectors learn from them, and watches what they hide."""

    def __init__(self, arm: str, world: World, size: Size, seed: int) -> None:
        self.world, self.size, self.seed = world, size, seed
        self.safe = arm in ("safeguarded", "without alignment")
        self.watch: HackingWatch | None = None
        self.images = torch.empty(0)
        self.adversaries: list[AdversarialDetector] = []
        terms: dict[str, tuple[Any, float]] = {}
        if self.safe:
            self.adversaries = [
                AdversarialDetector(
                    copy.deepcopy(world.robust[family]), steps_per_update=2, batch_size=32, lr=size.adversary_lr,
                    ema_decay=0.9, corrupted=0.0, augment_both=False, seed=seed, name=family,
                )
                for family in TRAINING
            ]  # fmt: skip
            terms = {a.name: (ScoreReward(a, a.name, range=(0.0, 1.0)), 1.0) for a in self.adversaries}
        elif arm.startswith("frozen"):
            frozen = world.robust if arm == "frozen, robust" else world.naive
            terms = {family: (DetectorReward(frozen[family], name=family), 1.0) for family in TRAINING}
        else:
            terms = {"control": (smoothness if arm == "smoothness" else random_reward, 1.0)}
        if arm != "without alignment":
            terms["alignment"] = (alignment, 1.0)
        self.bank = RewardBank(terms)

    def __call__(self, prompts: list[str], images: Tensor, step: int, **columns: list[Any]) -> BankScores:
        self.images = eight_bit(images)
        return self.bank.score(prompts, self.images)

    def on_step_end(self, trainer: DiffusionTrainer, step: int, metrics: dict[str, float]) -> Verdict:
        generator, count = keyed_generator(self.seed, step, "real"), len(self.images)
        for adversary in self.adversaries:
            rows = torch.randint(len(self.world.real), (2 * count,), generator=generator)
            negatives = [self.images, corrupted(self.world.real[rows[: count // 2]], generator)]
            adversary.update(self.world.real[rows[count // 2 :]], torch.cat(negatives), step=step - 1)
        if self.watch is None or step % self.size.watch_every:
            return None
        row = self.watch.measure(step)
        if not self.safe:
            return None
        # The latest checkpoint that is not clearly worse: two looks differ by as much as this when nothing changed.
        least = self.watch.validation(self.watch.best()) - self.size.tolerance
        if self.watch.eligible(row) and self.watch.validation(row) >= least:
            return "best"
        return "stop" if step - trainer.best_step >= self.size.patience * self.size.watch_every else None

    def paid(self, images: Tensor) -> float:
        """Mean P(real) that the arm's own training detectors give; the naive ones where it has none."""
        if self.safe:
            return float(torch.stack([adversary.score(images).mean() for adversary in self.adversaries]).mean())
        return float(torch.stack([p_real(self.world.naive[family], images).mean() for family in TRAINING]).mean())


def climb(arm: str, world: World, size: Size, seed: int) -> dict[str, float]:
    """Train the generator on the arm's reward and measure it; the held-out judge decides nothing."""
    game = Game(arm, world, size, seed)
    policy = world.base.copied()
    config = grpo_settings(
        steps=size.steps, group=size.group, groups=size.groups, lr=size.lr, seed=seed,
        kl_weight=size.kl_weight if game.safe else 0.0,
    )  # fmt: skip
    trainer = DiffusionTrainer(policy, game, USER_PROMPTS, config, callbacks=[game])
    prompts = many(USER_PROMPTS, size.watched)
    judges = {family: _judge(world, family) for family in (VALIDATION, HELD_OUT)}
    game.watch = HackingWatch(
        lambda: eight_bit(trainer.evaluate(prompts, range(70_000, 70_000 + size.watched), batch_size=96)),
        [USER_PROMPTS.index(prompt) for prompt in prompts], judges, {VALIDATION: "validation", HELD_OUT: "held-out"},
        alignment=lambda images: content_right(prompts, images), patience=size.patience,
    )  # fmt: skip
    game.watch.measure(0)
    trainer.keep_best()
    trainer.train()
    if game.safe:
        trainer.restore_best()
    else:
        policy.load_lora_state(trainer.lora_state())
    peak = max(row[f"judge/{HELD_OUT}/held-out"] for row in game.watch.rows)
    return measured(world, drawn(world, size, policy), size, seed) | {
        "paid": game.paid(drawn(world, size, policy)), "peak": peak, "stopped at": float(trainer.step),
        "kept step": float(trainer.best_step if game.safe else trainer.step),
    }  # fmt: skip


def _judge(world: World, family: str) -> Callable[[Tensor], Tensor]:
    return lambda images: p_real(world.robust[family], images)


def drawn(world: World, size: Size, policy: Any) -> Tensor:
    """Test pictures of the users' prompts from fixed seeds by the ODE, [drawn, 3, 16, 16]."""
    prompts = many(USER_PROMPTS, size.drawn)
    return eight_bit(policy.generate(prompts, range(80_000, 80_000 + size.drawn), num_steps=10, batch_size=64))


def measured(world: World, images: Tensor, size: Size, seed: int) -> dict[str, float]:
    """held-out: mean P(real) of the judge that no one climbed or chose by; fresh: accuracy of a new detector (0.5: the
    pictures pass as real); content: `content_error`; right: share of `content_right`; diversity within a prompt, of
    blurred pictures, since more grain is not more variety."""
    prompts = many(USER_PROMPTS, len(images))
    return {
        "held-out": float(p_real(world.robust[HELD_OUT], images).mean()),
        "validation": float(p_real(world.robust[VALIDATION], images).mean()),
        "fresh": fresh_detector_accuracy(
            world.test[: len(images)], images, "cnn", seed=seed, steps=size.fresh_steps, augment_both=False
        ),
        "content": float(content_error(prompts, images).mean()),
        "right": float(content_right(prompts, images).mean()),
        "diversity": diversity(blur(images, 1.2), prompts),
    }


PHRASES = (*STYLES, ", raw photo in red")


def rewrite(world: World, size: Size, seed: int) -> dict[str, float]:
    """Stage 1 as a toy: a softmax over phrases appended to a user's prompt, trained by GRPO on the frozen base.

    The last phrase also repaints the picture, so alignment with the USER's prompt has to keep it away. Pictures of one
    group share their noise, so that they differ by the text only.
    """
    judge, count = RewardBank({
        **{family: (DetectorReward(world.robust[family], name=family), 1.0) for family in TRAINING},
        "alignment": (alignment, 1.0),
    }), size.group  # fmt: skip
    logits = torch.zeros(len(PHRASES), requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    for step in range(size.rewriter_steps):
        generator = keyed_generator(seed, "rewriter", step)
        probabilities = logits.detach().softmax(0)
        chosen = torch.multinomial(probabilities, len(USER_PROMPTS) * count, replacement=True, generator=generator)
        users = [prompt for prompt in USER_PROMPTS for _ in range(count)]
        group = torch.arange(len(USER_PROMPTS)).repeat_interleave(count)
        seeds = (step * 100 + group + seed * 10_000).tolist()
        images = world.base.generate(_written(users, chosen), seeds, num_steps=10, batch_size=64)
        scored = judge.score(users, eight_bit(images))
        logp = logits.log_softmax(0)[chosen]
        loss, _ = clipped_surrogate(logp, logp.detach(), scored.advantages(group), 0.2)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    users = many(USER_PROMPTS, size.drawn)
    best = torch.full((len(users),), int(logits.argmax()))
    images = eight_bit(
        world.base.generate(_written(users, best), range(80_000, 80_000 + size.drawn), num_steps=10, batch_size=64)
    )
    return measured(world, images, size, seed) | {"phrase": float(logits.argmax())}


def _written(users: Sequence[str], chosen: Tensor) -> list[str]:
    def one(prompt: str, phrase: str) -> str:
        if phrase.endswith(" in red"):
            return f"red {prompt.split(' ', 1)[1]}{phrase.removesuffix(' in red')}"
        return prompt + phrase

    return [one(prompt, PHRASES[number]) for prompt, number in zip(users, chosen.tolist())]


def arena(seed: int, pairs: int = 4000, bias: float = 0.405) -> dict[str, float]:
    """Win rate of a candidate as good as its rival before a judge who prefers slot 1 by ``bias`` logits."""
    rng = np.random.default_rng(seed)
    slot_one = 1 / (1 + np.exp(-bias))
    first, second = rng.random(pairs) < slot_one, rng.random(pairs) >= slot_one
    found = win_rate(first.astype(float), second.astype(float), resamples=200, seed=seed)
    return {"one order": found.shown_first, "both orders": found.win_rate.value}


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run every arm for each seed; about two minutes a seed on one idle core.

    The effect is the held-out judge's mean P(real), safeguarded detectors less base.
    """
    size, started = size or Size(), time.monotonic()
    arms = {name: Arm(name) for name in ("base", *ARMS, "rewriter, base frozen")}
    battle = Arm("arena, equal quality, slot bias 0.405")
    with progress(len(seeds) * (len(arms) + 1), "claim realgen") as bar:
        for seed in seeds:
            bar.show(seed=seed, arm="base and judges")
            world = new_world(seed, base_steps=size.base_steps, images=size.images, detector_steps=size.detector_steps)
            bar.advance()
            battle.add(arena(seed))
            for name, arm in arms.items():
                if name == "base":
                    images = drawn(world, size, world.base)
                    naive = torch.stack([p_real(world.naive[family], images).mean() for family in TRAINING])
                    row = measured(world, images, size, seed) | {"paid": float(naive.mean())}
                else:
                    row = rewrite(world, size, seed) if name.startswith("rewriter") else climb(name, world, size, seed)
                arm.add(row)
                bar.advance(arm=name, held_out=row["held-out"], fresh=row["fresh"])
    return _result(list(seeds), arms, battle, time.monotonic() - started)


def _result(seeds: list[int], arms: dict[str, Arm], battle: Arm, seconds: float) -> ClaimResult:
    base, safe, naive = arms["base"], arms["safeguarded"], arms["frozen, naive"]
    stage1, loose = arms["rewriter, base frozen"], arms["without alignment"]
    gain = difference(safe, base, "held-out")
    control = max(difference(arms[name], base, "held-out").value for name in ("smoothness", "random reward"))
    drop = naive.values("peak") - naive.values("held-out")
    # A gain counts as no loss: the spread of gains between seeds must not hide that nothing was lost.
    kept = {
        arm.name: effect_of(np.minimum(arm.values("diversity") / base.values("diversity"), 1)) for arm in (safe, naive)
    }
    checks = [
        above("safeguarded detectors raise the held-out judge", gain),
        *(
            control_fails(
                f"{name} does not", gain, difference(arms[name], base, "held-out"),
                difference(safe, arms[name], "held-out"),
            )
            for name in ("smoothness", "random reward")
        ),
        below("a fresh detector finds the tuned pictures harder than the base's", difference(safe, base, "fresh")),
        above("frozen naive detectors pay more and more", difference(naive, base, "paid")),
        above("while the held-out judge falls from its peak", effect_of(drop)),
        above("and a fresh detector sees through it nearly always", effect_of(naive.values("fresh")), 0.95),
        above("safeguarded beats frozen by the held-out judge", difference(safe, naive, "held-out")),
        above("diversity does not fall", kept[safe.name], 0.9),
        above("the content stays right", effect_of(safe.values("right") / base.values("right")), 0.9),
        above("without the alignment reward the content error is higher", difference(loose, safe, "content")),
        above("the rewriter alone raises the held-out judge", difference(stage1, base, "held-out")),
        above("and its content stays right", effect_of(stage1.values("right") / base.values("right")), 0.9),
        above("an arena of one order is biased", effect_of(battle.values("one order") - 0.5), 0.05),
        below("both orders are not", effect_of(abs(battle.values("both orders") - 0.5)), 0.05),
    ]  # fmt: skip
    measures = ["held-out", "peak", "paid", "validation", "fresh", "content", "right", "diversity", "kept step"]
    sections = [
        arms_section("P(real) by the held-out judge, and what else changed", list(arms.values()), measures),
        arms_section("arena", [battle], ["one order", "both orders"]),
    ]
    notes = [f"diversity kept of the base's: safeguarded {kept[safe.name]}, frozen, naive {kept[naive.name]}"]
    return ClaimResult(
        SLUG, CLAIM, "P(real) by the held-out judge, safeguarded less base", gain, control, checks,
        [*arms.values(), battle], seeds, seconds, sections, notes,
    )  # fmt: skip


__all__ = ["CLAIM", "SLUG", "TITLE", "Check", "Section", "Size", "run"]

"""RewardMATH (arXiv 2410.01729): pairs that differ in style rank reward models wrongly, one against many does not.

Problems are sums, solutions lines of equations in some style: several operations a line or one, with filler lines or
without. Reward models are linear in what stands in the text: steps, words, digits, and equations that look wrong to a
reader who misreads some. They are trained on pairs of which a share gives the right solution away by its style (short
and right against long and wrong, as in RewardBench's math pairs). Each is graded on such pairs, on one right solution
against nine wrong ones of the same styles, and by what counts: how often the best of n samples of a policy is right.
Long lines are misread more often, and the policy errs more in them, so that what is shortest is mostly wrong: a reward
for style is over-optimised.
The negative control is one against nine where style still gives the right one away: many wrong solutions alone must
not rank reward models right. The rule "fewer steps win" is audited on both, and with step counts permuted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from guerdon.benchmarks.one_to_many_items import OneToManyItem, rendered_steps
from guerdon.benchmarks.shortcuts import ShortcutAudit, item_features, shortcut_audit
from guerdon.claims.experiment import (
    Arm,
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
from guerdon.core.progress import progress as default_progress
from guerdon.metrics.answer_selection import powers_of_two, selected_right
from guerdon.metrics.one_to_many import one_to_many

SLUG = "rewardmath"
TITLE = "Evaluating Robustness of Reward Models for Mathematical Reasoning"
CLAIM = (
    "one right solution against nine wrong ones ranks reward models as best-of-n sampling does, where pairs that "
    "differ in style are won by a shortcut and rank them wrongly"
)
# Reward model -> share of its training pairs that style gives away.
MODELS = {f"{share:.0%} confounded": share for share in (1.0, 0.9, 0.75, 0.5, 0.25, 0.0)}
CONFOUNDED, BALANCED = "100% confounded", "0% confounded"
STEPS_RULE = "fewest steps"
SETS = ("pairs", "balanced pairs", "one to many", "one to many, confounded")
TERSE, WORDY, ANY = "terse", "wordy", "any"
SLIPS = {1: 0.03, 2: 0.08, 3: 0.15, 5: 0.3}
"""Operations a line -> how often the policy errs in each of them."""
FILLERS = (
    "Let us look at what is left.",
    "So far so good.",
    "Now we take the next number.",
    "This is the total so far.",
)
LEADS = ("So: ", "We get ", "That makes ", "Taking the next we have ")
ERRORS = (-10, -2, -1, 1, 2, 10)
_EQUATION = re.compile(r"(\d+(?: [+-] \d+)+) = (\d+)")


@dataclass(frozen=True)
class Size:
    """How large the experiment is. misread: probability that an operation makes the reader judge a line falsely."""

    trained: int = 1000
    problems: int = 300
    wrong: int = 9
    prompts: int = 200
    samples: int = 64
    operations: int = 5
    misread: float = 0.1


# Sums, solutions and how they are read


def solution(numbers: Sequence[int], group: int, filler: float, slips: float, rng: np.random.Generator) -> list[str]:
    """Lines that add up signed numbers, ``group`` operations a line; each goes wrong with probability ``slips``."""
    total, lines, place = numbers[0], [], 1
    while place < len(numbers):
        part = numbers[place : place + group]
        shown = " ".join([str(total), *(f"{'+' if number >= 0 else '-'} {abs(number)}" for number in part)])
        for number in part:
            total += number
            if rng.random() < slips:
                total = max(0, total + ERRORS[int(rng.random() * len(ERRORS))])
        lead = LEADS[int(rng.random() * len(LEADS))] if rng.random() < filler else ""
        lines.append(f"{lead}{shown} = {total}")
        if rng.random() < filler:
            lines.append(FILLERS[int(rng.random() * len(FILLERS))])
        place += group
    return [*lines, f"The answer is {total}."]


def drawn(numbers: Sequence[int], style: str, right: bool, rng: np.random.Generator) -> list[str]:
    """A solution of a style that is right, or wrong by one or more slips."""
    group, filler = {
        TERSE: (int(rng.integers(2, 4)), 0.5 * rng.random()),
        WORDY: (int(rng.integers(1, 3)), 0.2 + 0.8 * rng.random()),
        ANY: (int(rng.integers(1, 4)), rng.random()),
    }[style]  # fmt: skip
    while True:
        lines = solution(numbers, group, filler, 0.0 if right else 0.25, rng)
        if (answer_of(lines) == sum(numbers)) == right:
            return lines


def answer_of(lines: Sequence[str]) -> int:
    """The number that the last line states."""
    return int(lines[-1].split()[-1].rstrip("."))


def sums(count: int, size: Size, rng: np.random.Generator) -> list[list[int]]:
    """Problems: numbers from 10 to 99, added or (never below 0) taken away."""
    problems = []
    for _ in range(count):
        numbers = [int(rng.integers(10, 100))]
        for value in rng.integers(10, 100, size=size.operations):
            numbers.append(int(-value if rng.random() < 0.5 and sum(numbers) >= value else value))
        problems.append(numbers)
    return problems


def looks_wrong(lines: Sequence[str], misread: float, rng: np.random.Generator) -> int:
    """Equations that a reader takes for wrong; each operation gets its equation misjudged with chance ``misread``."""
    count = 0
    for found in map(_EQUATION.search, lines):
        if found is not None:
            sure = (1 - misread) ** ((len(found[1].split()) - 1) // 2)
            count += (_value(found[1]) != int(found[2])) == (rng.random() < sure)
    return count


def _value(text: str) -> int:
    first, *rest = text.split()
    return int(first) + sum(int(value) if sign == "+" else -int(value) for sign, value in zip(rest[::2], rest[1::2]))


def features(items: Sequence[OneToManyItem], size: Size, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """What reward models see of each item's solutions, [K, 4]: steps, words, digits, equations that look wrong."""
    text = item_features(items)
    return [
        np.stack(
            [
                text["n_steps"][row], text["n_tokens"][row], text["n_digits"][row],
                np.array([float(looks_wrong(item.steps[place], size.misread, rng)) for place in item.compared]),
            ],
            axis=1,
        )
        for row, item in enumerate(items)
    ]  # fmt: skip


def items_of(count: int, wrong: int, confounded: float, size: Size, rng: np.random.Generator) -> list[OneToManyItem]:
    """One right solution and ``wrong`` wrong ones a problem; a share ``confounded`` is given away by style."""
    made = []
    for name, numbers in enumerate(sums(count, size, rng)):
        given = rng.random() < confounded
        styles = [TERSE if given else ANY, *[WORDY if given else ANY] * wrong]
        solutions = [drawn(numbers, style, not place, rng) for place, style in enumerate(styles)]
        made.append(item_of(str(name), solutions, 1))
    return made


def item_of(name: str, solutions: Sequence[Sequence[str]], right: int) -> OneToManyItem:
    """An item of step lists, the first ``right`` of them right."""
    return OneToManyItem(
        name, [], tuple(rendered_steps(lines) for lines in solutions), right, places=tuple(range(len(solutions))),
        steps=tuple(tuple(lines) for lines in solutions),
    )  # fmt: skip


# Reward models


def trained(share: float, size: Size, rng: np.random.Generator) -> NDArray[np.float64]:
    """Weights [4] of a linear Bradley-Terry reward model, fitted to pairs of which ``share`` is given away by style."""
    rows = np.stack(features(items_of(size.trained, 1, share, size, rng), size, rng))
    gaps = rows[:, 0] - rows[:, 1]
    scale = gaps.std(0) + 1e-9
    model = LogisticRegression(fit_intercept=False, max_iter=1000)
    model.fit(np.concatenate([gaps, -gaps]) / scale, np.repeat([1, 0], len(gaps)))
    return model.coef_[0] / scale


@dataclass(frozen=True)
class Benchmarks:
    """Features and items of each set, and the policy's samples: features [P, n, 4] and which are right [P, n]."""

    sets: dict[str, tuple[list[OneToManyItem], list[NDArray[np.float64]]]]
    samples: NDArray[np.float64]
    right: NDArray[np.float64]
    answers: NDArray[np.int64]

    @classmethod
    def made(cls, size: Size, rng: np.random.Generator) -> Benchmarks:
        """All of them, fresh."""
        kinds = {"pairs": (1, 1.0), "balanced pairs": (1, 0.0), "one to many": (size.wrong, 0.0),
                 "one to many, confounded": (size.wrong, 1.0)}  # fmt: skip
        sets = {}
        for name, (wrong, share) in kinds.items():
            items = items_of(size.problems, wrong, share, size, rng)
            sets[name] = (items, features(items, size, rng))
        samples, right, answers = [], [], []
        for numbers in sums(size.prompts, size, rng):
            groups = rng.choice(list(SLIPS), size=size.samples)
            lines = [solution(numbers, int(g), float(rng.random()), SLIPS[int(g)], rng) for g in groups]
            # One "right" solution first and the rest as "wrong": `compared` is then all of them, in order.
            samples.append(features([item_of("sampled", lines, 1)], size, rng)[0])
            answers.append([answer_of(one) for one in lines])
            right.append([float(answer_of(one) == sum(numbers)) for one in lines])
        return cls(sets, np.array(samples), np.array(right), np.array(answers))

    def graded(self, weights: NDArray[np.float64]) -> dict[str, float]:
        """Accuracy on each set; the share right of best of 1, of best of n as a mean over n > 1, and how far the last n
        falls short of the best one."""
        found = {
            name: one_to_many([part @ weights for part in rows]).acc_by_lot for name, (_, rows) in self.sets.items()
        }
        curve = self.curve(weights)
        last = list(curve)[-1]
        later = float(np.mean([curve[n] for n in curve if n > 1]))
        return found | {"best of 1": curve[1], "best of n": later, "drop": max(curve.values()) - curve[last]}

    def curve(self, weights: NDArray[np.float64]) -> dict[int, float]:
        """n -> share of prompts whose selected sample is right, ties by majority."""
        sizes = powers_of_two(self.right.shape[1])
        rows = [
            selected_right(own, kinds, good, sizes)
            for own, kinds, good in zip(self.samples @ weights, self.answers, self.right, strict=True)
        ]
        return dict(zip(sizes, np.mean(rows, axis=0).tolist(), strict=True))

    def audit(self, name: str, rng: np.random.Generator | None = None) -> dict[str, float]:
        """How far "fewer steps win" gets on a set; with ``rng`` the counts are permuted within each item."""
        counts = item_features(self.sets[name][0])["n_steps"]
        if rng is not None:
            counts = [rng.permutation(row) for row in counts]
        audit: ShortcutAudit = shortcut_audit({"n_steps": counts}, resamples=50)
        rule = next(one for one in audit.rules if one.wins == "the least")
        return {f"{name}: first": rule.by_lot.value, f"{name}: pairwise": rule.pairwise}


def agreement(models: dict[str, dict[str, float]], name: str) -> float:
    """Spearman correlation, over the reward models, of a set's accuracy and the share right of best of n."""
    rows = np.array([[own[name], own["best of n"]] for own in models.values()])
    return float(np.nan_to_num(spearmanr(rows[:, 0], rows[:, 1]).statistic)) if np.ptp(rows, axis=0).all() else 0.0


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Train and grade the reward models for each seed; some ten seconds a seed on one slow core.

    The effect is the rank correlation with best of n of one against many less that of confounded pairs.
    """
    size, started = size or Size(), time.monotonic()
    models = {name: Arm(name) for name in (*MODELS, STEPS_RULE)}
    ranks, audits = {name: Arm(name) for name in SETS}, {name: Arm(name) for name in ("steps", "steps, permuted")}
    with progress(len(seeds) * (len(MODELS) + 1), "claim rewardmath") as bar:
        for seed in seeds:
            benchmarks = Benchmarks.made(size, np.random.default_rng([seed, 0]))
            weights = {STEPS_RULE: np.array([-1.0, 0.0, 0.0, 0.0])}
            for place, (name, share) in enumerate(MODELS.items()):
                weights[name] = trained(share, size, np.random.default_rng([seed, 1, place]))
                bar.advance(seed=seed, arm=name)
            measured = {name: benchmarks.graded(own) for name, own in weights.items()}
            for name, values in measured.items():
                models[name].add(values)
            for name, arm in ranks.items():
                arm.add({"correlation": agreement(measured, name)})
            for name, arm in audits.items():
                rng = np.random.default_rng([seed, 2]) if "permuted" in name else None
                arm.add(benchmarks.audit("pairs", rng) | benchmarks.audit("one to many", rng))
            bar.advance(seed=seed, correlation=ranks["one to many"].measures["correlation"][-1])
    return _result(list(seeds), models, ranks, audits, size, time.monotonic() - started)


def _result(
    seeds: list[int], models: dict[str, Arm], ranks: dict[str, Arm], audits: dict[str, Arm], size: Size, seconds: float
) -> ClaimResult:
    styled, balanced = models[CONFOUNDED], models[BALANCED]
    many, pairs, given = (ranks[name] for name in ("one to many", "pairs", "one to many, confounded"))
    gain, control = difference(many, pairs, "correlation"), difference(given, pairs, "correlation")
    steps, permuted = audits["steps"], audits["steps, permuted"]
    chance = 1 / (1 + size.wrong)
    checks = [
        above("pairs: the reward model that learnt style wins", difference(styled, balanced, "pairs")),
        below("one against many: it loses", difference(styled, balanced, "one to many")),
        below("and so it does at best of n", difference(styled, balanced, "best of n")),
        above("one against many ranks reward models as best of n does", effect_of(many.values("correlation")), 0.5),
        above("better than pairs do", gain),
        control_fails(
            "nine wrong ones that style gives away do not", gain, control, difference(many, given, "correlation")
        ),
        above("best of n turns down under the one that learnt style", effect_of(styled.values("drop")), 0.02),
        below("and not under the balanced one", effect_of(balanced.values("drop")), 0.02),
        above("fewer steps win the pairs", effect_of(steps.values("pairs: pairwise")), 0.8),
        below(
            "but not one against many: less than twice chance",
            effect_of(steps.values("one to many: first")),
            2 * chance,
        ),
        below("permuted step counts win no pairs", effect_of(np.abs(permuted.values("pairs: pairwise") - 0.5)), 0.1),
        below("nor one against many", effect_of(np.abs(permuted.values("one to many: first") - chance)), 0.05),
    ]
    sections = [
        arms_section("reward models by the share of training pairs that style gives away", list(models.values()),
                     [*SETS, "best of 1", "best of n", "drop"]),
        arms_section("rank correlation of each set with best of n, over the reward models", list(ranks.values()),
                     ["correlation"]),
        arms_section("fewer steps win", list(audits.values()), list(steps.measures)),
    ]  # fmt: skip
    many_alone = difference(many, ranks["balanced pairs"], "correlation")
    notes = [
        f"balanced pairs rank reward models too: one against many has {many_alone} more rank correlation, so here it "
        "is the balance of styles that ranks right, and many wrong solutions spread the scores",
        "the paper's figures are of language models; published score files are graded by `guerdon bench rewardmath`",
        "that what is short is mostly wrong is built into the policy: without it a reward for style gains nothing but "
        "its best of n does not turn down",
    ]
    return ClaimResult(
        SLUG, CLAIM, "rank correlation with best of n, one against many less pairs", gain, control.value, checks,
        [*models.values(), *ranks.values(), *audits.values()], seeds, seconds, sections, notes,
    )  # fmt: skip


__all__ = ["CLAIM", "SLUG", "TITLE", "Section", "Size", "run"]

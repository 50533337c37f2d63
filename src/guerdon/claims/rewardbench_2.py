"""RewardBench 2 (arXiv 2506.01937): one right among four tells reward models apart, and Ties what accuracy hides.

Two parts, as in the system's card. (1) A zoo of linear Bradley-Terry models, trained on pairs with 0 to 50% of the
labels turned round, is graded three ways: by pairs of a right and a wrong answer, by one right among four, and by the
true reward of what best-of-16 with the model picks on fresh prompts. Among four, models must lie further apart above
chance, and their order must predict best-of-16 no worse than pairs do. Models trained on shuffled labels must sit at
chance in both. (2) Noise of growing size between equally right answers must leave every accuracy of Ties at 1 while
its calibration terms fall to 0, where the same noise between wrong answers moves neither; and a model that learnt,
beside right and wrong, a consistent taste among right answers must lose those terms at equal accuracy, where one that
saw as many such pairs with arbitrary labels must not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from guerdon.claims.experiment import (
    Arm,
    Check,
    ClaimResult,
    Effect,
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
from guerdon.metrics.best_of_k import best_of_k_credit, ties_row, ties_score
from guerdon.metrics.overoptimisation import best_of_n_values

SLUG = "rewardbench-2"
TITLE = "RewardBench 2: Advancing Reward Model Evaluation"
CLAIM = (
    "picking one right answer among four spreads reward models further above chance than picking between two, and "
    "predicts best-of-N with them no worse; the Ties score sees miscalibration that accuracy does not"
)

Array: TypeAlias = NDArray[np.float64]
Taste = Literal["none", "consistent", "arbitrary"]
Noise = Literal["right", "wrong"]
SETS = 10
BAR = 0.674  # a quarter of all answers is right
NOISES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0)


@dataclass(frozen=True)
class Size:
    """How large the experiment is.

    models, shuffled: in the zoo, and with shuffled labels. pairs: that each is trained on, in ``features`` dimensions.
    rows: of a benchmark (half of RewardBench 2's largest domain); drawn: how many such benchmarks are averaged over.
    prompts, answers: of best-of-16. twins: prompts of Ties (RewardBench 2's). learnt: pairs of each kind in part 2.
    hardness: by how much the true rewards of a benchmark's answers are drawn together, right and wrong alike, so that
    the best models earn about what the best published ones do (0.77 on RewardBench 2).
    """

    models: int = 16
    shuffled: int = 8
    pairs: int = 300
    features: int = 12
    rows: int = 240
    drawn: int = 40
    prompts: int = 1000
    answers: int = 32
    twins: int = 51
    learnt: int = 1000
    hardness: float = 5.0


# The zoo


def fitted(gaps: Array, wins: NDArray[np.bool_], *, penalty: float = 1.0) -> Array:
    """Bradley-Terry weights [d] of pairs with feature gaps [N, d] of which ``wins`` [N] says whether the first won."""
    signed = np.where(wins[:, None], gaps, -gaps)
    model = LogisticRegression(C=1 / penalty, fit_intercept=False, max_iter=1000)
    return model.fit(np.concatenate([signed, -signed]), np.repeat([1, 0], len(gaps))).coef_[0]


def zoo(truth: Array, size: Size, rng: np.random.Generator) -> Array:
    """Models [models, d] from pairs that the true reward labels, of which 0 to 50% are then turned round."""
    found = []
    for turned in np.linspace(0, 0.5, size.models):
        gaps = rng.standard_normal((size.pairs, size.features)) - rng.standard_normal((size.pairs, size.features))
        wins = (gaps @ truth > 0) != (rng.random(size.pairs) < turned)
        found.append(fitted(gaps, wins))
    return np.array(found)


def blind(truth: Array, size: Size, rng: np.random.Generator) -> Array:
    """Models [shuffled, d] from such pairs with the labels dealt out anew among them."""
    found = []
    for _ in range(size.shuffled):
        gaps = rng.standard_normal((size.pairs, size.features)) - rng.standard_normal((size.pairs, size.features))
        found.append(fitted(gaps, rng.permutation(gaps @ truth > 0)))
    return np.array(found)


def answers_of(truth: Array, count: int, size: Size, rng: np.random.Generator) -> tuple[Array, NDArray[np.bool_]]:
    """Answers of one policy, points [count, d], and which of them are right: those of true reward above `BAR`.

    True rewards are drawn towards the bar by ``hardness``; in all other directions answers differ as they did.
    """
    points = rng.standard_normal((count, size.features))
    reward = points @ truth
    moved = BAR + (reward - BAR) / size.hardness
    return points + (moved - reward)[:, None] * truth, reward > BAR


def graded(models: Array, truth: Array, rows: int, size: Size, rng: np.random.Generator) -> tuple[Array, Array]:
    """Accuracy of each model on pairs, and its best-of-four credit, on the same ``rows``: [models] each.

    Each row has one right answer and three wrong ones of the policy; a pair is the right one and the first wrong one.
    """
    points, right = answers_of(truth, 8 * rows, size, rng)
    chosen, rejected = points[right][:rows], points[~right][: 3 * rows]
    scores = np.concatenate([(chosen @ models.T)[:, None], (rejected @ models.T).reshape(len(chosen), 3, -1)], axis=1)
    scores = scores.transpose(2, 0, 1)
    return best_of_k_credit(scores[..., :2]).mean(1), best_of_k_credit(scores).mean(1)


def picked(models: Array, truth: Array, size: Size, rng: np.random.Generator) -> Array:
    """How often the answer that best-of-16 by each model picks from the policy is right: [models]."""
    points, right = answers_of(truth, size.prompts * size.answers, size, rng)
    values = right.reshape(size.prompts, size.answers).astype(np.float64)
    n = size.answers // 2
    found = []
    for scores in (points @ models.T).T.reshape(len(models), size.prompts, size.answers):
        found.append(np.mean([best_of_n_values(by, own, (n,))[0] for by, own in zip(scores, values, strict=True)]))
    return np.array(found)


def measured_zoo(size: Size, seed: int) -> dict[str, dict[str, float]]:
    """Part 1 for one seed: kind of benchmark -> measures, averaged over ``drawn`` benchmarks of that kind.

    gain: mean credit of the best quarter of the models above chance; blind: of the models from shuffled labels.
    resolution: spread of the models' credit in units of its spread over benchmarks. correlation: Pearson's of the
    models' credit with what best-of-16 by them is worth.
    "pairs, twice the rows" reads as many answers as one among four.
    """
    rng = np.random.default_rng([seed, 0])
    truth = rng.standard_normal(size.features)
    truth /= np.linalg.norm(truth)
    models, shuffled = zoo(truth, size, rng), blind(truth, size, rng)
    worth = picked(models, truth, size, rng)
    best = np.argsort(-worth)[: max(1, size.models // 4)]
    both = np.concatenate([models, shuffled])
    drawn: dict[str, list[Array]] = {"pairs": [], "pairs, twice the rows": [], "one among four": []}
    for _ in range(size.drawn):
        pairs, fours = graded(both, truth, size.rows, size, rng)
        twice, _ = graded(both, truth, 2 * size.rows, size, rng)
        for name, credit in zip(drawn, (pairs, twice, fours), strict=True):
            drawn[name].append(credit)
    found = {}
    for name, rows in drawn.items():
        credits = np.array(rows)
        own, chance = credits[:, : size.models], 0.25 if name == "one among four" else 0.5
        found[name] = {
            "gain": float(own[:, best].mean() - chance),
            "blind": float(credits[:, size.models :].mean() - chance),
            "resolution": float(own.mean(0).std() / own.std(0).mean()),
            "correlation": float(np.mean([np.corrcoef(one, worth)[0, 1] for one in own])),
        }
    return found


# Ties


def scored_twins(right: Array, wrong: Array, single: Array, single_wrong: Array) -> dict[str, float]:
    """The Ties score of prompts with several right answers [P, C] beside wrong ones [P, W], and their one-right twins
    [P], [P, W]."""
    rows = []
    for prompt in range(len(right)):
        rows.append(ties_row(f"tied:{prompt}", np.concatenate([right[prompt], wrong[prompt]]), right.shape[1]))
        rows.append(ties_row(f"ref:{prompt}", np.concatenate([[single[prompt]], single_wrong[prompt]]), 1))
    found = ties_score(rows)
    accuracy = (found.tied_accuracy + found.ref_accuracy) / 2
    return {"accuracy": accuracy, "preferred": found.preferred, "hard": found.hard, "ties": found.score}


def noisy(where: Noise, sigma: float, size: Size, seed: int) -> dict[str, float]:
    """A scorer of right answers at 1 and wrong ones at 0, with noise of size ``sigma`` among one or the other.

    The worst right answer stays at 1 and the best wrong one at 0, so that no accuracy can change by it.
    """
    noise = sigma * np.random.default_rng([seed, 1]).standard_normal((size.twins, 4))
    right, wrong = np.ones((size.twins, 4)), np.zeros((size.twins, 4))
    if where == "right":
        right += noise - noise.min(1, keepdims=True)
    else:
        wrong += noise - noise.max(1, keepdims=True)
    return scored_twins(right, wrong, np.ones(size.twins), wrong)


def tasteful(taste: Taste, size: Size, seed: int) -> dict[str, float]:
    """A linear model of right (one feature, 0 or 1, blurred by a tenth) and style (eight features), from pairs.

    Half of the pairs are right against wrong. The other half are two right answers: labelled by the first feature of
    style ("consistent"), or by a coin ("arbitrary"); with "none" there are none. Means over ``SETS`` test sets.
    """
    rng = np.random.default_rng([seed, 2])

    def answers(right: float, *shape: int) -> Array:
        blurred = right + 0.1 * rng.standard_normal((*shape, 1))
        return np.concatenate([blurred, rng.standard_normal((*shape, 8))], axis=-1)

    gaps, wins = answers(1, size.learnt) - answers(0, size.learnt), np.ones(size.learnt, dtype=bool)
    liked = answers(1, size.learnt) - answers(1, size.learnt)
    coin = rng.random(size.learnt)
    if taste != "none":
        by = 1 / (1 + np.exp(-liked[:, 1])) if taste == "consistent" else np.full(size.learnt, 0.5)
        gaps, wins = np.concatenate([gaps, liked]), np.concatenate([wins, coin < by])
    model = fitted(gaps, wins, penalty=0.1)
    sets = [
        scored_twins(answers(1, size.twins, 4) @ model, answers(0, size.twins, 6) @ model,
                     answers(1, size.twins) @ model, answers(0, size.twins, 6) @ model)
        for _ in range(SETS)
    ]  # fmt: skip
    return {name: float(np.mean([one[name] for one in sets])) for name in sets[0]}


# The experiment


def run(
    seeds: Sequence[int] = (11, 12, 13), progress: ProgressBar = default_progress, size: Size | None = None
) -> ClaimResult:
    """Run both parts for each seed; about 15 seconds a seed on one slow core.

    The effect is the gain above chance of the best models by one among four less that by pairs.
    """
    size, started = size or Size(), time.monotonic()
    kinds = {name: Arm(name) for name in ("pairs", "pairs, twice the rows", "one among four")}
    sweep = {(where, sigma): Arm(f"noise {sigma:g} among {where} answers") for where in ("right", "wrong")
             for sigma in NOISES}  # fmt: skip
    tastes: dict[Taste, Arm] = {
        "none": Arm("right and wrong only"), "consistent": Arm("and a consistent taste"),
        "arbitrary": Arm("and arbitrary labels"),
    }  # fmt: skip
    with progress(len(seeds) * 3, "claim rewardbench-2") as bar:
        for seed in seeds:
            for name, values in measured_zoo(size, seed).items():
                kinds[name].add(values)
            bar.advance(seed=seed, correlation=kinds["one among four"].measures["correlation"][-1])
            for (where, sigma), arm in sweep.items():
                arm.add(noisy(where, sigma, size, seed))  # type: ignore[arg-type]
            bar.advance()
            for taste, arm in tastes.items():
                arm.add(tasteful(taste, size, seed))
            bar.advance(preferred=tastes["consistent"].measures["preferred"][-1])
    return _result(list(seeds), kinds, sweep, tastes, time.monotonic() - started)


def _result(
    seeds: list[int],
    kinds: dict[str, Arm],
    sweep: dict[tuple[str, float], Arm],
    tastes: dict[Taste, Arm],
    seconds: float,
) -> ClaimResult:
    pairs, fours = kinds["pairs"], kinds["one among four"]
    gain = difference(fours, pairs, "gain")
    shown = effect_of(fours.values("blind"))
    quiet, loud = sweep["right", 0.0], sweep["right", NOISES[-1]]
    elsewhere = sweep["wrong", NOISES[-1]]
    plain, taste, arbitrary = tastes["none"], tastes["consistent"], tastes["arbitrary"]
    lost, control = difference(plain, taste, "preferred"), difference(plain, arbitrary, "preferred")
    checks: list[Check] = [
        above("the best models stand further above chance among four than in pairs", gain),
        above("and apart from each other, in units of what another sample of rows would change",
              difference(fours, pairs, "resolution")),
        below("pairs do not predict best-of-16 better", difference(pairs, fours, "correlation"), 0.005),
        above("one among four predicts best-of-16", effect_of(fours.values("correlation")), 0.8),
        control_fails("shuffled labels sit at chance", effect_of(fours.values("gain")), shown,
                      effect_of(fours.values("gain") - fours.values("blind"))),
        below("noise among right answers changes no accuracy of Ties", _moved(quiet, loud, "accuracy"), 1e-9),
        above("but takes its calibration terms", difference(quiet, loud, "preferred"), 0.9),
        control_fails("the same noise among wrong answers does not", difference(quiet, loud, "preferred"),
                      difference(quiet, elsewhere, "preferred"), difference(elsewhere, loud, "preferred")),
        above("a taste among right answers costs calibration terms", lost),
        control_fails("as many arbitrary labels do not", lost, control, difference(arbitrary, taste, "preferred")),
        below("and accuracy less than half as much", _twice(plain, taste)),
    ]  # fmt: skip
    sections: list[Section] = [
        arms_section("A zoo of reward models, three ways (means over benchmarks)", list(kinds.values()),
                     ["gain", "blind", "resolution", "correlation"]),
        arms_section("Noise between answers of one kind", list(sweep.values()),
                     ["accuracy", "preferred", "hard", "ties"]),
        arms_section("A model that learnt a taste among right answers", list(tastes.values()),
                     ["accuracy", "preferred", "hard", "ties"]),
    ]  # fmt: skip
    notes = [
        "gain: credit of the best quarter of the models above chance (0.5 in pairs, 0.25 among four); blind: of models "
        "from shuffled labels; resolution: spread over models in units of the spread over benchmarks; correlation: "
        "Pearson's, over the zoo, with how often best-of-16 picks a right answer.",
        "At equal rows one among four reads twice as many answers; pairs on twice the rows are shown for that.",
        "The paper's r = 0.87 is over 113 models and real tasks; a zoo of linear models on one task is far more alike.",
    ]
    return ClaimResult(
        SLUG, CLAIM, "gain above chance", gain, shown.value, checks,
        [*kinds.values(), *sweep.values(), *tastes.values()], seeds, seconds, sections, notes,
    )  # fmt: skip


def _moved(first: Arm, second: Arm, measure: str) -> Effect:
    return effect_of(np.abs(first.values(measure) - second.values(measure)))


def _twice(plain: Arm, taste: Arm) -> Effect:
    """2 (accuracy lost) - (calibration terms lost), one a seed."""
    accuracy, terms = (plain.values(name) - taste.values(name) for name in ("accuracy", "preferred"))
    return effect_of(2 * accuracy - terms)

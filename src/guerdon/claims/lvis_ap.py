"""LVIS's AP (arXiv 2102.01066): a cap on detections an image lets classes trade places; AP-Fixed and AP-Pool do not.

Two experiments. (1) Gaming: a made detector on made images, frequent classes confident and rare ones timid, with more
boxes than the cap lets through. Lifting rare classes above all others must raise AP without a better detector; lifting
as many classes at random must not; AP-Fixed must not move by a single bit, and AP-Pool must fall. (2) Calibration, on
the card's classes: true log-odds seen through each class's own slope and offset. Calibrators fitted class by class on
other rows must raise AP-Pool and leave AP-Fixed alone; one map for all classes lowers the calibration error and cannot
change a ranking; calibrators of the wrong class must not help.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from guerdon.audits.rerank import lifted
from guerdon.claims.experiment import (
    Arm,
    Check,
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
from guerdon.metrics.average_precision import average_precision, class_curves, pooled_curves
from guerdon.metrics.calibration import expected_calibration_error
from guerdon.metrics.detection_matching import match_detections
from guerdon.metrics.detection_sets import Detections, GroundTruth, top_per_class, top_per_image
from guerdon.metrics.score_calibration import Isotonic, PerGroup, pooled_ranking, rank_kept

SLUG = "lvis-ap"
TITLE = "Evaluating Large-Vocabulary Object Detectors: The Devil is in the Details"
CLAIM = (
    "under a cap on detections per image, AP rises by re-scoring whole classes without a better detector; with a cap "
    "per class it does not move; AP of one pooled ranking sees the scores' scale and rises by calibrating each class"
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
GAMES = ("as given", "rare first", "random first")
SCORES = (
    "raw",
    "isotonic a class",
    "Platt a class",
    "isotonic, ties left",
    "one isotonic for all",
    "Platt, wrong class",
)


@dataclass(frozen=True)
class Size:
    """How large the experiments are.

    images, objects, cap: of the gaming, objects an image on average and boxes that count; proposals: boxes an image.
    classes:  of both. rows: detections of a class to fit on, and as many to test on (the card's).
    """

    images: int = 400
    objects: int = 5
    proposals: int = 40
    cap: int = 12
    per_class: int = 2000
    classes: int = 60
    rows: int = 1500
    spread: float = 2.0


# Gaming


def scene(size: Size, seed: int) -> tuple[GroundTruth, Detections, Ints]:
    """Objects, a detector's boxes, and each class's tier: 2 for the rarest third of the classes, 1, 0.

    A class's share falls as 1/(1 + c); its scores are shifted down by up to 3 in log-odds the rarer it is, as those of
    classes with few training images are. Boxes are right (the object's, jittered) or somewhere else.
    """
    rng = np.random.default_rng([seed, 1])
    share = 1 / (1 + np.arange(size.classes))
    share /= share.sum()
    many = 1 + rng.poisson(size.objects - 1, size.images)
    image = np.repeat(np.arange(size.images), many)
    cls = rng.choice(size.classes, len(image), p=share)
    box = np.concatenate([rng.uniform(0, 900, (len(image), 2)), rng.uniform(30, 120, (len(image), 2))], axis=1)
    gt = GroundTruth.of(image, cls, box, images=size.images, classes=size.classes)
    near = box + rng.normal(0, 0.05, box.shape) * np.tile(box[:, 2:], 2)
    wrong = size.images * (size.proposals - size.objects)
    far = np.concatenate([rng.uniform(0, 900, (wrong, 2)), rng.uniform(30, 120, (wrong, 2))], axis=1)
    all_cls = np.concatenate([cls, rng.choice(size.classes, wrong, p=share)])
    timid = 3 * np.arange(size.classes) / (size.classes - 1)
    odds = np.concatenate([rng.normal(1, 1, len(cls)), rng.normal(-1, 1, wrong)]) - timid[all_cls]
    all_image = np.concatenate([image, rng.integers(size.images, size=wrong)])
    dt = Detections.of(gt, all_image, all_cls, expit(odds), np.concatenate([near, far]))
    return gt, dt, 3 * np.arange(size.classes) // size.classes


def gamed(size: Size, seed: int) -> dict[str, dict[str, float]]:
    """AP under the cap, AP-Fixed and AP-Pool of each way to score."""
    gt, dt, tier = scene(size, seed)
    shuffled = np.random.default_rng([seed, 2]).permutation(tier)
    found = {}
    for name, lift in zip(GAMES, (np.zeros_like(tier), tier, shuffled), strict=True):
        scored = dt.rescored(lifted(dt.score, dt.cls, lift))
        table = match_detections(gt, scored)
        fixed = top_per_class(scored, size.per_class)
        found[name] = {
            "AP": class_curves(table, keep=top_per_image(scored, size.cap)).ap(),
            "AP-Fixed": class_curves(table, keep=fixed).ap(),
            "AP-Pool": pooled_curves(table, keep=fixed).ap(),
        }
    return found


# Calibration


@dataclass(frozen=True)
class Scored:
    """Detections of all classes: what was said, whether it was right, of which class; all [N]."""

    score: Floats
    right: NDArray[np.bool_]
    cls: Ints


def rooms(size: Size, seed: int) -> tuple[Scored, Scored]:
    """To fit on and to test on: rows of classes whose true log-odds are seen through a slope and an offset each.

    Slope U[0.5, 2], offset N(0, 1.5), prior 0.5 / (1 + c)^0.7 (the card's); log-odds N(logit(prior), spread).
    """
    rng = np.random.default_rng([seed, 3])
    prior = 0.5 / (1 + np.arange(size.classes)) ** 0.7
    slope, offset = rng.uniform(0.5, 2, size.classes), rng.normal(0, 1.5, size.classes)
    made = []
    for _ in range(2):
        cls = np.repeat(np.arange(size.classes), size.rows)
        odds = rng.normal(logit(prior)[cls], size.spread)
        right = rng.random(len(cls)) < expit(odds)
        made.append(Scored(expit(slope[cls] * odds + offset[cls]), right, cls))
    return made[0], made[1]


def calibrated(size: Size, seed: int) -> dict[str, dict[str, float]]:
    """AP-Fixed, AP-Pool, calibration error and the pooled view of each way to score the test rows."""
    fit, test = rooms(size, seed)
    per_class: Callable[[str], Floats] = lambda name: (  # noqa: E731
        PerGroup(name).fit(fit.score, fit.right, fit.cls).predict(test.score, test.cls)
    )
    isotonic, platt = per_class("isotonic"), per_class("platt")
    # Each class is calibrated by what was learnt of another.
    other = np.roll(np.random.default_rng([seed, 4]).permutation(size.classes), 1)
    wrong = PerGroup("platt").fit(fit.score, fit.right, fit.cls).predict(test.score, other[test.cls])
    pooled = Isotonic().fit(fit.score, fit.right).predict(test.score)
    arms = {
        "raw": (test.score, test.score),
        "isotonic a class": (isotonic, rank_kept(isotonic, test.score)),
        "Platt a class": (platt, rank_kept(platt, test.score)),
        "isotonic, ties left": (isotonic, isotonic),
        "one isotonic for all": (pooled, rank_kept(pooled, test.score)),
        "Platt, wrong class": (wrong, rank_kept(wrong, test.score)),
    }
    return {name: graded(test, prob, order.astype(np.float64)) for name, (prob, order) in arms.items()}


def graded(rows: Scored, prob: Floats, order: Floats) -> dict[str, float]:
    """Figures of rows ranked by ``order`` that claim to be right with probability ``prob``."""
    each = [
        float(average_precision(order[own], rows.right[own], int(rows.right[own].sum())))
        for own in (rows.cls == c for c in np.unique(rows.cls))
        if rows.right[own].any()
    ]
    view = pooled_ranking(order, rows.right, rows.cls)
    return {
        "AP-Fixed": float(np.mean(each)),
        "AP-Pool": view.pooled_ap,
        "ECE": expected_calibration_error(prob, rows.right.astype(np.float64), 20),
        "within a class": view.within,
        "across classes": view.across,
    }


# The claim


def run(
    seeds: Sequence[int] = (11, 12, 13), *, size: Size | None = None, progress: ProgressBar | None = None
) -> ClaimResult:
    """Measure both experiments on each seed and judge. See the module's docstring."""
    began = time.perf_counter()
    chosen = size or Size()
    games, scores = {name: Arm(name) for name in GAMES}, {name: Arm(name) for name in SCORES}
    with (progress or default_progress)(2 * len(seeds), SLUG) as bar:
        for seed in seeds:
            for arms, made in ((games, gamed), (scores, calibrated)):
                for name, values in made(chosen, seed).items():
                    arms[name].add(values)
                bar.advance()
    given, rare, random = (games[name] for name in GAMES)
    raw, isotonic, platt, _, one_map, wrong = (scores[name] for name in SCORES)
    gain, lucky = difference(rare, given, "AP"), difference(random, given, "AP")
    effect, control = difference(isotonic, raw, "AP-Pool"), difference(wrong, raw, "AP-Pool")
    checks = [
        above("AP under the cap rises when rare classes are lifted", gain),
        control_fails(
            "lifting as many classes at random does not raise it", gain, lucky, difference(rare, random, "AP")
        ),
        unmoved("AP-Fixed does not move when classes are lifted", "AP-Fixed", given, rare, random),
        below("AP-Pool falls when rare classes are lifted", difference(rare, given, "AP-Pool")),
        above("calibrating each class raises AP-Pool (isotonic)", effect),
        above("calibrating each class raises AP-Pool (Platt)", difference(platt, raw, "AP-Pool")),
        unmoved("AP-Fixed does not move under any rising map", "AP-Fixed", raw, isotonic, platt, one_map, wrong),
        below("calibrating each class halves the calibration error", effect_of(remaining(isotonic, raw)), 0.5),
        below("so does one map for all classes", effect_of(remaining(one_map, raw)), 0.5),
        unmoved("but it cannot change AP-Pool", "AP-Pool", raw, one_map),
        control_fails(
            "calibrators of the wrong class do not raise AP-Pool", effect, control,
            difference(isotonic, wrong, "AP-Pool"),
        ),
    ]  # fmt: skip
    return ClaimResult(
        slug=SLUG, claim=CLAIM, measure="AP-Pool", effect=effect, control=control.value, checks=checks,
        arms=[*games.values(), *scores.values()], seeds=list(seeds), seconds=time.perf_counter() - began,
        sections=[
            arms_section(f"gaming: at most {chosen.cap} of about {chosen.proposals} boxes an image count for AP",
                         list(games.values()), ["AP", "AP-Fixed", "AP-Pool"]),
            arms_section("calibration, held-out rows", list(scores.values()),
                         ["AP-Fixed", "AP-Pool", "ECE", "within a class", "across classes"]),
        ],
        notes=[
            "Images, boxes and scores are made; the published figures need LVIS and its detectors.",
            "Equal calibrated scores keep the raw order, except where ties are left: there AP-Fixed falls.",
            "Within, across: how often a right detection lies above a wrong one of the same class, of another.",
        ],
    )  # fmt: skip


def remaining(arm: Arm, raw: Arm) -> Floats:
    """The share of the raw scores' calibration error that is left, one a seed."""
    return arm.values("ECE") / raw.values("ECE")


def unmoved(name: str, measure: str, first: Arm, *others: Arm) -> Check:
    """Passed if a measure is the same to the last bit in all arms and seeds."""
    moved = max(float(np.abs(other.values(measure) - first.values(measure)).max()) for other in others)
    return Check(name, "passed" if moved == 0 else "failed", f"largest change {moved:.2g}, must be 0")

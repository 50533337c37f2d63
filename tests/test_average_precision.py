"""Average precision: by hand, against the plain way on dense flags, under caps, pools and resampled images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.average_precision import RECALLS, average_precision, class_curves, pooled_curves
from guerdon.metrics.detection_matching import AREAS, MatchTable, match_detections
from guerdon.metrics.detection_sets import Detections, GroundTruth, top_per_class, top_per_image


def toy(lift: float = 0.0) -> tuple[GroundTruth, Detections]:
    """Two images, two classes labelled in both; a cap of two boxes an image. ``lift`` is added to the second class."""
    a1, a2, b, nowhere = [0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10], [80, 80, 10, 10]
    gt = GroundTruth.of([0, 0, 1], [0, 0, 1], [a1, a2, b], images=2, classes=2)
    image, cls = [0, 0, 0, 1, 1, 1], [0, 0, 1, 0, 0, 1]
    score = np.array([0.9, 0.8, 0.2, 0.7, 0.6, 0.3]) + lift * np.array(cls)
    return gt, Detections.of(gt, image, cls, score, [a1, a2, nowhere, nowhere, nowhere, b])


@pytest.mark.parametrize(("lift", "capped", "pool"), [(0, 0.5, 0.8653), (1, 0.75248, 0.8342)])
def test_the_cap_is_gamed_by_hand(lift: float, capped: float, pool: float) -> None:
    """Adding one to every score of a class raises the capped AP from 0.5 to 0.75 and finds nothing more."""
    gt, dt = toy(lift)
    table = match_detections(gt, dt, thresholds=[0.5])
    assert class_curves(table, keep=top_per_image(dt, 2)).ap() == pytest.approx(capped, abs=1e-5)
    assert class_curves(table, keep=top_per_class(dt, 10)).ap() == pytest.approx(1)
    assert pooled_curves(table).ap() == pytest.approx(pool, abs=1e-4)


def test_one_ranking_by_hand() -> None:
    # Precision 1, 1/2, 2/3 at the ranks; recalls up to 0.5 have precision 1, beyond 2/3.
    score, right = [0.9, 0.8, 0.7], [True, False, True]
    assert average_precision(score, right, 2) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision(score, right, 4) == pytest.approx((26 + 25 * 2 / 3) / 101)  # two are never found
    assert average_precision(score, right, 2, ignore=[False, True, False]) == pytest.approx(1)
    assert average_precision([0.7, 0.9, 0.8], [True, True, False], 2) == average_precision(score, right, 2)
    rows = average_precision(score, [right, [False] * 3, [True] * 2 + [False]], 2)
    assert rows.shape == (3,) and rows[1] == 0 and rows[2] == pytest.approx(1)
    assert average_precision([], [], 3) == 0 and np.isnan(average_precision(score, [False] * 3, 0))


def test_ties_stay_as_they_lie() -> None:
    assert average_precision([0.5, 0.5], [True, False], 1) > average_precision([0.5, 0.5], [False, True], 1)


def test_recalls_are_compared_as_floats_are() -> None:
    """With n to find, k found reach the recall 0.01 r where k / n >= r in floats: numpy's own search, not algebra."""
    for n in (1, 3, 7, 10, 29, 100, 101, 700):
        score, right = -np.arange(n), np.ones(n, dtype=bool)
        right[::3] = False
        found = int(right.sum())
        precision = np.cumsum(right) / (np.arange(n) + 1 + np.spacing(1))
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
        wanted = envelope[np.searchsorted(np.cumsum(right) / n, RECALLS)].mean()
        assert average_precision(score, right, n) == pytest.approx(wanted, abs=1e-15)
        gt = GroundTruth.of([0] * n, [0] * n, [[20 * g, 0, 10, 10] for g in range(n)], images=1, classes=1)
        boxes = [[20 * g, 0 if right[g] else 900, 10, 10] for g in range(n)]
        dt = Detections.of(gt, [0] * n, [0] * n, score, boxes)
        curves = class_curves(match_detections(gt, dt))
        assert curves.ap() == pytest.approx(wanted, abs=1e-15) and curves.ar() == pytest.approx(found / n)


def crowded(
    seed: int, images: int = 5, classes: int = 4, rows: int = 150
) -> tuple[GroundTruth, Detections, MatchTable]:
    rng = np.random.default_rng(seed)
    count = 30
    gt = GroundTruth.of(
        rng.integers(images, size=count), rng.integers(classes - 1, size=count),
        rng.integers(0, 9, (count, 4)) * 8.0 + [0, 0, 16, 16], images=images, classes=classes,
        ignore=rng.random(count) < 0.15, absent=[[0, 3], [1, 3], [2, 0], [3, 1]], partial=[[0, 0], [1, 1]],
    )  # fmt: skip
    near = rng.integers(count, size=rows)
    boxes = gt.box[near] + rng.choice([0, 0, 8, -4], (rows, 4))
    dt = Detections.of(gt, gt.image[near], rng.permutation(gt.cls[near]), rng.choice([0.1, 0.4, 0.6, 0.9], rows), boxes)
    return gt, dt, match_detections(gt, dt)


def dense(table: MatchTable, area: str, kept: np.ndarray, classes: list[int]) -> list[float]:
    """AP a threshold of one ranking of some classes, from the [T, N] flags; ties by image, then class."""
    own = np.flatnonzero(np.isin(table.cls, classes) & kept)
    own = own[np.lexsort((own, table.image[own]))]
    n_gt = int(table.n_gt(area)[classes].sum())
    flags = table.tp(area)[:, own], table.ignored(area)[:, own]
    return average_precision(table.score[own], flags[0], n_gt, flags[1]).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_curves_equal_the_plain_way_on_dense_flags(seed: int) -> None:
    _, dt, table = crowded(seed)
    for keep in (np.ones(len(dt), dtype=bool), top_per_image(dt, 12), top_per_class(dt, 20)):
        kept = keep[table.row]
        for area in AREAS:
            curves = class_curves(table, area=area, keep=keep)
            each = curves.each()
            for c in range(4):
                assert each[c] == pytest.approx(np.mean(dense(table, area, kept, [c])), abs=1e-12, nan_ok=True)
            known = each[[0, 2]][~np.isnan(each[[0, 2]])]
            assert not known.size or curves.ap([0, 2]) == pytest.approx(known.mean())
            pool = pooled_curves(table, classes=[0, 2], area=area, keep=keep)
            wanted = dense(table, area, kept, [0, 2])
            assert pool.ap() == pytest.approx(np.mean(wanted), abs=1e-12, nan_ok=True)
            assert pool.ap(threshold=3) == pytest.approx(wanted[3], abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_images_drawn_again(seed: int) -> None:
    """An image of weight n counts as n copies of it."""
    gt, dt, table = crowded(seed)
    times = np.random.default_rng(seed).integers(0, 3, gt.images)
    copies = np.concatenate([np.full(n, image) for image, n in enumerate(times)]).astype(int)

    def drawn(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of each copy, and the copies' numbers."""
        places = [np.flatnonzero(image == old) for old in copies]
        return np.concatenate(places), np.repeat(np.arange(len(copies)), [len(one) for one in places])

    rows, image = drawn(gt.image)
    pairs = {name: [(new, c) for new, old in enumerate(copies) for i, c in getattr(gt, name) if i == old]
             for name in ("absent", "partial")}  # fmt: skip
    again = GroundTruth.of(image, gt.cls[rows], gt.box[rows], images=len(copies), classes=gt.classes,
                           ignore=gt.ignore[rows], **pairs)  # fmt: skip
    rows, image = drawn(dt.image)
    # Scores without ties: copies of one image lie side by side in both.
    unique = dt.rescored(np.random.default_rng(seed).permutation(len(dt)))
    more = Detections.of(again, image, dt.cls[rows], unique.score[rows], dt.box[rows])
    ours, wanted = match_detections(gt, unique), match_detections(again, more)
    for area in AREAS:
        assert class_curves(ours, area=area, weights=times).each() == pytest.approx(
            class_curves(wanted, area=area).each(), abs=1e-12, nan_ok=True
        )
        assert pooled_curves(ours, area=area, weights=times).ap() == pytest.approx(
            pooled_curves(wanted, area=area).ap(), abs=1e-12, nan_ok=True
        )
    assert class_curves(table, weights=np.ones(gt.images, int)).ap() == pytest.approx(
        class_curves(table).ap(), abs=1e-12
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_rising_maps_of_classes_do_not_move_the_cap_per_class(seed: int, shifts: list[float]) -> None:
    """Bit by bit; AP under a cap an image and AP of a pool may move, and do for some of them."""
    _, dt, table = crowded(seed % 7)
    rng = np.random.default_rng(seed)
    slope = rng.uniform(0.1, 5, 4)
    scored = dt.rescored(slope[dt.cls] * dt.score**3 + np.round(shifts)[dt.cls])
    again = match_detections(crowded(seed % 7)[0], scored)
    for area in AREAS:
        before, after = (
            class_curves(t, area=area, keep=top_per_class(d, 15)) for t, d in ((table, dt), (again, scored))
        )
        assert np.array_equal(before.precision, after.precision) and np.array_equal(before.recall, after.recall)


def test_the_cap_per_image_does_move() -> None:
    _, dt, table = crowded(0)
    lifted = [dt.rescored(dt.score + 2 * (dt.cls == c)) for c in range(3)]
    moved = [class_curves(table, keep=top_per_image(one, 12)).ap() for one in lifted]
    assert len({*moved, class_curves(table, keep=top_per_image(dt, 12)).ap()}) > 2


def test_nothing_to_find() -> None:
    gt = GroundTruth.of([], [], [], images=2, classes=2)
    table = match_detections(gt, Detections.of(gt, [0], [0], [0.5], [[0, 0, 1, 1]]))
    for curves in (class_curves(table), pooled_curves(table)):
        assert np.isnan(curves.ap()) and np.isnan(curves.ar()) and np.isnan(curves.each()).all()


def test_errors() -> None:
    with pytest.raises(GuerdonError, match=r"score must be \[N\]"):
        average_precision([0.5], [True, False], 1)
    with pytest.raises(GuerdonError, match="score 1 is nan"):
        average_precision([0.5, np.nan], [True, False], 1)
    with pytest.raises(GuerdonError, match="2 are right, but n_gt says there are 1"):
        average_precision([0.5, 0.4], [True, True], 1)
    _, _, table = crowded(0)
    for wrong in ([1, 2], np.full(5, 0.5), np.array([1, 1, 1, 1, -1])):
        with pytest.raises(GuerdonError, match="weights are whole numbers"):
            class_curves(table, weights=wrong)

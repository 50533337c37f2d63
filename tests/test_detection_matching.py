"""Matching: by hand, against the plain loop it stands for, and independent of caps."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.detection_matching import AREAS, THRESHOLDS, MatchTable, box_iou, match_detections
from guerdon.metrics.detection_sets import Detections, GroundTruth, top_per_class, top_per_image

SQUARE = [0.0, 0, 10, 10]


def shifted(by: float) -> list[float]:
    """Overlap with SQUARE: (10 - by) / (10 + by)."""
    return [by, 0.0, 10, 10]


def one_image(objects: list, found: list[tuple[list[float], float]], **more: object) -> MatchTable:
    gt = GroundTruth.of([0] * len(objects), [0] * len(objects), objects, images=1, classes=1, **more)  # type: ignore[arg-type]
    boxes, scores = [box for box, _ in found], [score for _, score in found]
    return match_detections(gt, Detections.of(gt, [0] * len(found), [0] * len(found), scores, boxes))


def test_overlap() -> None:
    assert box_iou(SQUARE, shifted(5)) == pytest.approx(1 / 3)
    assert box_iou([SQUARE, SQUARE], [SQUARE, [20, 0, 5, 5]]).tolist() == [1, 0]
    assert box_iou([0, 0, 5, 5], SQUARE, crowd=True) == 1 and box_iou([0, 0, 5, 5], SQUARE) == 0.25
    # Touching, empty and negative boxes meet nothing.
    for other in ([10, 0, 5, 5], [2, 2, 0, 5], [8, 8, -5, -5]):
        assert box_iou(SQUARE, other) == 0


def test_boxes_overlap_as_in_pycocotools() -> None:
    mask = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    first, second = (rng.uniform(0, 50, (40, 4)).round(rng.integers(0, 3)) for _ in range(2))
    crowd = rng.random(40) < 0.5
    ours = box_iou(first[:, None], second[None], crowd)
    assert (ours == mask.iou(first, second, crowd.astype(np.uint8).tolist())).all()


def test_the_higher_score_chooses_and_the_other_is_wrong() -> None:
    table = one_image([SQUARE], [(shifted(1), 0.3), (shifted(2), 0.9)])
    assert table.row.tolist() == [1, 0] and table.score.tolist() == [0.9, 0.3]
    # Overlap 8/12 reaches 0.65, 9/11 reaches 0.8: above 0.65 the object is free for the lower score.
    assert table.tp()[:, 0].tolist() == [True] * 4 + [False] * 6
    assert table.tp()[:, 1].tolist() == [False] * 4 + [True] * 3 + [False] * 3
    assert not table.ignored().any() and table.n_gt().tolist() == [1]


def test_of_equal_overlaps_the_last_object_wins_and_a_choice_is_served_in_turn() -> None:
    # Two equal objects: the first detection takes the second one, the next takes what is left.
    table = one_image([SQUARE, SQUARE], [(SQUARE, 0.9), (SQUARE, 0.8), (SQUARE, 0.7)])
    assert table.tp()[0].tolist() == [True, True, False]
    # The best overlap is taken by a higher score: the next best serves, at the thresholds it reaches.
    table = one_image([SQUARE, shifted(2)], [(SQUARE, 0.9), (shifted(0.5), 0.8)])
    assert table.tp()[:, 1].sum() == (THRESHOLDS <= 8.5 / 11.5).sum()


def test_a_chain_of_displacements_ends_where_serving_in_turn_does() -> None:
    """Each detection loses its first choice to the one before it."""
    objects = [shifted(float(place)) for place in range(6)]
    found = [(shifted(place + 0.4), 1 - place / 10) for place in range(6)]
    table = one_image(objects, [(SQUARE, 2.0), *found])
    for level, t in enumerate(THRESHOLDS):
        assert (table.tp()[level] == plain(objects, [box for box, _ in [(SQUARE, 2.0), *found]], t)).all()


def plain(objects: list, boxes: list, t: float) -> list[bool]:
    """True positives by serving in turn; no ignored objects."""
    free = set(range(len(objects)))
    out = []
    for box in boxes:
        best = max(free, key=lambda g: (box_iou(box, objects[g]), g), default=None)
        good = best is not None and box_iou(box, objects[best]) >= min(t, 1 - 1e-10)
        if good:
            free.discard(best)  # type: ignore[arg-type]
        out.append(bool(good))
    return out


def test_crowded_scenes_equal_the_plain_loop() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        objects = [[float(v) for v in (*rng.integers(0, 6, 2), 10, 10)] for _ in range(rng.integers(1, 8))]
        boxes = [[float(v) for v in (*rng.integers(0, 6, 2), 10, 10)] for _ in range(20)]
        table = one_image(objects, [(box, 1 - place / 100) for place, box in enumerate(boxes)])
        for level, t in enumerate(THRESHOLDS):
            assert table.tp()[level].tolist() == plain(objects, boxes, t)


def test_objects_that_count_come_before_ignored_ones() -> None:
    table = one_image([SQUARE, shifted(1)], [(SQUARE, 0.9), (SQUARE, 0.8)], ignore=[True, False])
    # 9/11 with the one that counts; the exact but ignored one is second choice, and above 0.8 first.
    assert table.tp()[:, 0].sum() == (THRESHOLDS <= 9 / 11).sum() and table.n_gt().tolist() == [1]
    assert table.ignored()[:, 0].tolist() == [False] * 7 + [True] * 3
    # What the ignored object takes in is neither right nor wrong; it takes one, so above 0.8 the second finds nothing.
    assert table.ignored()[:, 1].tolist() == [True] * 7 + [False] * 3 and not table.tp()[:, 1].any()


def test_a_crowd_takes_in_any_number() -> None:
    table = one_image([[0, 0, 100, 100]], [([0, 0, 10, 10], 0.9), ([50, 50, 10, 10], 0.8)], crowd=[True])
    assert table.ignored().all() and not table.tp().any() and table.n_gt().tolist() == [0]


def test_federated_labels() -> None:
    """Unlabelled: gone. Labelled absent: wrong. Not all labelled: ignored unless right. Nothing else changes."""
    gt = GroundTruth.of(
        [0], [0], [SQUARE], images=2, classes=3, absent=[[0, 1], [1, 0], [1, 1]], partial=[[0, 0], [1, 1], [1, 2]]
    )
    image, cls = [0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 2, 0, 1, 2]
    dt = Detections.of(gt, image, cls, np.linspace(0.9, 0.3, 7), [SQUARE] * 7)
    table = match_detections(gt, dt)
    found = {int(row): (bool(tp), bool(ig)) for row, tp, ig in zip(table.row, table.tp()[0], table.ignored()[0])}
    right, wrong, ignored = (True, False), (False, False), (False, True)
    assert found == {0: right, 1: ignored, 2: wrong, 4: wrong, 5: ignored}


def test_size_ranges_hold_both_ends() -> None:
    gt = GroundTruth.of([0], [0], [[0, 0, 32, 32]], images=1, classes=1)
    dt = Detections.of(gt, [0, 0], [0, 0], [0.9, 0.8], [[0, 0, 32, 32], [100, 100, 10, 10]])
    table = match_detections(gt, dt)
    assert [table.n_gt(area).tolist() for area in AREAS] == [[1], [1], [1], [0]]
    # A small false positive counts among small and all, and is ignored elsewhere.
    assert [bool(table.ignored(area)[0, 1]) for area in AREAS] == [False, False, True, True]
    assert [bool(table.tp(area)[0, 0]) for area in AREAS] == [True, True, True, False]
    assert bool(table.ignored("large")[0, 0])


def test_ties_rank_by_image_then_as_handed_in() -> None:
    gt = GroundTruth.of([0, 1], [0, 0], [SQUARE, SQUARE], images=2, classes=1)
    dt = Detections.of(gt, [1, 0, 1, 0], [0] * 4, [0.5] * 4, [SQUARE] * 4)
    assert match_detections(gt, dt).row.tolist() == [1, 3, 0, 2]


def test_caps_only_cut_rows_of_the_table() -> None:
    """Matching what a cap keeps gives the rows that the cap keeps of the matches of all."""
    rng = np.random.default_rng(3)
    gt = GroundTruth.of(
        rng.integers(3, size=20),
        rng.integers(2, size=20),
        rng.integers(0, 8, (20, 4)) + [0.0, 0, 8, 8],
        images=3,
        classes=2,
    )
    scores = rng.choice([0.1, 0.2, 0.3, 0.4], 80)
    boxes = rng.integers(0, 8, (80, 4)) + [0.0, 0, 8, 8]
    dt = Detections.of(gt, rng.integers(3, size=80), rng.integers(2, size=80), scores, boxes)
    table = match_detections(gt, dt)
    for keep in (top_per_image(dt, 9), top_per_class(dt, 15)):
        places = np.flatnonzero(keep)
        alone = match_detections(gt, dt.take(keep))
        kept = keep[table.row]
        assert places[alone.row].tolist() == table.row[kept].tolist()
        for area in AREAS:
            assert (alone.tp(area) == table.tp(area)[:, kept]).all()
            assert (alone.ignored(area) == table.ignored(area)[:, kept]).all()


def test_masks_go_by_the_overlap_that_is_given() -> None:
    """The same boxes through the masks' door give the same table, in images and classes handed over one at a time."""
    rng = np.random.default_rng(4)
    gt = GroundTruth.of(
        rng.integers(4, size=25), rng.integers(3, size=25), rng.integers(1, 9, (25, 4)).astype(float), images=4,
        classes=3, crowd=rng.random(25) < 0.2,
    )  # fmt: skip
    boxes = rng.integers(1, 9, (90, 4)).astype(float)
    dt = Detections.of(gt, rng.integers(4, size=90), rng.integers(3, size=90), rng.random(90).round(1), boxes)

    def overlap(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        assert len({*zip(dt.image[found], dt.cls[found]), *zip(gt.image[truth], gt.cls[truth])}) == 1
        return box_iou(dt.box[found][:, None], gt.box[truth][None], gt.crowd[truth])

    ours, theirs = match_detections(gt, dt), match_detections(gt, dt, overlap=overlap)
    assert (ours.near == theirs.near).all() and (ours.hit == theirs.hit).all() and (ours.row == theirs.row).all()


def test_nothing_found_and_nothing_to_find() -> None:
    gt = GroundTruth.of([], [], [], images=1, classes=2)
    none = Detections.of(gt, [], [], [], [])
    assert match_detections(gt, none).tp().shape == (10, 0)
    some = Detections.of(gt, [0], [1], [0.5], [SQUARE])
    assert not match_detections(gt, some).tp().any() and match_detections(gt, some).n_gt().tolist() == [0, 0]


def test_errors() -> None:
    gt = GroundTruth.of([0], [0], [SQUARE], images=1, classes=1)
    dt = Detections.of(gt, [0], [0], [0.5], [SQUARE])
    for wrong in ([], [0.0], [1.5]):
        with pytest.raises(GuerdonError, match="thresholds must lie in"):
            match_detections(gt, dt, thresholds=wrong)
    with pytest.raises(GuerdonError, match="did you mean 'medium'"):
        match_detections(gt, dt).tp("medum")

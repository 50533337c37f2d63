"""Objects and detections as arrays: what is refused, and which rows the caps keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.metrics.detection_sets import (
    Detections,
    GroundTruth,
    run_starts,
    stable_order,
    top_per_class,
    top_per_image,
    top_per_image_and_class,
)

GT = GroundTruth.of([0, 1], [0, 2], [[0, 0, 10, 10], [5, 5, 2, 4]], images=3, classes=3)


def detections(rows: list[tuple[int, int, float]]) -> Detections:
    image, cls, score = (list(column) for column in zip(*rows)) if rows else ([], [], [])
    return Detections.of(GT, np.array(image, int), np.array(cls, int), score, np.tile([0.0, 0, 1, 1], (len(rows), 1)))


def test_areas_and_flags() -> None:
    assert GT.area.tolist() == [100, 8] and not GT.ignore.any() and GT.absent is None and GT.partial.shape == (0, 2)
    crowd = GroundTruth.of([0], [0], [[0, 0, 1, 1]], images=1, classes=1, crowd=[True], area=[7])
    assert crowd.ignore.tolist() == [True] and crowd.area.tolist() == [7]
    assert GroundTruth.of([], [], [], images=1, classes=1).box.shape == (0, 4)


def test_caps_by_hand() -> None:
    dt = detections([(0, 0, 0.5), (0, 1, 0.9), (0, 0, 0.5), (1, 0, 0.1), (0, 0, 0.7), (1, 1, 0.2)])
    assert top_per_image(dt, 2).tolist() == [False, True, False, True, True, True]
    # Of equal scores the one handed in first stays.
    assert top_per_image(dt, 3).tolist() == [True, True, False, True, True, True]
    assert top_per_class(dt, 2).tolist() == [True, True, False, False, True, True]
    assert top_per_image_and_class(dt, 1).tolist() == [False, True, False, True, True, True]
    assert not top_per_image(dt, 0).any() and top_per_class(dt, 10).all()
    assert top_per_image(detections([]), 3).shape == (0,)


def test_a_file_sorted_upwards_keeps_its_best() -> None:
    """Not the first ones: a released script that stops at the cap in the order of the file gets this wrong."""
    dt = detections([(0, 0, score) for score in np.linspace(0, 1, 20)])
    assert np.flatnonzero(top_per_class(dt, 3)).tolist() == [17, 18, 19]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([0.1, 0.5, 0.9])), max_size=30),
    st.integers(0, 6),
)
def test_caps_are_those_of_sorting_each_group(rows: list, cap: int) -> None:
    dt = detections(rows)
    for keep, key in (
        (top_per_image(dt, cap), lambda row: row[0]),
        (top_per_class(dt, cap), lambda row: row[1]),
        (top_per_image_and_class(dt, cap), lambda row: row[:2]),
    ):
        groups: dict = {}
        for place, row in enumerate(rows):
            groups.setdefault(key(row), []).append(place)
        wanted = {p for places in groups.values() for p in sorted(places, key=lambda p: -rows[p][2])[:cap]}
        assert set(np.flatnonzero(keep)) == wanted


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**40), max_size=40))
def test_order_is_stable_at_any_width(codes: list[int]) -> None:
    values = np.array(codes, dtype=np.int64)
    assert stable_order(values).tolist() == np.argsort(values, kind="stable").tolist()
    ordered = np.sort(values)
    assert run_starts(ordered).tolist() == np.unique(ordered, return_index=True)[1].tolist()


def test_taking_and_rescoring() -> None:
    dt = detections([(0, 0, 0.5), (1, 1, 0.9)])
    assert dt.take(np.array([False, True])).score.tolist() == [0.9]
    assert dt.rescored([3, 4]).score.tolist() == [3, 4] and dt.score.tolist() == [0.5, 0.9]


def test_errors() -> None:
    box = [[0, 0, 1, 1]]
    with pytest.raises(GuerdonError, match="object 0: image 3 is not among the 3"):
        GroundTruth.of([3], [0], box, images=3, classes=1)
    with pytest.raises(GuerdonError, match="detection 0: class -1"):
        Detections.of(GT, [0], [-1], [0.5], box)
    with pytest.raises(GuerdonError, match="whole number"):
        GroundTruth.of([0.5], [0], box, images=3, classes=1)
    with pytest.raises(GuerdonError, match=r"box \[N, 4\]"):
        GroundTruth.of([0], [0], [[0, 0, 1]], images=1, classes=1)
    with pytest.raises(GuerdonError, match="not finite"):
        GroundTruth.of([0], [0], [[0, 0, np.nan, 1]], images=1, classes=1)
    with pytest.raises(GuerdonError, match="score is nan"):
        Detections.of(GT, [0], [0], [np.nan], box)
    with pytest.raises(GuerdonError, match="as many scores"):
        Detections.of(GT, [0], [0], [0.1, 0.2], box)
    with pytest.raises(GuerdonError, match="as many scores"):
        detections([(0, 0, 0.5)]).rescored([1, 2])
    with pytest.raises(GuerdonError, match="as many areas"):
        GroundTruth.of([0], [0], box, images=1, classes=1, area=[1, 2])
    with pytest.raises(GuerdonError, match="as many flags"):
        GroundTruth.of([0], [0], box, images=1, classes=1, ignore=[True, False])
    with pytest.raises(GuerdonError, match="absent"):
        GroundTruth.of([0], [0], box, images=1, classes=1, absent=[[1, 0]])
    with pytest.raises(GuerdonError, match="at least 0"):
        top_per_image(detections([]), -1)

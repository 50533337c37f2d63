from __future__ import annotations

import math

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.text_diversity import commonest_tail, commonest_tail_share, distinct_n


def test_distinct_n_by_hand() -> None:
    texts = ["the cat sat", "The cat ran."]
    assert distinct_n(texts, 1) == pytest.approx(4 / 6)
    assert distinct_n(texts, 2) == pytest.approx(3 / 4)
    assert distinct_n(texts, 3) == 1.0
    assert math.isnan(distinct_n(texts, 4))
    assert math.isnan(distinct_n([], 1))
    assert distinct_n(["cat sat", "sat cat"], 2) == 1.0  # no bigram crosses from one text to the next


def test_commonest_tail_finds_the_collapsed_camera_name() -> None:
    texts = ["a dog, snapshot, file IMG_1018.", "a red house. Snapshot, file img_1018", "a cat in the sun"]
    assert commonest_tail(texts, 3) == ("snapshot file img_1018", pytest.approx(2 / 3))
    assert commonest_tail_share(texts, 1) == pytest.approx(2 / 3)
    assert commonest_tail_share(texts, 9) == pytest.approx(1 / 3)
    assert commonest_tail_share(["one", "one", "", ""], 5) == 0.5
    assert math.isnan(commonest_tail_share([]))


def test_errors() -> None:
    with pytest.raises(GuerdonError, match="n must be at least 1"):
        distinct_n(["a"], 0)
    with pytest.raises(GuerdonError, match="list of strings"):
        commonest_tail_share("one string")

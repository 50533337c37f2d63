"""How many neighbours a pair calls for, and which."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.curation.attributes import Attributes
from guerdon.curation.retrieval import PairRetriever, adaptive_k, retrieval_text


def asking(text: str) -> Pair:
    return Pair([{"role": "user", "content": text}], *[[{"role": "assistant", "content": t}] for t in "xy"])


def angles(texts: list[str]) -> np.ndarray:
    """A text is an angle in degrees."""
    degrees = np.deg2rad([float(text.split("\n")[0].removeprefix("user: ")) for text in texts])
    return np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("p", "k"), [(0.0, 8), (0.5, 8), (0.51, 4), (0.6, 4), (0.75, 2), (0.9, 1), (0.99, 1), (1.0, 0)]
)
def test_unit_facts(p: float, k: int) -> None:
    assert adaptive_k(p) == k


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 20))
def test_more_confidence_never_calls_for_more(p: float, q: float, k_max: int) -> None:
    low, high = min(p, q), max(p, q)
    assert k_max >= adaptive_k(low, k_max) >= adaptive_k(high, k_max) >= 0


def test_rounding_errors_do_not_count() -> None:
    assert adaptive_k(0.7, 10) == 3 and adaptive_k(0.8, 10) == 2 and adaptive_k(0.9, 10) == 1
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="probability"):
            adaptive_k(bad)
    with pytest.raises(ValueError, match="k_max"):
        adaptive_k(0.5, -1)


def test_nearest_first_and_as_many_as_asked() -> None:
    retriever = PairRetriever(angles).fit([asking(str(angle)) for angle in (0, 10, 20, 90, 180)])
    queries = [asking("11"), asking("179"), asking("1")]
    assert retriever.nearest(queries, [2, 1, 0]) == [[1, 2], [4], []]
    assert retriever.nearest(queries, 9)[0] == [1, 2, 0, 3, 4]
    assert retriever.nearest(queries, 0) == [[], [], []] and retriever.nearest([], 3) == []
    among = np.array([True, False, False, True, False])
    assert retriever.nearest(queries, [2, 1, 3], among=among) == [[0, 3], [3], [0, 3]]
    assert retriever.nearest(queries, 2, among=np.zeros(5, bool)) == [[], [], []]


def test_metric_is_the_users() -> None:
    def lengths(texts: list[str]) -> np.ndarray:
        return np.array([[float(text.removeprefix("user: ")), 1.0] for text in texts])

    pool = [asking(text) for text in ("1", "10", "4")]
    assert PairRetriever(lengths, "euclidean").fit(pool).nearest([asking("3")], 1) == [[2]]


def test_attributes_are_part_of_what_is_embedded() -> None:
    seen: list[str] = []

    def embed(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.ones((len(texts), 2))

    known = Attributes("coding", "high", "low", ("runs",), "Run it.")
    PairRetriever(embed).fit([asking("0"), asking("1")], [known, None])
    assert seen == ["user: 0\ncoding (objectivity high, controversiality low). runs. Run it.", "user: 1"]
    assert retrieval_text(asking("1")) == "user: 1"  # neither answer: a label must not be found by its words


def test_errors() -> None:
    with pytest.raises(GuerdonError, match="call fit"):
        PairRetriever(angles).nearest([asking("1")], 1)
    retriever = PairRetriever(angles).fit([asking("0")])
    with pytest.raises(GuerdonError, match="1 pairs need as many k; got 2"):
        retriever.nearest([asking("1")], [1, 2])
    with pytest.raises(GuerdonError, match="among"):
        retriever.nearest([asking("1")], 1, among=np.ones(3, bool))
    with pytest.raises(GuerdonError, match="as many attributes"):
        retriever.nearest([asking("1")], 1, [None, None])
    with pytest.raises(GuerdonError, match="finite"):
        PairRetriever(lambda texts: np.full((len(texts), 2), np.nan)).fit([asking("0")])

"""ConvexDA: corners of a hull, variants of answers, labels that stay."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.dialogues import embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, text_of
from guerdon.curation.convex import ConvexDA, SpellingNoise, Synonyms, hull_vertices
from guerdon.models.embedding import HashingEmbedder


def test_corners_of_a_square_and_not_its_middle() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]])
    assert hull_vertices(square) == [0, 1, 2, 3]
    # In more dimensions, of which two carry the square.
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0][:2]
    assert hull_vertices(3 * square @ turned + 7) == [0, 1, 2, 3]


def test_where_qhull_fails() -> None:
    assert hull_vertices(np.ones((5, 4))) == [0]
    assert hull_vertices([[0.0, 0.0], [2.0, 2.0], [1.0, 1.0], [3.0, 3.0]]) == [0, 3]  # on one line: its ends
    assert hull_vertices([[0.0], [1.0], [0.4]]) == [0, 1]
    assert hull_vertices([[1.0, 2.0, 3.0]]) == [0]
    assert hull_vertices([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]) == [0, 1]
    with pytest.raises(ValueError, match=r"\[n, d\]"):
        hull_vertices(np.zeros((0, 3)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_no_direction_reaches_beyond_the_corners(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(8, 2))
    corners = hull_vertices(points)
    directions = rng.normal(size=(50, 2))
    assert ((points @ directions.T).argmax(0)[:, None] == np.array(corners)).any(1).all()


def named(text: str, rng: np.random.Generator) -> str:
    return f"{text} v{rng.integers(1000)}"


def test_one_replaces_the_answer_and_all_stand_beside_it() -> None:
    pairs = embedded_pairs(20, 0)
    one = ConvexDA(named, HashingEmbedder())(pairs)
    assert len(one) == len(pairs)
    for before, after in zip(pairs, one):
        assert after.prompt == before.prompt and after.row == before.row
        for side in ("chosen", "rejected"):
            assert re.fullmatch(re.escape(text_of(getattr(before, side))) + r" v\d+", text_of(getattr(after, side)))
    everything = ConvexDA(named, HashingEmbedder(), keep="all")(pairs[:1])
    assert everything[0] == pairs[0] and len(everything) > 2
    variants = [text_of(pair.chosen) for pair in everything[1:]]
    assert len(set(variants)) > 1  # each corner, not one of them so many times
    assert one[0].chosen[0]["content"] in variants


def test_the_one_that_is_kept_is_least_like_the_original() -> None:
    def embed(texts: list[str]) -> np.ndarray:
        turns = {"x": 0.0, "a": 0.1, "b": 0.9, "c": -0.3}
        return np.array([[np.cos(turns[text]), np.sin(turns[text])] for text in texts])

    drawn = iter("abcab")
    corners = ConvexDA(lambda text, rng: next(drawn), embed).corners(["x"])
    assert corners[0][0] == "b"


def test_chosen_alone_and_answers_that_cannot_change() -> None:
    pairs = embedded_pairs(5, 0)
    for before, after in zip(pairs, ConvexDA(named, HashingEmbedder(), sides="chosen")(pairs)):
        assert after.rejected == before.rejected and after.chosen != before.chosen
    same = ConvexDA(lambda text, rng: text, HashingEmbedder(), keep="all")(pairs)
    assert same == pairs
    assert ConvexDA(lambda text, rng: text, HashingEmbedder())(pairs) == pairs
    # A variant must not make the two answers equal.
    pair = Pair([], [{"role": "assistant", "content": "p"}], [{"role": "assistant", "content": "q"}])
    assert ConvexDA(lambda text, rng: "z", HashingEmbedder())([pair]) == [pair]


def test_the_same_seed_the_same_variants_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = embedded_pairs(12, 0)
    first = ConvexDA(SpellingNoise(0.3), HashingEmbedder(), seed=4)(pairs)
    monkeypatch.setattr("guerdon.curation.convex._PAIRS_A_PASS", 5)
    assert ConvexDA(SpellingNoise(0.3), HashingEmbedder(), seed=4)(pairs) == first
    assert ConvexDA(SpellingNoise(0.3), HashingEmbedder(), seed=5)(pairs) != first


def test_spelling_noise_changes_at_most_its_share() -> None:
    text = " ".join(["kettle, Ladder (broom) needle of an"] * 20)  # 120 words
    rng = np.random.default_rng(0)
    for _ in range(20):
        noisy = SpellingNoise()(text, rng)
        changed = [(a, b) for a, b in zip(text.split(), noisy.split(), strict=True) if a != b]
        assert 1 <= len(changed) <= 6
        assert all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in changed)
    assert SpellingNoise()("an old map", rng) == "an old map"  # no word of four letters
    assert sum(SpellingNoise()("A kettle", rng) != "A kettle" for _ in range(20)) > 10


def test_synonyms_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "alike.txt"
    path.write_text("kettle, pot, boiler\n\nold, ancient\n")
    rng = np.random.default_rng(0)
    made = {Synonyms(path, share=1.0)("The  Kettle, (old).", rng) for _ in range(30)}
    assert made == {"The  Pot, (ancient).", "The  Boiler, (ancient)."}
    assert Synonyms(path)("nothing known", rng) == "nothing known"
    path.write_text("kettle, pot\nalone\n")
    with pytest.raises(GuerdonError, match="alike.txt:2: a line names two or more"):
        Synonyms(path)
    with pytest.raises(GuerdonError, match="no file of synonyms"):
        Synonyms(tmp_path / "no.txt")


def test_refusals() -> None:
    with pytest.raises(GuerdonError, match="at least 1 variant"):
        ConvexDA(named, HashingEmbedder(), n=0)
    with pytest.raises(GuerdonError, match="'one' or 'all'"):
        ConvexDA(named, HashingEmbedder(), keep="two")  # type: ignore[arg-type]
    for share in (0.0, 1.5):
        with pytest.raises(GuerdonError, match="must lie in"):
            SpellingNoise(share)

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
from guerdon.curation.convex import ConvexDA, hull_vertices, load_synonyms, misspelt, with_synonyms, without_words
from guerdon.models.embedding import HashingEmbedder


def test_corners_of_a_square_and_not_its_middle() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]])
    assert hull_vertices(square) == [0, 1, 2, 3]
    # In more dimensions, of which two carry the square.
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0][:, :2].T
    assert hull_vertices(3 * square @ turned + 7) == [0, 1, 2, 3]


def test_a_hull_without_area() -> None:
    assert hull_vertices(np.ones((5, 4))) == [0]
    assert hull_vertices([[0.0, 0.0], [2.0, 2.0], [1.0, 1.0], [3.0, 3.0]]) == [0, 3]  # on one line: its ends
    assert hull_vertices([[0.0], [1.0], [0.4]]) == [0, 1]
    assert hull_vertices([[1.0, 2.0, 3.0]]) == [0]
    assert hull_vertices([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]) == [0, 1]
    for bad in (np.zeros((0, 3)), np.zeros(3), np.full((3, 2), np.nan)):
        with pytest.raises(ValueError, match=r"\[N, d\]"):
            hull_vertices(bad)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_no_direction_reaches_beyond_the_corners(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(8, 2))
    furthest = (points @ rng.normal(size=(50, 2)).T).argmax(0)
    assert set(furthest.tolist()) <= set(hull_vertices(points))


def numbered(text: str, rng: np.random.Generator) -> str:
    return f"{text} v{rng.integers(1000)}"


def test_one_replaces_the_answer() -> None:
    pairs = embedded_pairs(20, 0)
    made = ConvexDA(numbered, HashingEmbedder()).augmented(pairs)
    assert len(made) == len(pairs)
    for before, after in zip(pairs, made):
        assert after.prompt == before.prompt and after.row == {**before.row, "augmented": ["chosen", "rejected"]}
        for side in ("chosen", "rejected"):
            assert re.fullmatch(re.escape(text_of(getattr(before, side))) + r" v\d+", text_of(getattr(after, side)))


def test_all_stand_beside_it_each_corner_once() -> None:
    pair = embedded_pairs(1, 0)[0]
    original, *varied = ConvexDA(numbered, HashingEmbedder(), keep="all", side="chosen").augmented([pair])
    assert original == pair and all(one.rejected == pair.rejected for one in varied)
    answers = [text_of(one.chosen) for one in varied]
    assert len(set(answers)) == len(answers) > 1
    assert ConvexDA(numbered, HashingEmbedder())(text_of(pair.chosen)) == answers[:1]
    both = ConvexDA(numbered, HashingEmbedder(), keep="all").augmented([pair])
    assert [one.row["augmented"] for one in both[1:]].count(["chosen"]) == len(answers) < len(both) - 1


def test_the_furthest_from_the_original_comes_first() -> None:
    turns = {"x": 0.0, "a": 0.1, "b": 0.9, "c": -0.3}

    def embed(texts: list[str]) -> np.ndarray:
        return np.array([[np.cos(turns[text]), np.sin(turns[text])] for text in texts])

    drawn = iter("abcabxabca")
    augment = lambda text, rng: next(drawn)  # noqa: E731
    assert ConvexDA(augment, embed, keep="all")("x") == ["b", "c", "a"]
    assert ConvexDA(augment, embed)("x") == ["b"]


def test_answers_that_no_variant_differs_from_stay() -> None:
    pairs = embedded_pairs(5, 0)
    for keep in ("one", "all"):
        assert ConvexDA(lambda text, rng: text, keep=keep).augmented(pairs) == pairs  # type: ignore[arg-type]
    pair = Pair([], [{"role": "assistant", "content": "p"}], [{"role": "assistant", "content": "q"}])
    (made,) = ConvexDA(lambda text, rng: "z").augmented([pair])
    assert made.chosen != made.rejected


def test_the_same_seed_and_text_the_same_variants() -> None:
    pairs = embedded_pairs(12, 0)
    first = ConvexDA(seed=4).augmented(pairs)
    assert ConvexDA(seed=4).augmented(pairs[5:]) == first[5:]
    assert ConvexDA(seed=5).augmented(pairs) != first


def test_spelling_noise_changes_at_most_a_twentieth_of_a_long_text() -> None:
    text = " ".join(["kettle, Ladder (broom) needle of an"] * 20)  # 120 words
    rng = np.random.default_rng(0)
    for _ in range(20):
        changed = [(a, b) for a, b in zip(text.split(), misspelt(text, rng).split(), strict=True) if a != b]
        assert 1 <= len(changed) <= 6 and all(sorted(a) == sorted(b) for a, b in changed)
    assert misspelt("an aaa", rng) == "an aaa" and misspelt("A kettle", rng) != "A kettle"
    assert len(without_words(text, rng).split()) >= 114 and without_words("alone", rng) == "alone"
    with pytest.raises(GuerdonError, match="must lie in"):
        misspelt("kettle", rng, share=0.0)


def test_synonyms_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "alike.txt"
    path.write_text("kettle\tpot, boiler\n\nold\tancient\n")
    augment, rng = with_synonyms(load_synonyms(path), share=1.0), np.random.default_rng(0)
    made = {augment("The  Kettle, (old).", rng) for _ in range(30)}
    assert made == {"The  Pot, (ancient).", "The  Boiler, (ancient)."}
    assert augment("nothing known", rng) == "nothing known"
    path.write_text("kettle\tpot\nalone\n")
    with pytest.raises(GuerdonError, match="alike.txt:2: expected a word"):
        load_synonyms(path)
    with pytest.raises(GuerdonError, match="cannot read synonyms"):
        load_synonyms(tmp_path / "no.txt")


def test_refusals() -> None:
    with pytest.raises(GuerdonError, match="at least 1 variant"):
        ConvexDA(n=0)
    with pytest.raises(GuerdonError, match="did you mean 'one'"):
        ConvexDA(keep="ones")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="unknown side"):
        ConvexDA(side="left")  # type: ignore[arg-type]

"""Labels by judges who are shown what people said of similar pairs; a person's labels; the ceiling on failures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair
from guerdon.curation.attributes import Attributes
from guerdon.curation.committee import JudgeCommittee
from guerdon.curation.labelling import AttributeBook, Ceiling, Labeller, Person
from guerdon.curation.retrieval import PairRetriever


def pair(number: float, **row: Any) -> Pair:
    sides = [[{"role": "assistant", "content": text}] for text in ("good", "bad")]
    return Pair([{"role": "user", "content": str(number)}], *sides, row=row)


def line(texts: list[str]) -> np.ndarray:
    return np.array([[float(text.split("\n")[0].removeprefix("user: ")), 0.0] for text in texts])


class Judge:
    deterministic = True

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, list[str]]] = []

    def __call__(self, prompt: Any, a: Any, b: Any, *, guideline: Any, examples: Sequence[Pair], rng: Any) -> str:
        self.seen.append((prompt[0]["content"], guideline, [one.prompt[0]["content"] for one in examples]))
        return "a" if a[0]["content"] == "good" else "b"


def described(one: Pair) -> Attributes:
    return Attributes("c", "high", "low", ("d",), f"about {one.prompt[0]['content']}")


def test_judges_see_as_many_similar_examples_as_the_models_error_calls_for() -> None:
    judge, ceiling = Judge(), Ceiling(0.1)
    labeller = Labeller(
        JudgeCommittee([judge]), PairRetriever(line, "euclidean"), AttributeBook(described, None, ceiling), ceiling,
        k_max=4,
    )  # fmt: skip
    labeller.learn([pair(number) for number in range(10)])
    found = labeller([pair(0.2), pair(7.2), pair(5.2)], np.array([0.3, 0.6, 1.0]))
    assert [one.vote.winner for one in found] == ["a", "a", "a"]
    assert (
        judge.seen[::2]
        == judge.seen[1::2]
        == [
            ("0.2", "A good answer is: d. about 0.2", ["0", "1", "2", "3"]),
            ("7.2", "A good answer is: d. about 7.2", ["7", "8"]),
            ("5.2", "A good answer is: d. about 5.2", []),
        ]
    )
    assert found[0].attributes == described(pair(0.2)).to_json()


def test_examples_bring_their_own_attributes() -> None:
    shown: list[Pair] = []

    def judge(prompt: Any, a: Any, b: Any, *, guideline: Any, examples: Sequence[Pair], rng: Any) -> None:
        shown.extend(examples)

    ceiling = Ceiling(0.1)
    book = AttributeBook(described, None, ceiling)
    labeller = Labeller(JudgeCommittee([judge], 2), PairRetriever(line, "euclidean"), book, ceiling)
    labeller.learn([pair(1, source="x")])
    labeller([pair(2)], np.array([0.0]))
    assert shown[0].row == {"source": "x", "attributes": described(pair(1)).to_json()}


def test_a_pairs_own_attributes_go_first(tmp_path: Path) -> None:
    asked: list[Pair] = []

    def generator(one: Pair) -> Attributes | Failed:
        asked.append(one)
        return Failed("no") if one == pair(2) else described(one)

    own = described(pair(99))
    book = AttributeBook(generator, tmp_path / "a.jsonl", Ceiling(0.5))  # type: ignore[arg-type]
    given = [pair(1), pair(2), pair(3, attributes=own.to_json()), pair(1)]
    assert book(given) == [described(pair(1)), None, own, described(pair(1))] and asked == [pair(1), pair(2)]
    stored = [json.loads(row) for row in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["attributes"] is None for row in stored] == [False, True] and stored[1]["cause"] == "no"
    assert AttributeBook(None, tmp_path / "a.jsonl", Ceiling(0.5))([pair(1)]) == [None]  # no generator, no attributes
    asked.clear()
    assert AttributeBook(generator, tmp_path / "a.jsonl", Ceiling(0.5))(given)[:2] == [described(pair(1)), None]  # type: ignore[arg-type]
    assert not asked


def test_a_person_is_asked_once_in_random_order() -> None:
    firsts: list[str] = []

    def person(prompt: Any, a: Any, b: Any, *, guideline: Any, rng: Any) -> str:
        firsts.append(a[0]["content"])
        return "a" if a[0]["content"] == "good" else "b"

    asked = Person(person, AttributeBook(described, None, Ceiling(0.1)), seed=0)  # type: ignore[arg-type]
    votes = [asked(pair(number)).vote for number in range(20)]
    assert all(vote.winner == "a" for vote in votes) and len(firsts) == 20 and set(firsts) == {"good", "bad"}
    assert all((vote.ballots[0].a, vote.ballots[0].b) == (1, 0) for vote in votes)
    assert asked(pair(3).swapped()).vote.winner == "b"
    first = Person(lambda *given, **options: "a", asked.book, seed=0)  # type: ignore[arg-type]
    assert {first(pair(number)).vote.winner for number in range(20)} == {"a", "b"}
    lost = Person(lambda *given, **options: Failed("asleep", kind="unavailable"), asked.book, seed=0)(pair(1))  # type: ignore[arg-type]
    assert lost.vote.winner is None and isinstance(lost.vote.failure, Failed) and lost.vote.tally["failed"] == 1
    unsure = Person(lambda *given, **options: None, asked.book, seed=0)(pair(1))  # type: ignore[arg-type]
    assert unsure.vote.winner is None and unsure.vote.failure is None and unsure.vote.tally["abstained"] == 1


def test_the_ceiling_is_on_recent_attempts() -> None:
    failed = Failed("down")
    ceiling = Ceiling(0.1)
    ceiling.count("x", [failed] * 19)  # too few to tell
    with pytest.raises(GuerdonError, match="x: 19 of the last 20 attempts failed; the last: down"):
        ceiling.count("x", [None])
    ceiling = Ceiling(0.1)
    ceiling.count("x", [None] * 5000)
    ceiling.count("x", [failed] * 20)
    with pytest.raises(GuerdonError, match="21 of the last 200"):
        ceiling.count("x", [failed])

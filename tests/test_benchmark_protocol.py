"""Every row is asked once, kept as it comes, and taken up again; a file of another run is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from guerdon.benchmarks.protocol import ROWS, Question, ranks_only, run_rows
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import text_of
from guerdon.rewards.outcomes import Outcomes


class Counting:
    """Scores by the length of the answer; counts what it is asked; fails where it is told to."""

    modes = frozenset({"score"})

    def __init__(self, *, at_once: int = 2, stop_after: int | None = None, identity: str = "length@1#0") -> None:
        self.name, self.identity, self.rows_at_once = "length", identity, at_once
        self.asked: list[str] = []
        self.calls: list[int] = []
        self.stop_after, self.columns = stop_after, {}  # type: ignore[var-annotated]
        self.away = False

    def score(self, conversations: Sequence[Any], *, columns: Any = None, progress: Any = None) -> Outcomes:
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(len(conversations))
        self.columns = columns
        texts = [text_of(one[-1:]) for one in conversations]
        self.asked += texts
        problems = {row: "unparsable: nonsense" for row, text in enumerate(texts) if "nonsense" in text}
        if self.away:
            problems |= {row: "failed: away" for row in range(len(texts))}
        return Outcomes(np.array([float(len(text)) for text in texts]), problems)


class Choosing:
    """Names the longest of the answers that it is shown."""

    name, identity, modes = "chooser", "chooser@1#0", frozenset({"rank"})

    def rank(self, prompts: Any, answers: Sequence[Sequence[str]], **ignored: Any) -> Outcomes:
        self.shown = [list(some) for some in answers]
        return Outcomes(np.array([float(np.argmax([len(one) for one in some])) for some in answers]))


def questions(count: int = 5, **changes: Any) -> list[Question]:
    prompt = [{"role": "user", "content": "Say something."}]
    return [
        Question(str(row), prompt, ("a" * (row + 1), "b" * 3), subset="x", **changes) for row in range(count)
    ]  # fmt: skip


def test_each_answer_has_its_score_in_its_place() -> None:
    found = run_rows(Counting(), questions(), benchmark="toy", progress=False)
    assert [list(one.values) for one in found] == [[row + 1, 3] for row in range(5)]
    assert all(one.complete and one.choice is None for one in found)


def test_the_subject_is_told_the_columns_of_each_answer() -> None:
    subject = Counting(at_once=9)
    rows = questions(2)
    rows[1] = Question("1", rows[1].prompt, rows[1].answers, "x", {"solution": "4"})
    run_rows(subject, rows, benchmark="toy", progress=False)
    assert subject.columns["row_id"] == ["0", "0", "1", "1"] and subject.columns["answer_index"] == [0, 1, 0, 1]
    assert subject.columns["answer_count"] == [2] * 4 and subject.columns["group_ids"] == [0, 0, 1, 1]
    assert subject.columns["solution"] == [None, None, "4", "4"] and subject.columns["subset"] == ["x"] * 4


def test_a_run_goes_on_where_it_was_stopped_and_asks_nothing_twice(tmp_path: Any) -> None:
    whole = run_rows(Counting(), questions(), benchmark="toy", progress=False)
    with pytest.raises(KeyboardInterrupt):
        run_rows(Counting(stop_after=1), questions(), tmp_path, benchmark="toy", progress=False)
    again = Counting()
    found = run_rows(again, questions(), tmp_path, benchmark="toy", progress=False)
    assert again.calls == [4, 2]  # rows 2 and 3, then row 4: the blocks of the first run
    assert [list(one.values) for one in found] == [list(one.values) for one in whole]
    silent = Counting()
    run_rows(silent, questions(), tmp_path, benchmark="toy", progress=False)
    assert silent.calls == []


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Any) -> None:
    run_rows(Counting(), questions(), tmp_path, benchmark="toy", progress=False)
    file = tmp_path / ROWS
    file.write_bytes(file.read_bytes()[:-10])
    again = Counting()
    found = run_rows(again, questions(), tmp_path, benchmark="toy", progress=False)
    assert again.calls == [2] and found[4].values.tolist() == [5, 3]
    assert len(file.read_text().splitlines()) == 6


def test_failures_are_asked_again_and_nonsense_is_not(tmp_path: Any) -> None:
    rows = questions(3)
    rows[0] = Question("0", rows[0].prompt, ("nonsense", "b"), "x")
    subject = Counting()
    subject.away = True
    found = run_rows(subject, rows, tmp_path, benchmark="toy", progress=False)
    assert all("failed" in one.kinds() for one in found)
    back = Counting()
    found = run_rows(back, rows, tmp_path, benchmark="toy", progress=False)
    assert sum(back.calls) == 6 and found[0].problems == {0: "unparsable: nonsense"} and found[1].complete
    assert not found[0].complete and np.isnan(found[0].values[0]) and found[0].values[1] == 1
    last = Counting()
    assert run_rows(last, rows, tmp_path, benchmark="toy", progress=False)[0].kinds() == ["unparsable"]
    assert last.calls == []


def test_a_file_of_something_else_is_refused(tmp_path: Any) -> None:
    run_rows(Counting(), questions(), tmp_path, benchmark="toy", settings={"seed": 0}, progress=False)
    with pytest.raises(GuerdonError, match="results by 'length@1#0', not 'other@1#1'"):
        run_rows(Counting(identity="other@1#1"), questions(), tmp_path, benchmark="toy", settings={"seed": 0})
    with pytest.raises(GuerdonError, match="another settings"):
        run_rows(Counting(), questions(), tmp_path, benchmark="toy", settings={"seed": 1})
    changed = questions()
    changed[3] = Question("3", changed[3].prompt, ("other words", "b"), "x")
    with pytest.raises(GuerdonError, match="another row of id '3'"):
        run_rows(Counting(), changed, tmp_path, benchmark="toy", settings={"seed": 0})
    (tmp_path / ROWS).write_text("not json\n")
    with pytest.raises(GuerdonError, match="rows.jsonl:1 is not a row of results"):
        run_rows(Counting(), questions(), tmp_path, benchmark="toy")


def test_a_smaller_run_grows(tmp_path: Any) -> None:
    run_rows(Counting(), questions(2), tmp_path, benchmark="toy", progress=False)
    more = Counting()
    run_rows(more, questions(5), tmp_path, benchmark="toy", progress=False)
    assert sum(more.calls) == 6
    assert len(run_rows(Counting(), questions(2), tmp_path, benchmark="toy", progress=False)) == 2


def test_a_choice_names_the_answer_and_not_the_place(tmp_path: Any) -> None:
    subject = Choosing()
    rows = [Question("0", [], ("bb", "a", "cccc"), order=(2, 1, 0)), Question("1", [], ("bb", "a"), order=(1, 0))]
    found = run_rows(subject, rows, tmp_path, benchmark="toy", progress=False)
    assert subject.shown == [["cccc", "a", "bb"], ["a", "bb"]]
    assert [one.choice for one in found] == [2, 0] and np.isnan(found[0].values).all()
    kept = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    assert kept[1]["order"] == [2, 1, 0] and kept[1]["choice"] == 2
    assert [one.choice for one in run_rows(subject, rows, tmp_path, benchmark="toy")] == [2, 0]
    assert ranks_only(subject) and not ranks_only(Counting())


def test_a_choice_that_cannot_be_read_is_a_problem_of_the_row() -> None:
    class Mute(Choosing):
        def rank(self, prompts: Any, answers: Any, **ignored: Any) -> Outcomes:
            return Outcomes(np.array([np.nan]), {0: "unparsable: silence"}, {0: {"reply": "..."}})

    found = run_rows(Mute(), [Question("0", [], ("a", "b"), order=(0, 1))], benchmark="toy", progress=False)[0]
    assert found.choice is None and found.problems == {-1: "unparsable: silence"}
    assert found.details == {-1: {"reply": "..."}}


def test_what_scores_cannot_be_asked_to_rank_and_ids_are_unique() -> None:
    with pytest.raises(GuerdonError, match="cannot be asked to rank"):
        run_rows(Counting(), [Question("0", [], ("a", "b"), order=(0, 1))], benchmark="toy", progress=False)
    with pytest.raises(GuerdonError, match="two rows have the id '0'"):
        run_rows(Counting(), [*questions(1), *questions(1)], benchmark="toy")


def test_a_subject_that_loses_rows_is_a_bug_that_is_said() -> None:
    class Short(Counting):
        def score(self, conversations: Any, *, columns: Any = None, progress: Any = None) -> Outcomes:
            return Outcomes(np.zeros(1))

    with pytest.raises(GuerdonError, match="1 outcomes for 4 rows"):
        run_rows(Short(), questions(2), benchmark="toy", progress=False)

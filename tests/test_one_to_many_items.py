"""Both layouts of solutions become items, and what does not fit is named or counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guerdon.benchmarks.one_to_many_items import load_one_to_many, rendered_steps
from guerdon.core.errors import GuerdonError

REAL = Path(__file__).parents[2] / "shared" / "data" / "gsm8k" / "model_solutions.jsonl.gz"


def published(problem: str, kind: str, steps: Any, **more: Any) -> dict[str, Any]:
    return {"problem": problem, "eval_solution": steps, "solution_type": kind, **more}


def written(tmp_path: Path, rows: list[Any], name: str = "rows.json") -> Path:
    path = tmp_path / name
    lines = name.endswith("jsonl")
    path.write_text("\n".join(json.dumps(row) for row in rows) if lines else json.dumps(rows), encoding="utf-8")
    return path


def test_published_rows(tmp_path: Path) -> None:
    rows = [
        published("1 + 1?", "rejected", ["It is 3."], subject="Algebra", answer="2", solution_reference="m"),
        published("1 + 1?", "chosen", ["Add.", "It is 2."], subject="Algebra", answer="2", solution_reference="h"),
        published("2 + 2?", "chosen", ["It is 4."]),
        published("2 + 2?", "rejected", ["It is 5.", "No."]),
    ]
    for name in ("rows.json", "rows.jsonl"):
        found = load_one_to_many(written(tmp_path, rows, name))
        assert found.published and len(found) == 2 and not found.left_out
        first, second = found.items
        assert first.prompt == [{"role": "user", "content": "1 + 1?"}]
        assert first.answers == ("1. Add.\n2. It is 2.", "1. It is 3.") and first.places == (1, 0)
        assert (first.subset, first.solution, first.tags, first.compared) == ("Algebra", "2", ("h", "m"), [0, 1])
        assert second.steps == (("It is 4.",), ("It is 5.", "No.")) and second.subset == "all"
    assert rendered_steps(["a", "b"]) == "1. a\n2. b"


def rated(name: int, label: Any, text: str = "x", **more: Any) -> dict[str, Any]:
    return {"prompt": f"question {name}", "completion": text, "label": label, "question_id": name, **more}


def test_rated_rows(tmp_path: Path) -> None:
    rows = [
        rated(0, False, "a"), rated(0, True, "b", answer="18", model="small"), rated(0, True, "c"),
        rated(0, False, "d"), rated(1, True), rated(1, True), rated(2, False),
    ]  # fmt: skip
    found = load_one_to_many(written(tmp_path, rows, "rows.jsonl"))
    (item,) = found.items
    assert not found.published and dict(found.left_out) == {"no wrong solution": 1, "no right solution": 1}
    assert item.answers == ("b", "c", "a", "d") and item.right == 2 and item.places == (1, 2, 0, 3)
    assert item.solution == "18" and item.tags[0] == "small" and [one.id for one in found.one_sided] == ["1", "2"]
    assert item.compared in ([0, 2, 3], [1, 2, 3])
    drawn = {load_one_to_many(tmp_path / "rows.jsonl", seed=seed).items[0].correct for seed in range(12)}
    assert drawn == {0, 1}


def test_problems_are_told_apart_by_id_and_else_by_text(tmp_path: Path) -> None:
    rows = [published("p", kind, "x", problem_id=number) for number in (0, 1) for kind in ("chosen", "rejected")]
    assert len(load_one_to_many(written(tmp_path, rows))) == 2
    for row in rows:
        del row["problem_id"]
    assert len(load_one_to_many(written(tmp_path, rows))) == 1


@pytest.mark.parametrize(
    "bad, said",
    [
        (published("p", "best", "x"), "chosen or rejected, got 'best'"),
        (published("p", "chosen", [1]), "list of steps"),
        (published("p", "chosen", []), "missing or empty"),
        ({"problem": "p"}, "missing or empty"),
        ("text", "a row is an object"),
    ],
)
def test_rows_that_do_not_fit_are_named_together(tmp_path: Path, bad: Any, said: str) -> None:
    good = [published("p", "chosen", "x"), published("p", "rejected", "y")]
    path = written(tmp_path, [*good, bad, *good])
    with pytest.raises(GuerdonError, match=f"rows.json:3: .*{said}"):
        load_one_to_many(path)
    assert len(load_one_to_many(path, skip_bad_rows=True, out=tmp_path)) == 1
    assert "rows.json:3" in (tmp_path / "bad_rows.jsonl").read_text()


def test_texts_instead_of_lists_of_steps(tmp_path: Path) -> None:
    rows = [published("p", "chosen", "It is 4."), published("p", "rejected", "It is 5.\n\nNo.")]
    (item,) = load_one_to_many(written(tmp_path, rows)).items
    assert item.answers[1] == "It is 5.\n\nNo." and item.steps == (("It is 4.",), ("It is 5.", "No."))


@pytest.mark.parametrize("label", ["yes", 2, None])
def test_labels_are_true_or_false(tmp_path: Path, label: Any) -> None:
    with pytest.raises(GuerdonError, match="label"):
        load_one_to_many(written(tmp_path, [rated(0, True), rated(0, False), rated(0, label)], "rows.jsonl"))


def test_a_file_without_any_comparison(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match=r"no problem with a right and a wrong solution \(1 problems\)"):
        load_one_to_many(written(tmp_path, [rated(0, True), rated(0, True)], "rows.jsonl"))
    with pytest.raises(GuerdonError, match="eval_solution"):
        load_one_to_many(written(tmp_path, [{"problem": "p", "solution_type": "chosen"}]))


def test_without_the_hub_it_says_what_data_may_be() -> None:
    with pytest.raises(GuerdonError, match=r"RewardMATH/RewardMATH.*columns problem, eval_solution, solution_type"):
        load_one_to_many()


def test_real_solutions() -> None:
    if not REAL.is_file():
        pytest.skip(f"{REAL} is not there")
    found = load_one_to_many(REAL)
    assert len(found) + sum(found.left_out.values()) == 800
    assert all(len(item.answers) == 4 and item.solution for item in found.items)

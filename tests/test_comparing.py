"""``guerdon compare`` without its options: worlds, files, rows, pairs, images, and mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guerdon.cli.comparing import Showing, compare
from guerdon.core.errors import GuerdonError

OWN = """
import numpy as np

calls = []

def length(prompts, completions, **columns):
    calls.append(len(completions))
    return [float(len(one)) for one in completions]

def words(prompts, completions, **columns):
    return [float(len(one.split())) for one in completions]

def said(prompts, completions, **columns):
    return [float(len(one[-1]["content"])) for one in completions]

def rated(prompts, completions, rating, **columns):
    return [float(one) for one in rating]

def picky(prompts, completions, **columns):
    return [None if "0" in one else float(len(one)) for one in completions]

def light(prompts, completions, **columns):
    return [float(np.asarray(one).mean()) for one in completions]

def red(prompts, completions, **columns):
    return [float(np.asarray(one)[..., 0].mean()) for one in completions]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a file of rewards in it, loaded anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("compared_rewards", None)
    path = tmp_path / "compared_rewards.py"
    path.write_text(OWN)
    return path


def rows(path: Path, count: int = 40, **columns: Any) -> str:
    """Four completions of each prompt, in columns of prompts: the rows of a prompt do not stand together."""
    rng = np.random.default_rng(0)
    lines = []
    for turn in range(4):
        for place in range(count // 4):
            text = " ".join(["w" * int(rng.integers(1, 9)) for _ in range(rng.integers(1, 9))]) + str(place % 3)
            lines.append({"prompt": f"p{place}", "completion": text, "rating": turn, **columns})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_built_in_world(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(["sparse_goal", "dense_goal"], mdp="gridworld")
    told = capsys.readouterr().out
    assert "order all policies alike" in told and "minimal (STARC)" in told and "STARC distances" in told


def test_a_file_of_a_world_and_its_page(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "transition": [[[1, 0], [0, 1]], [[0, 1], [1, 0]]],
        "discount": 0.9,
        "rewards": {"a": [1, 0], "b": [0, 1], "c": [[0, 0], [1, 0]]},
    }
    Path("world.json").write_text(json.dumps(given))
    compare([], mdp="world.json", out=Path("out"), as_json=True)
    found = printed(capsys)
    assert found["rewards"] == ["a", "b", "c"] and len(found["distances"]) == 7 * 7 * 6
    val = next(
        one["values"]
        for one in found["distances"]
        if (one["canonicalisation"], one["n"], one["m"]) == ("val", "2", "2")
    )
    assert val[0][1] == pytest.approx(2)  # b is 1 - a
    assert json.loads(Path("out/result.json").read_text())["worst_case_regret"][0][1] == pytest.approx(1)
    page = Path("out/report.html").read_text()
    assert "Worst-case regret" in page and "<svg" in page


def test_learned_rewards_on_rows(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"chars={own}:length", f"words={own}:words", f"rated={own}:rated"]
    compare(names, data=rows(own.parent / "rows.jsonl"), out=Path("out"), as_json=True)
    found = printed(capsys)
    assert list(found["rewards"]) == ["chars", "words", "rated"] and found["rows"] == 40 and found["prompts"] == 10
    distance = {tuple(pair["rewards"]): pair["distance"]["value"] for pair in found["pairs"]}
    assert distance["chars", "words"] < 1 < distance["chars", "rated"]
    assert found["rewards"]["chars"]["floor"] == 0 and found["facts"]["data"].endswith("rows.jsonl")
    lines = [json.loads(line) for line in Path("out/scores.jsonl").read_text().splitlines()]
    # Completions of a prompt are put together, for rewards that look at groups.
    assert [line["input"]["prompt"] for line in lines] == [f"p{place}" for place in range(10) for _ in range(4)]
    assert "Learned rewards" in Path("out/report.html").read_text()


def test_scores_are_kept_and_not_made_again(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"chars={own}:length", f"words={own}:words"]
    data = rows(own.parent / "rows.jsonl")
    compare(names, data=data, out=Path("out"), as_json=True, showing=Showing(floor_rows=0))
    first = printed(capsys)
    calls = sys.modules["compared_rewards"].calls
    assert calls == [32, 8]
    compare(names, data=data, out=Path("out"), as_json=True, showing=Showing(floor_rows=0))
    assert printed(capsys) == first and calls == [32, 8]


def test_rows_without_scores_and_examples(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"chars={own}:length", f"picky={own}:picky", f"rated={own}:rated"]
    compare(names, data=rows(own.parent / "rows.jsonl"), as_json=True, showing=Showing(examples=2))
    found = printed(capsys)
    assert found["rewards"]["picky"]["absent"] == {"does not apply": 16, "failed": 0}
    assert len(found["examples"]) == 2 and found["examples"][0]["strength"] >= found["examples"][1]["strength"] > 0
    pair = next(pair for pair in found["pairs"] if pair["rewards"] == ["chars", "picky"])
    assert pair["distance"]["value"] == 0 and pair["prompts"] == 6


def test_preference_pairs_are_two_completions(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    lines = [
        {"prompt": f"p{place}", "chosen": "a" * int(rng.integers(1, 30)), "rejected": "b " * int(rng.integers(31, 60))}
        for place in range(30)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    compare([f"chars={own}:length", f"words={own}:words"], data="pairs.jsonl", as_json=True)
    found = printed(capsys)
    assert found["rows"] == 60 and found["prompts"] == 30 and found["pairs"][0]["pairs"]["alike"] == 30
    chats = [
        {
            "chosen": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a" * (n + 1)}],
            "rejected": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "b" * (2 * n + 2)}],
        }
        for n in range(25)
    ]
    Path("chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in chats))
    compare([f"a={own}:length", f"b={own}:length"], data="chats.jsonl", as_json=True)
    assert printed(capsys)["pairs"][0]["distance"]["value"] == 0


def test_images(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    folder = Path("pictures")
    folder.mkdir()
    lines = []
    for place in range(24):
        Image.fromarray(rng.integers(0, 255, size=(4, 4, 3), dtype=np.uint8)).save(folder / f"{place}.png")
        lines.append(json.dumps({"file_name": f"{place}.png", "prompt": f"p{place // 3}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    compare([f"light={own}:light", f"red={own}:red"], data="pictures", as_json=True)
    found = printed(capsys)
    assert found["prompts"] == 8 and 0 < found["pairs"][0]["distance"]["value"] < 1.4
    assert found["examples"][0]["first_prefers"].endswith(".png]")


def test_mistakes(own: Path) -> None:
    data = rows(own.parent / "rows.jsonl")
    two = [f"chars={own}:length", f"words={own}:words"]
    with pytest.raises(GuerdonError, match="give either --mdp .* or --data"):
        compare(["a", "b"])
    with pytest.raises(GuerdonError, match="give either --mdp .* or --data"):
        compare(["a", "b"], mdp="gridworld", data=data)
    with pytest.raises(GuerdonError, match="at least two rewards; got"):
        compare(two[:1], data=data)
    with pytest.raises(GuerdonError, match="unknown reward"):
        compare([two[0], "chair"], data=data)
    with pytest.raises(GuerdonError, match="named twice"):
        compare([two[0], two[0]], data=data)
    with pytest.raises(GuerdonError, match="has no column 'prompts'"):
        compare(two, data=data, prompt_column="prompts")
    with pytest.raises(GuerdonError, match="one completion; two at least"):
        compare(two, data=data, limit=10)
    Path("lonely.jsonl").write_text('{"completion": "a"}\n{"completion": "b"}\n')
    with pytest.raises(GuerdonError, match="has no prompts; rewards are compared on several completions"):
        compare(two, data="lonely.jsonl")
    with pytest.raises(GuerdonError, match="did you mean 'gridworld'"):
        compare([], mdp="gridworlds")


REAL = Path(__file__).parents[2] / "shared" / "data" / "gsm8k" / "model_solutions.jsonl.gz"


@pytest.mark.skipif(not REAL.is_file(), reason="needs the real data beside the repository")
def test_real_solutions(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text(
        OWN + "\n\ndef right(prompts, completions, label, **columns):\n    return [float(x) for x in label]\n"
    )
    compare([f"chars={own}:length", f"right={own}:right"], data=str(REAL), limit=400, as_json=True)
    found = printed(capsys)
    assert found["rows"] == 400 and found["prompts"] == 100
    # Whether a solution is right has little to do with its length.
    assert 1.2 < found["pairs"][0]["distance"]["value"] < 1.6

"""The command line, called the way a person calls it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import counting_recipe
from guerdon import __version__
from guerdon.cli import app
from guerdon.cli.running import find_recipe
from guerdon.core import catalogue
from guerdon.core.catalogue import System
from guerdon.core.images import as_tensor
from guerdon.models.detectors.small import make_detector, p_real, save_detector

COUNTING = System("counting", "Counting", "nowhere", "run", "It counts.", "docs/counting.md", "counting_recipe:run")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working directory, and the counting system in the catalogue."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(catalogue, "SYSTEMS", (*catalogue.SYSTEMS, COUNTING))
    counting_recipe.calls.clear()
    counting_recipe.interrupt.clear()
    return tmp_path


def call(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def good(*words: Any) -> Any:
    result = call(*words)
    assert result.exit_code == 0, result.output
    return result


def refused(*words: Any) -> str:
    """What a call that is a person's mistake says: one line, exit status 2, no traceback."""
    result = call(*words)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in result.output, result.output
    return lines[0]


def written(path: str, *rows: dict[str, Any]) -> Path:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Path(path)


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


# The catalogue


def test_list_shows_what_there_is():
    output = good("list").stdout
    for name in ("realgen", "flow-grpo", "adv-grpo", "counting", "clip_score", "answer_format", "realbench"):
        assert name in output
    content = json.loads(good("list", "--json").stdout)
    assert [s["slug"] for s in content["systems"]] == [s.slug for s in catalogue.SYSTEMS]
    assert all(s["title"] and s["claim"] and s["source"] for s in content["systems"])
    # A reward without a summary is one whose target the catalogue has wrong, or that nobody documented.
    assert all(entry["summary"] for kind in ("rewards", "benchmarks") for entry in content[kind])


def test_help_and_list_load_nothing_heavy(tmp_path):
    code = (
        "import sys; from guerdon.cli import app\n"
        "for words in (['--help'], ['list'], ['run', '--help']):\n"
        "    try: app(words)\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'datasets', 'trl', 'scipy', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("system", [s for s in catalogue.SYSTEMS if s.how == "run"], ids=lambda s: s.slug)
def test_every_system_can_be_run_and_checked(system):
    recipe = find_recipe(system)
    assert recipe.CONFIG() is not None and callable(recipe.run)
    for name, preset in recipe.PRESETS.items():
        assert recipe.CONFIG(**preset) is not None, name
    assert importlib.util.find_spec(f"guerdon.claims.{system.module}") is not None


def test_version_and_module():
    assert good("--version").stdout == f"guerdon {__version__}\n"
    done = subprocess.run([sys.executable, "-m", "guerdon", "--version"], check=True, capture_output=True, text=True)
    assert done.stdout == f"guerdon {__version__}\n"


# Running


def test_run_from_start_to_report(place):
    result = good("run", "counting", "--out", "r", "--seed", 4, "--set", "inner.width=3")
    assert (place / "r/report.html").is_file() and f"report: {Path('r/report.html')}" in result.stdout
    config = yaml.safe_load((place / "r/config.yaml").read_text())
    # --set changes the key that it names; the rest of its group stays at the recipe's default, not the class's.
    assert config["inner"] == {"rate": 0.5, "width": 3} and config["seed"] == 4
    assert json.loads((place / "r/summary.json").read_text())["total"] == 1.5
    (place / "r/report.html").unlink()
    assert "report: " in good("report", "r").stdout and (place / "r/report.html").is_file()
    assert "nowhere is not a folder" in refused("report", "nowhere")


def test_default_folders_carry_slug_and_time(place):
    good("run", "counting")
    (folder,) = (place / "runs").iterdir()
    assert folder.name.startswith("counting-")
    counting_recipe.calls.clear()
    good("run", "counting", "--resume")  # the newest, which is done: nothing is counted again
    assert counting_recipe.calls == []


def test_preset_file_and_options_in_order(place):
    file = place / "c.yaml"
    file.write_text("steps: 5\ninner:\n  rate: 2\n")
    good("run", "counting", "--preset", "large", "--config", file, "--set", "steps=1", "--out", "a")
    config = yaml.safe_load((place / "a/config.yaml").read_text())
    # The preset's group stands for the whole group, as in CountingConfig(**preset); the file changes one key of it.
    assert config["preset"] == "large" and config["steps"] == 1 and config["inner"] == {"rate": 2.0, "width": 64}
    good("run", "counting", "--set", "preset=large", "--set", "steps=2", "--out", "b")
    config = yaml.safe_load((place / "b/config.yaml").read_text())
    assert config["preset"] == "large" and config["inner"] == {"rate": 1.0, "width": 64}
    file.write_text("preset: small\n")
    assert "says preset 'small'" in refused("run", "counting", "--preset", "large", "--config", file)


@pytest.mark.parametrize(
    "words, message",
    [
        (["countin"], "unknown system 'countin'; did you mean 'counting'?"),
        (["counting", "--preset", "larg"], "unknown preset 'larg'; did you mean 'large'?"),
        (["counting", "--set", "inner.widht=2"], "did you mean 'inner.width'?"),
        (["counting", "--set", "steps=many"], "steps: "),
        (["counting", "--data", "x"], "--data: system 'counting' has no configuration key 'data'"),
        (["counting", "--config", "absent.yaml"], "absent.yaml does not exist"),
        (["counting", "--resume"], "no run of 'counting' in runs/"),
        (["counting", "--resume", "--overwrite"], "give one of the two"),
        (["counting", "--set", "fail_at=2"], "reward 'count' failed at row 2"),
    ],
)
def test_mistakes_are_one_line(words, message):
    assert message in refused("run", *words)


def test_debug_shows_the_traceback():
    for words in (["--debug", "run", "countin"], ["run", "countin", "--debug"]):
        assert "unknown system" in str(call(*words).exception)


def test_ctrl_c_says_how_to_go_on_and_resume_does(place):
    good("run", "counting", "--out", "whole", "--set", "steps=4")
    counting_recipe.interrupt.append(3)
    counting_recipe.calls.clear()
    result = call("run", "counting", "--out", "cut", "--set", "steps=4")
    assert result.exit_code == 130 and "guerdon run counting --out cut --resume" in result.stderr
    good("run", "counting", "--out", "cut", "--resume")  # without --set: the folder knows its configuration
    assert counting_recipe.calls == [1, 2, 3, 3, 4]
    for name in ("metrics.jsonl", "summary.json", "config.yaml"):
        assert (place / "cut" / name).read_text() == (place / "whole" / name).read_text()
    assert "steps = 4, but 9 was asked for" in refused(
        "run", "counting", "--out", "cut", "--resume", "--set", "steps=9"
    )


def test_overwrite_deletes_runs_only(place):
    good("run", "counting", "--out", "r", "--set", "steps=4")
    assert "already holds a run" in refused("run", "counting", "--out", "r")
    good("run", "counting", "--out", "r", "--overwrite", "--set", "steps=2")
    assert len(rows_of("r/metrics.jsonl")) == 2
    (place / "thesis").mkdir()
    (place / "thesis/config.yaml").write_text("chapters: 7")
    assert "does not look like the folder of a run" in refused("run", "counting", "--out", "thesis", "--overwrite")
    assert (place / "thesis/config.yaml").read_text() == "chapters: 7"
    os.chdir("r")
    assert "not deleted" in refused("run", "counting", "--out", ".", "--overwrite")
    # A typing mistake beside --overwrite must not cost the run that is there.
    os.chdir(place)
    refused("run", "counting", "--out", "r", "--overwrite", "--set", "stpes=2")
    assert len(rows_of("r/metrics.jsonl")) == 2


# Claims


@pytest.mark.parametrize("verdict, code", [("holds", 0), ("fails", 1), ("inconclusive", 1), ("maybe", 2)])
def test_claim_prints_one_object_and_exits_by_its_verdict(monkeypatch, verdict, code):
    class Result:
        def __init__(self, seeds):
            self.seeds = seeds

        def table(self):
            return f"effect by seed {self.seeds}"

        def to_json(self):
            return {"slug": "counting", "verdict": verdict, "effect": np.float64(0.5), "interval": [0.1, float("inf")],
                    "control": 0.0, "seeds": list(self.seeds), "seconds": 0.1}  # fmt: skip

    module: Any = ModuleType("guerdon.claims.counting")
    module.__spec__ = ModuleSpec("guerdon.claims.counting", None)
    module.run = lambda seeds: print("a stray line") or Result(seeds)
    monkeypatch.setitem(sys.modules, "guerdon.claims.counting", module)
    result = call("claim", "counting", "--seeds", "1,2", "--json")
    assert result.exit_code == code
    if code < 2:
        found = json.loads(result.stdout.splitlines()[-1])
        assert found["verdict"] == verdict and found["seeds"] == [1, 2] and found["interval"] == [0.1, None]
        assert {"slug", "effect", "control", "seconds"} <= found.keys()
        assert "effect by seed (1, 2)" in call("claim", "counting", "--seeds", "1,2").stdout


def test_claim_mistakes():
    assert "has no claim" in refused("claim", "counting")
    assert "did you mean 'counting'" in refused("claim", "cuonting")
    assert "whole numbers" in refused("claim", "counting", "--seeds", "a,b")


# Scoring

ANSWERS = [
    {"prompt": "2+2", "completion": "<think>easy</think><answer>4</answer>"},
    {"prompt": "2+2", "completion": "4"},
    {"prompt": "3+3", "completion": "it is <answer>6</answer>"},
    {"prompt": "3+3", "completion": "<answer></answer>"},
]

OWN = """
import pathlib
calls = pathlib.Path("calls.txt")

def length(prompts, completions, **columns):
    with calls.open("a") as file:
        file.write(f"{len(completions)} ")
    return [None if text == "skip" else float(len(text)) for text in completions]

def moody(prompts, completions):
    if "bad" in completions:
        raise ValueError("a bad row")
    return [1.0] * len(completions)

def impatient(prompts, completions):
    if pathlib.Path("stop").exists() and "e" in completions:
        raise KeyboardInterrupt
    return [float(ord(text)) for text in completions]

def rank(prompts, completions):
    return [sorted(completions).index(text) for text in completions]
rank.groupwise = True
"""


@pytest.fixture
def own(place):
    (place / "own_rewards.py").write_text(OWN)
    yield
    sys.modules.pop("own_rewards", None)


def test_score_text_rows():
    written("rows.jsonl", *ANSWERS)
    result = good("score", "--reward", "answer_format,answer_present", "rows.jsonl", "--batch-size", 3)
    lines = rows_of("scores.jsonl")
    assert [line["scores"] for line in lines] == [
        {"answer_format": a, "answer_present": b} for a, b in [(1.0, 1.0), (0.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
    ]
    assert [line["input"] for line in lines] == ANSWERS and all(line["valid"]["answer_format"] for line in lines)
    assert lines[0]["identity"]["answer_format"].startswith("answer_format@1#")
    row = next(line for line in result.stdout.splitlines() if "answer_present" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "answer_present",
        "4",
        "0.5",
        "0.5",
        "0",
        "1",
        "0",
        "0",
    ]


def test_own_reward_is_found_from_here_and_counts_none(own):
    written("rows.jsonl", *({"prompt": "p", "completion": text} for text in ("a", "skip", "abc")))
    for spec in ("own_rewards:length", "own_rewards.py:length"):
        output = good("score", "--reward", spec, "rows.jsonl", "--overwrite").stdout
        row = next(line for line in output.splitlines() if spec in line)
        assert [c.strip() for c in row.strip("│").split("│")][1:] == ["2", "2", "1", "1", "3", "1", "0"]
        assert [line["scores"][spec] for line in rows_of("scores.jsonl")] == [1.0, None, 3.0]
    assert "did you mean 'length'" in refused("score", "--reward", "own_rewards:lenght", "rows.jsonl")
    assert "did you mean 'answer_format'" in refused("score", "--reward", "answr_format", "rows.jsonl")


def test_scored_rows_are_not_scored_again(own, place):
    rows = [{"prompt": "p", "completion": "x" * n} for n in range(1, 6)]
    file = written("rows.jsonl", *rows)
    good("score", "--reward", "own_rewards:length", file)
    whole = Path("scores.jsonl").read_bytes()
    assert Path("calls.txt").read_text() == "5 "
    Path("scores.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]) + b'{"row": 2, "ke')
    assert "2 of 5 rows were scored before" in good("score", "--reward", "own_rewards:length", file).stderr
    assert Path("calls.txt").read_text() == "5 3 " and Path("scores.jsonl").read_bytes() == whole
    written("rows.jsonl", *rows, {"prompt": "p", "completion": "new"})
    good("score", "--reward", "own_rewards:length", file)
    assert Path("calls.txt").read_text() == "5 3 1 "
    # Other scores are never mixed in, and never deleted unasked.
    assert "holds scores by" in refused("score", "--reward", "answer_format", file)
    written("rows.jsonl", {"prompt": "other", "completion": "x"}, *rows[1:])
    assert "scores.jsonl:1 scores another row" in refused("score", "--reward", "own_rewards:length", file)
    assert "rows.jsonl:1 is not a scored row" in refused("score", "--reward", "answer_format", file, "--out", file)
    assert len(rows_of("scores.jsonl")) == 6


def test_a_stopped_scoring_goes_on(own):
    file = written("rows.jsonl", *({"prompt": p, "completion": c} for p, c in zip("112233", "abcdef")))
    words = ["score", "--reward", "own_rewards:impatient", file, "--batch-size", 2]
    Path("stop").touch()
    assert call(*words).exit_code == 130 and len(rows_of("scores.jsonl")) == 4
    Path("stop").unlink()
    good(*words)
    stopped = Path("scores.jsonl").read_bytes()
    good(*words, "--out", "whole.jsonl")
    assert Path("whole.jsonl").read_bytes() == stopped and len(rows_of("scores.jsonl")) == 6


def test_groups_are_never_cut(own):
    file = written("rows.jsonl", *({"prompt": p, "completion": c} for p, c in zip("11112223", "dcbagfeh")))
    words = ["score", "--reward", "own_rewards:rank", file, "--batch-size", 3]
    good(*words)
    assert [line["scores"]["own_rewards:rank"] for line in rows_of("scores.jsonl")] == [3, 2, 1, 0, 2, 1, 0, 0]
    whole = Path("scores.jsonl").read_bytes()
    Path("scores.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:6]))  # killed within the second group
    assert "4 of 8 rows" in good(*words).stderr
    assert Path("scores.jsonl").read_bytes() == whole


def test_failures_are_written_down_up_to_the_ceiling(own):
    texts = ["ok"] * 29 + ["bad"]
    file = written("rows.jsonl", *({"prompt": "p", "completion": text} for text in texts))
    output = good("score", "--reward", "own_rewards:moody", file).stdout
    assert rows_of("scores.jsonl")[29] | {"key": "", "identity": {}} == {
        "row": 29, "key": "", "scores": {"own_rewards:moody": None}, "valid": {"own_rewards:moody": False},
        "identity": {}, "input": {"prompt": "p", "completion": "bad"},
        "failed": {"own_rewards:moody": {"kind": "exception", "cause": "ValueError: a bad row"}},
    }  # fmt: skip
    row = next(line for line in output.splitlines() if "moody" in line)
    assert [c.strip() for c in row.strip("│").split("│")][1:] == ["29", "1", "0", "1", "1", "0", "1"]
    written("rows.jsonl", *({"prompt": "p", "completion": text} for text in ["bad"] * 3 + ["ok"] * 3))
    words = ["score", "--reward", "own_rewards:moody", file, "--overwrite"]
    assert "above the ceiling of 10%" in refused(*words)
    good(*words, "--max-failure-rate", 0.5)


def test_columns_are_chosen_and_checked(own):
    file = written("rows.jsonl", {"question": "q", "reply": "abc"}, {"question": "q", "reply": ""})
    assert "--completion-column" in refused("score", "--reward", "own_rewards:length", file)
    words = ["score", "--reward", "own_rewards:length", file, "--completion-column", "reply"]
    assert "rows.jsonl:2: column 'reply' is missing or empty" in refused(*words)
    assert "did you mean 'question'" in refused(*words, "--prompt-column", "questoin")
    result = good(*words, "--skip-bad-rows")
    assert len(rows_of("scores.jsonl")) == 1 and "no prompt" in result.stderr
    assert rows_of("bad_rows.jsonl")[0]["where"] == "rows.jsonl:2"
    assert "give a FILE" in refused("score", "--reward", "own_rewards:length")
    assert "did you mean 'rows.jsonl'" in refused("score", "--reward", "own_rewards:length", "row.jsonl")
    assert "named twice" in refused("score", "--reward", "answer_format,answer_format", file)


def pictures(folder: str, count: int, seed: int, captions: bool = True) -> torch.Tensor:
    """Write noise pictures of growing darkness; returns them [N, 3, H, W]."""
    Path(folder).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    made = [Image.fromarray((rng.random((16, 16, 3)) * 255 / (i + 1)).astype(np.uint8)) for i in range(count)]
    for number, picture in enumerate(made):
        picture.save(Path(folder) / f"{number:03d}.png")
    if captions:
        written(
            f"{folder}/metadata.jsonl", *({"file_name": f"{i:03d}.png", "text": f"noise {i}"} for i in range(count))
        )
    return as_tensor(made)


@pytest.fixture
def detectors(place) -> dict[str, torch.nn.Module]:
    made = {name: make_detector(name, seed=seed) for seed, name in enumerate(("cnn", "gradient"))}
    for name, model in made.items():
        save_detector(model, place / "detectors" / name)
    return made


def test_score_an_image_folder_with_saved_detectors(detectors):
    images = pictures("photos", 5, 1)
    words = ["score", "photos", "--batch-size", 2, "--reward"]
    good(*words, "detectors/cnn,second=detector", "--set", "second.folder=detectors/gradient")
    lines = rows_of("scores.jsonl")
    for name, family in (("cnn", "cnn"), ("second", "gradient")):
        expected = p_real(detectors[family], images).tolist()
        assert [line["scores"][name] for line in lines] == pytest.approx(expected, abs=1e-5)
    assert lines[0]["input"] == {"file_name": "000.png", "text": "noise 0", "prompt": "noise 0"}
    Path("photos/003.png").write_bytes(b"no picture")
    assert "003.png" in refused(*words, "detectors/cnn", "--out", "again.jsonl")
    good(*words, "detectors/cnn", "--out", "again.jsonl", "--skip-bad-rows", "--limit", 3)
    assert [line["input"]["file_name"] for line in rows_of("again.jsonl")] == ["000.png", "001.png", "002.png"]
    assert "needs the configuration key 'folder'" in refused(*words, "detector")
    assert "write it as NAME.key=value" in refused(*words, "detectors/cnn", "--set", "x=1")
    assert "did you mean 'cnn'" in refused(*words, "detectors/cnn", "--set", "cn.name=1")


def test_rescore_the_samples_of_a_run(detectors):
    darker, lighter = (
        pictures("run/samples/base", 4, 1, captions=False),
        pictures("run/samples/stages12", 4, 2, captions=False),
    )
    index = [{"index": i, "prompt": f"p{i}", "rewrite": "r", "seed": i} for i in range(4)]
    Path("run/samples/index.json").write_text(json.dumps(index))
    output = good("score", "--reward", "detectors/cnn", "--rescore", "run").stdout
    lines = rows_of("scores.jsonl")
    assert [(line["input"]["arm"], line["input"]["index"]) for line in lines[3:5]] == [("base", 3), ("stages12", 0)]
    gain = float((p_real(detectors["cnn"], lighter) - p_real(detectors["cnn"], darker)).mean())
    row = next(line for line in output.splitlines() if "stages12" in line)
    assert f"{gain:.3f}".lstrip("-") in row
    Path("run/samples/base/002.png").unlink()
    assert "002.png is missing" in refused("score", "--reward", "detectors/cnn", "--rescore", "run")
    assert "nothing to score again" in refused("score", "--reward", "detectors/cnn", "--rescore", "nowhere")


def test_rescore_compares_with_the_earlier_reward(own):
    file = written("rows.jsonl", *({"prompt": p, "completion": c} for p, c in zip("1122", ["a", "bb", "ccc", "d"])))
    good("score", "--reward", "own_rewards:length", file, "--out", "first.jsonl")
    output = good("score", "--reward", "own_rewards:rank", "--rescore", "first.jsonl").stdout
    # Of two pairs of one prompt the longer completion is later in the alphabet in one.
    row = next(line for line in output.splitlines() if "own_rewards:length" in line)
    assert [c.strip() for c in row.strip("│").split("│")][-2:] == ["0.5", "2"]
    assert [line["scores"]["own_rewards:rank"] for line in rows_of("scores.jsonl")] == [0, 1, 0, 1]


# Benchmarks


def test_realbench_from_folders(detectors):
    images, photos = pictures("images", 6, 1, captions=False), pictures("photos", 6, 2, captions=False)
    words = ["bench", "realbench", "--images", "images", "--reference", "photos", "--codec", "none", "--size", "none"]
    result = good(*words, "--detectors", "detectors/cnn,held=detectors/gradient", "--training", "cnn", "--json",
                  "--judge", "detector:held", "--out", "graded")  # fmt: skip
    found = json.loads(result.stdout)
    by_name = {row["detector"]: row for row in found["detectors"]}
    assert by_name["cnn"]["in_training"] and not by_name["held"]["in_training"]
    assert by_name["cnn"]["mean"]["value"] == pytest.approx(float(p_real(detectors["cnn"], images).mean()), abs=1e-5)
    mine, theirs = p_real(detectors["gradient"], images), p_real(detectors["gradient"], photos)
    assert found["arena"][0]["score"]["win_rate"]["value"] == pytest.approx(float((mine > theirs).float().mean()))
    assert json.loads(Path("graded/realbench.json").read_text()) == found
    assert "| cnn | in training |" in good(*words, "--detectors", "detectors/cnn", "--training", "cnn").stdout


def test_realbench_mistakes(detectors):
    pictures("images", 6, 1, captions=False)
    words = ["bench", "realbench", "--images", "images"]
    assert "did you mean 'cnn'" in refused(*words, "--detectors", "detectors/cnn", "--training", "cn")
    assert "unknown detector for the judge 'cn'" in refused(
        *words, "--detectors", "detectors/cnn", "--judge", "detector:cn"
    )
    assert "--judge-model" in refused(*words, "--judge", "http://localhost:1/v1")
    assert "--size is a number" in refused(*words, "--size", "big")
    assert "unknown codec" in refused(*words, "--codec", "gif")
    assert "no folder absent" in refused("bench", "realbench", "--images", "absent")


# What the documentation says

HERE = Path(__file__).parents[1]


def test_documentation_of_every_system_exists():
    for system in catalogue.SYSTEMS[:-1]:
        page, _, section = system.docs.partition("#")
        assert f"## {section}\n" in (HERE / page).read_text(encoding="utf-8")
        assert system.source in (HERE / page).read_text(encoding="utf-8")


def test_every_reward_is_documented():
    page = (HERE / "docs/rewards.md").read_text(encoding="utf-8")
    assert not [name for name in catalogue._REWARDS if f"`{name}`" not in page]


def test_every_option_is_documented():
    import typer

    page = (HERE / "docs/cli.md").read_text(encoding="utf-8")
    root: Any = typer.main.get_command(app)
    commands = [*root.commands.values(), *root.commands["bench"].commands.values()]
    options = {name for one in commands for p in one.params for name in p.opts if name.startswith("--")}
    assert {"--rescore", "--against", "--resume"} < options
    assert not [name for name in sorted(options) if f"{name}" not in page]


def test_the_examples_run():
    result = good(
        "score", "--reward", f"answer_format,{HERE}/examples/brevity.py:brevity", HERE / "examples/answers.jsonl"
    )
    assert [line["scores"]["answer_format"] for line in rows_of("scores.jsonl")] == [1.0, 0.0, 1.0, 0.0]
    assert "brevity" in result.stdout
    from guerdon.core.config import load_config
    from guerdon.recipes._realgen_config import RealGenConfig

    quick = load_config(RealGenConfig, HERE / "examples/realgen_quick.yaml")
    assert quick.generator.group_size == RealGenConfig().generator.group_size and quick.generator.steps == 4

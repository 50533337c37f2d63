"""MRMBench: tasks as published or one's own, probes beside what chance and a constant give, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guerdon.benchmarks.mrmbench import PAPER_STEPS, MRMBench
from guerdon.benchmarks.mrmbench_tasks import DIMENSIONS, LABELS, Labelled, Task, load_tasks
from guerdon.cli.benching_mrmbench import Probed, bench_mrmbench
from guerdon.core.errors import GuerdonError
from guerdon.models.probe import InferenceTimeProbe
from guerdon.models.representation import Representation, RepresentationReader
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.rewards.confidence import load

WORDS = {"harmlessness": ("axe", "tea"), "helpfulness": ("no", "yes"), "correctness": ("five", "four"),
         "coherence": ("um", "so"), "complexity": ("cat", "quark"), "verbosity": ("end", "and on and on")}  # fmt: skip


def rows(dimension: str, count: int, seed: int, classes: int = 2) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count)
    other = rng.integers(1000, size=count)
    return [
        {"input": f"say {n} ", "output": f"it is {n} {WORDS[dimension][min(label, 1)]}", "label": int(label)}
        for n, label in zip(other, labels)
    ]


def folder(root: Path, level: str = "easy", dimensions: tuple[str, ...] = DIMENSIONS) -> Path:
    for place, dimension in enumerate(dimensions):
        for split, count in (("train", 60), ("test", 30)):
            path = root / f"mrm_{level}" / dimension / f"{split}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            made = rows(dimension, count, 10 * place + (split == "test"), {"easy": 2, "hard": 3}[level])
            path.write_text(json.dumps(made))
    return root


def test_the_published_layout(tmp_path: Path) -> None:
    root = folder(tmp_path)
    tasks = load_tasks(root)
    assert [task.dimension for task in tasks] == list(DIMENSIONS) == list(LABELS["hard"]) == list(PAPER_STEPS)
    assert {(len(task.train), len(task.test), task.classes) for task in tasks} == {(60, 30, 2)}
    assert [turn["role"] for turn in tasks[0].train.conversations[0]] == ["user", "assistant"]
    assert len(load_tasks(root / "mrm_easy", dimensions=["coherence"], limit=7)[0].train) == 7
    (root / "data").mkdir()
    (root / "mrm_easy").rename(root / "data" / "mrm_easy")
    assert len(load_tasks(root)) == 6


def test_one_s_own_dimensions(tmp_path: Path) -> None:
    for split in ("train", "test"):
        path = tmp_path / "wit" / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(json.dumps({"input": "a", "output": "b", "label": n % 4}) for n in range(8)))
    (task,) = load_tasks(tmp_path, classes=4)
    assert task.dimension == "wit" and task.classes == 4
    with pytest.raises(GuerdonError, match="0 to 1"):
        load_tasks(tmp_path)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    root = folder(tmp_path, dimensions=DIMENSIONS[:2])
    with pytest.raises(GuerdonError, match="lacks the dimensions correctness, coherence, complexity, verbosity"):
        load_tasks(root)
    assert len(load_tasks(root, dimensions=["harmlessness"])) == 1
    with pytest.raises(GuerdonError, match="did you mean 'helpfulness'"):
        load_tasks(root, dimensions=["helpfullness"])
    with pytest.raises(GuerdonError, match="holds the level 'easy'"):
        load_tasks(root, level="hard")
    with pytest.raises(GuerdonError, match="level"):
        load_tasks(root, level="middle")  # type: ignore[arg-type]
    (root / "mrm_easy" / "helpfulness" / "test.json").unlink()
    with pytest.raises(GuerdonError, match="lacks test.json"):
        load_tasks(root, dimensions=["helpfulness"])
    with pytest.raises(GuerdonError, match="there is no folder"):
        load_tasks(tmp_path / "nowhere")
    with pytest.raises(GuerdonError, match="could not be had from the hub"):
        load_tasks()


@pytest.mark.parametrize(
    "bad, said", [({"label": 2}, "0 to 1, got 2"), ({"label": True}, "got True"), ({"output": 3}, "must be text")]
)
def test_rows_that_do_not_fit(tmp_path: Path, bad: dict[str, Any], said: str) -> None:
    root = folder(tmp_path, dimensions=("coherence",))
    path = root / "mrm_easy" / "coherence" / "train.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps([*made, {**made[0], **bad}]))
    with pytest.raises(GuerdonError, match=rf"train.json:61: .*{said}"):
        load_tasks(root, dimensions=["coherence"])
    found = load_tasks(root, dimensions=["coherence"], skip_bad_rows=True, out=tmp_path / "out")
    assert len(found[0].train) == 60 and (tmp_path / "out" / "coherence-train" / "bad_rows.jsonl").is_file()


# ---- probes, on states that are made here


class Reading:
    """A reader whose states are given; "long" texts have none."""

    name, identity, pool, layer, template = "made", "made@1#0", "last_nonpad", -1, False

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, conversations: Any, *, progress: Any = None) -> Representation:
        texts = [one[-1]["content"] for one in conversations]
        states = np.stack([self.state(text) for text in texts]).astype(np.float32)
        return Representation(states, {row: "too long" for row, text in enumerate(texts) if "long" in text})

    def state(self, text: str) -> np.ndarray:
        number, label = (int(part) for part in text.split()[:2])
        noise = np.random.default_rng(number).standard_normal(16)
        noise[0] += self.strength * label
        return noise


def task(share: float, seed: int, *, long: int = 0) -> Task:
    rng = np.random.default_rng(seed)

    def part(count: int, start: int) -> Labelled:
        labels = (rng.random(count) < share).astype(np.int64)
        talks = [
            [{"role": "user", "content": ""},
             {"role": "assistant", "content": f"{start + n} {label}{' long' if n < long else ''}"}]
            for n, label in enumerate(labels)
        ]  # fmt: skip
        return Labelled(talks, labels)

    return Task("coherence", part(800, seed * 10_000), part(400, seed * 10_000 + 5000), 2)


def test_a_dimension_that_is_there_and_one_that_is_not() -> None:
    bench = MRMBench([task(0.5, 1)], recipes=["converged"], centroids=0)
    there, absent = (bench.run(Reading(strength), progress=False) for strength in (4.0, 0.0))  # type: ignore[arg-type]
    assert there.score > 0.95 and abs(absent.score - 0.5) < 0.1
    for result in (there, absent):
        assert result.reports[0].shuffled == pytest.approx(0.5, abs=0.1)


def test_a_constant_probe_is_seen_for_what_it_is() -> None:
    result = MRMBench([task(0.9, 2)], recipes=["converged"], centroids=0).run(Reading(0.0), progress=False)  # type: ignore[arg-type]
    report = result.reports[0]
    assert report.acc > 0.85 and report.acc == pytest.approx(report.scores.majority_acc, abs=0.02)
    assert report.scores.balanced_acc == pytest.approx(0.5, abs=0.05) and report.constant
    assert "say one label nearly always" in result.lead()


def test_recipes_seeds_and_what_could_not_be_read() -> None:
    result = MRMBench([task(0.5, 3, long=5)], seeds=(0, 1, 2)).run(Reading(2.0), progress=False)  # type: ignore[arg-type]
    converged, paper = result.reports
    assert (converged.recipe, paper.recipe) == ("converged", "paper")
    assert len(converged.by_seed) == 1 and len(set(paper.by_seed)) == 3 and converged.acc > paper.acc
    assert converged.dropped == 10 and converged.trained == 795 and converged.scores.n == 395
    tables = result.sheet().tables()
    assert [table.title for table in tables][1:] == ["Probes, converged", "Probes, paper"]
    assert "Not the MRMBench score" in result.sheet().notes[0]
    json.dumps(result.to_dict())
    assert result.probe is not None and result.leaning == [[1.0]]


def test_too_few_texts() -> None:
    with pytest.raises(GuerdonError, match=r"coherence: 0 of 800 texts could be read \(too long\)"):
        MRMBench([task(0.5, 3, long=800)]).run(Reading(2.0), progress=False)  # type: ignore[arg-type]
    for options in ({"tasks": []}, {"recipes": ["x"]}, {"seeds": []}):
        with pytest.raises(GuerdonError):
            MRMBench(**{"tasks": [task(0.5, 3)], **options})  # type: ignore[arg-type]


# ---- end to end


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [f"say {n} it is {n} {word}" for n in range(50) for words in WORDS.values() for word in words]
    backbone, tokenizer = tiny_backbone(texts, hidden=32, vocab=400)
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer).save_pretrained(
        tmp_path_factory.mktemp("model") / "rm"
    )


def test_the_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folder(tmp_path / "data")
    bench_mrmbench(Probed(str(model)), str(data), seeds="0,1", out=tmp_path / "run", as_json=True)
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    # Even a backbone that was never trained lets the last word be read off its last state.
    assert told["score"] > 0.9 and len(told["probes"]) == 12 and np.shape(told["leaning"]) == (6, 6)
    assert (tmp_path / "run" / "report.html").is_file() and len(list((tmp_path / "run" / "states").iterdir())) == 12
    # The states were kept: a second run reads nothing.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "states").iterdir()}
    bench_mrmbench(Probed(str(model)), str(data), recipe="converged", dimensions=["verbosity"], out=tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "states").iterdir()} == before
    assert "Probes, converged" in capsys.readouterr().out


def test_the_saved_probe_gates_the_model_s_reward(model: Path, tmp_path: Path) -> None:
    data = folder(tmp_path / "data", dimensions=("coherence", "verbosity"))
    bench_mrmbench(
        Probed(str(model)), str(data), dimensions=["coherence", "verbosity"], recipe="converged", out=tmp_path / "run"
    )
    reward = load(model, tmp_path / "run" / "probe.safetensors", quantile=0.9)
    known = rows("coherence", 30, 1)
    odd = ["".join(chr(33 + n % 90) for n in range(200))]
    prompts = [one["input"] for one in known] + ["say what "]
    scores = reward(prompts=prompts, completions=[one["output"] for one in known] + odd)
    assert sum(score is not None for score in scores[:-1]) >= 25  # they are half of the calibration states
    found = reward.scores(prompts, [one["output"] for one in known] + odd)
    assert found.parts["distance"][-1] > np.median(found.parts["distance"][:-1])
    assert isinstance(reward.probe, InferenceTimeProbe) and "confident_" in reward.identity()


def test_what_the_command_refuses(model: Path, tmp_path: Path) -> None:
    data = str(folder(tmp_path))
    with pytest.raises(GuerdonError, match="needs --model"):
        bench_mrmbench(Probed(), data)
    with pytest.raises(GuerdonError, match="whole numbers"):
        bench_mrmbench(Probed(str(model)), data, seeds="a")
    with pytest.raises(GuerdonError, match="did you mean 'paper'"):
        bench_mrmbench(Probed(str(model)), data, recipe="papers")
    with pytest.raises(GuerdonError, match="very same"):
        bench_mrmbench(Probed(str(model), baseline=str(model)), data)


def test_a_baseline_stands_beside(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(folder(tmp_path / "data", dimensions=("coherence",)))
    loaded = ScalarRewardModel.from_pretrained(model)
    loaded.backbone.save_pretrained(tmp_path / "plain")
    loaded.tokenizer.save_pretrained(tmp_path / "plain")
    probed = Probed(str(model), baseline=str(tmp_path / "plain"), max_length=30)
    bench_mrmbench(probed, data, dimensions=["coherence"], recipe="converged", as_json=True)
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told["baseline"] == "plain" and told["baseline_probes"][0]["by_seed"] == told["probes"][0]["by_seed"]
    assert RepresentationReader(model, max_length=30).model.max_length == 30

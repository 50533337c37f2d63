"""A language run in two processes, started as a person would: ``accelerate launch -m guerdon run``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from guerdon.core import processes
from guerdon.core.runs import RunFolder
from guerdon.models.causal import load_causal
from guerdon.models.tiny_causal import tiny_causal
from guerdon.policies.reasoner import ASSETS

REPOSITORY = Path(__file__).parents[1]
TINY = {
    "problems": 16, "watched": 4, "tested": 4, "samples": 2, "training.steps": 2, "training.prompts_per_step": 4,
    "training.num_generations": 4, "training.max_completion_length": 16, "training.save_every": 1,
    "training.watch_every": 1,
}  # fmt: skip


def launched(out: Path, *command: str, **settings: object) -> subprocess.CompletedProcess[str]:
    given = [f"--set={key}={value}" for key, value in {**TINY, **settings}.items()]
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(REPOSITORY / "examples/accelerate/cpu2.yaml")]
    return subprocess.run(
        [sys.executable, *launch, "--main_process_port", "0", "-m", "guerdon", "run", *command, *given, "--out",
         str(out)],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def lines(out: Path) -> list[tuple[int, bool]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["step"], "proxy" in row) for row in found]


@pytest.mark.skipif(not (ASSETS / "reasoner").is_dir(), reason="the embedded reasoner is not here")
def test_two_processes_write_one_run(tmp_path: Path) -> None:
    done = launched(tmp_path / "run", "language", "--reward", "rule_verifier", **{"training.beta": 0.01})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report: ") == 1 and done.stderr.count("run folder: ") == 1
    assert lines(tmp_path / "run") == [(0, True), (1, True), (1, False), (2, True), (2, False)]
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["last_step"] == 2


def test_a_taught_policy_and_its_pairs_are_made_once(tmp_path: Path) -> None:
    model, tokenizer = tiny_causal(["Here is your tea."], hidden=16, layers=1, heads=2, vocab=300)
    model.save_pretrained(tmp_path / "scorer")
    tokenizer.save_pretrained(tmp_path / "scorer")
    settings = {"scorer": tmp_path / "scorer", "begin_steps": 5, "begin_rows": 64, "k": 4, "epochs": 1}
    done = launched(tmp_path / "run", "follow-up-likelihood", **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    pairs = RunFolder(tmp_path / "run").stage_result("mined")
    assert summary["last_step"] == -(-len(pairs) // 4) > 0
    steps = [step for step, _ in lines(tmp_path / "run")]
    assert steps == sorted(steps) and len(set(lines(tmp_path / "run"))) == len(steps), "every line once"
    load_causal(tmp_path / "run" / "model")


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.count() == 1 and processes.first()
    RunFolder.open(tmp_path / "run", {"a": 1})
    monkeypatch.setenv("RANK", "1")
    other = RunFolder.open(tmp_path / "run", {"a": 1}, resume=True)
    other.log(1, {"x": 1.0})
    other.mark_done("stage", 1)
    other.write_summary({"x": 1})
    assert other.metrics() == [] and not other.stage_done("stage") and not (tmp_path / "run" / "summary.json").exists()

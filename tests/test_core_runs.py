"""Run folders: atomic checkpoints, metrics that resume exactly, stages, random states."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from guerdon.core import runs
from guerdon.core.config import Config
from guerdon.core.errors import GuerdonError
from guerdon.core.rng import rng_state, set_rng_state
from guerdon.core.runs import RunFolder

CONFIG = {"steps": 10, "optim": {"lr": 0.1, "name": "adam"}}


def begin(path, config=None, **options):
    return RunFolder.open(path, config or CONFIG, **options)


def train(run, start, stop, every=3, stage=None):
    for step in range(start, stop):
        run.log(step, {"loss": 1 / (step + 1)}, stage=stage)
        if step % every == every - 1:
            run.save_checkpoint(step, {"w": torch.full((3,), float(step))}, {"note": "x"}, stage=stage)


def test_layout_and_config(tmp_path):
    class Settings(Config):
        steps: int = 10
        out: Path = Path("a")

    run = begin(tmp_path / "deep" / "run", Settings())
    assert run.config() == {"steps": 10, "out": "a"}
    assert run.samples.is_dir() and (run.path / "checkpoints").is_dir()
    run.write_summary({"best": np.float32(0.5), "worst": float("nan"), "curve": torch.tensor([1, 2])})
    assert run.summary() == {"best": 0.5, "worst": None, "curve": [1, 2]}


def test_open_says_what_is_wrong(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(GuerdonError, match="already holds a run; resume it"):
        begin(tmp_path / "run")
    with pytest.raises(GuerdonError, match=r"the run has optim.lr = 0.1, but 0.2 was asked for"):
        begin(tmp_path / "run", {"steps": 10, "optim": {"lr": 0.2, "name": "sgd"}}, resume=True)
    with pytest.raises(GuerdonError, match="the run has extra = no such key, but 1"):
        begin(tmp_path / "run", {**CONFIG, "extra": 1}, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(GuerdonError, match="is not empty and holds no run"):
        begin(tmp_path / "other", resume=True)
    assert begin(tmp_path / "run", resume=True).config() == CONFIG
    assert begin(tmp_path / "new", resume=True).config() == CONFIG


def test_checkpoint_round_trip(tmp_path):
    run = begin(tmp_path / "run")
    weight = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    tensors = {"a": weight, "tied": weight, "view": weight.T, "flag": torch.tensor(True), "empty": torch.zeros(0)}
    state = {"lr": 0.1 + 0.2, "seen": [1, 2], "best": float("inf")}
    path = run.save_checkpoint(7, tensors, state)
    loaded, back = run.load_checkpoint(path)
    assert back == {**state, "step": 7}
    assert all(torch.equal(loaded[k], v) and loaded[k].dtype == v.dtype for k, v in tensors.items())
    assert run.latest_checkpoint() == path
    run.save_checkpoint(7, {"a": torch.zeros(1)}, {})
    assert run.load_checkpoint(path)[0]["a"].tolist() == [0.0]
    assert sorted(p.name for p in (run.path / "checkpoints").iterdir()) == ["step-00000007"]


def test_keep_and_latest_by_stage(tmp_path):
    run = begin(tmp_path / "run")
    assert run.latest_checkpoint() is None
    for step in (1, 2, 10):
        run.save_checkpoint(step, {}, keep=2)
        run.save_checkpoint(step + 100, {}, stage="policy")
    names = sorted(p.name for p in (run.path / "checkpoints").iterdir())
    assert names == ["policy-00000101", "policy-00000102", "policy-00000110", "step-00000002", "step-00000010"]
    latest = run.latest_checkpoint(stage="policy")
    assert latest is not None and latest.name == "policy-00000110"


@pytest.mark.parametrize("fails_in", ["save_file", "state", "rename"])
def test_disk_full_leaves_the_previous_checkpoint(tmp_path, monkeypatch, fails_in):
    run = begin(tmp_path / "run")
    first = run.save_checkpoint(1, {"w": torch.ones(2)}, {"n": 1})
    before = {path: path.read_bytes() for path in first.iterdir()}
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*args, **kwargs):
        raise full

    if fails_in == "save_file":
        import safetensors.torch

        monkeypatch.setattr(safetensors.torch, "save_file", refuse)
    elif fails_in == "state":
        monkeypatch.setattr(runs, "_write", refuse)
    else:
        monkeypatch.setattr(Path, "rename", refuse)
    for step in (1, 2):
        with pytest.raises(GuerdonError, match="No space left on device.*the previous one, step-00000001, is intact"):
            run.save_checkpoint(step, {"w": torch.zeros(2)}, {"n": step})
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in first.iterdir()} == before
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_real_full_disk(tmp_path):
    # A limit on the file size stands for the full disk: the write itself fails, in the middle of the file.
    run = begin(tmp_path / "run")
    first = run.save_checkpoint(1, {"w": torch.ones(10)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(GuerdonError, match="could not be written .*; the previous one, step-00000001, is intact"):
            run.save_checkpoint(2, {"w": torch.ones(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run.latest_checkpoint() == first and run.load_checkpoint(first)[0]["w"].tolist() == [1.0] * 10
    assert [p.name for p in (run.path / "checkpoints").iterdir()] == ["step-00000001"]


def test_state_must_be_json(tmp_path):
    with pytest.raises(GuerdonError, match="its state is not JSON: .*Tensor"):
        begin(tmp_path / "run").save_checkpoint(1, {}, {"w": torch.ones(1)})


def test_damaged_checkpoint_is_named(tmp_path):
    run = begin(tmp_path / "run")
    path = run.save_checkpoint(1, {"w": torch.ones(2)})
    (path / "tensors.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(GuerdonError, match="tensors.safetensors cannot be read"):
        run.load_checkpoint(path)


def test_metrics_lines(tmp_path):
    run = begin(tmp_path / "run")
    assert run.metrics() == []
    run.log(1, {"loss": float("nan"), "reward": np.float64(0.5), "counts": {"failed": np.int64(2)}})
    run.log(2, {"loss": torch.tensor(0.25)}, stage="policy")
    assert run.metrics() == [
        {"step": 1, "loss": None, "reward": 0.5, "counts": {"failed": 2}}, {"step": 2, "stage": "policy", "loss": 0.25},
    ]  # fmt: skip
    assert len(run.metrics(stage="policy")) == 1
    with pytest.raises(GuerdonError, match="cannot be named 'step'"):
        run.log(3, {"step": 1})
    with pytest.raises(GuerdonError, match="cannot be written as JSON"):
        run.log(3, {"model": object()})


@pytest.mark.parametrize("killed_at", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("partial", [b"", b'{"step": 9, "lo'])
def test_resumed_metrics_equal_the_uninterrupted_file(tmp_path, killed_at, partial):
    whole = begin(tmp_path / "whole")
    train(whole, 0, 10)
    run = begin(tmp_path / "run")
    train(run, 0, killed_at)
    with run.metrics_path.open("ab") as file:
        file.write(partial)
    run = begin(tmp_path / "run", resume=True)
    latest = run.latest_checkpoint()
    start = 0 if latest is None else run.load_checkpoint(latest)[1]["step"] + 1
    train(run, start, 10)
    assert run.metrics_path.read_bytes() == whole.metrics_path.read_bytes()


def test_stages_keep_their_own_lines_and_results(tmp_path):
    whole, run = begin(tmp_path / "whole"), begin(tmp_path / "run")
    for folder in (whole, run):
        train(folder, 0, 5, stage="rewriter")  # checkpoint at step 2, lines to step 4
        folder.mark_done("rewriter", {"best": 0.5, "seconds": float("nan")})
    train(whole, 0, 8, stage="policy")
    train(run, 0, 5, stage="policy")
    run = begin(tmp_path / "run", resume=True)
    assert run.stage_done("rewriter") and not run.stage_done("policy")
    assert run.stage_result("rewriter") == {"best": 0.5, "seconds": None}
    with pytest.raises(GuerdonError, match="stage 'policy' is not done"):
        run.stage_result("policy")
    assert [line["step"] for line in run.metrics(stage="rewriter")] == [0, 1, 2, 3, 4]
    train(run, 3, 8, stage="policy")
    assert run.metrics_path.read_bytes() == whole.metrics_path.read_bytes()
    with pytest.raises(GuerdonError, match="stage name"):
        run.mark_done("../evil")


def test_rollback_by_step_and_stage(tmp_path):
    run = begin(tmp_path / "run")
    train(run, 0, 5)
    train(run, 0, 5, stage="b")
    run.rollback(2)
    assert [(line.get("stage"), line["step"]) for line in run.metrics()] == [
        *[(None, s) for s in range(3)], *[("b", s) for s in range(5)],
    ]  # fmt: skip


def test_leftovers_of_a_crash_are_cleared(tmp_path):
    run = begin(tmp_path / "run")
    path = run.save_checkpoint(1, {"w": torch.ones(1)})
    checkpoints = run.path / "checkpoints"
    (checkpoints / ".tmp-step-00000002-99").mkdir()
    (checkpoints / ".tmp-step-00000002-99" / "state.json").write_text("{")
    path.rename(checkpoints / ".old-step-00000001")  # killed between the two renames of a second save
    assert run.latest_checkpoint() is None
    run = begin(tmp_path / "run", resume=True)
    assert run.latest_checkpoint() == path and [p.name for p in checkpoints.iterdir()] == ["step-00000001"]


KILLED = """
import sys, torch
sys.path[:0] = {path!r}
from guerdon.core.runs import RunFolder
run = RunFolder.open({folder!r}, {{}}, resume=True)
print("go", flush=True)
for step in range(10_000):
    run.log(step, {{"loss": 0.0}})
    run.save_checkpoint(step, {{"w": torch.full((20_000,), float(step))}}, keep=3)
"""


def test_a_killed_writer_never_leaves_half_a_checkpoint(tmp_path):
    code = KILLED.format(path=sys.path, folder=str(tmp_path / "run"))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    while not list((tmp_path / "run" / "checkpoints").glob("step-*[3-9]")):
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    run = RunFolder.open(tmp_path / "run", {}, resume=True)
    for path in (run.path / "checkpoints").iterdir():
        tensors, state = run.load_checkpoint(path)
        assert torch.equal(tensors["w"], torch.full((20_000,), float(state["step"])))
    latest = run.latest_checkpoint()
    assert latest is not None
    last = json.loads((latest / "state.json").read_text())["step"]
    assert [line["step"] for line in run.metrics()] == list(range(last + 1))


def test_random_states_round_trip_through_a_checkpoint(tmp_path):
    run = begin(tmp_path / "run")
    random.gauss(0, 1), np.random.randn(), torch.randn(1)
    path = run.save_checkpoint(1, rng_state())

    def draw():
        return random.gauss(0, 1), random.random(), np.random.randn(3).tolist(), torch.randn(3).tolist()

    expected = draw()
    draw()
    tensors, _ = run.load_checkpoint(path)
    set_rng_state(tensors)
    assert draw() == expected
    del tensors["rng/numpy"]
    with pytest.raises(GuerdonError, match="lacks the random state 'rng/numpy'"):
        set_rng_state(tensors)


def test_killed_while_an_old_checkpoint_is_deleted(tmp_path, monkeypatch):
    run = begin(tmp_path / "run")
    run.save_checkpoint(1, {"w": torch.ones(1)})

    def half(path, ignore_errors=False):
        if not ignore_errors:
            (path / "tensors.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("guerdon.core.runs.shutil.rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            run.save_checkpoint(2, {"w": torch.ones(1)}, keep=1)
    run = begin(tmp_path / "run", resume=True)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000002"]

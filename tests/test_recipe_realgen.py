"""The whole recipe on a handful of photographs, with a base trained for a few steps: every stage, every file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from guerdon.core import photographs
from guerdon.core.config import load_config
from guerdon.core.errors import GuerdonError
from guerdon.core.runs import RunFolder
from guerdon.recipes import realgen
from guerdon.recipes._realgen_config import PRESETS
from guerdon.recipes._realgen_game import random_reward, smoothness
from guerdon.recipes._realgen_grade import verdicts

TINY = [
    "base_steps=4", "cold_start_steps=4", "detectors.images=24", "detectors.steps=4",
    "detectors.training=[cnn,gradient]",
    "rewriter.steps=2", "rewriter.prompts_per_step=2", "rewriter.num_generations=2", "rewriter.save_every=1",
    "generator.steps=2", "generator.num_steps=3", "generator.eval_steps=2", "generator.group_size=4",
    "generator.prompts_per_step=2", "generator.window={size: 2, lo: 0, hi: 2}", "generator.checkpoint_every=1",
    "evaluation.images=24", "evaluation.watch_images=12", "evaluation.steps=2", "evaluation.watch_every=1",
    "evaluation.fresh_seeds=1", "evaluation.fresh_steps=4", "evaluation.shown=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    crops = photographs.sample(64, seed=1, marked_share=0.0)
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as file:
        for index, (pixels, subject) in enumerate(zip(crops.images, crops.subjects, strict=True)):
            Image.fromarray(pixels).save(folder / f"{index:03d}.png")
            text = f"a photo of {photographs.SUBJECTS[subject].name}"
            file.write(json.dumps({"file_name": f"{index:03d}.png", "text": text}) + "\n")
    return folder


def _config(data: Path, *changes: str) -> realgen.RealGenConfig:
    return load_config(realgen.CONFIG, overrides=[f"data={data}", *TINY, *changes], preset=PRESETS["embedded"])


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "main"
    config = _config(data)
    realgen.run(config, RunFolder.open(path, config))
    return path


def test_a_run_on_own_photographs_leaves_everything(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary["arms"]) == {"base", "stage1", "stages12"}
    roles = {name: row["role"] for name, row in summary["arms"]["base"]["detectors"].items()}
    assert roles == {"cnn": "training", "gradient": "training", "spectrum": "held-out", "wavelet": "validation"}
    for arm in summary["arms"].values():
        assert 0 <= arm["fresh"]["balanced_accuracy"] <= 1 and 0 <= arm["arena"]["win_rate"] <= 1
        assert all(0 <= row["mean"] <= 1 for row in arm["detectors"].values())
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["stage"] == "rewriter"] == [1, 2]
    generator = [row for row in rows if row["stage"] == "generator"]
    assert [row["step"] for row in generator] == [1, 2]
    watched = {"judge/spectrum/held-out", "judge/wavelet/validation", "drift/sharpness", "diversity", "alignment"}
    assert watched <= set(generator[-1])
    index = json.loads((finished / "samples" / "index.json").read_text())
    for arm in ("base", "stage1", "stages12", "reference"):
        assert len(list((finished / "samples" / arm).glob("*.png"))) == len(index)


def test_the_first_update_is_on_policy(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    first = next(row for row in rows if row["stage"] == "generator")
    assert first["ratio_deviation/0"] <= 1e-5


def test_a_control_takes_over_judges_and_rewriter(data: Path, finished: Path, tmp_path: Path) -> None:
    config = _config(data, "reward=smoothness", f"reuse={finished}", "safeguards.early_stopping=false")
    summary = realgen.run(config, RunFolder.open(tmp_path / "control", config))
    main = json.loads((finished / "summary.json").read_text())
    for name in ("spectrum", "wavelet"):
        same = [run["arms"]["base"]["detectors"][name]["mean"] for run in (main, summary)]
        assert same[0] == pytest.approx(same[1], abs=1e-6)
    assert summary["stopped"]["chosen_step"] == 2


_SCRIPT = """
import sys, yaml
from guerdon.core.config import load_config
from guerdon.core.runs import RunFolder
from guerdon.recipes import realgen
config = load_config(realgen.CONFIG, sys.argv[2])
realgen.run(config, RunFolder.open(sys.argv[1], config, resume=True), resume=True)
"""


def _killed_when(marker: Path, run: Path, config: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT, str(run), str(config)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not list(marker.parent.glob(marker.name)):
            assert process.poll() is None, f"ended before {marker} appeared"
            assert time.monotonic() < deadline, f"{marker} never appeared"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "marker",
    ["detectors/cnn/*.safetensors", "rewriter/checkpoints/checkpoint-1/complete", "checkpoints/generator-00000001"],
)
def test_killed_in_any_stage_and_resumed_gives_the_same_figures(
    marker: str, data: Path, finished: Path, tmp_path: Path
) -> None:
    config = finished / "config.yaml"
    _killed_when(tmp_path / "run" / marker, tmp_path / "run", config)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", _SCRIPT, str(tmp_path / "run"), str(config)], check=True, env=environment)
    one, two = (json.loads((path / "summary.json").read_text()) for path in (finished, tmp_path / "run"))
    assert one["arms"] == two["arms"] and one["verdicts"] == two["verdicts"] and one["rewrites"] == two["rewrites"]


def test_too_few_photographs_is_one_clear_error(data: Path, tmp_path: Path) -> None:
    config = _config(data, "evaluation.images=400")
    with pytest.raises(GuerdonError, match="too few"):
        realgen.run(config, RunFolder.open(tmp_path / "few", config))


def test_hub_presets_are_valid_and_ask_for_photographs(tmp_path: Path) -> None:
    for name in ("flux", "sd3.5", "z-image"):
        config = load_config(realgen.CONFIG, overrides=[f"preset={name}"], preset=PRESETS[name])
        assert config.detectors.held_out == "effort" and not config.safeguards.adversarial
        with pytest.raises(GuerdonError, match="needs photographs"):
            realgen.run(config, RunFolder.open(tmp_path / name, config))


def test_controls_look_at_the_picture_only() -> None:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert random_reward(prompts=[""] * 6, completions=images) == random_reward(prompts=[""] * 6, completions=images)
    flat = torch.full((1, 3, 8, 8), 0.5)
    assert smoothness(prompts=[""], completions=flat) == [1.0]
    assert smoothness(prompts=[""], completions=images[:1])[0] < 0.9


def test_verdicts_follow_the_figures() -> None:
    def arm(real: float, fresh: float) -> dict:
        return {
            "detectors": {"spectrum": {"mean": real}}, "fresh": {"balanced_accuracy": fresh},
            "alignment": {"mean": 0.5}, "diversity": 1.0, "coverage": 0.5,
        }  # fmt: skip

    good = verdicts({"base": arm(0.3, 0.9), "stage1": arm(0.4, 0.8), "stages12": arm(0.6, 0.7)}, "spectrum")
    assert all(row["holds"] for row in good)
    hacked = verdicts({"base": arm(0.3, 0.9), "stage1": arm(0.2, 0.9), "stages12": arm(0.1, 1.0)}, "spectrum")
    assert [row["holds"] for row in hacked[:4]] == [True, False, False, False]

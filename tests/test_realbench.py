from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guerdon.benchmarks.judges import DetectorJudge, Verdict
from guerdon.benchmarks.realbench import realbench
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed


def textures(count: int, deviation: float, seed: int, side: int = 16) -> torch.Tensor:
    """Grey noise textures: deviation 0.2 plays the photographs, less looks too smooth."""
    generator = torch.Generator().manual_seed(seed)
    level = 0.4 + 0.2 * torch.rand(count, 1, 1, 1, generator=generator)
    grain = torch.randn(count, 1, side, side, generator=generator)
    return (level + deviation * grain).clamp(0, 1).expand(-1, 3, -1, -1).contiguous()


def roughness(images: torch.Tensor) -> torch.Tensor:
    """P(real) of a detector that looks at pixel contrast: high near the photographs' 0.2."""
    return torch.sigmoid(40 * (images.std((1, 2, 3)) - 0.15))


def noise_lover(images: torch.Tensor) -> torch.Tensor:
    """A frozen detector that can be hacked: the noisier, the more real."""
    return torch.sigmoid(15 * (images.diff(dim=3).abs().mean((1, 2, 3)) - 0.22))


DETECTORS = {"roughness": roughness, "noise lover": noise_lover}
FAST = {"resamples": 200, "codec": "png"}


def test_indistinguishable_smooth_and_hacking_models() -> None:
    photos = textures(80, 0.2, seed=0)
    found = realbench(
        {"like": textures(80, 0.2, 1), "smooth": textures(80, 0.06, 2), "noisy": textures(80, 0.4, 3)},
        photos,
        detectors=DETECTORS,
        training_detectors={"noise lover"},
        **FAST,
    )
    rows = {(row.player, row.detector): row for row in found.detectors}
    like = rows["like", "roughness"]
    assert like.auroc is not None and like.auroc.low < 0.5 < like.auroc.high
    assert like.gap is not None and like.gap.low < 0 < like.gap.high
    smooth = rows["smooth", "roughness"]
    assert smooth.auroc is not None and smooth.auroc.value > 0.99
    assert smooth.tpr_at_fpr is not None and smooth.tpr_at_fpr > 0.95
    assert smooth.pass_rate < 0.05 and not smooth.hacked and not smooth.in_training
    noisy = rows["noisy", "noise lover"]
    assert noisy.hacked and noisy.in_training and noisy.auroc is not None and noisy.auroc.value < 0.05
    assert noisy.mean.value == pytest.approx(float(noise_lover(textures(80, 0.4, 3)).mean()), abs=0.01)
    assert noisy.reference_mean is not None
    assert noisy.reference_mean.value == pytest.approx(float(noise_lover(photos).mean()), abs=0.01)
    warned = [w for w in found.warnings if "noise lover (a training detector)" in w and "of noisy: it is being" in w]
    assert len(warned) == 1
    assert not any("smooth" in w for w in found.warnings)
    swapped = realbench(photos, textures(80, 0.2, 1), detectors={"roughness": roughness}, **FAST)
    straight = realbench(textures(80, 0.2, 1), photos, detectors={"roughness": roughness}, **FAST)
    below = [f for f in (swapped, straight) if f.detectors[0].gap is not None and f.detectors[0].gap.value < 0]
    assert len(below) == 1  # of two equal sets one scores lower; that alone is not hacking
    assert not below[0].detectors[0].hacked and any("not yet a sign of hacking" in w for w in below[0].warnings)
    assert found.drift["noisy"]["noise"] > 1.5 * found.drift["real"]["noise"] > 2 * found.drift["smooth"]["noise"]


def test_codec_and_size_are_equalised_unless_switched_off(tmp_path: Path) -> None:
    """The same textures in colour; photographs come as JPEG files of another size, images as lossless tensors."""
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 25, (60, 48, 48, 3)).clip(0, 255).astype(np.uint8)
    for i, array in enumerate(noise[:30]):
        Image.fromarray(array).save(tmp_path / f"{i:05d}.jpg", quality=90)
    images = torch.from_numpy(noise[30:]).permute(0, 3, 1, 2).float() / 255

    def chroma_detail(x: torch.Tensor) -> torch.Tensor:
        """Sees nothing but the chroma subsampling of the JPEG format."""
        return torch.exp(-4 * (x[:, 0] - x[:, 1]).diff(dim=2).abs().mean((1, 2)))

    options = {"detectors": {"format": chroma_detail}, "resamples": 200}
    raw = realbench(images, tmp_path, equalise=False, **options)
    equal = realbench(images, tmp_path, **options)
    assert raw.detectors[0].auroc is not None and raw.detectors[0].auroc.value == 1.0
    lossless = realbench(images, tmp_path, codec="png", **options)
    gaps = [row.gap.value for found in (raw, lossless, equal) for row in found.detectors if row.gap is not None]
    assert gaps[0] > 0.3 and gaps[1] == pytest.approx(
        gaps[0], abs=0.01
    )  # PNG keeps the traces of the photographs' JPEG
    assert abs(gaps[2]) < gaps[0] / 10
    assert any("not equalised" in w for w in raw.warnings) and not any("not equalised" in w for w in equal.warnings)
    assert (equal.settings["codec"], equal.settings["size"]) == ("jpeg:90", 48)
    small = realbench(images, textures(30, 0.2, 0, side=24), **options)
    assert small.settings["size"] == 24
    enlarged = realbench(images, textures(30, 0.2, 0, side=24), size=48, **options)
    assert any("were enlarged" in w for w in enlarged.warnings)


def test_arena_in_both_orders_cancels_a_slot_preference() -> None:
    class FirstHalfTheTime:
        """Prefers slot 1 on every other pair, else the rougher picture."""

        name = "slot lover"

        def __init__(self) -> None:
            self.calls = 0

        def compare(self, image_1: Image.Image, image_2: Image.Image, prompt: str | None) -> Verdict:
            self.calls += 1
            if (self.calls - 1) // 2 % 2 == 0:
                return "first"
            return "first" if np.asarray(image_1).std() > np.asarray(image_2).std() else "second"

    found = realbench(textures(40, 0.05, 0), textures(40, 0.2, 1), judge=FirstHalfTheTime(), **FAST)
    score = found.arena[0].score
    assert score is not None
    assert score.shown_first == 0.5 and score.shown_second == 0.0
    assert score.win_rate.value == pytest.approx(0.25) and score.consistency == 0.5
    assert score.slot_bias.value == pytest.approx(0.25)
    assert any("slot bias of +0.250" in w for w in found.warnings)
    assert found.arena[0].verdicts == 80 and found.ratings is None


def test_several_models_are_rated_with_the_photographs_at_zero(tmp_path: Path) -> None:
    for name, deviation, seed in (("good", 0.18, 1), ("bad", 0.08, 2), ("photo", 0.2, 3)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(textures(30, deviation, seed)):
            array = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            Image.fromarray(array).save(tmp_path / name / f"{i:05d}.png")
    rng = np.random.default_rng(0)

    def noisy_eye(images: torch.Tensor) -> list[float]:
        return [float(i.std()) + 0.06 * rng.standard_normal() for i in images]

    found = realbench(
        {"good": tmp_path / "good"},
        tmp_path / "photo",
        against={"bad": str(tmp_path / "bad")},
        judge=DetectorJudge(noisy_eye, name="noisy eye"),
        prompts=[f"prompt {i}" for i in range(30)],
        **FAST,
    )
    assert [(row.player, row.opponent) for row in found.arena] == [("good", "bad"), ("good", "real"), ("bad", "real")]
    assert found.ratings is not None and found.ratings.reference == "real" and found.ratings.verdicts == 180
    rating = {name: interval.value for name, interval in found.ratings.ratings.items()}
    assert rating["real"] == 0.0 and rating["bad"] < rating["good"] < 0.3 and rating["bad"] < -0.5
    assert "noisy eye" in found.to_markdown() and "## Ratings" in found.to_markdown()


def test_files_resume_and_reading_back(tmp_path: Path) -> None:
    class Flaky:
        name = identity = "flaky"

        def __init__(self, broken: bool) -> None:
            self.broken, self.calls = broken, 0

        def compare(self, image_1: Image.Image, image_2: Image.Image, prompt: str | None) -> Verdict:
            self.calls += 1
            if self.broken and self.calls % 3 == 0:
                return Failed("mumbled | mumbled", "unparseable")
            return "second"

    images, photos = textures(6, 0.1, 0), textures(6, 0.2, 1)
    options = {"detectors": DETECTORS, "out": tmp_path, "attempts": 1, **FAST}
    first = realbench(images, photos, judge=Flaky(True), **options)
    assert first.arena[0].unparseable_rate == first.arena[0].failure_rate == pytest.approx(4 / 12)
    assert first.arena[0].score is not None and first.arena[0].score.incomplete == 4
    assert any("4 of 12 verdicts failed, 4 of them with: mumbled" in w for w in first.warnings)
    healed = Flaky(False)
    second = realbench(images, photos, judge=healed, **options)
    assert healed.calls == 4 and second.arena[0].failure_rate == 0.0
    stored = json.loads((tmp_path / "realbench.json").read_text())
    assert stored == second.to_dict() and stored["detectors"][0]["hacked"] is False
    assert stored["variety"]["model"]["within_prompt"] is None  # nan is not JSON
    assert (tmp_path / "realbench.md").read_text() == second.to_markdown()
    scores = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert len(scores) == 2 * 2 * 6 and {row["images"] for row in scores} == {"model", "real"}
    own = [row["p_real"] for row in scores if row["images"] == "model" and row["detector"] == "roughness"]
    assert np.mean(own) == pytest.approx(second.detectors[0].mean.value)
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".*.partial"))


def test_markdown_tables_are_whole() -> None:
    found = realbench(textures(8, 0.1, 0), textures(8, 0.2, 1), detectors={"a|b": roughness}, **FAST)
    text = found.to_markdown()
    for block in text.split("\n\n"):
        if block.startswith("|"):
            widths = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(widths) == 1, block
    assert "held out" in text and "a\\|b" in text and "16x16 pixels, codec png" in text


def test_repeated_prompts_widen_the_interval_and_measure_collapse() -> None:
    rng = np.random.default_rng(0)
    once = textures(10, 0.2, 0)
    repeated = once.repeat_interleave(8, dim=0)  # every prompt has one picture, eight times
    prompts = [f"prompt {i // 8}" for i in range(80)]
    scores = dict(zip((float(i.sum()) for i in once), rng.random(10), strict=True))

    def detector(images: torch.Tensor) -> list[float]:
        return [scores[float(i.sum())] for i in images]

    options = {"detectors": {"d": detector}, "equalise": False, "resamples": 400}
    grouped = realbench(repeated, prompts=prompts, **options)
    naive = realbench(repeated, **options)
    widths = [f.detectors[0].mean.high - f.detectors[0].mean.low for f in (grouped, naive)]
    assert widths[0] > 2 * widths[1]
    assert grouped.variety["model"].within_prompt == 0.0 and grouped.variety["model"].overall > 0
    assert math.isnan(naive.variety["model"].within_prompt)


def test_failed_scores_are_left_out_and_counted() -> None:
    def picky(images: torch.Tensor) -> list[float | None]:
        return [None if float(i.mean()) > 0.5 else 0.25 for i in images]

    images = textures(30, 0.1, 0)
    found = realbench(images, textures(30, 0.1, 1), detectors={"picky": picky}, equalise=False, resamples=50)
    kept = int((images.mean((1, 2, 3)) <= 0.5).sum())
    row = found.detectors[0]
    assert (row.images, row.failed) == (kept, 30 - kept) and 0 < kept < 30
    assert row.mean.value == 0.25 and row.auroc is not None and row.auroc.value == 0.5
    with pytest.raises(GuerdonError, match="detector 'never' scored none of model's images"):
        realbench(images, detectors={"never": lambda x: [None] * len(x)}, resamples=50)


def test_unpaired_reference_sets() -> None:
    found = realbench(textures(20, 0.1, 0), textures(35, 0.2, 1), detectors={"roughness": roughness}, **FAST)
    row = found.detectors[0]
    assert row.auroc is not None and row.auroc.value > 0.95 and row.gap is not None and row.gap.low > 0.3
    near = found.variety["model"].against_reference
    assert near is not None and found.variety["real"].against_reference is None
    with pytest.raises(GuerdonError, match="pairs images one to one: model has 20 images, real has 35"):
        realbench(textures(20, 0.1, 0), textures(35, 0.2, 1), judge=DetectorJudge(roughness), **FAST)


def test_honest_warnings() -> None:
    images, photos = textures(8, 0.2, 0), textures(8, 0.2, 1)
    alone = realbench(images, detectors={"roughness": roughness}, training_detectors={"roughness"}, **FAST)
    assert any("no held-out evidence" in w for w in alone.warnings)
    assert any("no reference photographs" in w for w in alone.warnings)
    assert alone.detectors[0].auroc is None and alone.detectors[0].gap is None and not alone.detectors[0].hacked
    biased = realbench(
        images,
        photos,
        detectors=DETECTORS,
        training_detectors={"roughness"},
        judge=DetectorJudge(roughness),
        **FAST,
    )
    assert any("judge is a detector of the training reward" in w for w in biased.warnings)


def test_wrong_input_is_named() -> None:
    images = textures(4, 0.1, 0)
    with pytest.raises(GuerdonError, match="unknown training detector 'rough'; did you mean 'roughness'"):
        realbench(images, detectors={"roughness": roughness}, training_detectors={"rough"})
    with pytest.raises(GuerdonError, match="model has 4 images but there are 3 prompts"):
        realbench(images, prompts=["a", "b", "c"])
    with pytest.raises(GuerdonError, match="give reference photographs or other images"):
        realbench(images, judge=DetectorJudge(roughness))
    with pytest.raises(GuerdonError, match="player name 'real' is taken"):
        realbench({"real": images}, images)
    with pytest.raises(GuerdonError, match=r"bad returned 3.0 for image 0; scores must be in \[0, 1\]"):
        realbench(images, detectors={"bad": lambda x: [3.0] * len(x)})

"""The report: what it says is computed from the run, nothing from the run can become markup, nothing is loaded."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from rich.console import Console

from guerdon.core.errors import GuerdonError
from guerdon.core.photographs import sample
from guerdon.core.runs import RunFolder
from guerdon.report import find, read_record, render, summary_table, write_report
from guerdon.report.figures import Curve, meter, running_mean, spread, watch
from guerdon.report.record import Series
from guerdon.report.tables import approach, verdict_of

ARMS = {"base": "Base", "stage1": "Stage 1", "stages12": "Stages 1+2"}
ROLES = {
    "cnn": "training",
    "patch": "training",
    "gradient": "training",
    "wavelet": "validation",
    "spectrum": "held-out",
}
METERS = {"edge_density": (0.21, 0.44), "colour_entropy": (3.6, 4.3), "saturation": (0.29, 0.33),
          "dark_share": (0.11, 0.12), "sharpness": (0.006, 0.031), "noise": (0.008, 0.021)}  # fmt: skip
# P(real) of each arm by outcome: (training detectors, validation, held-out); real photographs get 0.88
LEVELS = {
    "improved": {"base": (0.28, 0.33, 0.34), "stage1": (0.41, 0.42, 0.43), "stages12": (0.66, 0.67, 0.64)},
    "hacked": {"base": (0.28, 0.33, 0.34), "stage1": (0.41, 0.36, 0.35), "stages12": (0.97, 0.30, 0.24)},
    "unchanged": {"base": (0.28, 0.33, 0.34), "stage1": (0.29, 0.33, 0.35), "stages12": (0.30, 0.34, 0.33)},
}
FRESH = {"improved": (0.81, 0.78, 0.69), "hacked": (0.81, 0.8, 0.99), "unchanged": (0.81, 0.81, 0.82)}


def summary(outcome: str) -> dict[str, Any]:
    """A summary as the recipe writes it, with figures of one ``outcome``."""
    arms: dict[str, Any] = {}
    for place, (name, label) in enumerate(ARMS.items()):
        by_role = dict(zip(("training", "validation", "held-out"), LEVELS[outcome][name]))
        detectors = {}
        for detector, role in ROLES.items():
            mean = by_role[role]
            detectors[detector] = {
                "role": role, "mean": mean, "low": mean - 0.035, "high": min(mean + 0.035, 1.0), "pass_rate": mean**1.2,
                "auroc": 0.95 - 0.45 * mean, "tpr_at_1fpr": 0.5 * (1 - mean),
            }  # fmt: skip
        fresh, far = FRESH[outcome][place], place / 2 if outcome != "unchanged" else 0.02 * place
        drift = {
            meter: base + {"hacked": 1.9}.get(outcome, 0.6) * far * (real - base)
            for meter, (base, real) in METERS.items()
        }
        arms[name] = {
            "label": label,
            "detectors": detectors,
            "alignment": {"mean": 0.262 - 0.003 * place, "low": 0.255 - 0.003 * place, "high": 0.269 - 0.003 * place},
            "diversity": 1.32 + (0.05 if outcome == "improved" else -0.3) * far,
            "coverage": 0.61 + (0.12 if outcome == "improved" else -0.25) * far,
            "fresh": {"balanced_accuracy": fresh, "low": fresh - 0.03, "high": min(fresh + 0.03, 1.0)},
            "drift": drift,
            "arena": None if place == 1 else {
                "win_rate": 0.14 + 0.3 * far, "low": 0.10 + 0.3 * far, "high": 0.19 + 0.3 * far, "consistency": 0.83,
                "slot_bias": 0.04, "parse_failures": 0,
            },
        }  # fmt: skip
    gain = LEVELS[outcome]["stages12"][2] - LEVELS[outcome]["base"][2]
    fell = arms["stages12"]["diversity"] / arms["base"]["diversity"] - 1
    caught = FRESH[outcome][2] - FRESH[outcome][0]
    verdicts = [
        ("held-out judge: gain from base to stages 1+2", "at least +0.25", gain, gain >= 0.25),
        ("fresh detector: change of balanced accuracy", "below 0", caught, caught < 0),
        ("alignment: relative change", "at least -10%", -0.02, True),
        ("diversity: relative change", "at least -10%", fell, fell >= -0.1),
        ("stage 1 beats the untouched prompt at equal alignment", "above 0", None, None),
    ]
    tails = ("raw, natural grain", "crisp, taken on a walk", "sharp and detailed, in daylight")
    seconds = {"detectors": 74.0, "rewriter": 131.5, "generator": 331.2, "evaluation": 140.1}
    return {
        "system": "realgen",
        "title": "RealGen: photorealism from detector rewards",
        "seed": 11,
        "seconds": 682.4,
        "stages": [{"name": name, "seconds": value} for name, value in seconds.items()],
        "finding": None,
        "arms": arms,
        "reference": {
            "detectors": {name: {"mean": 0.88, "low": 0.86, "high": 0.9, "pass_rate": 0.93} for name in ROLES},
            "drift": {meter: real for meter, (_, real) in METERS.items()},
            "diversity": 1.41,
        },
        "verdicts": [dict(zip(("name", "target", "value", "holds"), verdict)) for verdict in verdicts],
        "rewrites": [
            {"prompt": caption, "rewrite": "" if i == 5 else f"{caption}, {tails[i % 3]}", "valid": i != 5}
            for i, caption in enumerate(sample(14, seed=8).captions)
        ],
        "rewriter": {"distinct_2": 0.41, "commonest_tail_share": 0.19, "malformed_share": 0.02},
        "stopped": {"step": 36, "reason": "no better validation score in 4 measurements", "chosen_step": 20},
    }


def log_training(run: RunFolder, outcome: str, *, steps: int) -> None:
    """Both stages: noisy rewards, sparse judges and meters; the held-out judge peaks near step 20 and falls."""
    rng = np.random.default_rng(3)
    trained = [name for name, role in ROLES.items() if role == "training"]
    for step in range(1, 21):
        row: dict[str, Any] = {
            f"reward/{name}": 0.42 - 0.14 * np.exp(-step / 8) + rng.normal(0, 0.02) for name in trained
        }
        row |= {
            "reward/alignment": 0.26 + rng.normal(0, 0.004),
            "reward/format": 0.98,
            "kl": 0.001 * step,
            "seconds": 6.1,
        }
        run.log(step, row, stage="rewriter")
    top = {"improved": 0.51, "hacked": 0.58, "unchanged": 0.02}[outcome]
    for step in range(steps + 1):
        rise = 1 - np.exp(-step / 10)
        row = {f"reward/{name}": min(0.4 + top * rise + rng.normal(0, 0.025), 0.995) for name in trained}
        row |= {
            "reward/alignment": 0.26,
            "kl": 2e-4 * rise,
            "ratio": 1 + rng.normal(0, 1e-4),
            "lr": 3e-4,
            "seconds": 8.0,
        }
        if step % 4 == 0:
            hump = {"improved": 0.27, "hacked": 0.0, "unchanged": 0.01}[outcome] * np.exp(-(((step - 21) / 13) ** 2))
            late = 0.12 * max(0, step - 24) / 16 if outcome != "unchanged" else 0.0
            row["judge/spectrum/held-out"] = 0.40 + hump - late + rng.normal(0, 0.01)
            row["judge/wavelet/validation"] = 0.41 + hump - late + rng.normal(0, 0.01)
            for meter, (base, real) in METERS.items():
                row[f"drift/{meter}"] = base + (real - base) * (1.2 * step / 40 + rng.normal(0, 0.03))
            row |= {
                "distance_to_base": 0.9 * rise,
                "alignment": 0.262 - 0.0002 * step,
                "diversity": 1.32 + 0.002 * step,
            }
        run.log(step, row, stage="generator")


def draw_samples(path: Path, count: int = 12, side: int = 32) -> None:
    photographs = sample(count, seed=5)
    blur = {"base": 1.3, "stage1": 0.9, "stages12": 0.45, "reference": 0.0}
    for folder, radius in blur.items():
        (path / "samples" / folder).mkdir(parents=True, exist_ok=True)
        for index, pixels in enumerate(photographs.images):
            picture = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius))
            picture.resize((side, side)).save(path / "samples" / folder / f"{index:03d}.png")
    entries = [
        {"index": i, "prompt": caption, "rewrite": f"{caption}, raw, natural grain", "seed": 900 + i}
        for i, caption in enumerate(photographs.captions)
    ]
    (path / "samples" / "index.json").write_text(json.dumps(entries), encoding="utf-8")


def make_run(path: Path, outcome: str = "improved", *, finished: bool = True) -> Path:
    training = [name for name, role in ROLES.items() if role == "training"]
    run = RunFolder.open(path, {"seed": 11, "detectors": {"training": training}, "generator": {"learning_rate": 3e-4}})
    log_training(run, outcome, steps=36 if finished else 12)
    if finished:
        run.write_summary(summary(outcome))
        draw_samples(path)
    return path


def rewrite_summary(path: Path, **changes: Any) -> Path:
    """Change top-level keys of summary.json; the metrics and samples stay."""
    data = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    (path / "summary.json").write_text(json.dumps(data | changes), encoding="utf-8")
    return path


def light_run(path: Path, data: Any) -> Path:
    """A folder with nothing but a summary: quick to render."""
    path.mkdir(exist_ok=True)
    (path / "summary.json").write_text(json.dumps(data), encoding="utf-8")
    return path


class Page(HTMLParser):
    """What a browser would build: tags with their attributes, and the text outside of style elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._style = False
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._style = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._style else data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return render(run)


def test_page_loads_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), value
    assert "http" not in html.replace("http-equiv", "")
    assert not re.search(r"@import|url\((?!#)", html)
    assert any("default-src 'none'" in (meta.get("content") or "") for meta in page.named("meta"))


def test_ids_are_unique_and_every_reference_finds_one(html: str) -> None:
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [v[1:] for _, a in page.tags for k in ("href", "xlink:href") if (v := a.get(k)) and v.startswith("#")]
    targets += re.findall(r"url\(#([^)]+)\)", html)
    assert targets and set(targets) <= set(ids)


def test_colours_follow_the_theme(html: str) -> None:
    assert "#0102" not in html
    assert "stroke: var(--held-out)" in html and "prefers-color-scheme: dark" in html


def test_same_folder_same_page(run: Path, html: str) -> None:
    assert render(run) == html
    path = write_report(run)
    assert path == run / "report.html" and path.read_text(encoding="utf-8") == html
    assert not list(run.glob("*.partial"))


def test_nothing_from_the_run_becomes_markup(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}$x$[red]"
    path = make_run(tmp_path / "run")
    data = summary("improved")
    data |= {"title": attack, "system": attack, "finding": attack, "command": attack}
    data["arms"]["stages12"]["label"] = attack
    for arm in [*data["arms"].values(), data["reference"]]:
        arm["detectors"][attack] = arm["detectors"].pop("cnn")
        arm["drift"][attack] = 0.5
    data["verdicts"][0] |= {"name": attack, "target": attack, "value": attack}
    data["rewrites"][0] = {"prompt": attack, "rewrite": attack, "valid": True}
    data["stages"][0]["name"] = data["stopped"]["reason"] = attack
    rewrite_summary(path, **data)
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        for step in (0, 1):
            row = {
                "step": step,
                "stage": attack,
                f"reward/{attack}": 0.5,
                f"judge/{attack}/held-out": 0.5,
                attack: step,
            }
            file.write(json.dumps(row | {f"drift/{attack}": 0.4}) + "\n")
    index = json.loads((path / "samples" / "index.json").read_text(encoding="utf-8"))
    index[0] |= {"prompt": attack, "rewrite": attack + "!", "seed": attack}
    (path / "samples" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    (path / "config.yaml").write_text(f"note: '{attack}'", encoding="utf-8")
    page = Page(render(path))
    assert not page.named("script")
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.named("img"))
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert page.text.count("<script>alert(1)</script>") > 20
    assert "{{ 7*7 }}" in page.text


@pytest.mark.parametrize(
    ("outcome", "kind", "headline"),
    [
        ("improved", "improved", "look more like photographs"),
        ("hacked", "hacked", "reward was hacked"),
        ("unchanged", "unchanged", "No change"),
    ],
)
def test_headline_follows_the_figures(tmp_path: Path, outcome: str, kind: str, headline: str) -> None:
    path = light_run(tmp_path / "run", summary(outcome))
    found = find(read_record(path))
    assert found.kind == kind and headline in found.headline
    before, after = LEVELS[outcome]["base"][2], LEVELS[outcome]["stages12"][2]
    assert (
        f"{after:.2f} on its 0–1 scale of looking real, {before:.2f} before; real photographs get 0.88"
        in found.detail[0]
    )
    text = Page(render(path)).text
    assert found.headline in text and all(sentence in text for sentence in found.detail)
    assert ("Rated above real photographs" in text) == (outcome == "hacked")


def test_a_gain_with_a_missed_aim_or_an_easier_fresh_detector_has_reservations(tmp_path: Path) -> None:
    missed = summary("improved")
    missed["verdicts"][3]["holds"] = False
    found = find(read_record(light_run(tmp_path / "missed", missed)))
    assert found.kind == "mixed" and "1 of the 5 aims was missed" in found.headline
    assert "Missed: diversity: relative change." in found.detail[-1]
    easier = summary("improved")
    easier["arms"]["stages12"]["fresh"] = {"balanced_accuracy": 0.99, "low": 0.98, "high": 1.0}
    found = find(read_record(light_run(tmp_path / "easier", easier)))
    assert found.kind == "mixed" and "newly trained detector" in found.headline


def test_a_fall_without_a_training_gain_is_worse_and_no_interval_is_no_finding(tmp_path: Path) -> None:
    worse = summary("unchanged")
    worse["arms"]["stages12"]["detectors"]["spectrum"] |= {"mean": 0.1, "low": 0.07, "high": 0.13}
    assert find(read_record(light_run(tmp_path / "worse", worse))).kind == "worse"
    bare = summary("improved")
    for arm in bare["arms"].values():
        for detector in arm["detectors"].values():
            del detector["low"], detector["high"]
    assert find(read_record(light_run(tmp_path / "bare", bare))).kind == "measured"


@pytest.mark.parametrize(
    ("holds", "kind"),
    [
        ([True, True], "held"),
        ([True, False], "partly"),
        ([True, None], "undecided"),
        ([False], "missed"),
        ([None], "measured"),
        ([], "measured"),
    ],
)
def test_a_system_without_a_held_out_judge_is_told_by_its_verdicts(tmp_path: Path, holds: list[Any], kind: str) -> None:
    verdicts = [{"name": f"aim {i}", "target": "> 0", "value": 0.1, "holds": state} for i, state in enumerate(holds)]
    path = light_run(tmp_path / "run", {"system": "other", "verdicts": verdicts})
    assert find(read_record(path)).kind == kind
    assert Page(render(path)).text.count("aim 0") >= bool(holds)


def test_grid_shows_the_same_sample_of_every_arm(run: Path, html: str) -> None:
    page = Page(html)
    shown = [image for image in page.named("img") if image["alt"]]
    assert len(shown) == 12 * 4
    assert [(image["alt"] or "").split(":")[0] for image in shown[:4]] == [*ARMS.values(), "Real photographs"]
    pixels = base64.b64decode((shown[6]["src"] or "").split(",")[1])
    with Image.open(io.BytesIO(pixels)) as picture, Image.open(run / "samples" / "stages12" / "001.png") as original:
        assert np.array_equal(np.asarray(picture), np.asarray(original))
    assert "32 × 32 pixels, enlarged without smoothing" in page.text and "seed 903" in page.text


def test_missing_damaged_and_large_pictures(tmp_path: Path) -> None:
    path = light_run(tmp_path / "run", summary("improved"))
    draw_samples(path, count=3, side=640)
    (path / "samples" / "base" / "001.png").unlink()
    (path / "samples" / "stage1" / "002.png").write_bytes(b"no picture")
    page = Page(render(path))
    shown = [image["src"] or "" for image in page.named("img") if image["alt"]]
    assert len(shown) == 3 * 4 - 2 and all(source.startswith("data:image/jpeg") for source in shown)
    with Image.open(io.BytesIO(base64.b64decode(shown[0].split(",")[1]))) as picture:
        assert max(picture.size) == 384
    assert "Damaged and left out: stage1/002.png" in page.text and "without smoothing" not in page.text


def test_watch_tells_what_the_curves_show(run: Path, html: str) -> None:
    text = Page(html).text
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    judge = {r["step"]: r["judge/spectrum/held-out"] for r in rows if "judge/spectrum/held-out" in r}
    assert f"the held-out judge from {judge[0]:.2f} to {judge[20]:.2f}" in text
    assert f"By step 36 the held-out judge stood at {judge[36]:.2f}" in text
    assert "kept: step 20" in text and "stopped: step 36" in text
    assert "spectrum · held-out judge" in text and "wavelet · validation judge" in text
    assert "No validation and no held-out judge was read in this stage." in text
    # Parts of the reward that no detector gave are no P(real): they are drawn apart from the watch.
    assert "alignment · training reward" not in text and "reward: format" in text


def test_unfinished_run_shows_what_there_is(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", "hacked", finished=False)
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 5, "stage": "generator", "reward/cnn": 0.123}\n{"step": 13, "stage": "gener')
    record = read_record(path)
    assert record.stages["generator"]["reward/cnn"].at(5) == 0.123  # a repeated step: the later row counts
    text = Page(render(path)).text
    assert "This run has not finished" in text and "step 12 of the generator stage" in text
    assert "this is what hacking looks like" in text
    assert "1 line could not be read" in text and "RealBench: detector scores" in text
    assert "held-out judge" in text and "alignment · training reward" not in text
    assert find(record).kind == "unfinished"


def test_folders_that_hold_almost_nothing(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="is not a folder"):
        render(tmp_path / "nowhere")
    with pytest.raises(GuerdonError, match="not a run folder"):
        render(tmp_path)
    (tmp_path / "config.yaml").write_text("seed: 1\n", encoding="utf-8")
    text = Page(render(tmp_path)).text
    assert "has not measured anything yet" in text and "metrics.jsonl is not there" in text and "seed: 1" in text
    (tmp_path / "summary.json").write_text('{"arms": ', encoding="utf-8")
    assert "summary.json cannot be read" in Page(render(tmp_path)).text


@pytest.mark.parametrize(
    "wrong", [None, "text", [1, None], {"base": {"detectors": [1]}, "b": {"fresh": 2, "drift": 0}}]
)
def test_a_summary_of_another_shape_is_no_error(tmp_path: Path, wrong: Any) -> None:
    data = summary("improved")
    for key in data:
        path = light_run(tmp_path / "run", {name: value for name, value in data.items() if name != key} | {key: wrong})
        assert "</html>" in render(path)
        summary_table(path)


def test_terminal_table_reads_labels_as_text(tmp_path: Path) -> None:
    data = summary("hacked")
    data["arms"]["stage1"]["label"] = "[red]one[/red]"
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(summary_table(light_run(tmp_path / "run", data)))
    text = console.export_text()
    assert "reward was hacked" in text and "[red]one[/red]" in text
    assert re.search(r"P\(real\) spectrum \(held-out\).*0\.34 \(0\.31–0\.38\).*0\.24 \(", text)
    assert re.search(r"diversity: relative change.*missed", text)


def test_labels_are_spread_evenly_around_where_they_belong() -> None:
    assert spread([0.2, 0.5], 0.1, 0, 1) == pytest.approx([0.2, 0.5])
    assert spread([0.5, 0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.4, 0.5, 0.6])
    assert spread([0.99, 1.0], 0.1, 0, 1) == pytest.approx([0.9, 1.0])
    assert spread([0.0, 0.01], 0.1, 0, 1) == pytest.approx([0.0, 0.1])


def test_a_long_name_at_the_end_of_a_curve_gets_its_room() -> None:
    def ends(label: str) -> float:
        svg = watch([Curve(Series("x", (0, 10), (0.2, 0.3)), label, "held-out")], name="a")
        (place,) = re.findall(rf'x="([\d.]+)"[^>]*>{re.escape(label)} · held-out judge', svg)
        width = float(re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0])
        return width - float(place)

    short, long = "brevity", "a reward whose name is rather long"
    assert ends(long) >= 7 * len(f"{long} · held-out judge") > ends(short) >= 7 * len(f"{short} · held-out judge")


def test_a_share_is_drawn_from_0_to_1() -> None:
    series = Series("drift/ended", (0, 1, 2), (1.0, 0.996, 0.996))
    drawn = {share: meter(series, (), unit="share", name="a", title="Ended", share=share) for share in (True, False)}
    assert ">0.0</text>" in drawn[True] and ">0.0</text>" not in drawn[False]


def test_running_mean_is_centred_and_keeps_a_constant() -> None:
    assert running_mean(np.full(7, 2.5), 3) == pytest.approx(np.full(7, 2.5))
    assert running_mean(np.array([0.0, 0.0, 3.0, 0.0, 0.0]), 3) == pytest.approx([0, 1, 1, 1, 0])


@pytest.mark.parametrize(
    ("before", "after", "real", "reading"),
    [
        (0.2, 0.35, 0.4, "towards the photographs"),
        (0.2, 0.1, 0.4, "away from the photographs"),
        (0.2, 0.45, 0.4, "towards the photographs"),
        (0.2, 0.6, 0.4, "past the photographs"),
        (0.2, 0.205, 0.4, "unmoved"),
        (0.4, 0.6, 0.4, "away from the photographs"),
        (0.2, None, 0.4, "–"),
    ],
)
def test_approach(before: float, after: float | None, real: float, reading: str) -> None:
    assert approach(before, after, real) == reading


def test_a_verdict_marks_the_measure_it_names_alone(tmp_path: Path) -> None:
    def state(*verdicts: tuple[str, Any]) -> str | None:
        items = [{"name": name, "holds": holds} for name, holds in verdicts]
        return verdict_of(read_record(light_run(tmp_path / "run", {"verdicts": items})), "diversity", ("diversity",))

    assert state(("diversity holds up", True)) == "holds"
    assert state(("diversity", True), ("Diversity again", False)) == "fails"
    assert state(("diversity", True), ("diversity", None)) == "open"
    assert state(("alignment and diversity", False)) is None
    assert state(("stage 1 at equal diversity", False)) is None

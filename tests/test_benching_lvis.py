"""``guerdon bench lvis``: from files to tables, a page and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detection_references import coco_figures, made
from guerdon.cli.benching_lvis import bench_lvis
from guerdon.core.errors import GuerdonError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    gt, dt = made(0, objects=40, detections=300)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "dt.json").write_text(json.dumps(dt))
    return tmp_path / "gt.json", tmp_path / "dt.json"


def test_json_is_the_reference_s_figures(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    gt, dt = files
    bench_lvis(gt, [dt], resamples=0, as_json=True)
    told = json.loads(capsys.readouterr().out)
    figures = told["files"]["dt.json"]["figures"]["AP"]
    for name, value in coco_figures(json.loads(gt.read_text()), json.loads(dt.read_text())).items():
        assert np.isnan(value) and figures[name] is None or figures[name] == pytest.approx(value, abs=1e-9)
    assert told["convention"] == "coco" and told["over_first"] == {}


def test_everything_at_once(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    gt, dt = files
    other = dt.with_name("other.json")
    other.write_text(json.dumps([{**row, "score": 0.5} for row in json.loads(dt.read_text())]))
    out = gt.parent / "out"
    bench_lvis(gt, [dt, other], calibrate="isotonic, bbq", folds=3, gaming=3, resamples=4, out=out)
    printed = capsys.readouterr().out
    for part in ("Headlines", "AP-Fixed", "AP-Pool", "isotonic", "bbq", "Gaming by re-scoring classes", "Counts"):
        assert part in printed
    told = json.loads((out / "result.json").read_text())
    game = told["gaming"]["dt.json"]
    assert game["AP-Fixed"]["gain"] == 0 and game["AP"]["after"] >= game["AP"]["before"]
    assert game["AP"]["before"] == pytest.approx(told["files"]["dt.json"]["figures"]["AP"]["AP"])
    assert {one["method"] for one in told["files"]["dt.json"]["calibration"]} == {"raw", "isotonic", "bbq"}
    page = (out / "report.html").read_text()
    assert "Average precision of detections" in page and "<svg" in page


def test_errors(files: tuple[Path, Path]) -> None:
    gt, dt = files
    with pytest.raises(GuerdonError, match="did you mean 'segm'"):
        bench_lvis(gt, [dt], "seg")
    with pytest.raises(GuerdonError, match="did you mean 'platt'"):
        bench_lvis(gt, [dt], calibrate="plat")
    with pytest.raises(GuerdonError, match="go together"):
        bench_lvis(gt, [dt], calibrate="platt", calibrate_gt=gt)
    with pytest.raises(GuerdonError, match="say what to fit"):
        bench_lvis(gt, [dt], calibrate_gt=gt, calibrate_dt=dt)
    with pytest.raises(GuerdonError, match="at least 0"):
        bench_lvis(gt, [dt], gaming=-1)
    with pytest.raises(GuerdonError, match="cannot be read"):
        bench_lvis(gt, [gt.with_name("nothing.json")])

"""The report on a preference set finds what was put into it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from guerdon.cli import app
from guerdon.core.dialogues import embedded_pairs
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.curation.set_report import report_on


def made(prompt, chosen, rejected, **more):
    return Pair(
        [{"role": "user", "content": prompt}],
        [{"role": "assistant", "content": chosen}],
        [{"role": "assistant", "content": rejected}],
        **more,
    )


def test_repeats_contradictions_and_cycles():
    pairs = [made("p", "a", "b"), made("p", "a", "b"), made("p", "b", "a"), made("q", "a", "b")]
    values = report_on(pairs).values
    assert values["pairs"] == 4 and values["pairs a prompt"] == 2
    assert values["duplicates"] == 2 / 4  # two of the four repeat an earlier comparison
    assert values["disagreement"] == pytest.approx(2 / 3)  # of three votes 2:1, one pair of votes in three agrees
    assert values["in cycles"] == 3 / 4  # a > b and b > a
    chain = report_on([made("p", "a", "b"), made("p", "b", "c"), made("p", "c", "a"), made("p", "a", "d")]).values
    assert chain["in cycles"] == 3 / 4 and chain["answers"] == 4


def test_ties_softness_strength_and_images():
    pairs = [
        made("p", "a", "b", smoothing=0.5, row={"mean preference difference": -1.0}),
        made("q", "a", "b", smoothing=0.1, row={"mean preference difference": 2.0}, images=("x",)),
    ]
    values = report_on(pairs).values
    assert values["ties"] == 0.5 and values["softness"] == pytest.approx(0.3)
    assert values["negative strength"] == 0.5 and values["with images"] == 0.5


def test_length_bias_is_found_and_not_invented():
    biased = report_on(embedded_pairs(400, 1, length_bias=4.0))
    fair = report_on(embedded_pairs(400, 1))
    said = {m.name: m.says for report in (biased,) for m in report.measures}
    assert biased.values["longer preferred"] > 0.6 and "favour longer" in said["longer preferred"]
    assert abs(fair.values["longer preferred"] - 0.5) < 0.08


def test_noise_makes_labels_harder_to_predict():
    clean, noisy = (report_on(embedded_pairs(600, 2, noise=noise)).values["words predict"] for noise in (0.0, 0.4))
    assert clean > 0.65 and noisy < clean - 0.1


def test_contamination_counts_pairs_with_a_benchmark_prompt():
    question = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    pairs = [made(question, "a", "b"), made("something else", "a", "b")]
    assert report_on(pairs, benchmark=[question]).values["contaminated"] == 0.5


def test_an_empty_set_is_refused():
    with pytest.raises(GuerdonError, match="at least one pair"):
        report_on([])


def test_the_command(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair.to_row()) + "\n" for pair in embedded_pairs(40, 0)))
    done = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert done.exit_code == 0, done.output
    measures = {m["name"]: m["value"] for m in json.loads(done.stdout.splitlines()[-1])["measures"]}
    assert measures["pairs"] == 40
    assert "longer preferred" in CliRunner().invoke(app, ["inspect", str(path)]).stdout
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text('{"q": "p", "good": "a", "bad": "b"}\n')
    names = [word for name in ("prompt=q", "chosen=good", "rejected=bad") for word in ("--column", name)]
    assert CliRunner().invoke(app, ["inspect", str(renamed), *names]).exit_code == 0
    wrong = CliRunner().invoke(app, ["inspect", str(renamed), "--column", "chosen"])
    assert wrong.exit_code == 2 and "OURS=THEIRS" in wrong.output

"""The claim on penalties: the rows, what is paid, training, a small run, and the whole of it (slow)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from guerdon.claims.resume_grpo import Size, answers, applications, faults, pay, quick, run, train

SIZE = replace(Size(), rows=60, tests=100)


def test_half_of_the_applications_are_good_and_it_shows() -> None:
    rows = applications(400, 2, np.random.default_rng(0))
    assert rows.good.sum() == 200 and rows.features.shape == (400, 5)
    overlap = rows.features[:, 1]
    assert overlap[rows.good].mean() > overlap[~rows.good].mean() + 0.5
    found, detail = faults(rows, SIZE)
    assert found and "resume_repaired 0" in detail


def test_what_is_paid() -> None:
    rows = applications(40, 2, np.random.default_rng(1))
    gentle, harsh, louder, mended = (pay(name, rows) for name in ("gentle", "aggressive", "louder", "repaired"))
    assert gentle.shape == (40, 25)
    torch.testing.assert_close(louder, 2.5 * gentle)
    garbage, rejected = (
        gentle[:, -1],
        gentle[:, [place for place, one in enumerate(answers()) if '"score": 0,' in one.text]],
    )
    torch.testing.assert_close(garbage, rejected[:, -1], msg="garbage is a rejection of score 0")
    assert bool((harsh[rows.good][:, -1] < gentle[rows.good][:, -1]).all())
    assert bool((mended[:, -1] < mended[:, :-1].amin(dim=1)).all())


def test_climbing_learns_who_is_good() -> None:
    rng = np.random.default_rng(2)
    rows, tests = applications(200, 2, rng), applications(200, 2, rng)
    done = train(pay("repaired", rows), rows, tests, 8, True, replace(Size(), steps=200), 2)
    assert done["balanced accuracy"] > 0.65 and done["recall"] > 0.6 and done["garbage on the way"] < 0.15


def test_a_small_run_has_every_arm() -> None:
    result = quick(seeds=(1, 2, 3))
    assert len(result.arms) == 20 and len(result.checks) == 6 and result.seeds == [1, 2, 3]
    assert result.to_json()["verdict"] in ("holds", "fails", "inconclusive")


@pytest.mark.slow
def test_full_claim() -> None:
    result = run((11, 12, 13))
    assert result.verdict == "fails"

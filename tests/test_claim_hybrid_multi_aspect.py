"""The claim on routed rewards: single arms, a small run, and the whole of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from guerdon.claims.hybrid_multi_aspect import ARMS, LENGTHS, Size, added, hybrid, penalised, run, trained

SIZE = replace(Size(), steps=200)


def test_what_the_arms_pay() -> None:
    lengths, true = np.array([[10.0, 40.0, 120.0, 400.0]]), np.array([[0.0, 1.0, 1.0, 0.0]])
    said = np.full_like(true, 0.25)
    assert hybrid(True, lengths, true, said) is true and hybrid(False, lengths, true, said) is said
    assert added(True, lengths, true, said).tolist() == [[0.25, 1.25, 1.25, 0.25]]
    short = penalised("short")(True, lengths, true, said)
    assert short[0, 0] == pytest.approx(-0.5 * (1 - 10 / 80)) and short[0, 1:].tolist() == [1.0, 1.0, 0.0]
    sided = penalised("two_sided")(True, lengths, true, said)
    assert sided[0, 3] == -0.5 and sided[0, 1] == pytest.approx(1 - 0.25)
    assert penalised("short")(False, lengths, true, said) is said


def test_the_model_alone_is_brief_and_the_rule_alone_is_blind() -> None:
    model, rule = (trained(ARMS[name], SIZE, 5) for name in ("model alone", "rule alone"))
    assert model["length"] < 20 and model["accuracy"] < 0.3 and model["worth"] > 0.85
    assert rule["accuracy"] > 0.65 and rule["worth"] == pytest.approx(0.475)
    assert LENGTHS.min() <= rule["length"] <= LENGTHS.max()


def test_a_small_run_has_every_arm() -> None:
    result = run((1, 2), size=replace(Size(), steps=20))
    assert len(result.arms) == 8 and len(result.checks) == 9
    assert result.verdict in ("inconclusive", "fails"), "two seeds cannot hold"


def test_full_claim() -> None:
    """Eight seeds, as the card has; three leave one check, routing against both added up, unclear."""
    assert run(tuple(range(11, 19))).verdict == "holds"

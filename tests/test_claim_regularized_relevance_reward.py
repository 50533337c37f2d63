"""The claim on regularized relevance: its texts, what each reward pays, a small run, and the whole of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from guerdon.claims.regularized_relevance_reward import (
    COPY,
    LONG,
    OFF,
    PADDED,
    REFERENCE,
    REPEAT,
    Size,
    TwoFeatures,
    measured,
    paid,
    preferring,
    probed,
    run,
    world,
)

SIZE = replace(Size(), queries=6, updates=100)


def test_what_each_reward_likes_best() -> None:
    made = world(SIZE, 1)
    assert all(row[REPEAT].startswith(row[COPY]) and row[PADDED].startswith(row[REFERENCE]) for row in made.texts)
    opened = {arm: paid(made, arm, SIZE)[: SIZE.queries].mean(axis=0) for arm in ("length", "times length", "R3")}
    assert opened["length"].argmax() in (OFF, LONG) and opened["times length"].argmax() == REPEAT
    assert opened["R3"].argmax() == LONG
    assert paid(made, "R3", SIZE)[SIZE.queries :].mean(axis=0).argmax() == REFERENCE
    relevance = paid(made, "relevance", SIZE)
    assert relevance[:, COPY] == pytest.approx(1.0) and relevance.max() <= 1.0


def test_what_pairs_teach_about_length() -> None:
    made = world(SIZE, 1)
    liked, balanced = (preferring(made, SIZE, 1, longer=share).weights for share in (0.75, 0.5))
    assert liked[0] > 0.5 > abs(balanced[0]) and min(liked[1], balanced[1]) > 1
    # The longer answer wins at odds of 3 : 1 whatever the topic, so without relevance nothing else is left.
    assert probed(made, TwoFeatures(np.array([1.0, 0.0]))) == 0.0
    assert probed(made, TwoFeatures(np.array([0.0, 1.0]))) == 1.0


def test_a_policy_climbs_it() -> None:
    made = world(SIZE, 2)
    assert measured(made, "R3", SIZE, 2)["worth"] > measured(made, "relevance", SIZE, 2)["worth"] + 0.3


def test_a_small_run_has_every_arm() -> None:
    result = run((1, 2), size=replace(SIZE, updates=20))
    assert len(result.arms) == 9 and len(result.checks) == 12 and result.verdict in ("inconclusive", "fails")


def test_full_claim() -> None:
    assert run((11, 12, 13)).verdict == "holds"

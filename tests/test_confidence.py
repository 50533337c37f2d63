"""A reward behind a distance: what is far from everything known gets none, and a group's statistics leave it out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.scorer import Scorer
from guerdon.models.probe import InferenceTimeProbe
from guerdon.models.representation import RepresentationReader
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone
from guerdon.objectives.advantages import group_advantages
from guerdon.rewards.confidence import ConfidenceMaskedReward


def length(prompts: list[Any], completions: list[str], **columns: Any) -> list[float]:
    return [float(len(completion)) for completion in completions]


def place(conversations: list[list[dict[str, Any]]]) -> np.ndarray:
    """A state that is the number at the end of the answer."""
    return np.array([[float(one[-1]["content"].split()[-1])] for one in conversations])


@pytest.fixture
def probe() -> InferenceTimeProbe:
    states = np.array([[0.0], [0.0], [10.0], [10.0]])
    return InferenceTimeProbe(1).fit(states, {"x": [0, 0, 1, 1]}).calibrate(np.arange(5.0)[:, None])


ANSWERS = ["a 0", "bb 1", "ccc 5", "dddd 10"]


def test_far_samples_have_no_reward(probe: InferenceTimeProbe) -> None:
    reward = ConfidenceMaskedReward(length, place, probe, tau=2.0)
    assert reward(prompts=["q"] * 4, completions=ANSWERS) == [3, 4, None, 7]
    found = reward.scores(["q"] * 4, ANSWERS)
    assert found.parts["distance"].tolist() == [0, 1, 5, 0] and found.parts["kept"].tolist() == [1, 1, 0, 1]
    assert found.counts()["not_applicable"] == 1 and not found.failures
    values, mask = reward.masked(["q"] * 4, ANSWERS)
    assert values.tolist() == [3, 4, 5, 7] and mask.tolist() == [True, True, False, True]
    assert reward.scores([], []).values.shape == (0,)


def test_a_quantile_is_one_of_the_calibration(probe: InferenceTimeProbe) -> None:
    assert ConfidenceMaskedReward(length, place, probe, quantile=0.5).tau == 2.0


def test_group_statistics_leave_the_masked_ones_out(probe: InferenceTimeProbe) -> None:
    found = Scorer(ConfidenceMaskedReward(length, place, probe, tau=2.0)).score(["q"] * 4, ANSWERS)
    advantages = group_advantages(torch.from_numpy(found.values), torch.zeros(4, dtype=torch.int64))
    alone = group_advantages(torch.tensor([3.0, 4.0, 7.0]), torch.zeros(3, dtype=torch.int64))
    assert advantages[2] == 0 and torch.allclose(advantages[[0, 1, 3]], alone)


def test_a_failure_of_the_reward_stays_one(probe: InferenceTimeProbe) -> None:
    def broken(prompts: list[Any], completions: list[str], **columns: Any) -> list[Any]:
        return [Failed("no") if completion.startswith("bb") else 1.0 for completion in completions]

    broken.on_failure = "drop_sample"  # type: ignore[attr-defined]
    found = ConfidenceMaskedReward(broken, place, probe, tau=2.0).scores(["q"] * 4, ANSWERS)
    assert list(found.failures) == [1] and found.as_list() == [1, None, None, 1]


def test_who_it_is_depends_on_what_it_trusts(probe: InferenceTimeProbe) -> None:
    first, other = (ConfidenceMaskedReward(length, place, probe, tau=tau).identity() for tau in (1.0, 2.0))
    assert first != other and first.startswith("confident@")
    for options in ({}, {"tau": 1.0, "quantile": 0.5}):
        with pytest.raises(GuerdonError, match="either tau or quantile"):
            ConfidenceMaskedReward(length, place, probe, **options)


def test_with_a_real_reader_a_sample_that_cannot_be_read_is_not_trusted() -> None:
    backbone, tokenizer = tiny_backbone(["what is a kettle for"], hidden=32)
    reader = RepresentationReader(ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer), max_length=16)
    talks = [[{"role": "user", "content": "kettle?"}, {"role": "assistant", "content": one}] for one in ("yes", "no")]
    probe = InferenceTimeProbe(1).fit(reader(talks).states, {"x": [0, 1]})
    reward = ConfidenceMaskedReward(length, reader, probe, tau=1e-3)
    assert reward(prompts=["kettle?"] * 3, completions=["yes", "no", "no " * 40]) == [3.0, 2.0, None]

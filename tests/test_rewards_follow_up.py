"""The follow-up reward on a tiny model: swaps, priors, failures, calibration, sets, identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Pair
from guerdon.core.scorer import Scorer
from guerdon.models.tiny_causal import tiny_causal
from guerdon.rewards.text.follow_up import FollowUpLikelihoodReward, FollowUpSet, load
from guerdon.rewards.text.follow_up_sets import DEFAULT_SETS, load_sets

SETS = (
    FollowUpSet("correctness", ("That is right.", "Thanks!"), ("That is wrong.", "No.")),
    FollowUpSet("relevance", ("To the point.",), ("Off the point.", "What?")),
)
PROMPTS, ANSWERS = ["two and two?", "name a colour"], ["four", "Hope this helps!"]


@pytest.fixture(scope="module")
def tiny() -> tuple:
    return tiny_causal([*PROMPTS, *ANSWERS, "That is right. That is wrong. Thanks! No."], hidden=32)


def test_swapping_the_sets_negates_exactly(tiny: tuple) -> None:
    own = FollowUpLikelihoodReward(*tiny, SETS)(PROMPTS, ANSWERS)
    turned = FollowUpLikelihoodReward(*tiny, [one.swapped() for one in SETS])(PROMPTS, ANSWERS)
    assert turned == pytest.approx([-float(value) for value in own], abs=1e-9)  # type: ignore[arg-type]


def test_a_score_belongs_to_the_sample(tiny: tuple) -> None:
    reward = FollowUpLikelihoodReward(*tiny, SETS)
    together = Scorer(reward).score(PROMPTS, ANSWERS).values
    alone = [reward([prompt], [answer])[0] for prompt, answer in zip(PROMPTS, ANSWERS)]
    assert together.tolist() == pytest.approx(alone, abs=1e-6)
    naive = FollowUpLikelihoodReward(*tiny, SETS, cache=False)(PROMPTS, ANSWERS)
    assert together.tolist() == pytest.approx(naive, abs=1e-5)


def test_dimensions_are_weighed(tiny: tuple) -> None:
    reward = FollowUpLikelihoodReward(*tiny, SETS, dimension_weights={"relevance": 3.0})
    (one,) = reward.explain(PROMPTS[:1], ANSWERS[:1])
    assert not isinstance(one, Failed) and len(one.utterances) == 7
    assert one.value == pytest.approx((one.dimensions["correctness"] + 3 * one.dimensions["relevance"]) / 4)
    report = reward.dimension_report(PROMPTS, ANSWERS)
    assert set(report) == {"correctness", "relevance"} and -1.001 <= report["relevance"]["correlation"] <= 1.001
    with pytest.raises(GuerdonError, match="relevance"):
        FollowUpLikelihoodReward(*tiny, SETS, dimension_weights={"relevanc": 1.0})


@pytest.mark.parametrize("pmi", ["empty_response", "no_response"])
def test_a_prior_shifts_all_responses_to_a_prompt_alike(tiny: tuple, pmi: str) -> None:
    prompts = [PROMPTS[0]] * 2
    plain, less = (FollowUpLikelihoodReward(*tiny, SETS, pmi=one)(prompts, ANSWERS) for one in (None, pmi))  # type: ignore[arg-type]
    assert plain[0] - less[0] == pytest.approx(plain[1] - less[1], abs=1e-6)  # type: ignore[operator]
    assert plain[0] != pytest.approx(less[0])
    if pmi == "empty_response":
        assert FollowUpLikelihoodReward(*tiny, SETS, pmi=pmi)(prompts[:1], [""])[0] == pytest.approx(0, abs=1e-6)


def test_modes_differ_and_settings_that_do_not_fit_are_refused(tiny: tuple) -> None:
    usual = FollowUpLikelihoodReward(*tiny, SETS)
    released = FollowUpLikelihoodReward(*tiny, SETS, mode="released_code")
    assert usual(PROMPTS, ANSWERS) != pytest.approx(released(PROMPTS, ANSWERS))
    assert usual.identity() != released.identity()
    for options in ({"mode": "logits"}, {"combine": "sum"}, {"pmi": "empty"}, {"layout": "system"}):
        with pytest.raises(GuerdonError):
            FollowUpLikelihoodReward(*tiny, SETS, **options)
    with pytest.raises(GuerdonError, match="no sum"):
        FollowUpLikelihoodReward(*tiny, SETS, mode="released_code", length_norm=False)
    with pytest.raises(GuerdonError, match="empty_response"):
        FollowUpLikelihoodReward(*tiny, SETS, layout="assistant_swap", pmi="no_response")


def test_a_dialogue_too_long_fails_alone(tiny: tuple) -> None:
    found = FollowUpLikelihoodReward(*tiny, SETS)(PROMPTS, ["four", "x7 " * 5000])
    assert isinstance(found[0], float)
    assert isinstance(found[1], Failed) and found[1].kind == "too_long"


def test_calibration_drops_what_tells_nothing(tiny: tuple) -> None:
    reward = FollowUpLikelihoodReward(*tiny, SETS)
    before = reward.identity()
    user, said = {"role": "user", "content": PROMPTS[0]}, [{"role": "assistant", "content": one} for one in ANSWERS]
    pairs = [Pair([user], said[:1], said[1:])]
    accuracy = reward.calibrate(pairs)
    assert set(accuracy.values()) <= {0.0, 0.5, 1.0} and reward.identity() != before
    assert reward.utterance_weights == {key: max(0.0, 2 * share - 1) for key, share in accuracy.items()}
    good, bad = reward([PROMPTS[0]] * 2, ANSWERS)
    if any(share == 1.0 for share in accuracy.values()) and all(
        any(share == 1.0 for key, share in accuracy.items() if key[:2] == (one.dimension, side))
        for one in SETS
        for side in ("positive", "negative")
    ):
        assert good > bad  # type: ignore[operator]


def test_the_default_sets() -> None:
    assert len(DEFAULT_SETS) == 6
    assert all(len(one.positives) == len(one.negatives) == 10 for one in DEFAULT_SETS)
    said = [text.casefold() for one in DEFAULT_SETS for text in (*one.positives, *one.negatives)]
    assert len(set(said)) == 120
    assert all(4 <= len(text.split()) <= 12 for text in said)


def test_sets_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sets.yaml"
    path.write_text("clear:\n  positives: [I see.]\n  negatives: [I am lost.]\n")
    assert load_sets(path) == (FollowUpSet("clear", ("I see.",), ("I am lost.",)),)
    for text, told in (
        ("clear:\n  positives: [I see.]\n", "exactly the lists"),
        ("clear:\n  positives: [I see.]\n  negatives: [i  SEE.]\n", "twice"),
        ("- a\n", "must map"),
        ("a: [", "YAML"),
    ):
        path.write_text(text)
        with pytest.raises(GuerdonError, match=told) as error:
            load_sets(path)
        assert "sets.yaml" in str(error.value)


def test_a_folder_is_loaded(tiny: tuple, tmp_path: Path) -> None:
    model, tokenizer = tiny
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = load(tmp_path, sets=SETS, device="cpu")(PROMPTS, ANSWERS)
    assert found == pytest.approx(FollowUpLikelihoodReward(*tiny, SETS)(PROMPTS, ANSWERS), abs=1e-5)

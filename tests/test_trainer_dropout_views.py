"""Two dropout views: what they are made of, and that copies are refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from guerdon.core.errors import GuerdonError
from guerdon.objectives.contrastive import BETA, contrastive_reward_loss
from guerdon.objectives.preference import bradley_terry
from guerdon.trainers.dropout_views import View, add_prototypes, set_dropout, two_view_loss

BATCH = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(2))
PROTOTYPES = torch.randn(5, 8, generator=torch.Generator().manual_seed(5))


class Model(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(rate))
        self.head = nn.Linear(8, 1)

    def view(self) -> View:
        features = self.body(BATCH)
        return View(*self.head(features).squeeze(-1), *features)


def views(model: Model) -> tuple[View, View]:
    torch.manual_seed(7)
    return model.view(), model.view()


@pytest.mark.parametrize("kind", ["simcse", "swav"])
@pytest.mark.parametrize("mode", ["pairs", "diff"])
def test_loss_is_the_mean_ranking_of_both_passes_and_the_weighted_contrast(kind, mode):
    model, margin = Model(0.3), torch.linspace(-1, 1, 6)
    prototypes = PROTOTYPES if kind == "swav" else None
    one, two = views(model)
    ranking = (bradley_terry(*one[:2], margin=margin) + bradley_terry(*two[:2], margin=margin)) / 2
    contrast = contrastive_reward_loss(one[2], one[3], two[2], two[3], kind=kind, mode=mode, prototypes=prototypes)
    for beta, weight in ((None, BETA[kind, mode]), (0.0, 0.0), (3.0, 3.0)):
        torch.manual_seed(7)
        found = two_view_loss(model.view, kind=kind, mode=mode, beta=beta, prototypes=prototypes, margin=margin)
        assert_close(found, ranking + weight * contrast)


def test_it_trains():
    model = Model(0.3)
    two_view_loss(model.view).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters() if parameter is not model.head.bias)


@pytest.mark.parametrize("model", [Model(0.0), Model(0.3).eval()], ids=["no dropout", "evaluation mode"])
def test_copies_are_refused(model):
    with pytest.raises(GuerdonError, match="the same features"):
        two_view_loss(model.view)


def test_dropout_is_set_everywhere():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0), nn.Sequential(nn.Dropout(0.9)))
    assert set_dropout(model) == 2 and model[1].p == model[2][0].p == 0.05
    for rate in (0.0, 1.0):
        with pytest.raises(GuerdonError, match=r"in \(0, 1\)"):
            set_dropout(model, rate)


def test_a_model_without_dropout_is_refused():
    with pytest.raises(GuerdonError, match="Linear has no dropout"):
        set_dropout(nn.Linear(2, 2))


def test_a_language_model_without_rates_gets_two_views():
    """Published models come with all rates at 0: attention's is then the only place."""
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    model = Qwen3Model(
        Qwen3Config(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )  # fmt: skip
    ).train()
    ids = torch.randint(40, (3, 6))

    def passes() -> torch.Tensor:
        return model(input_ids=ids).last_hidden_state

    assert torch.equal(passes(), passes())
    assert set_dropout(model, 0.3) == 2
    assert not torch.equal(passes(), passes())
    model.eval()
    assert torch.equal(passes(), passes())


def test_prototypes_are_learnt_with_the_model():
    model = Model(0.3)
    prototypes = add_prototypes(model, 8, mode="diff", seed=3)
    assert prototypes.shape == (20, 8) and "prototypes" in dict(model.named_parameters())
    assert torch.equal(prototypes, add_prototypes(Model(0.3), 8, mode="diff", seed=3))
    assert add_prototypes(Model(0.3), 8).shape == (50, 8)
    two_view_loss(model.view, kind="swav", mode="diff", prototypes=prototypes).backward()
    assert prototypes.grad.abs().sum() > 0
    del model.prototypes
    assert "prototypes" not in dict(model.named_parameters())


@pytest.mark.parametrize("kind", ["simcse", "swav"])
def test_in_the_trainer_of_reward_models(kind):
    from guerdon.core.dialogues import embedded_pairs
    from guerdon.core.preferences import text_of
    from guerdon.models.scalar.model import ScalarRewardModel
    from guerdon.models.scalar.tiny import tiny_backbone
    from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer

    pairs = embedded_pairs(16, 1)
    backbone, tokenizer = tiny_backbone([text_of(pair.conversation("chosen")) for pair in pairs], hidden=16, vocab=300)
    model = ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer)
    prototypes = add_prototypes(model, 16) if kind == "swav" else None
    config = PreferenceConfig(steps=2, batch_size=8, learning_rate=1e-3)

    def objective(passes, batch):
        return two_view_loss(passes, kind=kind, prototypes=prototypes, margin=batch.margin)

    with pytest.raises(GuerdonError, match="set_dropout"):
        RewardModelTrainer(model, pairs, config, objective=objective).train()
    set_dropout(model)
    before = None if prototypes is None else prototypes.detach().clone()
    history = RewardModelTrainer(model, pairs, config, objective=objective).train()
    assert len(history) == 2 and history[0]["loss"] != pytest.approx(0.693, abs=0.05)  # more than the ranking
    assert prototypes is None or not torch.equal(prototypes, before)

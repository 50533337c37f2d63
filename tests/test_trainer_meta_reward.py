"""The MetaRM step: its gradient in each variant, against derivatives taken another way."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from guerdon.core.errors import GuerdonError
from guerdon.objectives.meta_reward import bounds, difference_loss, spread_ratio
from guerdon.objectives.preference import bradley_terry
from guerdon.trainers.meta_reward import MetaRMStep

GENERATOR = torch.Generator().manual_seed(3)
LABELLED = torch.randn(2, 12, 5, dtype=torch.float64, generator=GENERATOR)
RESPONSES = torch.randn(6, 4, 5, dtype=torch.float64, generator=GENERATOR)


def a_model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1), nn.Flatten(-2)).double()


def loss(model: nn.Module) -> Tensor:
    return bradley_terry(*model(LABELLED))


def difference(model: nn.Module) -> Tensor:
    return difference_loss(model(RESPONSES))


def flat(tensors) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def gradient(model: nn.Module, closure) -> Tensor:
    return flat(torch.autograd.grad(closure(model), list(model.parameters()), materialize_grads=True))


def moved(model: nn.Module, direction: Tensor, length: float) -> nn.Module:
    twin = copy.deepcopy(model)
    nn.utils.vector_to_parameters(flat(model.parameters()) + length * direction, twin.parameters())
    return twin


def stepped(model: nn.Module, step: MetaRMStep) -> Tensor:
    step(model, loss, difference)
    return flat(parameter.grad for parameter in model.parameters())


@pytest.mark.parametrize("eta", [0.0, 0.7, 5.0, -2.0])
def test_as_printed_is_the_labelled_gradient_at_the_moved_parameters(eta):
    model = a_model()
    before = flat(model.parameters()).clone()
    ahead = moved(model, gradient(model, difference), eta)
    measures = MetaRMStep(eta)(model, loss, difference)
    assert_close(flat(parameter.grad for parameter in model.parameters()), gradient(ahead, loss))
    assert torch.equal(flat(model.parameters()), before)  # to the last bit
    assert_close(measures.loss, loss(ahead).detach())
    assert_close(measures.difference, difference(model).detach())
    low, high = bounds(4)
    assert low <= float(measures.difference) <= high


def test_second_order_is_the_whole_derivative():
    """Against central differences of theta -> L(theta + eta grad J(theta))."""
    model, eta = a_model(), 2.0
    found = stepped(model, MetaRMStep(eta, order="second"))

    def ahead(offset: Tensor) -> float:
        there = moved(model, offset, 1.0)
        return float(loss(moved(there, gradient(there, difference), eta)).detach())

    small = 1e-5
    rows = torch.eye(len(found), dtype=torch.float64) * small
    expected = torch.tensor([(ahead(row) - ahead(-row)) / (2 * small) for row in rows], dtype=torch.float64)
    assert_close(found, expected, atol=1e-7, rtol=1e-5)
    assert not torch.allclose(found, stepped(a_model(), MetaRMStep(eta)), atol=1e-4)


def test_orders_agree_where_the_difference_is_linear_in_the_parameters():
    model = nn.Sequential(nn.Linear(5, 1), nn.Flatten(-2)).double()
    rise = lambda m: m(RESPONSES).mean()  # noqa: E731
    grads = []
    for order in ("first", "second"):
        model.zero_grad()
        MetaRMStep(1.5, order=order)(model, loss, rise)
        grads.append(flat(parameter.grad for parameter in model.parameters()).clone())
    assert_close(*grads)


def test_expansion_adds_the_product_of_the_gradients():
    """d/d eta of the whole derivative at 0 is grad(grad L . grad J): the step works to make that product SMALLER."""
    model, small = a_model(), 1e-4
    plus, minus = (stepped(a_model(), MetaRMStep(eta, order="second")) for eta in (small, -small))
    parameters = list(model.parameters())
    grads = [
        torch.autograd.grad(f(model), parameters, create_graph=True, materialize_grads=True) for f in (loss, difference)
    ]
    product = sum((a * b).sum() for a, b in zip(*grads))
    expected = flat(torch.autograd.grad(product, parameters, materialize_grads=True))
    assert_close((plus - minus) / (2 * small), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("order", ["first", "second"])
def test_kept_ascent_stays(order):
    model, eta = a_model(), 0.7
    expected = moved(model, gradient(model, difference), eta)
    grad = stepped(a_model(), MetaRMStep(eta, order=order))
    assert_close(stepped(model, MetaRMStep(eta, order=order, keep_ascent=True)), grad)
    assert_close(flat(model.parameters()), flat(expected.parameters()))
    assert difference(model).detach() > difference(a_model()).detach()


def test_added_difference():
    model = a_model()
    expected = gradient(model, loss) - 0.7 * gradient(model, difference)
    before = flat(model.parameters()).clone()
    measures = MetaRMStep(0.7, added=True)(model, loss, difference)
    assert_close(flat(parameter.grad for parameter in model.parameters()), expected)
    assert torch.equal(flat(model.parameters()), before)
    assert_close(measures.loss, loss(model).detach())


def test_gradients_add_up_and_backward_can_be_given():
    model = a_model()
    once = stepped(model, MetaRMStep(1.0)).clone()
    assert_close(stepped(model, MetaRMStep(1.0)), 2 * once)  # gradient accumulation
    for order in ("first", "second"):
        model = a_model()
        plain = stepped(a_model(), MetaRMStep(1.0, order=order))
        MetaRMStep(1.0, order=order)(model, loss, difference, backward=lambda total: (0.5 * total).backward())
        assert_close(flat(parameter.grad for parameter in model.parameters()), 0.5 * plain)


@pytest.mark.parametrize("order", ["first", "second"])
def test_frozen_and_unread_parameters(order):
    model = a_model()
    model[0].requires_grad_(False)
    model.register_parameter("spare", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    MetaRMStep(1.0, order=order)(model, loss, difference)
    assert model[0].weight.grad is None and model[2].weight.grad.abs().sum() > 0
    assert model.spare.grad is None or not model.spare.grad.any()
    assert torch.equal(model.spare, torch.ones(3, dtype=torch.float64))


def test_a_failing_loss_leaves_the_parameters_alone():
    model = a_model()
    before = flat(model.parameters()).clone()

    def fails(model: nn.Module) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        MetaRMStep(3.0, keep_ascent=True)(model, fails, difference)
    assert torch.equal(flat(model.parameters()), before)


def test_equal_rewards_are_a_fixed_point_of_the_difference():
    model = nn.Sequential(nn.Linear(5, 1), nn.Flatten(-2)).double()
    nn.init.zeros_(model[0].weight)
    found = MetaRMStep(5.0)(model, loss, difference)
    assert float(found.difference) == pytest.approx(bounds(4)[0])
    assert_close(model[0].weight.grad.flatten(), gradient(model, loss)[:5])


def test_the_difference_grows_with_scale_and_the_ratio_does_not():
    model = a_model()
    shifted, old = model(RESPONSES).detach(), model(LABELLED.transpose(0, 1).reshape(6, 4, 5)).detach()
    assert difference_loss(10 * shifted) > difference_loss(shifted)
    assert_close(spread_ratio(10 * shifted + 3, 10 * old), spread_ratio(shifted, old))


@pytest.mark.parametrize(
    "options, said",
    [
        ({"eta": float("nan")}, "finite"),
        ({"eta": 1.0, "order": "third"}, "choices: first, second"),
        ({"eta": 1.0, "added": True, "keep_ascent": True}, "would do nothing"),
        ({"eta": 1.0, "added": True, "order": "second"}, "would do nothing"),
    ],
)
def test_options_that_make_no_sense(options, said):
    with pytest.raises(GuerdonError, match=said):
        MetaRMStep(**options)


@pytest.mark.parametrize("step", [MetaRMStep(0.5), MetaRMStep(0.5, order="second")], ids=["first", "second"])
def test_on_a_transformer(step):
    """Second derivatives through attention, with a tied embedding and a part that is frozen."""
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, attn_implementation="sdpa",
    )  # fmt: skip
    model = nn.ModuleDict({"backbone": Qwen3Model(config), "head": nn.Linear(16, 1)})
    model["backbone"].embed_tokens.requires_grad_(False)
    ids = torch.randint(40, (10, 6))

    def score(model) -> Tensor:
        return model["head"](model["backbone"](input_ids=ids).last_hidden_state[:, -1])[:, 0]

    before = flat(model.parameters()).clone()
    step(model, lambda m: bradley_terry(*score(m).view(5, 2).T), lambda m: difference_loss(score(m).view(2, 5)))
    grads = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
    assert torch.equal(flat(model.parameters()), before)


@pytest.mark.parametrize("step", [MetaRMStep(0.5), MetaRMStep(0.5, order="second"), MetaRMStep(0.5, added=True)])
def test_in_the_trainer_of_reward_models(step):
    from guerdon.core.dialogues import embedded_pairs
    from guerdon.core.preferences import text_of
    from guerdon.models.scalar.model import ScalarRewardModel
    from guerdon.models.scalar.tiny import tiny_backbone
    from guerdon.trainers.preference import PreferenceConfig, RewardModelTrainer

    pairs = embedded_pairs(16, 1)
    backbone, tokenizer = tiny_backbone([text_of(pair.conversation("chosen")) for pair in pairs], hidden=16, vocab=300)
    answers = [pair.conversation(side) for pair in pairs[:4] for side in ("chosen", "rejected")]

    def train(hook):
        model = ScalarRewardModel.on_backbone(copy.deepcopy(backbone), tokenizer=tokenizer)
        # All of one length, so that no padding is needed.
        ids = torch.tensor([model.encode(one).ids[-12:] for one in answers])

        def difference(model):
            return difference_loss(model(ids, torch.ones_like(ids)).view(4, 2))

        config = PreferenceConfig(steps=2, batch_size=8, learning_rate=1e-3)
        look = None if hook is None else lambda model, loss: vars(hook(model, loss, difference))
        return RewardModelTrainer(model, pairs, config, step=look).train()

    plain, tied, meta = (train(hook) for hook in (None, MetaRMStep(0.0), step))
    # With eta 0 the hook is the plain step; with another it is not.
    assert [row["loss"] for row in tied] == pytest.approx([row["loss"] for row in plain], abs=1e-5)
    assert meta[1]["loss"] != pytest.approx(plain[1]["loss"], abs=1e-7)
    low, high = bounds(2)
    assert all(low <= row["difference"] <= high for row in meta)

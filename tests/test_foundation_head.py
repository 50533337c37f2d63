from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.foundation_head import FoundationHead

SIZES: dict[str, Any] = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7, mlp_ratio=2
)
SIZES["initializer_range"] = 0.2  # untrained tokens that differ from picture to picture


@pytest.fixture(scope="module")
def backbone() -> Dinov2Model:
    torch.manual_seed(0)
    return Dinov2Model(Dinov2Config(**SIZES)).eval()


def head(backbone, seed: int = 1, **options) -> FoundationHead:
    torch.manual_seed(seed)
    return FoundationHead(backbone, hidden=32, **options).eval()


def images(n: int, seed: int = 0, size: int = 28) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def smooth(n: int, seed: int = 0) -> torch.Tensor:
    return F.avg_pool2d(images(n, seed, 36), 9, 1)


def test_reward_is_the_weighted_sum_over_normalised_tokens(backbone: Dinov2Model) -> None:
    model, pictures = head(backbone), images(3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        hidden = backbone(pixel_values=(pictures - mean.view(3, 1, 1)) / std.view(3, 1, 1)).last_hidden_state
        values = model.head(hidden / hidden.norm(dim=-1, keepdim=True)).squeeze(-1)
    assert values.shape == (3, 1 + 16)
    expected = 0.7 * values[:, 0] + 0.3 * values[:, 1:].mean(1)
    assert torch.allclose(model.score(pictures), expected, atol=1e-5)
    assert torch.allclose(model.cls_features(pictures).norm(dim=1), torch.ones(3), atol=1e-5)


def test_register_tokens_are_no_patches() -> None:
    torch.manual_seed(0)
    model = head(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3)).eval())
    assert model.prefix_tokens == 4
    assert model.tokens(images(2)).shape == (2, 1 + 16, 16)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 100), cut=st.integers(1, 4))
def test_scores_belong_to_the_sample(backbone: Dinov2Model, seed: int, cut: int) -> None:
    model, pictures = head(backbone), images(5, seed, size=40)
    parts = torch.cat([model.score(pictures[:cut]), model.score(pictures[cut:])])
    assert torch.allclose(parts, model.score(pictures), atol=1e-5)


def test_one_step_on_different_pictures_raises_the_gap(backbone: Dinov2Model) -> None:
    model, real, fake = head(backbone, lr=1e-2), smooth(16), images(16)
    frozen = {key: value.clone() for key, value in backbone.state_dict().items()}

    def gap() -> float:
        return float(model.score(real).mean() - model.score(fake).mean())

    before = gap()
    info = model.update(real, fake)
    assert info["gap"] == pytest.approx(before, abs=1e-5)
    assert gap() > before
    for _ in range(60):
        info = model.update(real, fake)
    assert info["accuracy"] == 1.0 and info["loss"] < 1.0
    assert all(torch.equal(value, frozen[key]) for key, value in backbone.state_dict().items())
    # Training and scoring see the same tokens, so what was learnt shows in the score of unseen pictures.
    assert model.score(smooth(8, seed=5)).min() > model.score(images(8, seed=6)).max()


def test_first_loss_is_the_hinge_with_the_patch_weight(backbone: Dinov2Model) -> None:
    model = head(backbone)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
    # A head that answers 0 everywhere has L_cls = L_patch = 1.
    assert model.update(images(2), images(3, seed=1))["loss"] == pytest.approx(1.3)


def test_patch_sampling_is_one_index_set_from_the_generator(backbone: Dinov2Model) -> None:
    runs = []
    for seed in (3, 3, 4):
        model = head(backbone, patches_per_update=4)
        generator = torch.Generator().manual_seed(seed)
        runs.append([model.update(images(4), smooth(4), generator=generator)["loss"] for _ in range(3)])
    assert runs[0] == runs[1] != runs[2]
    assert all(math.isfinite(loss) for loss in runs[0])


def test_mistakes_are_named(backbone: Dinov2Model) -> None:
    with pytest.raises(GuerdonError, match="image_size 30 is not a multiple of the patch size 7"):
        FoundationHead(backbone, image_size=30)
    with pytest.raises(GuerdonError, match="2 real and 0 fake"):
        head(backbone).update(images(2), images(0))


def test_backbone_stays_in_evaluation_mode_and_loads_by_name(backbone: Dinov2Model, tmp_path) -> None:
    model = head(backbone).train()
    assert not model.backbone.training and model.head.training
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "head.0.weight",
        "head.0.bias",
        "head.2.weight",
        "head.2.bias",
    }
    backbone.save_pretrained(tmp_path)
    torch.manual_seed(1)
    loaded = FoundationHead.from_pretrained(str(tmp_path), image_size=28, hidden=32)
    assert torch.allclose(loaded.score(images(2)), model.score(images(2)), atol=1e-6)

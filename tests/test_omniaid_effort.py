from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.effort import Effort
from guerdon.models.detectors.omniaid import OmniAID
from guerdon.models.preprocess import CLIP_STATISTICS, normalise, resize, shortest_side_crop


@pytest.fixture(scope="module")
def vision() -> CLIPVisionModel:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7
    )
    return CLIPVisionModel(config).eval()


def images(n: int, seed: int = 0, size: tuple[int, int] = (40, 32)) -> torch.Tensor:
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed))


def omniaid(vision: CLIPVisionModel, seed: int = 1, **options) -> OmniAID:
    torch.manual_seed(seed)
    return OmniAID(vision, **{"rank": 2, "squash": 64, **options}).eval()


def published_omniaid(model: OmniAID) -> dict[str, torch.Tensor]:
    """The state as the published checkpoints name it."""
    names = [
        ("vision.embeddings.", "embeddings."),
        ("vision.pre_layrnorm.", "ln_pre."),
        ("vision.encoder.layers.", "encoder_layers."),
        ("vision.post_layernorm.", "ln_post."),
        ("router.", "gating_network.network."),
    ]
    state = {}
    for key, value in model.state_dict().items():
        for own, theirs in names:
            if key.startswith(own):
                key = theirs + key[len(own) :]
                break
        state[key] = value.clone()
    return state


def test_preprocessing_squashes_and_normalises(vision: CLIPVisionModel) -> None:
    grey = torch.full((1, 3, 50, 30), 0.25)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in CLIP_STATISTICS)
    for model in (omniaid(vision), Effort(vision)):
        prepared = model.preprocess(grey)
        assert prepared.shape == (1, 3, 28, 28)
        assert torch.allclose(prepared, ((0.25 - mean) / std).expand(1, 3, 28, 28), atol=1e-5)
    assert torch.allclose(Effort(vision, statistics="none").preprocess(grey), torch.tensor(0.25))
    detailed = images(1, size=(90, 70))
    assert torch.allclose(
        omniaid(vision).preprocess(detailed),
        normalise(resize(resize(detailed, 64, 64, "bilinear"), 28, 28, "bilinear"), CLIP_STATISTICS),
    )
    with pytest.raises(GuerdonError, match="statistics must be"):
        Effort(vision, statistics="dino")  # type: ignore[arg-type]


def test_resize_is_pils_and_the_crop_is_central() -> None:
    import numpy as np
    from PIL import Image

    from guerdon.core.images import as_tensor, to_pil

    picture = as_tensor(to_pil(images(1, size=(60, 44))))
    expected = as_tensor([to_pil(picture)[0].resize((20, 24), Image.Resampling.BICUBIC)])
    assert np.abs((resize(picture, 24, 20) - expected).numpy()).max() < 2.5 / 255
    wide = torch.zeros(1, 3, 20, 60)
    wide[..., 20:40] = 1.0
    assert torch.allclose(shortest_side_crop(wide, 20), torch.tensor(1.0))
    assert shortest_side_crop(torch.rand(1, 3, 61, 20), 16).shape == (1, 3, 16, 16)


def test_effort_starts_as_the_original_tower(vision: CLIPVisionModel) -> None:
    model = Effort(vision).eval()
    pixels = model.preprocess(images(3))
    with torch.no_grad():
        expected = vision(pixel_values=pixels).pooler_output
        assert torch.allclose(model.backbone(pixel_values=pixels).pooler_output, expected, atol=1e-5)
    assert model.regularisation().item() < 1e-4
    trainable = {name.rsplit(".", 1)[-1] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"U_residual", "S_residual", "V_residual", "weight", "bias"}
    assert {n for n, p in model.named_parameters() if p.requires_grad and "residual" not in n} == {
        "head.weight",
        "head.bias",
    }


def test_omniaid_is_the_original_tower_for_gates_that_sum_to_one(vision: CLIPVisionModel) -> None:
    model, pictures = omniaid(vision), images(3)
    with torch.no_grad():
        features = vision(pixel_values=model.preprocess(pictures)).pooler_output
        gates = torch.tensor([[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1.0], [0, 0.1, 0.9, 0, 0, 0]])
        assert torch.allclose(model(pictures, gates), model.head(features), atol=1e-5)
        # The router's own gates sum to 2, so the untrained network is not the original one.
        assert not torch.allclose(model(pictures), model.head(features), atol=1e-4)
    assert model.orthogonality().item() < 1e-4


@pytest.mark.parametrize("routing", ["pooler", "embeddings"])
def test_router_takes_two_semantic_experts_and_always_the_artifact_one(vision: CLIPVisionModel, routing: str) -> None:
    model = omniaid(vision, routing=routing)
    pixels = model.preprocess(images(5))
    gates = model.route(pixels).detach()
    assert gates.shape == (5, 6) and torch.equal(gates[:, 5], torch.ones(5))
    assert torch.equal((gates[:, :5] > 0).sum(1), torch.full((5,), 2))
    assert torch.allclose(gates[:, :5].sum(1), torch.ones(5))
    with torch.no_grad():
        if routing == "pooler":
            features = vision(pixel_values=pixels).pooler_output
        else:
            features = vision.embeddings(pixels)[:, 1:].mean(1)
        logits = model.router(features)
    best = logits.topk(2).indices
    for row in range(5):
        assert set(gates[row, :5].nonzero().flatten().tolist()) == set(best[row].tolist())
        ratio = gates[row, best[row, 0]] / gates[row, best[row, 1]]
        assert float(ratio.log()) == pytest.approx(
            float(logits[row, best[row, 0]] - logits[row, best[row, 1]]), abs=1e-4
        )


def test_omniaid_learns_with_head_experts_and_router_only(vision: CLIPVisionModel) -> None:
    model = omniaid(vision).train()
    before = copy.deepcopy(model.state_dict())
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    loss = torch.nn.functional.cross_entropy(model(images(4)), torch.tensor([0, 0, 1, 1])) + model.orthogonality()
    loss.backward()
    optimiser.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {"head.weight", "head.bias"} <= changed
    assert any("experts" in key for key in changed) and any(key.startswith("router") for key in changed)
    assert all(key.startswith(("head", "router")) or "_experts." in key for key in changed)


def test_copies_do_not_share_their_gates(vision: CLIPVisionModel) -> None:
    model = omniaid(vision)
    twin = copy.deepcopy(model)
    pictures = images(2)
    assert torch.equal(model.score(pictures), twin.score(pictures))
    assert twin._gates is not model._gates
    assert twin.vision.encoder.layers[0].self_attn.q_proj.gates is twin._gates


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 100), cut=st.integers(1, 4))
def test_scores_belong_to_the_sample(vision: CLIPVisionModel, seed: int, cut: int) -> None:
    pictures = images(5, seed)
    for model in (omniaid(vision), Effort(vision).eval()):
        whole = model.score(pictures)
        assert whole.shape == (5,) and ((whole > 0) & (whole < 1)).all()
        parts = torch.cat([model.score(part) for part in (pictures[:cut], pictures[cut:])])
        assert torch.allclose(parts, whole, atol=1e-5)


def test_published_omniaid_weights_load_strictly(vision: CLIPVisionModel, tmp_path) -> None:
    trained, fresh = omniaid(vision, seed=1), omniaid(vision, seed=2)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    state = published_omniaid(trained)
    assert "gating_network.network.2.weight" in state and "encoder_layers.1.self_attn.q_proj.U_experts.5" in state
    state["embeddings.position_ids"] = torch.arange(17)[None]
    pictures = images(3)
    assert not torch.allclose(fresh.score(pictures), trained.score(pictures), atol=1e-4)
    fresh.load_published({f"module.{key}": value for key, value in state.items()})
    assert torch.equal(fresh.score(pictures), trained.score(pictures))

    key = "encoder_layers.0.self_attn.q_proj.V_r"
    with pytest.raises(GuerdonError, match=r"layers\.0\.self_attn\.q_proj\.V_r' is missing"):
        omniaid(vision).load_published({k: v for k, v in state.items() if k != key})
    with pytest.raises(GuerdonError, match="'gate.weight'"):
        omniaid(vision).load_published(state | {"gate.weight": torch.zeros(1)})
    with pytest.raises(GuerdonError, match=r"k_proj\.U_r' has shape \[16, 14\], this model needs \[16, 15\]"):
        omniaid(vision, rank=1).load_published(state)
    with pytest.raises(GuerdonError, match="feature_extractor"):
        omniaid(vision, routing="embeddings").load_published(state)

    vision.save_pretrained(tmp_path / "backbone")
    save_file(state, tmp_path / "omniaid.safetensors")
    loaded = OmniAID.from_pretrained(tmp_path / "omniaid.safetensors", backbone=str(tmp_path / "backbone"), rank=2)
    loaded.squash = 64
    assert torch.allclose(loaded.score(pictures), trained.score(pictures), atol=1e-6)


def test_published_effort_weights_load_strictly(vision: CLIPVisionModel, tmp_path) -> None:
    trained, fresh = Effort(vision).eval(), Effort(vision).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    state = {k: v.clone() for k, v in trained.state_dict().items() if not k.endswith("weight_original_fnorm")}
    for key in [key for key in state if key.endswith(".U_r")]:
        state[key[:-3] + "S_r"] = torch.ones(15)
    pictures = images(3)
    fresh.load_published(state)
    assert torch.equal(fresh.score(pictures), trained.score(pictures))
    wrong = "backbone.encoder.layers.1.self_attn.k_proj.S_residual"
    with pytest.raises(GuerdonError, match="k_proj.S_residual' has shape"):
        fresh.load_published(state | {wrong: torch.ones(2)})
    with pytest.raises(GuerdonError, match="'head.bias' is missing"):
        fresh.load_published({k: v for k, v in state.items() if k != "head.bias"})
    vision.save_pretrained(tmp_path / "backbone")
    save_file(state, tmp_path / "effort.safetensors")
    loaded = Effort.from_pretrained(tmp_path / "effort.safetensors", backbone=str(tmp_path / "backbone"))
    assert torch.allclose(loaded.score(pictures), trained.score(pictures), atol=1e-6)


def test_options_are_checked(vision: CLIPVisionModel) -> None:
    with pytest.raises(GuerdonError, match="top_k must lie in"):
        omniaid(vision, top_k=6)
    with pytest.raises(GuerdonError, match="routing must be"):
        omniaid(vision, routing="cls")

from __future__ import annotations

import pytest
import torch
from torch import nn

from guerdon.core.errors import GuerdonError
from guerdon.models.detectors.svd import Gates, SVDMoELinear, SVDResidualLinear, read_weights, split_weight


def linear(inputs: int = 6, outputs: int = 6, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs)


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 6), (8, 5), (5, 8)])
def test_split_weight_is_the_whole_weight_and_takes_the_smallest_as_residual(inputs: int, outputs: int) -> None:
    weight = linear(inputs, outputs).weight
    (u, s, v), (u_residual, s_residual, v_residual) = split_weight(weight, 2)
    assert torch.allclose((u * s) @ v + (u_residual * s_residual) @ v_residual, weight, atol=1e-6)
    assert s_residual.max() <= s.min() and len(s_residual) == 2
    assert torch.allclose(torch.cat([s, s_residual]), torch.linalg.svdvals(weight), atol=1e-6)


@pytest.mark.parametrize("rank", [0, 6, 7])
def test_rank_has_to_leave_something_on_both_sides(rank: int) -> None:
    with pytest.raises(GuerdonError, match=r"\[1, 5\] for a layer \[6, 6\]"):
        SVDResidualLinear(linear(), rank)


@pytest.mark.parametrize("rank", [1, 3])
def test_residual_layer_starts_as_the_original(rank: int) -> None:
    original, x = linear(8, 5), torch.randn(2, 3, 8)
    layer = SVDResidualLinear(original, rank)
    assert torch.allclose(layer(x), original(x), atol=1e-6)
    assert torch.allclose(layer.weight(), original.weight, atol=1e-6)
    assert layer.orthogonality().item() < 1e-5 and layer.keep_norm().item() < 1e-5


def test_only_the_residual_is_trained_and_the_losses_see_it_leave() -> None:
    layer = SVDResidualLinear(linear(), 1)
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {
        "U_residual",
        "S_residual",
        "V_residual",
    }
    with torch.no_grad():
        layer.U_residual.copy_(layer.U_r[:, :1])
    # A left singular vector that is there twice: U^T U - I has two entries of 1 off the diagonal.
    assert layer.orthogonality().item() == pytest.approx(0.5 * 2**0.5, abs=1e-5)
    with torch.no_grad():
        layer.U_residual.copy_(split_weight(layer.weight_main, 1)[1][0])
        before = float(layer.S_residual)
        layer.S_residual.add_(1.0)
    assert layer.keep_norm().item() == pytest.approx((before + 1) ** 2 - before**2, rel=1e-3)


def test_experts_with_gates_that_sum_to_one_start_as_the_original() -> None:
    original, gates = linear(8, 5), Gates()
    layer = SVDMoELinear(original, rank=2, experts=3, gates=gates)
    x = torch.randn(2, 4, 8)
    gates.value = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.0, 1.0]])
    assert torch.allclose(layer(x), original(x), atol=1e-6)
    # Gates of 0 leave the main part; gates that sum to 2 count the smallest triplets twice.
    u, s, v = split_weight(original.weight, 2)[1]
    residual = x @ ((u * s) @ v).T
    gates.value = torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.6, 1.0]])
    result = layer(x)
    assert torch.allclose(result[0], (original(x) - residual)[0], atol=1e-6)
    assert torch.allclose(result[1], (original(x) + residual)[1], atol=1e-6)


def test_experts_are_summed_with_their_own_gates() -> None:
    gates = Gates()
    layer = SVDMoELinear(linear(), rank=1, experts=3, gates=gates)
    torch.manual_seed(1)
    for parameter in (*layer.U_experts, *layer.S_experts, *layer.V_experts):
        nn.init.normal_(parameter)
    x = torch.randn(2, 4, 6)
    gates.value = torch.tensor([[0.7, 0.0, 1.0], [0.0, 0.3, 1.0]])
    expected = x @ layer.weight_main.T + layer.bias
    for e in range(3):
        weight = (layer.U_experts[e] * layer.S_experts[e]) @ layer.V_experts[e]
        expected = expected + gates.value[:, e, None, None] * (x @ weight.T)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    layer(x).sum().backward()
    assert layer.U_experts[0].grad is not None and layer.bias.grad is None
    assert SVDMoELinear(linear(), 1, 3, gates).orthogonality().item() < 1e-5 < layer.orthogonality().item()


def test_gates_of_another_batch_are_refused() -> None:
    gates = Gates()
    layer = SVDMoELinear(linear(), 1, 3, gates)
    with pytest.raises(GuerdonError, match=r"must be \[2, 3\] for this batch, got None"):
        layer(torch.randn(2, 4, 6))
    gates.value = torch.ones(1, 3)
    with pytest.raises(GuerdonError, match=r"got \[1, 3\]"):
        layer(torch.randn(2, 4, 6))


def test_weights_are_read_from_safetensors_only(tmp_path) -> None:
    with pytest.raises(GuerdonError, match="no weights file"):
        read_weights(tmp_path / "gone.safetensors")
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(GuerdonError, match="convert pickled checkpoints"):
        read_weights(tmp_path / "weights.pth")
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(GuerdonError, match="not a safetensors file"):
        read_weights(tmp_path / "weights.safetensors")

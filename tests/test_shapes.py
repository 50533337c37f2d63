from __future__ import annotations

import pytest
import torch

from guerdon.objectives.shapes import at_least_float32, check_same_shape, over_sample_dims, per_sample


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.int64, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_at_least_float32(given: torch.dtype, computed: torch.dtype) -> None:
    assert at_least_float32(torch.ones(2).to(given)).dtype == computed


@pytest.mark.parametrize("value", [0.5, torch.tensor(0.5), torch.full((3,), 0.5), torch.full((3, 1, 1), 0.5)])
def test_per_sample_accepts_every_spelling(value: float | torch.Tensor) -> None:
    out = per_sample(value, torch.zeros(3, 4, 5), "t")
    assert out.shape == (3, 1, 1)
    assert torch.equal(out, torch.full((3, 1, 1), 0.5))


def test_per_sample_keeps_the_order_of_the_batch() -> None:
    assert per_sample(torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3, 3), "t")[:, 0].tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )


def test_per_sample_takes_the_precision_of_the_samples() -> None:
    grid = torch.linspace(1, 0, 3, dtype=torch.float64)
    assert per_sample(grid, torch.zeros(3, 2), "t").dtype == torch.float32
    assert per_sample(grid, torch.zeros(3, 2, dtype=torch.bfloat16), "t").dtype == torch.float32
    assert per_sample(0.5, torch.zeros(3, 2, dtype=torch.float64), "t").dtype == torch.float64


def test_per_sample_names_the_argument_and_the_shapes() -> None:
    with pytest.raises(ValueError, match=r"t_next must be .*\[3\].* got \[2\]"):
        per_sample(torch.zeros(2), torch.zeros(3, 4), "t_next")
    with pytest.raises(ValueError, match="batch dimension"):
        per_sample(0.5, torch.tensor(1.0), "t")


def test_over_sample_dims() -> None:
    x = torch.arange(12.0).reshape(2, 2, 3)
    assert over_sample_dims(x, "mean").tolist() == [2.5, 8.5]
    assert over_sample_dims(x, "sum").tolist() == [15.0, 51.0]
    assert over_sample_dims(torch.tensor([1.0, 2.0]), "mean").tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="'mean' or 'sum'"):
        over_sample_dims(x, "max")  # type: ignore[arg-type]


def test_check_same_shape_names_all() -> None:
    check_same_shape(a=torch.zeros(2, 3), b=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"a \[2, 3\], b \[3, 2\]"):
        check_same_shape(a=torch.zeros(2, 3), b=torch.zeros(3, 2))

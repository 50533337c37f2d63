"""Pictures as tensors and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from guerdon.core.errors import GuerdonError
from guerdon.core.images import as_tensor, to_pil


def levels(n=2, height=4, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def test_every_form_gives_the_same_tensor():
    arrays = levels()
    expected = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255
    forms = [arrays, list(arrays), [Image.fromarray(a) for a in arrays], expected, expected.double(), list(expected)]
    for form in forms:
        tensor = as_tensor(form)
        assert tensor.dtype == torch.float32 and tensor.shape == (2, 3, 4, 6)
        assert torch.equal(tensor, expected)
    assert as_tensor(expected).data_ptr() == expected.data_ptr()


def test_round_trip_is_exact():
    arrays = levels()
    back = to_pil(as_tensor(arrays))
    assert [image.mode for image in back] == ["RGB"] * 2
    assert np.array_equal(np.stack([np.asarray(image) for image in back]), arrays)
    assert np.asarray(to_pil(torch.full((1, 3, 1, 1), 0.999))[0]).ravel().tolist() == [255] * 3


def test_other_modes_become_rgb_and_gradients_survive():
    grey = Image.new("L", (2, 2), 128)
    assert torch.allclose(as_tensor([grey]), torch.full((1, 3, 2, 2), 128 / 255))
    images = torch.rand(1, 3, 2, 2, requires_grad=True)
    as_tensor(images).sum().backward()
    assert images.grad is not None


def test_the_row_is_named():
    good = levels()
    with pytest.raises(GuerdonError, match="image row 1 is 5x6, but row 0 is 4x6"):
        as_tensor([good[0], levels(height=5)[0]])
    with pytest.raises(GuerdonError, match="image row 1 must be .* got str"):
        as_tensor([good[0], "picture"])
    with pytest.raises(GuerdonError, match="got ndarray float64"):
        as_tensor([good[0].astype(float)])
    bad = torch.rand(3, 3, 2, 2)
    bad[2, 0, 0, 0] = 2.0
    with pytest.raises(GuerdonError, match=r"image row 2 must lie in \[0, 1\], found \[.*, 2\]"):
        as_tensor(bad)
    bad[2, 0, 0, 0] = float("nan")
    with pytest.raises(GuerdonError, match="image row 2 must lie"):
        as_tensor(bad)
    for wrong in (torch.rand(3, 2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.rand(1, 4, 2, 2), "x", 3):
        with pytest.raises(GuerdonError, match="image completions must be"):
            as_tensor(wrong)


def test_empty():
    assert as_tensor([]).shape[0] == 0 and to_pil(torch.zeros(0, 3, 2, 2)) == []

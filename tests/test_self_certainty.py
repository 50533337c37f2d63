"""Self-certainty: the unit facts of its three forms, chunks, masks and gradients."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from guerdon.objectives.self_certainty import Form, self_certainty, token_certainty

FORMS = get_args(Form)


@pytest.mark.parametrize("form", FORMS)
def test_a_uniform_distribution_is_no_certainty(form: Form) -> None:
    assert token_certainty(torch.full((3, 50), 2.5), form=form).tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_certain_token() -> None:
    logits = torch.full((1, 100), -math.inf)
    logits[0, 3] = 0.0
    assert token_certainty(logits, form="kl_pu").item() == pytest.approx(math.log(100), abs=1e-5)
    assert token_certainty(logits, form="scaled").item() == pytest.approx(1.0, abs=1e-6)
    assert token_certainty(logits, form="kl_up").item() == 100.0, "infinite, held at the ceiling"
    assert token_certainty(logits, form="kl_up", ceiling=30.0).item() == 30.0


def test_the_forms_are_the_divergences_they_say() -> None:
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    p, uniform = logits.softmax(-1), torch.full((7,), 1 / 7)
    pu = (p * (p / uniform).log()).sum(-1)
    torch.testing.assert_close(token_certainty(logits, form="kl_pu"), pu)
    torch.testing.assert_close(token_certainty(logits, form="scaled"), pu / math.log(7))
    torch.testing.assert_close(token_certainty(logits, form="kl_up"), (uniform * (uniform / p).log()).sum(-1))


@pytest.mark.parametrize("form", FORMS)
def test_chunks_and_types_change_nothing(form: Form) -> None:
    logits = 5 * torch.randn(2, 1000, generator=torch.Generator().manual_seed(1))
    whole = token_certainty(logits, form=form)
    torch.testing.assert_close(token_certainty(logits, form=form, chunk=77), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(token_certainty(logits + 100, form=form), whole, rtol=1e-4, atol=1e-4)
    half = token_certainty(logits.to(torch.bfloat16), form=form)
    assert half.dtype == torch.float32 and torch.allclose(half, whole, rtol=0.02)


def test_only_masked_tokens_count() -> None:
    logits = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[True, False, True], [False, False, False]])
    values = token_certainty(logits, form="kl_up")
    found = self_certainty(logits, mask, form="kl_up")
    assert found[0].item() == pytest.approx((values[0, 0] + values[0, 2]).item() / 2)
    assert math.isnan(found[1].item()), "no token is no score"


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_finite(form: Form) -> None:
    logits = torch.randn(2, 3, 9, requires_grad=True)
    self_certainty(logits, torch.ones(2, 3, dtype=torch.bool), form=form).sum().backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_what_the_paper_prints_does_nothing() -> None:
    logits = torch.full((1, 151_936), -math.inf)
    logits[0, 0] = 0.0
    bonus = 0.005 * token_certainty(logits, form="kl_pu").item()
    assert bonus == pytest.approx(0.0597, abs=1e-4) and bonus / 151_936 < 4e-7


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="form"):
        token_certainty(torch.zeros(2, 3), form="entropy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="V >= 2"):
        token_certainty(torch.zeros(2, 1), form="kl_pu")
    with pytest.raises(ValueError, match="mask"):
        self_certainty(torch.zeros(2, 3, 4), torch.ones(2, 4, dtype=torch.bool), form="kl_pu")
    with pytest.raises(ValueError, match="chunk"):
        token_certainty(torch.zeros(2, 3), form="kl_pu", chunk=0)

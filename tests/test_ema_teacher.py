"""The teacher follows, and goes on after a resume as if nothing had been."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from guerdon.core.errors import GuerdonError
from guerdon.trainers.ema_teacher import EMATeacher, EMATeacherCallback


def test_it_moves_by_the_rate() -> None:
    student = nn.Linear(2, 1)
    teacher = EMATeacher(student, total=4, start=0.5, end=0.0)
    before = teacher.model.weight.clone()
    with torch.no_grad():
        student.weight.add_(1.0)
    assert teacher.step(student) == 0.5
    torch.testing.assert_close(teacher.model.weight, before + 0.5)
    assert teacher.rate == pytest.approx(0.25 * (1 + 2**-0.5))
    assert not teacher.model.weight.requires_grad and student.weight.requires_grad and not teacher.model.training


def test_resume_is_exact() -> None:
    torch.manual_seed(0)
    student = nn.BatchNorm1d(3)
    teacher = EMATeacher(student, total=6)
    student(torch.randn(5, 3))
    teacher.step(student)
    assert int(teacher.model.num_batches_tracked) == 1
    second = EMATeacher(nn.BatchNorm1d(3), total=6)
    second.load_state_dict(copy.deepcopy(teacher.state_dict()))
    student(torch.randn(5, 3))
    assert teacher.step(student) == second.step(student)
    torch.testing.assert_close(teacher.model.running_mean, second.model.running_mean, rtol=0, atol=0)


def test_callback_and_strangers() -> None:
    student = nn.Linear(2, 1)
    teacher = EMATeacher(student, total=4)
    EMATeacherCallback(teacher).on_step_end(None, SimpleNamespace(), None, model=student)  # type: ignore[arg-type]
    assert teacher.steps == 1
    with pytest.raises(GuerdonError, match="bias"):
        teacher.step(nn.Linear(2, 1, bias=False))


def test_tied_weights_move_once() -> None:
    student = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3, bias=False))
    student[1].weight = student[0].weight
    teacher = EMATeacher(student, total=4, start=0.5, end=0.5)
    before = teacher.model[0].weight.clone()
    with torch.no_grad():
        student[0].weight.add_(1.0)
    teacher.step(student)
    torch.testing.assert_close(teacher.model[0].weight, before + 0.5)
    assert teacher.model[0].weight is teacher.model[1].weight


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_rates_move_weights_of_16_bits(dtype: torch.dtype) -> None:
    student = nn.Linear(2, 2, bias=False).to(dtype)
    nn.init.ones_(student.weight)
    teacher = EMATeacher(student, total=1000, start=1e-3, end=1e-3)
    nn.init.constant_(student.weight, 1.5)
    for _ in range(500):
        teacher.step(student)
    resumed = EMATeacher(student, total=1000, start=1e-3, end=1e-3)
    resumed.load_state_dict(copy.deepcopy(teacher.state_dict()))
    for one in (teacher, resumed):
        for _ in range(500):
            one.step(student)
        # 0.999^1000 of the way is left; a bfloat16 that is moved directly would still be 1.
        assert one.model.weight.dtype == dtype
        torch.testing.assert_close(one.model.weight.float().mean().item(), 1.5 - 0.5 * 0.999**1000, atol=4e-3, rtol=0)

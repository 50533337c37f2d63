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

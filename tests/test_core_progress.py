"""Progress: plain lines away from a terminal, a bar on one."""

from __future__ import annotations

import io

import pytest

from guerdon.core import progress as module
from guerdon.core.progress import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_every_few_seconds_and_at_the_end(clock):
    file = io.StringIO()
    bar = progress(range(10), "train", file=file)
    for step in bar:
        bar.show(reward=step / 3, best=step)
        clock[0] += 2.0
    lines = file.getvalue().splitlines()
    assert lines[0] == "train: 1/10 reward=0 best=0" and lines[-1] == "train: 10/10 reward=3 best=9"
    assert [line.split()[1] for line in lines] == ["1/10", "4/10", "7/10", "10/10"]  # every 6 s of a 2 s step


def test_number_of_steps_and_unknown_total(clock):
    file = io.StringIO()
    with progress(4, "score", file=file) as bar:
        bar.advance(3, failed=1)
    assert file.getvalue().splitlines()[-1] == "score: 3/4 failed=1"
    assert list(progress((x for x in "ab"), "read", file=io.StringIO())) == ["a", "b"]
    file = io.StringIO()
    assert list(progress(3, "count", file=file)) == [0, 1, 2]
    assert file.getvalue().splitlines()[-1] == "count: 3/3"


def test_an_error_in_the_loop_still_tells_how_far_it_came(clock):
    file = io.StringIO()
    with pytest.raises(ZeroDivisionError), progress(4, "x", file=file) as bar:
        bar.advance()
        bar.advance()
        1 / 0  # noqa: B018
    assert file.getvalue().splitlines()[-1] == "x: 2/4"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_with_metrics(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    file = Terminal()
    bar = progress(range(3), "train", file=file)
    for step in bar:
        bar.show(reward=float(step))
    assert "3/3" in file.getvalue() and "reward=2" in file.getvalue() and "train" in file.getvalue()

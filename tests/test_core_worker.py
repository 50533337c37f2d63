"""Deadlines kept by a worker process: hangs, crashes and blocked loops are killed, named with their row, survived."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from guerdon.core.batch import Batch
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed, Scores
from guerdon.core.scorer import Scorer
from guerdon.core.worker import KillableWorker
from mischief import Broken, Composite, Settled, Sleeper, mischief

SOURCE = str(pathlib.Path(__file__).parents[1] / "src")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_hang_crash_and_exception_are_named_and_the_rest_is_scored():
    scorer = Scorer(mischief, deadline=1.5, max_failure_rate=1.0)
    completions = ["a", "hang", "bb", "spin", "exit", "raise", "nan", "ccc"]
    scores = scorer.score(["p"] * 8, completions)
    assert scores.as_list() == [1.0, None, 2.0, None, None, None, None, 3.0]
    kinds = {row: failed.kind for row, failed in scores.failures.items()}
    assert kinds == {1: "deadline", 3: "deadline", 4: "crash", 5: "exception", 6: "not_finite"}
    assert "1.5 s" in scores.failures[1].cause and "exit code 7" in scores.failures[4].cause
    assert "ValueError: no number in it" in scores.failures[5].cause
    assert scorer._worker is not None and scorer._worker.restarts == 3
    pid = scorer._worker.pid
    assert pid is not None and alive(pid)
    assert scorer.score(["p"], ["dddd"]).as_list() == [4.0] and scorer._worker.pid == pid
    scorer.close()
    assert not alive(pid)
    with pytest.raises(GuerdonError, match=r"'mischief' failed at row 1 \(deadline\): no score within"):
        Scorer(mischief, deadline=0.5, on_failure="raise").score(["p"] * 3, ["a", "hang", "b"])


def test_a_hang_on_every_row_stops_before_every_deadline_is_spent():
    scorer = Scorer(mischief, deadline=0.3)
    with pytest.raises(GuerdonError, match="'mischief' failed on 3 of"):
        scorer.score(["p"] * 20, ["hang"] * 20)
    assert scorer._worker is not None and scorer._worker.pid is None


def test_async_rows_wait_together_and_a_blocked_loop_is_killed():
    scorer = Scorer(Sleeper(), deadline=1.0, max_failure_rate=1.0)
    scores = scorer.score(["p"] * 4, ["a", "hang", "bb", "hang"])
    assert scores.as_list() == [1.0, None, 2.0, None]
    assert {failed.kind for failed in scores.failures.values()} == {"deadline"}
    assert scorer._worker is not None and scorer._worker.restarts == 0
    scores = scorer.score(["p"] * 3, ["a", "block", "bb"])
    assert scores.as_list() == [1.0, None, 2.0] and scores.failures[1].kind == "deadline"
    scorer.close()


def test_groups_tensors_and_parts_travel():
    images = torch.arange(4.0).reshape(4, 1).requires_grad_()
    scores = Scorer(Composite(), deadline=30, group_size=2).score(list("aabb"), list("wxyz"), images=images, log=print)
    assert scores.as_list() == [None, 1.0, None, 1.0]
    assert scores.parts["pixels"].tolist() == [1.0, 1.0, 5.0, 5.0]


def test_settled_failures_do_not_end_the_batch_and_the_step_travels():
    scorer = Scorer(Settled(), deadline=30, max_failure_rate=1.0)
    state = SimpleNamespace(global_step=7, callbacks=[open])
    scores = scorer.score(["p"] * 3, ["c"] * 3, trainer_state=state, log_metric=print)
    assert scores.as_list() == [7.0, 7.0, 7.0] and sorted(scores.failures) == [0, 1, 2]
    with pytest.raises(GuerdonError, match="'settled': its columns cannot be sent to a worker process"):
        scorer.score(["p"], ["c"], trainer_state=state, environments=[lambda: 1])
    scorer.close()


def test_contract_errors_and_failed_starts_are_errors():
    with pytest.raises(GuerdonError, match="'broken' returned 2 scores for 1"):
        Scorer(Broken(), deadline=30, on_failure=0.0).score(["p"], ["c"])
    worker = KillableWorker("mischief:Unbuildable", deadline=1)
    with pytest.raises(GuerdonError, match="did not start: OSError: no weights"):
        list(worker.run(Batch.of(["p"], ["c"], {}, "x"), [(0, 1)]))

    def local(prompts, completions, **columns):
        return [1.0]

    with pytest.raises(GuerdonError, match="'local' cannot be rebuilt in a worker process"):
        Scorer(local, deadline=1).score(["p"], ["c"])


def test_spec_is_built_in_the_worker():
    worker = KillableWorker("mischief:Sleeper", deadline=10)
    batch = Batch.of(["p"], ["abc"], {}, "sleeper")
    ((unit, scores),) = worker.run(batch, [(0, 1)])
    assert unit == (0, 1) and isinstance(scores, Scores) and scores.as_list() == [3.0]
    worker.close()


def test_left_iteration_ends_the_process():
    worker = KillableWorker(mischief, deadline=30)
    batch = Batch.of(["p"] * 2, ["a", "hang"], {}, "mischief")
    answers = worker.run(batch, [(0, 1), (1, 2)])
    next(answers)
    pid = worker.pid
    answers.close()
    assert pid is not None and not alive(pid)


SCRIPT = """
import sys
sys.path[:0] = {path!r}
from mischief import mischief
from guerdon.core.scorer import Scorer
if __name__ == "__main__":
    scorer = Scorer(mischief, deadline=60)
    print(scorer.score(["p"], ["abc"]).as_list(), scorer._worker.pid, flush=True)
    {then}
"""


@pytest.mark.parametrize("then", ["pass", "import os; os._exit(0)"])
def test_no_worker_outlives_its_program(tmp_path, then):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.format(path=[SOURCE, str(pathlib.Path(__file__).parent)], then=then))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("[3.0]"), done.stderr
    pid = int(done.stdout.split()[-1])
    for _ in range(200):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


CHILD = """
import multiprocessing, sys
sys.path[:0] = {path!r}
from mischief import mischief
from guerdon.core.scorer import Scorer
scorer = Scorer(mischief, deadline=60)
def child():
    print(scorer.score(["p"], ["abc"]).as_list(), flush=True)
if __name__ == "__main__":
    one = multiprocessing.get_context("spawn").Process(target=child)
    one.start()
    one.join(30)
    print(one.exitcode, flush=True)
    one.kill()
"""


def test_a_process_of_multiprocessing_that_had_a_worker_can_end(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(CHILD.format(path=[SOURCE, str(pathlib.Path(__file__).parent)]))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:2] == ["[3.0]", "0"], done.stdout + done.stderr


def test_failed_answers_are_json_only():
    # A reward may have run what a model wrote: whatever its process sends, nothing but JSON is read.
    from multiprocessing import Pipe

    worker = KillableWorker(mischief, deadline=1)
    ours, theirs = Pipe()
    theirs.send(Failed("pickled"))
    answer = worker._receive(ours, 5)
    assert isinstance(answer, Failed) and answer.kind == "crash" and "JSON" in answer.cause

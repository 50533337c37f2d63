"""A reward in a process of its own, which can be killed: deadlines are kept without signals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.util import Finalize
from types import SimpleNamespace
from typing import Any

import numpy as np

from guerdon.core.batch import Batch, call_now, describe_exception, read_result
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import name_of
from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import is_async

Unit = tuple[int, int]
_SCALARS = (str, int, float, type(None))
_alive: weakref.WeakSet[KillableWorker] = weakref.WeakSet()
_watched = 0  # the process that will end its workers when it exits itself


class KillableWorker:
    """Runs a reward in a spawned process and gives each unit of a batch at most its deadline.

    reward:         a callable that a fresh process can rebuild (a module-level function or an instance of a
                    module-level class), or "module:function", built there with ``config``.
    deadline:       seconds a sample; a unit of k samples has k times that.
    start_timeout:  seconds that starting the process and building the reward may take.

    Requests go down a multiprocessing pipe to our own child. Answers come back as JSON and nothing else, since a reward
    may have run what a model wrote. An async reward is awaited on all units at once.
    """

    def __init__(
        self, reward: Any, *, deadline: float, config: dict[str, Any] | None = None, start_timeout: float = 120.0
    ) -> None:
        self.reward = reward
        self.name = reward if isinstance(reward, str) else name_of(reward)
        self.config = dict(config or {})
        self.deadline = float(deadline)
        self.start_timeout = float(start_timeout)
        self.restarts = 0
        self._process: Any = None
        self._owner = 0
        self._pipe: Connection | None = None
        _alive.add(self)

    @property
    def pid(self) -> int | None:
        """The worker's process id while it lives."""
        return self._process.pid if self._process is not None else None

    def run(self, batch: Batch, units: list[Unit]) -> Iterator[tuple[Unit, Scores | Failed]]:
        """Each unit's scores, or Failed of kind "exception", "deadline" or "crash"; in any order, each exactly once.

        Raises GuerdonError if the process cannot be started or the reward breaks its contract. An iteration that is
        left early ends the process.
        """
        todo = list(units)
        together = True
        finished = False
        try:
            while todo:
                pipe = self._start()
                self._send(pipe, (_portable(batch), todo, together, self.deadline))
                longest = max(stop - start for start, stop in todo) * self.deadline
                # Awaited together, all have the same clock; the second beyond it is for the loop's own turn.
                limit = time.monotonic() + longest + 1.0
                while todo:
                    seconds = (todo[0][1] - todo[0][0]) * self.deadline
                    reply = self._receive(pipe, limit - time.monotonic() if together else seconds)
                    if isinstance(reply, Failed):
                        self._kill()
                        self.restarts += 1
                        if together:
                            # Nobody knows which of them blocks the loop: once more, one at a time.
                            together = False
                        else:
                            yield todo.pop(0), reply
                        break
                    if "sync" in reply:
                        together = False
                        continue
                    if "error" in reply:
                        raise GuerdonError(reply["error"])
                    unit = (int(reply["unit"][0]), int(reply["unit"][1]))
                    todo.remove(unit)
                    yield unit, _from_json(reply, self.name)
            finished = True
        finally:
            if not finished:
                self._kill()

    def close(self) -> None:
        """End the process; harmless if there is none."""
        self._kill()

    def _start(self) -> Connection:
        if self._pipe is not None and self._process.is_alive():
            return self._pipe
        self._kill()
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self.reward, self.config, self.name), name=f"guerdon-reward-{self.name}"
        )
        try:
            process.start()
        except Exception as error:
            pipe.close()
            raise GuerdonError(
                f"reward {self.name!r} cannot be rebuilt in a worker process, which a deadline needs; define it at the "
                f"top level of a module ({describe_exception(error)})"
            ) from error
        finally:
            theirs.close()
        self._process, self._pipe, self._owner = process, pipe, os.getpid()
        _close_at_exit()
        reply = self._receive(pipe, self.start_timeout)
        if isinstance(reply, Failed) or "error" in reply:
            self._kill()
            cause = reply.cause if isinstance(reply, Failed) else reply["error"]
            raise GuerdonError(
                f"reward {self.name!r}: its worker process did not start: {cause}; a script that scores with a "
                "deadline must do so under if __name__ == '__main__'"
            )
        return pipe

    def _send(self, pipe: Connection, message: Any) -> None:
        try:
            pipe.send(message)
        except OSError:
            pass  # the process has died; the answer that does not come says so
        except Exception as error:
            raise GuerdonError(
                f"reward {self.name!r}: its columns cannot be sent to a worker process, which a deadline needs "
                f"({describe_exception(error)})"
            ) from error

    def _receive(self, pipe: Connection, seconds: float) -> dict[str, Any] | Failed:
        try:
            if not pipe.poll(max(seconds, 0.0)):
                cause = f"no score within the deadline of {self.deadline:g} s a sample; its worker was killed"
                return Failed(cause, "deadline")
            reply = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            if self._process is not None:
                self._process.join(1.0)
            code = self._process.exitcode if self._process is not None else None
            return Failed(f"the worker process died (exit code {code})", "crash")
        except ValueError:
            return Failed("the worker process answered with something that is not JSON", "crash")
        return reply if isinstance(reply, dict) else Failed("the worker process broke its protocol", "crash")

    def _kill(self) -> None:
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is None or process.pid is None:
            return
        # The worker leads its own session, so programs that the reward started go with it.
        with contextlib.suppress(OSError, AttributeError):
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        process.close()


def _close_at_exit() -> None:
    # multiprocessing waits for its children when a process exits, and ours only end when they are told to. Its own
    # finalizers come before that wait in every process; in one that it started, the handlers of atexit never run.
    global _watched
    if _watched != os.getpid():
        _watched = os.getpid()
        Finalize(None, _close_all, exitpriority=100)


def _close_all() -> None:
    for worker in list(_alive):
        if worker._owner == os.getpid():  # a forked process must leave its parent's workers alone
            worker.close()


def _serve(pipe: Connection, reward: Any, config: dict[str, Any], name: str) -> None:
    """The worker process: build the reward, then answer batches until the pipe closes."""
    with contextlib.suppress(OSError, AttributeError):
        os.setsid()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        if isinstance(reward, str):
            from guerdon.core.catalogue import load_reward

            reward = load_reward(reward, **config)
        _reply(pipe, {"ready": True})
    except Exception as error:  # told to the parent
        _reply(pipe, {"error": describe_exception(error)})
        return
    while True:
        try:
            portable, units, together, deadline = pipe.recv()
        except (EOFError, OSError):
            return
        batch = _restored(portable)
        if together and not is_async(scores if callable(scores := getattr(reward, "scores", None)) else reward):
            _reply(pipe, {"sync": True})
            together = False
        if together:
            asyncio.run(_answer_together(pipe, reward, batch, units, deadline, name))
            continue
        for start, stop in units:
            answer: Any
            try:
                answer = call_now(reward, batch.take(start, stop))
            except Exception as error:  # that unit's failure
                answer = error
            _reply(pipe, _to_json((start, stop), answer, name))


async def _answer_together(
    pipe: Connection, reward: Any, batch: Batch, units: list[Unit], deadline: float, name: str
) -> None:
    async def one(unit: Unit) -> None:
        answer: Any
        try:
            answer = await asyncio.wait_for(batch.take(*unit).call(reward), deadline * (unit[1] - unit[0]))
        except TimeoutError:
            answer = Failed(f"no score within the deadline of {deadline:g} s a sample", "deadline")
        except Exception as error:  # that unit's failure
            answer = error
        _reply(pipe, _to_json(unit, answer, name))

    await asyncio.gather(*(one(unit) for unit in units))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _reply(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _to_json(unit: Unit, answer: Any, name: str) -> dict[str, Any]:
    rows = unit[1] - unit[0]
    if isinstance(answer, Exception):
        answer = Failed(describe_exception(answer))
    if isinstance(answer, Failed):
        return {"unit": unit, "failed": [answer.cause, answer.kind]}
    try:
        scores = read_result(answer, rows, name)
    except GuerdonError as error:
        return {"error": str(error)}
    return {
        "unit": unit,
        "values": scores.as_list(),
        "dropped": scores.dropped.tolist(),
        "failures": {str(row): [failed.cause, failed.kind] for row, failed in scores.failures.items()},
        "parts": {key: part.tolist() for key, part in scores.parts.items()},
    }


def _from_json(reply: dict[str, Any], name: str) -> Scores | Failed:
    if "failed" in reply:
        return Failed(*map(str, reply["failed"]))
    values = [np.nan if value is None else float(value) for value in reply["values"]]
    return Scores(
        np.array(values),
        np.array([value is not None for value in reply["values"]], dtype=bool),
        {int(row): Failed(*map(str, failed)) for row, failed in reply["failures"].items()},
        {str(key): np.array(part, dtype=np.float64) for key, part in reply["parts"].items()},
        identity=name,
        dropped=np.array(reply["dropped"], dtype=bool),
    )


def _portable(batch: Batch) -> tuple[Any, ...]:
    # Tensors travel as arrays: torch's own way shares memory with a process that may be killed at any moment.
    def plain(value: Any) -> Any:
        if hasattr(value, "detach"):
            return _Tensor(value.detach().cpu().float().numpy() if value.is_floating_point() else value.cpu().numpy())
        return value

    columns = {key: plain(value) for key, value in batch.columns.items()}
    shared: dict[str, Any] = {key: value for key, value in batch.shared.items() if isinstance(value, _SCALARS)}
    # Of the trainer's own objects, loggers mean nothing in another process; of its state, the numbers do.
    state = batch.shared.get("trainer_state")
    if state is not None:
        scalars = {key: value for key, value in vars(state).items() if isinstance(value, _SCALARS)}
        shared["trainer_state"] = SimpleNamespace(**scalars)
    return plain(batch.prompts), plain(batch.completions), columns, shared


def _restored(portable: tuple[Any, ...]) -> Batch:
    def back(value: Any) -> Any:
        if isinstance(value, _Tensor):
            import torch

            return torch.from_numpy(value.array)
        return value

    prompts, completions, columns, shared = portable
    return Batch(back(prompts), back(completions), {key: back(value) for key, value in columns.items()}, shared)


class _Tensor:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

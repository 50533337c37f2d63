"""Does the program in a completion pass its tests? Run in a process that can compute and nothing else.

Defence in depth, not a jail for determined attackers: the kernel lets the program's process neither open files nor
reach the network nor start processes, and limits its time, memory and output; a container around the training job is
still a good idea. Expected results never enter the process, so a program cannot look them up.
"""

from __future__ import annotations

import ast
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed

__all__ = ["CodeExecutionReward", "Ran", "call_tests", "program_of", "run_program"]

MODULES = (
    "abc", "array", "bisect", "calendar", "cmath", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "enum", "fractions", "functools", "heapq", "io", "itertools", "json", "math", "numbers", "operator",
    "pprint", "queue", "random", "re", "statistics", "string", "struct", "sys", "textwrap", "time", "types", "typing",
    "unicodedata",
)  # fmt: skip
_CHILD = Path(__file__).with_name("code_sandbox.py")
_PYTHON = ("", "py", "python", "python3")  # what may stand behind an opening fence
_LONGEST = 50_000
Pays = Literal["all", "share"]
State = Literal["done", "error", "cpu", "memory", "output", "crash"]


@dataclass(frozen=True)
class Ran:
    """What became of a program: "done", "error" (an exception, or an exit other than 0), "cpu" (out of time), "memory",
    "output" (more than may be written), "crash" (a signal); ``output`` is what it wrote to standard output."""

    state: State
    output: str


def program_of(response: str) -> str | None:
    """The last fenced block of Python in ``response`` (```python or no language), or None where there is none.

    A block goes from its fence to the next line that is nothing but a fence. Linear in the length of the response.
    """
    last: str | None = None
    opened: list[str] | None = None
    python = False
    for line in response.split("\n"):
        plain = line.rstrip()
        language = plain[3:].strip().casefold() if plain.startswith("```") and "`" not in plain[3:] else None
        if opened is None:
            if language is not None:
                opened, python = [], language in _PYTHON
        elif language == "":
            last, opened = ("".join(opened) if python else last), None
        else:
            opened.append(line + "\n")
    return last


def call_tests(asserts: Sequence[str]) -> list[dict[str, Any]]:
    """``assert f(1) == 2`` lines (the form of MBPP) as tests {"call": "f(1)", "expect": 2}.

    Raises GuerdonError for anything but one comparison by == with a literal, since the expected value must stay outside
    the sandbox.
    """
    tests = []
    for line in asserts:
        try:
            (statement,) = ast.parse(line.strip()).body
            assert isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Compare)
            (comparison,) = statement.test.ops
            assert isinstance(comparison, ast.Eq)
            expected = ast.literal_eval(statement.test.comparators[0])
        except (AssertionError, SyntaxError, ValueError, RecursionError, MemoryError):
            raise GuerdonError(f"the test {line[:80]!r} is no 'assert call == literal'") from None
        tests.append({"call": ast.unparse(statement.test.left), "expect": expected})
    return tests


def run_program(
    code: str,
    *,
    calls: Sequence[str] = (),
    given: str = "",
    cpu: int = 2,
    memory: int = 512 * 2**20,
    most_output: int = 2**16,
    deadline: float = 20.0,
) -> Ran | Failed:
    """Run ``code`` in the sandbox; with ``calls`` its output is one line of JSON with their values.

    Args:
        given: standard input. calls: expressions evaluated after the program, which then prints nothing.
        cpu: seconds of processor time. memory: bytes of address space. most_output: bytes it may write.
        deadline: seconds of wall time, a good deal more than ``cpu``: a machine under load is not the program's fault.
    Returns:
        Ran; Failed("deadline") where the process was killed by the clock on the wall, Failed("unavailable") where this
        machine has no such sandbox (not Linux on x86-64 or arm64, or no seccomp): nothing is run then.
    """
    request = {"code": code, "calls": list(calls), "modules": MODULES, "cpu": cpu, "memory": memory}
    with tempfile.TemporaryFile() as stdin:
        stdin.write(json.dumps(request).encode() + b"\n" + given.encode("utf-8", "replace"))
        stdin.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_CHILD)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            close_fds=True,
            start_new_session=True,
        )
        try:
            written, flooded, late = _read(child, most_output + len("ready\n"), time.monotonic() + deadline)
        finally:
            child.kill()
            status = child.wait()
            if child.stdout is not None:
                child.stdout.close()
    if late:
        return Failed(f"the program was stopped after {deadline:g} s", "deadline")
    first, _, output = written.decode("utf-8", "replace").partition("\n")
    if first != "ready":
        return Failed(f"no sandbox on this machine: {first[:120] or 'its process did not start'}", "unavailable")
    return Ran("output" if flooded else _state(status), output)


def _read(child: subprocess.Popen[bytes], most: int, until: float) -> tuple[bytes, bool, bool]:
    """(what was written, more than ``most``, out of time); when the output ends, waits for the process to end."""
    assert child.stdout is not None
    descriptor, size = child.stdout.fileno(), 0
    parts: list[bytes] = []
    ready = select.poll()  # select() knows no descriptor above 1023, which a training process may reach
    ready.register(descriptor, select.POLLIN)
    while True:
        left = until - time.monotonic()
        if left <= 0 or not ready.poll(1000 * left):
            return b"".join(parts), False, True
        part = os.read(descriptor, 65536)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > most:
            return b"".join(parts)[:most], True, False
    try:
        child.wait(timeout=max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return b"".join(parts), False, True
    return b"".join(parts), False, False


def _state(status: int) -> State:
    if status in (-signal.SIGXCPU, -signal.SIGKILL):  # the kernel's, at the soft or at the hard limit
        return "cpu"
    if status < 0:
        return "crash"
    return {0: "done", 3: "memory"}.get(status, "error")  # type: ignore[return-value]


class CodeExecutionReward:
    """1.0 where the program in a completion passes all its tests, else 0.0; or the share of the tests passed.

    The column ``tests`` holds a list for each completion (or its JSON): all {"input", "output"} (standard input and
    output; white space at line ends does not count), or all {"call", "expect"} (an expression, and its value as JSON
    knows it: tuples equal lists, floats to 1e-9). `call_tests` makes the second from assert lines.

    pays: "all" or "share". cpu, memory, most_output, deadline: of `run_program`, for each run; tests of input are a run
    each, all calls of a completion together are one. A completion without a program, with one of more than 50,000
    characters, or whose program fails, loops, floods or asks for what it may not, gets 0.0: that is a wrong program.
    None without tests; Failed("deadline"), Failed("unavailable") as in `run_program`; Failed("unparseable") for tests
    that cannot be read. A program may import only ``MODULES``. Pointwise; about 0.1 s a run. The design is ours.
    """

    groupwise = False
    range = (0.0, 1.0)
    on_failure = "drop_sample"
    version = "1"

    def __init__(
        self,
        *,
        pays: Pays = "all",
        cpu: int = 2,
        memory: int = 512 * 2**20,
        most_output: int = 2**16,
        deadline: float = 20.0,
    ) -> None:
        if pays not in get_args(Pays):
            raise unknown("way to pay", pays, get_args(Pays))
        if cpu < 1 or memory < 2**27 or most_output < 1 or deadline <= cpu:
            raise GuerdonError("code execution needs cpu >= 1 s, memory >= 128 MiB, some output, and deadline > cpu")
        self.__name__ = "code_execution"
        self.pays = pays
        self.limits: dict[str, Any] = {"cpu": cpu, "memory": memory, "most_output": most_output, "deadline": deadline}

    def identity(self) -> str:
        """Name, version and a hash of what is paid and the limits."""
        return f"{self.__name__}@{self.version}#{config_hash({'pays': self.pays, **self.limits})}"

    def __call__(
        self, prompts: Any, completions: Sequence[Any], *, tests: Any = None, **columns: Any
    ) -> list[float | None | Failed]:
        """One outcome a completion; raises GuerdonError for a column ``tests`` that is missing or of another length."""
        if tests is None or isinstance(tests, str) or len(tests) != len(completions):
            raise GuerdonError("reward 'code_execution' needs the column 'tests', one entry a completion")
        return [
            None if one is None else self._outcome(completion_text(said), one)
            for said, one in zip(completions, tests, strict=True)
        ]

    def _outcome(self, response: str, given: Any) -> float | None | Failed:
        tests = _tests(given)
        if isinstance(tests, Failed):
            return tests
        if not tests:
            return None
        code = program_of(response)
        if code is None or len(code) > _LONGEST or "\0" in code:
            return 0.0
        passed = self._called(code, tests) if "call" in tests[0] else self._fed(code, tests)
        if isinstance(passed, Failed):
            return passed
        return float(passed == len(tests)) if self.pays == "all" else passed / len(tests)

    def _called(self, code: str, tests: Sequence[Mapping[str, Any]]) -> int | Failed:
        ran = run_program(code, calls=[test["call"] for test in tests], **self.limits)
        if isinstance(ran, Failed):
            return ran
        try:
            values = json.loads(ran.output) if ran.state == "done" else []
        except (ValueError, RecursionError):
            return 0
        if not isinstance(values, list) or len(values) != len(tests):
            return 0
        return sum(
            isinstance(value, dict) and "value" in value and _equal(value["value"], _as_json(test["expect"]), 0)
            for value, test in zip(values, tests, strict=True)
        )

    def _fed(self, code: str, tests: Sequence[Mapping[str, Any]]) -> int | Failed:
        passed = 0
        for test in tests:
            ran = run_program(code, given=test["input"], **self.limits)
            if isinstance(ran, Failed):
                return ran
            right = ran.state == "done" and _lines(ran.output) == _lines(test["output"])
            passed += right
            if not right and self.pays == "all":
                return passed
        return passed


def _tests(given: Any) -> list[Mapping[str, Any]] | Failed:
    try:
        tests = json.loads(given) if isinstance(given, str) else list(given)
        # Tables fill the keys that a row does not use with None; only an expected value may be None itself.
        tests = [{key: one for key, one in test.items() if one is not None or key == "expect"} for test in tests]
        kinds = {frozenset(("input", "output")) if "input" in test else frozenset(("call", "expect")) for test in tests}
        if len(kinds) > 1 or any(not kind <= test.keys() for kind in kinds for test in tests):
            raise ValueError("all must have input and output, or all call and expect")
        texts = [test[key] for test in tests for key in ("input", "output", "call") if key in test]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("input, output and call are texts")
        for test in tests:
            if "call" in test and "input" not in test:
                ast.parse(test["call"], mode="eval")
                _as_json(test["expect"])
    except (ValueError, TypeError, AttributeError, SyntaxError, RecursionError, MemoryError) as error:
        return Failed(f"the tests cannot be read: {str(error)[:120]}", "unparseable")
    return tests


def _as_json(value: Any) -> Any:
    """``value`` as the sandbox would report it."""

    def plain(one: Any) -> Any:
        return {"set": sorted(map(repr, one))} if isinstance(one, set | frozenset) else {"repr": repr(one)[:1000]}

    return json.loads(json.dumps(value, default=plain))


def _equal(one: Any, other: Any, depth: int) -> bool:
    if depth > 50 or isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and _close(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_equal(a, b, depth + 1) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key], depth + 1) for key in one)
    return one == other


def _close(one: float, other: float) -> bool:
    try:
        return one == other or math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    except OverflowError:
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]

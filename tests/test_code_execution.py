"""The sandbox holds what a program may try, and the reward tells a wrong program from a failed run."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.rewards.text.code_execution import CodeExecutionReward, Ran, call_tests, program_of, run_program

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="no seccomp filter here"
)
REACH = "import sys\nos = sys.modules['os']\n"


def block(code: str) -> str:
    return f"Here it is.\n```python\n{code}\n```\n"


def ran(code: str, **settings) -> Ran:  # noqa: ANN003
    found = run_program(code, **{"cpu": 1, **settings})
    if isinstance(found, Failed) and found.kind == "unavailable":
        pytest.skip(found.cause)
    assert isinstance(found, Ran), found
    return found


def test_a_program_computes() -> None:
    assert ran("print(sum(map(int, input().split())))", given="1 2 3\n") == Ran("done", "6\n")
    assert ran("import heapq, re, math\nprint(math.gcd(12, 18), 'é')").output == "6 é\n"
    assert ran("if __name__ == '__main__':\n    print(1)").output == "1\n"


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))",
        "import sys\ninput = sys.stdin.buffer.readline\nprint(int(input()) + int(input()))",
        "import sys\ninput = sys.stdin.readline\nprint(int(input()) + int(input()))",
        "import sys\nprint(sum(int(line) for line in sys.stdin))",
        "print(sum(map(int, open(0).read().split())))",
        "print(sum(map(int, open(0, 'rb').read().split())))",
        "import os\nprint(sum(map(int, os.read(0, 100).split())))",
        "print(int(input()) + int(input()))\nexit()",
    ],
)
@pytest.mark.parametrize("above", ["", "# " + "x" * 20_000 + "\n"])
def test_every_way_to_read_standard_input(code: str, above: str) -> None:
    assert ran(above + code, given="19\n23\n") == Ran("done", "42\n")


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("while True: pass", "cpu"),
        ("x = []\nwhile True: x.append(bytes(10**7))", "memory"),  # not written to, so that it costs no time,
        ("x = [0] * 10**11", "memory"),
        ("while True: print('x' * 1000)", "output"),
        ("def f(): return f()\nf()", "error"),
        ("(" * 5000 + ")" * 5000, "error"),
        ("1 / 0", "error"),
        ("import sys; sys.exit(2)", "error"),
        ("import time; time.sleep(1000)", "error"),
    ],
)
def test_what_a_program_is_stopped_for(code: str, state: str) -> None:
    assert ran(code).state == state


@pytest.mark.parametrize(
    "code",
    [
        REACH + "while True: os.fork()",
        REACH + "os.execv('/bin/true', ['true'])",
        REACH + "os.posix_spawn('/bin/true', ['true'], {})",
        "import _thread\n_thread.start_new_thread(print, ())",
        "print(open('/etc/passwd').read())",
        REACH + "print(os.listdir('/'))",
        REACH + "print(os.stat('/etc/passwd'))",
        "import _socket\n_socket.socket()",
        "import socket",
        REACH + "os.kill(os.getppid(), 9)",
        "import ctypes",
    ],
)
def test_the_kernel_refuses(code: str) -> None:
    """The program would print DONE if the call before it had been let through."""
    found = ran(code + "\nprint('DONE')")
    assert found.state in ("error", "crash") and found.output == ""


def test_refusals_are_the_kernels_and_not_a_crash() -> None:
    code = REACH + "for call in (os.fork, lambda: os.open('/etc/passwd', 0), lambda: os.write(0, b'x')):\n"
    code += "    try: call(); print('through')\n    except OSError as error: print(error.errno)"
    # 1: not permitted; 9 or 27: standard input takes no bytes.
    lines = ran(code).output.split()
    assert lines[:2] == ["1", "1"] and lines[2] in ("9", "27")


def test_nothing_is_written(tmp_path: Path) -> None:
    target = tmp_path / "made"
    code = REACH + f"try: os.open({str(target)!r}, os.O_CREAT | os.O_WRONLY)\nexcept OSError as e: print(e.errno)"
    assert ran(code).output == "1\n" and not target.exists()


def test_limits_cannot_be_raised_and_secrets_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_TEST_SECRET", "s3cret")
    assert "s3cret" not in ran(REACH + "print(dict(os.environ))").output
    assert ran("import resource").state == "error"


def test_a_blocked_program_fails_by_the_clock() -> None:
    code = "import _thread\nlock = _thread.allocate_lock()\nlock.acquire()\nlock.acquire()"
    found = run_program(code, cpu=1, deadline=2.0)
    assert isinstance(found, Failed) and found.kind in ("deadline", "unavailable")


def test_a_process_with_many_open_files_can_run_programs() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("this process may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert ran("print(1)") == Ran("done", "1\n")
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_process_is_left() -> None:
    before = set(os.listdir("/proc"))
    ran("while True: print(1)")
    mine = [pid for pid in set(os.listdir("/proc")) - before if pid.isdigit() and _parent(pid) == os.getpid()]
    assert mine == []


def _parent(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def test_the_reward() -> None:
    ran("pass")
    reward = CodeExecutionReward(cpu=1)
    calls = call_tests(["assert f(2) == 4", "assert f(-1) == 1", "assert f(1.5) == 2.25"])
    fed = [{"input": "3\n", "output": "9"}]
    completions = [
        block("def f(x): return x * x"),
        block("def f(x): return 2 * x"),
        block("print(int(input()) ** 2)  "),
        block("print(9)\nprint(9)"),
        "no program",
        block("def f(x): return x * x"),
        block("pass"),
        block("def f("),
    ]
    tests = [calls, calls, fed, fed, calls, None, "{", calls]
    found = reward(None, completions, tests=tests)
    assert found[:6] == [1.0, 0.0, 1.0, 0.0, 0.0, None] and found[7] == 0.0
    assert isinstance(found[6], Failed) and found[6].kind == "unparseable"
    assert CodeExecutionReward(pays="share")(None, completions[1:2], tests=[calls]) == [pytest.approx(1 / 3)]


def test_a_program_cannot_say_that_it_passed() -> None:
    ran("pass")
    reward = CodeExecutionReward(cpu=1)
    tests = [[{"call": "f(2)", "expect": 4}]]
    for code in (
        "raise SystemExit(0)",
        "class Any:\n    def __eq__(self, other): return True\ndef f(x): return Any()",
        "print('[{\"value\": 4}]')\ndef f(x): return 5",
        "import sys\nsys.modules['os'].write(1, b'ready')\ndef f(x): return 4",
        "def f(x): return True",
        "def f(x): return float('nan')",
    ):
        assert reward(None, [block(code)], tests=tests) == [0.0], code


def test_values_are_compared_as_json() -> None:
    ran("pass")
    tests = [call_tests(["assert f() == ((1, 2), {3: 'x'}, {2, 1}, None, True, 0.3)"])]
    code = "def f(): return [[1, 2], {3: 'x'}, {1, 2}, None, True, 0.1 + 0.2]"
    assert CodeExecutionReward()(None, [block(code)], tests=tests) == [1.0]


def test_what_is_refused() -> None:
    with pytest.raises(GuerdonError, match="column 'tests'"):
        CodeExecutionReward()(None, ["x"])
    with pytest.raises(GuerdonError, match="share"):
        CodeExecutionReward(pays="shares")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="deadline > cpu"):
        CodeExecutionReward(cpu=5, deadline=5)
    for line in ("assert f(1)", "f(1) == 2", "assert f(1) == g(2)", "assert f(1) < 2", "assert ("):
        with pytest.raises(GuerdonError, match="no 'assert call == literal'"):
            call_tests([line])


def test_the_last_block_counts() -> None:
    assert program_of(block("a") + "text\n" + block("b")) == "b\n"
    assert program_of("```\nx = 1\n```") == "x = 1\n" and program_of("x = 1") is None
    assert program_of("```json\n{}\n```") is None and program_of("```python\n" * 100_000) is None


def test_blocks_of_other_languages_and_blocks_left_open() -> None:
    assert program_of("```json\n{}\n```\nThen:\n```python\nx = 1\n```\nDone.") == "x = 1\n"
    assert program_of(block("a") + "```text\nb\n```") == "a\n"
    assert program_of(block("a") + "```python\nb") == "a\n"
    assert program_of("```Python3 \r\na\r\n``` \r\n") == "a\r\n"


def test_tests_that_cannot_be_tested_are_no_wrong_programs() -> None:
    ran("pass")
    right = block("def f(): return 1")
    tests = [
        [{"call": "f(", "expect": 1}],
        call_tests(["assert f() == {(1, 2): 3}"]),
        [{"call": "f()", "expect": 1, "input": None, "output": None}],
        [{"call": "f() - 1 or None", "expect": None}],
        ["f() == 1"],
    ]
    found = CodeExecutionReward()(None, [right] * len(tests), tests=tests)
    assert [one.kind if isinstance(one, Failed) else one for one in found] == [
        "unparseable", "unparseable", 1.0, 1.0, "unparseable",
    ]  # fmt: skip

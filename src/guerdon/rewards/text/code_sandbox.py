"""What runs inside the sandbox's own process: give up rights, then run one program. Started by `code_execution`.

It is run as a file by ``python -I -S`` and imports nothing of this package. Its input is a file: one line of JSON (the
request) and then the program's own standard input. It writes one line, "ready" or why it cannot be safe, before the
program.

Rights are given up in this order: limits of the process (CPU, memory, size of files, processes, open files), then a
filter of system calls that lets through only what computing, reading standard input and writing standard output need.
All else (opening any file, sockets, processes, signals to others, changing limits) fails with EPERM in the kernel,
whatever the program does to the interpreter. What the program may import is therefore imported before.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib
import io
import json
import os
import platform
import resource
import struct
import sys
from typing import Any

# By machine: its number for the filter, and the numbers of read write close fstat lseek mmap mprotect munmap brk
# rt_sigaction rt_sigprocmask rt_sigreturn sched_yield mremap madvise getpid exit getrusage sigaltstack gettid futex
# clock_gettime clock_getres exit_group getrandom.
_ALLOWED = {
    "x86_64": (0xC000003E, (0, 1, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 28, 39,
                            60, 98, 131, 186, 202, 228, 229, 231, 318)),
    "aarch64": (0xC00000B7, (63, 64, 57, 80, 62, 222, 226, 215, 214, 134, 135, 139, 124,
                             216, 233, 172, 93, 165, 132, 178, 98, 113, 114, 94, 278)),
}  # fmt: skip
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def close_the_doors(memory: int, cpu: int) -> None:
    """Limits and filter of this process, for good. Raises OSError where the kernel has no such filter."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _ALLOWED:
        raise OSError(f"no filter of system calls for {sys.platform} on {machine}")
    for limit, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    arch, calls = _ALLOWED[machine]
    rules = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for place, call in enumerate(calls):
        rules.append((_EQUAL, len(calls) - place, 0, call))
    rules += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(rules), ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel refused the filter of system calls")


def run(request: dict[str, Any]) -> None:
    """The program, and then its calls, whose values go to standard output as one line of JSON."""
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    if not request["calls"]:
        exec(compile(request["code"], "<program>", "exec"), space)  # noqa: S102 - this process is the sandbox
        return
    spoken, sys.stdout = sys.stdout, io.StringIO()
    space["__name__"] = "program"
    exec(compile(request["code"], "<program>", "exec"), space)  # noqa: S102
    values = []
    for call in request["calls"]:
        try:
            values.append({"value": eval(compile(call, "<call>", "eval"), space)})  # noqa: S307
        except Exception as error:
            values.append({"error": type(error).__name__})
    spoken.write(json.dumps(values, default=_plain) + "\n")
    spoken.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return {"set": sorted(map(repr, value))}
    return {"repr": repr(value)[:1000]}


def read_request() -> dict[str, Any]:
    """The first line of standard input; the next byte that anyone reads, buffered or not, is the program's own."""
    parts = []
    while b"\n" not in (part := os.read(0, 65536)):
        if not part:
            raise ValueError("no request")
        parts.append(part)
    line = b"".join(parts) + part.partition(b"\n")[0]
    os.lseek(0, len(line) + 1, os.SEEK_SET)
    return json.loads(line)


def give_usual_names() -> None:
    """What programs expect and a bare or filtered interpreter lacks: exit, quit, and standard input as open(0).

    The last needs a system call on paths (stat), which stays closed. This is convenience: the kernel does the refusing.
    """
    opened = builtins.open

    def open_(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if file in (0, "/dev/stdin") and "r" in mode:
            return sys.stdin.buffer if "b" in mode else sys.stdin
        return opened(file, mode, *rest, **more)

    builtins.open = open_  # type: ignore[assignment]
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]


def main() -> None:
    """Read the request, close the doors, run."""
    request = read_request()
    try:
        for name in request["modules"]:
            importlib.import_module(name)
        import encodings.idna  # noqa: F401 - what the interpreter loads late
        import traceback  # noqa: F401

        close_the_doors(request["memory"], request["cpu"])
    except (OSError, ValueError, ImportError) as error:
        print(f"closed: {error}", flush=True)
        return
    print("ready", flush=True)
    give_usual_names()
    for name in ("ctypes", "_ctypes", "resource", "importlib"):
        sys.modules.pop(name, None)
    status = 0
    try:
        run(request)
        sys.stdout.flush()
    except SystemExit as leaving:
        status = 0 if leaving.code in (None, 0) else 1
    except MemoryError:
        status = 3
    except BaseException:
        status = 1
    try:
        sys.__stdout__.flush()  # type: ignore[union-attr]
    except Exception:
        status = status or 1
    os._exit(status)


if __name__ == "__main__":
    main()

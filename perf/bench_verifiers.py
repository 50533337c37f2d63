"""The verifier stack on completions of GSM8K's length: milliseconds a sample, serial and in two processes.

The stack is what a language run asks of each completion: the rule verifier, the regular expression, the format of tags,
math-verify behind the rules, the stated answer and its class for a vote over groups of eight. Completions are made: as
long as GSM8K's worked solutions (about 290 characters), right and wrong, a quarter of them tagged, and one in fifty
damaged (cut off, looping, deeply nested braces, an exponent bomb, or 20,000 characters). They differ from one another,
so nothing can be cached.

serial        one process.
two workers   two processes that are started once and hold half of the groups each; the transfer is included.

Last line: {"name", "ms_serial", "ms_two_workers", "ms_serial_processor", "ratio", "parity"}: wall milliseconds a
sample, the median over the rounds, and processor time of the serial side, which other programs on the machine disturb
less; ratio is serial to two workers; parity is whether the outcomes are identical. Status 1 where they are not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from guerdon.core.arithmetic import CLOSINGS, solution_text, word_problem, wrong_solution
from guerdon.core.outcome import Failed
from guerdon.rewards.text.answer_tags import answer_format
from guerdon.rewards.text.final_answer import regex_verifier, rule_verifier, same_answer, stated_answer
from guerdon.rewards.text.symbolic import SymbolicVerifier

GROUP = 8
SYMBOLIC = SymbolicVerifier(deadline=30.0)  # one a process; its own worker is asked what the rules cannot read
PADDING = "We read the question again and put down what it gives, then take the next step with care. "
Rows = list[tuple[str, str]]


def made_rows(count: int, seed: int, length: int) -> Rows:
    """(completion, solution) a row, in groups of ``GROUP`` to one problem."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for place in range(count // GROUP):
        problem = word_problem(seed, place)
        for _ in range(GROUP):
            right = rng.random() < 0.5
            solution = problem.solution if right else wrong_solution(problem, int(rng.integers(2**31)))
            text = solution_text(solution, closing=str(rng.choice(list(CLOSINGS))))  # type: ignore[arg-type]
            text = (PADDING * (1 + length // len(PADDING)))[: max(0, length - len(text))] + "\n" + text
            if rng.random() < 0.25:
                text = f"<think>{text}</think><answer>{solution.answer}</answer>"
            if rng.random() < 0.02:
                text = damaged(text, rng)
            rows.append((text, str(problem.answer)))
    return rows


def damaged(text: str, rng: np.random.Generator) -> str:
    """A completion as a policy that goes wrong or cheats may write it."""
    kinds = (text[: len(text) // 2], text * 20, "\\boxed" + "{" * 400 + "1" + "}" * 400, "#### 9^9^9^9^9", "7" * 20_000)
    return kinds[rng.integers(len(kinds))]


def judged(rows: Rows) -> list[Any]:
    """The outcomes of the stack, as plain values that can be compared and sent between processes."""
    said, solution = [text for text, _ in rows], [answer for _, answer in rows]
    prompts = [""] * len(rows)
    parts = [
        rule_verifier(prompts, said, solution=solution),
        regex_verifier(prompts, said, solution=solution),
        answer_format(prompts, said),
        SYMBOLIC(prompts, said, solution=solution),
    ]
    found: list[Any] = [
        tuple(one.kind if isinstance(one, Failed) else one for one in row) for row in zip(*parts, strict=True)
    ]
    for start in range(0, len(rows), GROUP):
        stated = [stated_answer(text) for text in said[start : start + GROUP]]
        found.append(tuple(classes([one.text if one is not None else None for one in stated])))
    return found


def classes(answers: list[str | None]) -> list[int]:
    """The class of each answer among those of its group, by equal values; -1 where none is stated."""
    firsts: list[str] = []
    found = []
    for answer in answers:
        if answer is None:
            found.append(-1)
            continue
        at = next((place for place, first in enumerate(firsts) if same_answer(first, answer)), len(firsts))
        if at == len(firsts):
            firsts.append(answer)
        found.append(at)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds; each runs both sides once")
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--length", type=int, default=290, help="characters of a completion")
    options = parser.parse_args()
    rows = made_rows(options.samples, 0, options.length)
    half = len(rows) // GROUP // 2 * GROUP
    parts = (rows[:half], rows[half:])
    serial, own, parallel = [], [], []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(judged, (rows[:GROUP], rows[:GROUP])))  # both are started, and all is imported
        for turn in range(options.rounds):
            for side in ("serial", "parallel") if turn % 2 == 0 else ("parallel", "serial"):
                began, before = time.perf_counter(), time.process_time()
                if side == "serial":
                    alone = [one for part in parts for one in judged(part)]
                    serial.append(time.perf_counter() - began)
                    own.append(time.process_time() - before)
                else:
                    together = [one for part in pool.map(judged, parts) for one in part]
                    parallel.append(time.perf_counter() - began)
    same = alone == together
    one, two, used = (1000 * statistics.median(times) / len(rows) for times in (serial, parallel, own))
    print(f"{len(rows)} completions of about {options.length} characters, {options.rounds} rounds")
    print(f"serial {one:.3f} ms a sample ({used:.3f} of processor time), two workers {two:.3f}")
    told = {
        "name": "verifiers", "ms_serial": round(one, 4), "ms_two_workers": round(two, 4),
        "ms_serial_processor": round(used, 4), "ratio": round(one / two, 3), "parity": same,
    }  # fmt: skip
    print(json.dumps(told), flush=True)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()

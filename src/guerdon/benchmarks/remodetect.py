"""ReMoDetect's table: how well a subject's scores tell language models' texts from people's, file by file.

Each human text is scored once, whatever number of files it stands in, and every interval resamples human texts with all
that stands against them. Beside each figure stands what length alone achieves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from guerdon.benchmarks.protocol import Question, run_rows
from guerdon.benchmarks.remodetect_report import NAME, DetectionReport, graded
from guerdon.benchmarks.text_pairs import TextPair, equally_long, human_key
from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import as_messages
from guerdon.rewards.outcomes import problem_kind
from guerdon.rewards.subject import Subject

__all__ = ["DetectionReport", "Reads", "detect"]

Reads = Literal["text", "answer"]


def detect(
    subject: Subject,
    pairs: Sequence[TextPair],
    out: Path | None = None,
    *,
    reads: Reads = "text",
    same_length: bool = True,
    cut: Callable[[str], str] | None = None,
    trained_on: Iterable[str] = (),
    seed: int = 0,
    progress: bool = True,
) -> DetectionReport:
    """Score every text once and report how well the scores tell generated from human.

    reads:        "text": the text alone, an answer to nothing; "answer": after the pair's prompt.
    same_length:  cut both texts of a pair to as many words as the shorter has. cut: a further limit of the subject,
                  such as its first 512 tokens (`guerdon.rewards.text.reward_detector.opening`).
    trained_on:   human texts that the subject was trained on; pairs with them (`human_key`) are left out.
    out:          folder where scores are kept, and taken up again, in ``rows.jsonl``.

    Source: ReMoDetect (arXiv 2405.17382), section 4, and its harness. Raises GuerdonError where no pair is left, a pair
    lacks the prompt that reads="answer" needs, or nothing at all got a score.
    """
    if not subject.modes & {"score", "rate"}:
        raise GuerdonError(f"{subject.name} ranks answers; detection needs a score for each text")
    seen = {human_key(text) for text in trained_on}
    kept = [pair for pair in pairs if pair.key not in seen]
    if not kept:
        raise GuerdonError(f"none of {len(pairs)} pairs is left to grade by: all human texts were trained on")
    asked_without = next((pair for pair in kept if reads == "answer" and not pair.prompt), None)
    if asked_without is not None:
        raise GuerdonError(f"{asked_without.where}: there is no prompt, and reads='answer' scores texts after theirs")
    shown = [_shown(pair, same_length, cut) for pair in kept]
    questions, places = _questions(shown, reads)
    settings = {"reads": reads, "equally long": same_length}
    answers = run_rows(subject, questions, out, benchmark=NAME, settings=settings, progress=progress)
    values = np.array([[answers[q].values[0], answers[q].values[a]] for q, a in places])
    if not (~np.isnan(values)).any(axis=0).all():
        first = next((problem for one in answers for problem in one.problems.values()), "no reason given")
        raise GuerdonError(f"{subject.name} gave no score to any text of one side: {first}")
    problems: dict[str, int] = {}
    for one in answers:
        for problem in one.problems.values():
            problems[problem_kind(problem)] = problems.get(problem_kind(problem), 0) + 1
    return DetectionReport(
        subject.name, subject.identity, graded(shown, values[:, 1], values[:, 0]),
        sum(len(question.answers) for question in questions), problems, len(pairs) - len(kept), settings, seed,
    )  # fmt: skip


def _shown(pair: TextPair, same_length: bool, cut: Callable[[str], str] | None) -> TextPair:
    made = equally_long(pair) if same_length else pair
    return made if cut is None else replace(made, human=cut(made.human), generated=cut(made.generated))


def _questions(pairs: Sequence[TextPair], reads: Reads) -> tuple[list[Question], list[tuple[int, int]]]:
    """A question for each human text, the first answer, with its generated ones; (question, answer) of each pair."""
    prompts = [pair.prompt if reads == "answer" else None for pair in pairs]
    told: dict[tuple[str, str, str | None], list[str]] = {}
    places = []
    numbers: dict[tuple[str, str, str | None], int] = {}
    for pair, prompt in zip(pairs, prompts, strict=True):
        name = (pair.domain, pair.human, prompt)
        numbers.setdefault(name, len(numbers))
        answers = told.setdefault(name, [pair.human])
        answers.append(pair.generated)
        places.append((numbers[name], len(answers) - 1))
    questions = [
        Question(str(number), as_messages(prompt, "user") if prompt else [], tuple(answers), subset=domain)
        for number, ((domain, _, prompt), answers) in enumerate(told.items())
    ]
    return questions, places

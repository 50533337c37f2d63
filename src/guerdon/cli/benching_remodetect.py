"""``guerdon bench remodetect``: how well scores tell generated texts from human ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from guerdon.benchmarks.remodetect import DetectionReport, Reads, detect
from guerdon.benchmarks.text_pairs import load_text_pairs
from guerdon.cli.benching import Graded, On, subjects
from guerdon.cli.inspecting import renamed
from guerdon.cli.sheets import finish
from guerdon.core.errors import GuerdonError, unknown
from guerdon.rewards.subject import RewardSubject, ScalarSubject, Subject

__all__ = ["bench_remodetect"]


def bench_remodetect(
    graded: Graded,
    on: On,
    *,
    reads: str = "text",
    same_length: bool = True,
    tokens: int = 512,
    trained_on: Sequence[str] = (),
    columns: Sequence[str] = (),
    as_json: bool = False,
) -> None:
    """ReMoDetect: AUROC of generated against human texts, by file, domain, generator and length.

    on.data:     pair files {"original": [...], "sampled": [...]}, folders of them, or rows with human and generated,
                 several with commas between; ``on.limit`` pairs of each file.
    reads:       "text" or "answer". tokens: of a text that a reward model reads. same_length: cut both texts of a pair
                 to as many words. trained_on: files that the subject was trained on; their human texts are left out.
    """
    if reads not in ("text", "answer"):
        raise unknown("--reads", reads, ("text", "answer"))
    if on.data is None:
        raise GuerdonError(
            'bench remodetect needs --data: files {"original": [...], "sampled": [...]}, a folder of them, or rows '
            "with the columns human and generated"
        )
    if tokens < 8:
        raise GuerdonError(f"--tokens is the length that is read of a text, at least 8, not {tokens}")
    names = renamed(list(columns))
    pairs = load_text_pairs(
        on.data, columns=names, skip_bad_rows=on.skip_bad_rows, limit=on.limit, out=on.out, seed=on.seed
    )
    seen = [pair.human for path in trained_on for pair in load_text_pairs(path, columns=names)]
    first, second = subjects(graded)
    reading: Reads = "text" if reads == "text" else "answer"

    def graded_by(subject: Subject, out: Path | None) -> DetectionReport:
        asked = _of_texts(subject)
        return detect(
            asked, pairs, out, reads=reading, same_length=same_length, cut=_cut(asked, tokens), trained_on=seen,
            seed=on.seed,
        )  # fmt: skip

    found = graded_by(first, on.out)
    other = None if second is None else graded_by(second, None if on.out is None else on.out / "against")
    result = found.to_dict()
    if other is not None:
        difference = found.over(other)
        result |= {"against": other.to_dict(), "difference": [difference.value, difference.low, difference.high]}
    finish(found.sheet(other), result, on.out, as_json=as_json)


def _of_texts(subject: Subject) -> Subject:
    """A reward gets its texts as texts, also where nobody asked for them."""
    if isinstance(subject, RewardSubject) and subject.form == "auto":
        scorer = subject.scorer
        return RewardSubject(scorer.reward, name=subject.name, form="text", deadline=scorer.deadline)
    return subject


def _cut(subject: Subject, tokens: int) -> Callable[[str], str] | None:
    """The first ``tokens`` tokens, for subjects whose tokenizer is known."""
    from guerdon.rewards.text.reward_detector import opening

    tokenizer = getattr(subject.model, "tokenizer", None) if isinstance(subject, ScalarSubject) else None
    return None if tokenizer is None else lambda text: opening(text, tokenizer, tokens)

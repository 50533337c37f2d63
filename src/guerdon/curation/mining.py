"""Preference pairs out of samples: by a verifier, by a judge, or by the widest gap of given scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Message, Pair, as_messages, text_of

Text = Sequence[Message] | str


@dataclass
class Mined:
    """The pairs, and why the other samples gave none: reason -> how many."""

    pairs: list[Pair] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def verifier_pairs(
    prompt: Text,
    samples: Sequence[Text],
    verify: Callable[[str, Any], Any],
    reference: Any,
    *,
    answer: Text | None = None,
    limit: int | None = None,
) -> Mined:
    """Right answers against wrong ones, for tasks whose answers can be checked.

    verify:     ``verify(sample, reference) -> bool``, or None / Failed for a sample that it cannot tell about, which
                is then neither right nor wrong.
    answer:     the known good answer, chosen against every wrong sample (as IXC-2.5-Reward does with its SFT answer);
                None: right samples are chosen, the k-th right one against the k-th wrong one.
    limit:      pairs of this prompt at most.

    Source: IXC-2.5-Reward (arXiv 2501.12368), new data for mathematics and instructions. Raises GuerdonError for a
    verdict that is neither True nor False (nor 1, 0, None, Failed).
    """
    found = Mined()
    right: list[Text] = [] if answer is None else [answer] * len(samples)
    wrong: list[Text] = []
    for sample in _different(samples, found):
        verdict = verify(text_of(sample), reference)
        if verdict is None or isinstance(verdict, Failed):
            found.leave_out("not verified")
        elif verdict not in (True, False):
            raise GuerdonError(f"a verifier says True, False or None, got {verdict!r}")
        elif not verdict:
            wrong.append(sample)
        elif answer is None:
            right.append(sample)
        else:
            found.leave_out("right, like the answer")
    for better, worse in zip(right, wrong):
        if len(found.pairs) != limit:
            _add(found, prompt, better, worse, {"source": "verifier"})
    spare = max(len(right) - len(wrong), 0) * (answer is None) + max(len(wrong) - len(right), 0)
    if spare:
        found.left_out["without a counterpart"] = spare
    return found


def judge_pairs(
    prompt: Text, answer: Text, samples: Sequence[Text], judge: Callable[..., Any], *, limit: int | None = None
) -> Mined:
    """The known answer against every sample that a judge holds for worse, asked in both orders.

    judge:  ``judge(prompt, answer_a, answer_b) -> "a" | "b" | None | Failed`` (`guerdon.models.text_judge`), with
            messages. A sample is rejected only where the judge prefers the answer in both orders; one that it prefers
            or cannot place is left out, not turned into a pair the other way round.

    Source: IXC-2.5-Reward (arXiv 2501.12368), new general and document data, judged by GPT-4o. Both orders are ours.
    Raises GuerdonError for another verdict.
    """
    found = Mined()
    asked, known = _messages(prompt, "user"), _messages(answer, "assistant")
    for sample in _different(samples, found):
        if len(found.pairs) == limit:
            found.leave_out("beyond the limit")
            continue
        other = _messages(sample, "assistant")
        verdicts = [judge(asked, known, other), judge(asked, other, known)]
        for verdict in verdicts:
            if verdict not in ("a", "b", None) and not isinstance(verdict, Failed):
                raise GuerdonError(f"a judge says 'a', 'b' or None, got {verdict!r}")
        if any(isinstance(verdict, Failed) for verdict in verdicts):
            found.leave_out("not judged")
        elif verdicts == ["a", "b"]:
            _add(found, prompt, answer, sample, {"source": "judge"})
        elif verdicts == ["b", "a"]:
            found.leave_out("better than the answer")
        else:
            found.leave_out("a tie, or judged by its place")
    return found


def largest_margin_pairs(
    rated: Iterable[tuple[Text, Sequence[Text], Sequence[float]]], *, minimum: float = 0.0
) -> list[Pair]:
    """Of each prompt's scored answers only the two that lie furthest apart, the higher one chosen.

    rated:    (prompt, answers, one finite score each). A prompt with fewer than two answers, or whose largest gap is 0
              or below ``minimum``, gives no pair.
    Returns:  pairs with ``row["score_gap"]``. It is in the rater's units, so it is not made the pair's ``margin``,
              which the loss would read.

    Source: BaseReward (arXiv 2509.16127), Ultra-Hard. Raises GuerdonError for scores that do not fit.
    """
    pairs = []
    for number, (prompt, answers, scores) in enumerate(rated):
        if len(answers) != len(scores) or not all(math.isfinite(score) for score in scores):
            raise GuerdonError(
                f"prompt {number}: {len(answers)} answers need as many finite scores, got {list(scores)}"
            )
        if len(answers) < 2:
            continue
        high, low = max(range(len(scores)), key=scores.__getitem__), min(range(len(scores)), key=scores.__getitem__)
        gap = float(scores[high]) - float(scores[low])
        if gap > 0 and gap >= minimum:
            pairs.append(_pair(prompt, answers[high], answers[low], {"score_gap": gap, "source": "largest margin"}))
    return pairs


def _different(samples: Sequence[Text], found: Mined) -> list[Text]:
    """Samples without the blank ones and those said before."""
    kept: dict[str, Text] = {}
    for sample in samples:
        text = text_of(sample).strip()
        if not text:
            found.leave_out("empty")
        elif text in kept:
            found.leave_out("said before")
        else:
            kept[text] = sample
    return list(kept.values())


def _add(found: Mined, prompt: Text, better: Text, worse: Text, row: dict[str, Any]) -> None:
    if text_of(better).strip() == text_of(worse).strip():
        found.leave_out("equal to the answer")
    else:
        found.pairs.append(_pair(prompt, better, worse, row))


def _pair(prompt: Text, better: Text, worse: Text, row: dict[str, Any]) -> Pair:
    return Pair(_messages(prompt, "user"), _messages(better, "assistant"), _messages(worse, "assistant"), row=row)


def _messages(text: Text, role: str) -> list[Message]:
    if role == "assistant" and isinstance(text, str):
        return [{"role": role, "content": text}]  # an answer is never read for turns
    return as_messages(text if isinstance(text, str) else list(text), role)

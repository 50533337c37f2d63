"""Rewards of a translation with a thought before it: its form, its language, its thought, and all of it together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash, name_of
from guerdon.core.outcome import Failed, Scores
from guerdon.core.preferences import as_messages, text_of
from guerdon.core.reward import Reward, is_groupwise
from guerdon.models.language_detector import Detector, detect_language
from guerdon.rewards.compose import gate, weighted_sum
from guerdon.rewards.composite import Combined, Composite, Term, bounds_of, broken, group_ids, numbers

__all__ = [
    "DirectionRouter", "LanguageGate", "LightweightTranslationReward", "PureOutput", "ThinkFormatGate", "ThoughtReward",
    "after_thought", "extrans_reward", "gated_sum", "pure_by_rules", "sources_of", "thought_of",
]  # fmt: skip

Outcomes = list["float | None | Failed"]

_REMARK = re.compile(
    r"^\s*(?:here(?:'s| is)\b|translation\s*:|the translation\b|note\s*:|explanation\s*:"
    r"|译文\s*[:：]|翻译\s*[:：]|注\s*[:：]|以下是)"
    r"|\n\s*(?:note|explanation|注释?|说明)\s*[:：]|```",
    re.IGNORECASE,
)


def after_thought(text: str, tag: str = "think") -> str:
    """What follows the last ``</think>``, stripped; the whole text where there is no such tag."""
    return text.rpartition(f"</{tag}>")[2].strip()


def thought_of(text: str, tag: str = "think") -> str | None:
    """What stands in the one ``<think>`` block of a well-formed text, else None (`ThinkFormatGate`)."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    before, _, rest = text.partition(opening)
    thought, closed, after = rest.partition(closing)
    return thought.strip() if closed and not before.strip() and after.strip() else None


def sources_of(prompts: Any, completions: Sequence[Any], columns: Mapping[str, Any], name: str) -> list[str]:
    """The text to be translated of each row: the column ``source``, else the last turn of the prompt.

    Raises GuerdonError where there is not one for each completion.
    """
    given = columns.get("source")
    kept = prompts if given is None else given
    if kept is None or isinstance(kept, str) or len(kept) != len(completions):
        what = "prompts" if given is None else "entries of the column 'source'"
        raise GuerdonError(f"reward {name!r}: {len(completions)} completions need as many {what}")
    if given is not None:
        return [str(one) for one in given]
    return ["" if not one else text_of(as_messages(one)[-1:]) for one in kept]


def pure_by_rules(text: str) -> float:
    """1.0 unless a text begins with an announcement, ends in notes, or is fenced; a cheap stand-in for a judge."""
    return float(bool(text.strip()) and _REMARK.search(text) is None)


class ThinkFormatGate:
    """1.0 where a completion is one ``<think>`` block and a text behind it, else 0.0.

    Source: format reward of DeepTrans (arXiv 2504.10187), its first half, on which ExTrans (arXiv 2505.12996) builds.
    """

    groupwise = False
    range = (0.0, 1.0)
    on_failure = "raise"
    version = "1"

    def __init__(self, tag: str = "think", *, name: str = "think_format") -> None:
        if not re.fullmatch(r"\w+", tag):
            raise GuerdonError(f"reward {name!r}: a tag is one word, got {tag!r}")
        self.tag, self.__name__ = tag, name

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float]:
        """One of {0, 1} a completion."""
        return [float(thought_of(completion_text(one), self.tag) is not None) for one in completions]

    def identity(self) -> str:
        """Name, version, and a hash of the tag."""
        return f"{self.__name__}@{self.version}#{config_hash(self.tag)}"


class _AskedByText:
    """A reward of a function of the row's texts, each different case asked once a call."""

    groupwise = False
    on_failure = "drop_sample"
    version = "1"
    range: tuple[float, float] | None = (0.0, 1.0)

    def __init__(self, judge: Callable[..., float | Failed], name: str) -> None:
        self.judge, self.__name__ = judge, name

    def _ask(self, cases: Sequence[tuple[str, ...]]) -> Outcomes:
        known: dict[tuple[str, ...], float | Failed] = {}
        for case in cases:
            if case not in known:
                said = self.judge(*case)
                known[case] = said if isinstance(said, Failed) else float(said)
        return [known[case] for case in cases]

    def identity(self) -> str:
        """Name, version, and a hash of the judge."""
        told = getattr(self.judge, "name", None) or self.judge
        return f"{self.__name__}@{self.version}#{config_hash(told)}"


class PureOutput(_AskedByText):
    """1.0 where what follows the thought is a translation and nothing else.

    judge: ``judge(text) -> 1 or 0, or Failed``: `PurityJudge` of `guerdon.models.translation_judge`, or the rules of
    `pure_by_rules` (default), which know only the commonest remarks. The classes of the paper's judge are UNVERIFIED.
    """

    def __init__(self, judge: Callable[[str], float | Failed] = pure_by_rules, *, name: str = "pure_output") -> None:
        super().__init__(judge, name)

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> Outcomes:
        """One outcome a completion."""
        return self._ask([(after_thought(completion_text(one)),) for one in completions])


class ThoughtReward(_AskedByText):
    """How the thought analyses the source: 0 not at all, 1 slightly, 2 in detail; ``unit`` halves it to [0, 1].

    judge: ``judge(source, thought) -> 0, 1, 2 or Failed``: `ThoughtJudge`. No thought, or an empty one, is worth 0.
    Source: DeepTrans (arXiv 2504.10187).
    """

    def __init__(
        self, judge: Callable[[str, str], float | Failed], *, unit: bool = False, name: str = "thought"
    ) -> None:
        super().__init__(lambda source, thought: judge(source, thought) if thought else 0.0, name)
        self._told, self.unit = judge, unit
        self.range = (0.0, 1.0) if unit else (0.0, 2.0)

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> Outcomes:
        """One outcome a completion."""
        sources = sources_of(prompts, completions, columns, self.__name__)
        thoughts = [thought_of(completion_text(one)) or "" for one in completions]
        found = self._ask(list(zip(sources, thoughts)))
        return [one / 2 if self.unit and isinstance(one, float) else one for one in found]

    def identity(self) -> str:
        """Name, version, and a hash of the judge and the scale."""
        told = getattr(self._told, "name", None) or self._told
        return f"{self.__name__}@{self.version}#{config_hash([told, self.unit])}"


class LanguageGate:
    """1.0 where the translation is in the target language, else 0.0; an empty one, or the source copied, is 0.0.

    target:    ISO 639-1 code; None: the column ``target_language``, one a row.
    detector:  text -> code or None where it cannot tell, which is 0.0; default `detect_language`, by script and words.
    """

    groupwise = False
    range = (0.0, 1.0)
    on_failure = "raise"
    version = "1"

    def __init__(
        self, target: str | None = None, detector: Detector = detect_language, *, name: str = "target_language"
    ) -> None:
        self.target, self.detector, self.__name__ = target, detector, name

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float]:
        """One of {0, 1} a completion. Raises GuerdonError where no target language is known."""
        targets = columns.get("target_language") if self.target is None else [self.target] * len(completions)
        if targets is None or isinstance(targets, str) or len(targets) != len(completions):
            raise GuerdonError(f"reward {self.__name__!r} needs a target, or the column 'target_language' for each row")
        sources = sources_of(prompts, completions, columns, self.__name__)
        found = []
        for source, completion, target in zip(sources, completions, targets):
            text = after_thought(completion_text(completion))
            copied = " ".join(text.split()) == " ".join(source.split())
            found.append(float(bool(text) and not copied and self.detector(text) == target))
        return found

    def identity(self) -> str:
        """Name, version, and a hash of target and detector."""
        return f"{self.__name__}@{self.version}#{config_hash([self.target, self.detector])}"


def gated_sum(
    gates: Sequence[Reward], parts: Mapping[str, Term], *, name: str = "gated_sum", closed: float = 0.0
) -> Composite:
    """sum_k w_k R_k where every gate is open (at least 0.5), else ``closed``.

    gates:  in order, the cheap ones first: what comes behind a closed gate is not called. Gated-out samples keep their
            score and stay in the group, so a malformed answer is pushed down.
    parts:  (reward, weight) by name, all logged with their weights. Scale them alike first, or the widest one rules.

    Source: r_all of DeepTrans (arXiv 2504.10187). Raises GuerdonError without gates.
    """
    if not gates:
        raise GuerdonError(f"reward {name!r}: a gated sum needs at least one gate; see weighted_sum")
    found: Composite = weighted_sum(parts, name="sum")
    for place, condition in enumerate(reversed(gates)):
        label = name if place == len(gates) - 1 else f"behind_{name_of(gates[len(gates) - 2 - place])}"
        found = gate(condition, found, closed=closed, name=label)
    return found


def extrans_reward(
    comparison: Reward,
    *,
    thought: Reward | None = None,
    quality: Reward | None = None,
    pure: Reward | None = None,
    weights: tuple[float, float, float] = (1.0, 0.2, 0.5),
    name: str = "extrans",
) -> Composite:
    """1[format] (w_t r_trans + w_th r_thought + w_c r_quality): the full reward of an anchor direction.

    comparison: an `ExemplarComparisonReward`, thought: a `ThoughtReward`, both with ``unit=True``; quality: any
    reference-free metric in [0, 1] (CometKiwi in the paper). pure: default `PureOutput` by rules.
    weights:    of the three, for parts in [0, 1]. The paper's are UNVERIFIED; these are its card's neutral start.
    Raises GuerdonError for a part that is not declared to lie in [0, 1].

    Source: ExTrans (arXiv 2505.12996).
    """
    terms: dict[str, Term] = {}
    for key, part, weight in zip(("translation", "thought", "quality"), (comparison, thought, quality), weights):
        if part is None:
            continue
        low, high = bounds_of(part)
        if low < 0 or high > 1:
            raise GuerdonError(f"reward {name!r}: {key} lies in [{low:g}, {high:g}], not in [0, 1]; give unit=True")
        terms[key] = (part, weight)
    return gated_sum([ThinkFormatGate(), pure or PureOutput()], terms, name=name)


class LightweightTranslationReward(Composite):
    """1.0 where the form is right and the translation is in the target language, else 0.0: no quality is judged.

    target, detector: of `LanguageGate`. think: whether the form of a thought is asked for.

    Once the form is mastered groups have no spread; that is as it should be. Source: ExTrans (arXiv 2505.12996), all
    but the anchor direction; the value of a pass is UNVERIFIED.
    """

    def __init__(
        self,
        target: str | None = None,
        detector: Detector = detect_language,
        *,
        think: bool = True,
        name: str = "lightweight_translation",
    ) -> None:
        parts: dict[str, Reward] = {"language": LanguageGate(target, detector)}
        if think:
            parts = {"format": ThinkFormatGate(), **parts}
        super().__init__(name, parts, {"think": think}, bounds=(0.0, 1.0))

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        valid = np.logical_and.reduce([part.valid for part in scored.values()])
        passed = np.logical_and.reduce([numbers(part) >= 0.5 for part in scored.values()])
        return Combined(passed.astype(np.float64), valid, np.logical_or.reduce([broken(p) for p in scored.values()]))


class DirectionRouter(Composite):
    """The full reward for anchor directions and the lightweight one for the rest, by the column ``direction``.

    full:      direction ("en-zh") -> its reward. otherwise: of all other directions; None: they get None.

    A reward is called with its own rows only. The two are on different scales, so a group must not mix directions:
    that is an error, not a number. Source: mExTrans (arXiv 2505.12996).
    """

    def __init__(
        self, full: Mapping[str, Reward], otherwise: Reward | None = None, *, name: str = "direction_router"
    ) -> None:
        if not full:
            raise GuerdonError(f"reward {name!r} needs at least one anchor direction with its reward")
        parts: dict[str, Reward] = dict(full)
        if otherwise is not None:
            if "otherwise" in parts:
                raise unknown("direction", "otherwise", [key for key in parts if key != "otherwise"])
            parts["otherwise"] = otherwise
        if any(is_groupwise(part) for part in parts.values()):
            raise GuerdonError(f"reward {name!r} routes rows one by one; a groupwise reward cannot be behind it")
        ends = [bounds_of(part) for part in parts.values()]
        super().__init__(name, parts, {}, bounds=(min(low for low, _ in ends), max(high for _, high in ends)))

    def _score_parts(self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any]) -> dict[str, Scores]:
        count = len(completions)
        directions = columns.get("direction")
        if directions is None or isinstance(directions, str) or len(directions) != count:
            raise GuerdonError(f"reward {self.__name__!r} needs the column 'direction', one entry a completion")
        groups = group_ids(prompts, columns).tolist()
        of_group: dict[int, str] = {}
        for group, direction in zip(groups, directions):
            if of_group.setdefault(group, direction) != direction:
                raise GuerdonError(
                    f"one group holds the directions {of_group[group]!r} and {direction!r}; keep a group to one, or "
                    "its advantages compare rewards of different scales"
                )
        found = {}
        for key in self.parts:
            rows = [
                row
                for row, direction in enumerate(directions)
                if direction == key or (key == "otherwise" and direction not in self.parts)
            ]
            found[key] = self._routed(key, rows, prompts, completions, columns, count)
        return found

    def _routed(
        self, key: str, rows: list[int], prompts: Any, completions: Any, columns: Mapping[str, Any], count: int
    ) -> Scores:
        values, valid, dropped = np.full(count, math.nan), np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        failures: dict[int, Failed] = {}
        parts: dict[str, np.ndarray] = {}
        if rows:
            kept = {
                name: [given[row] for row in rows] if isinstance(given, list | tuple) and len(given) == count else given
                for name, given in columns.items()
            }
            own_prompts, own = [prompts[row] for row in rows], [completions[row] for row in rows]
            some = self._scorers.score(own_prompts, own, kept, [key])[key]
            values[rows], valid[rows], dropped[rows] = some.values, some.valid, some.dropped
            failures = {rows[row]: failure for row, failure in some.failures.items()}
            for name, part in some.parts.items():
                parts[name] = np.full(count, math.nan)
                parts[name][rows] = part
        return Scores(values, valid, failures, parts, dropped=dropped)

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        # No row belongs to two directions.
        values = np.sum([numbers(part) for part in scored.values()], axis=0)
        valid = np.logical_or.reduce([part.valid for part in scored.values()])
        return Combined(values, valid, np.logical_or.reduce([broken(part) for part in scored.values()]))

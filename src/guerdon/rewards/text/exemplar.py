"""A reward that compares a translation with an exemplar from a stronger model, and the store of the exemplars."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed
from guerdon.metrics.exemplar_grades import GradeHistogram, grade_histogram, swap_averaged_grade, unit_grade
from guerdon.models.text_judge import judge_name
from guerdon.models.translation_judge import TranslationComparison
from guerdon.rewards.text.translation import after_thought, sources_of

__all__ = ["Comparison", "Exemplar", "ExemplarComparisonReward", "ExemplarStore", "GradeMonitor"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exemplar:
    """A translation that others are compared with. key: of source and direction. date: as told, ISO 8601."""

    key: str
    text: str
    producer: str
    date: str = ""


class ExemplarStore:
    """Exemplars by source and direction, made once and offline; a JSON file of lines.

    mixed: True allows exemplars of several producers. Their levels differ, so a reward against them is not one reward;
    without it a second producer is an error.
    """

    def __init__(self, exemplars: Sequence[Exemplar] = (), *, mixed: bool = False) -> None:
        self.mixed = mixed
        self._held: dict[str, Exemplar] = {}
        for one in exemplars:
            self._put(one)

    @staticmethod
    def key(source: str, direction: str = "") -> str:
        """SHA-256 of the direction and the source without white space at its ends, in hex."""
        return hashlib.sha256(f"{direction}\n{source.strip()}".encode()).hexdigest()

    @classmethod
    def load(cls, path: str | Path, *, mixed: bool = False) -> ExemplarStore:
        """The store that `save` wrote. Raises GuerdonError naming the file and line that cannot be used."""
        store = cls(mixed=mixed)
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise GuerdonError(f"{path}: cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    read = Exemplar(**json.loads(line))
                    if not all(isinstance(value, str) for value in asdict(read).values()):
                        raise TypeError("a field is not text")
                except (ValueError, TypeError) as error:
                    raise GuerdonError(
                        f"{path}, line {number}: no exemplar with key, text, producer: {error}"
                    ) from None
                try:
                    store._put(read)
                except GuerdonError as error:
                    raise GuerdonError(f"{path}, line {number}: {error}") from None
        return store

    def save(self, path: str | Path) -> None:
        """One JSON object a line, in the order of entry."""
        lines = [json.dumps(asdict(one), ensure_ascii=False) for one in self._held.values()]
        Path(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def add(self, source: str, text: str, *, producer: str, date: str = "", direction: str = "") -> Exemplar:
        """Put an exemplar in; one that is there already is replaced (an exemplar that has become too weak).

        Raises GuerdonError for an empty text or producer, or a second producer in a store that is not ``mixed``.
        """
        made = Exemplar(self.key(source, direction), text, producer, date)
        self._put(made)
        return made

    def get(self, source: str, direction: str = "") -> Exemplar | None:
        """The exemplar of a source, or None."""
        return self._held.get(self.key(source, direction))

    @property
    def producers(self) -> list[str]:
        """Who made the exemplars, sorted."""
        return sorted({one.producer for one in self._held.values()})

    def __len__(self) -> int:
        return len(self._held)

    def identity(self) -> str:
        """A hash of all that is held."""
        return config_hash(sorted([one.key, one.text, one.producer] for one in self._held.values()))

    def _put(self, one: Exemplar) -> None:
        if not one.text.strip() or not one.producer:
            raise GuerdonError("an exemplar needs a text and the name of its producer")
        others = set(self.producers) - {one.producer}
        if others and not self.mixed:
            raise GuerdonError(
                f"exemplars of {one.producer!r} among those of {sorted(others)[0]!r}: two producers are two levels; "
                "keep a store for each, or say mixed=True"
            )
        self._held[one.key] = one


class GradeMonitor:
    """Warns where nearly all of the last ``window`` grades are wins (too weak an exemplar) or losses (too strong)."""

    def __init__(self, window: int = 512, *, grades: int = 5, share: float = 0.9) -> None:
        if window < 1:
            raise GuerdonError(f"a window must hold at least 1 grade, got {window}")
        self.grades, self.share = grades, share
        self._seen: deque[float] = deque(maxlen=window)
        self._told = False

    def see(self, values: Sequence[float]) -> GradeHistogram:
        """Take grades in; logs one warning each time that a full window goes from well placed to misplaced."""
        self._seen.extend(values)
        found = grade_histogram(self._seen, grades=self.grades, share=self.share)  # type: ignore[arg-type]
        misplaced = found.verdict in ("too weak", "too strong") and len(self._seen) == self._seen.maxlen
        if misplaced and not self._told:
            log.warning(
                "the exemplars are %s: of the last %d grades %.0f%% are wins, %.0f%% losses; renew them or grade finer",
                found.verdict, len(self._seen), 100 * found.high, 100 * found.low,
            )  # fmt: skip
        self._told = misplaced
        return found


@dataclass(frozen=True)
class Comparison:
    """grade: in [1, n]. tie: whether it is the middle one. first, second: what the judge said with the translation
    asked about first and second (None without the swap). exemplar, text: what was compared."""

    grade: float
    tie: bool
    first: float
    second: float | None
    exemplar: str
    text: str


class ExemplarComparisonReward:
    """The grade of a translation against its source's exemplar, swap-averaged: 1 much worse, 3 a tie, 5 much better.

    judge:   ``judge(source, first, second) -> grade in [1, n] or Failed`` (`guerdon.models.translation_judge`).
    store:   the exemplars. A source without one gets None (does not apply).
    swap:    ask in both orders and average (`swap_averaged_grade`); without it the reward pays position bias.
    unit:    pay (g - 1) / (n - 1) in [0, 1] instead, so that it can be weighed against other parts.
    monitor: a `GradeMonitor`; default one of its own, as ``monitor``.

    The translation is what follows ``</think>`` (the whole text where there is no thought); an empty one gets the
    lowest grade and is not shown to the judge. The source is the column ``source``, else the prompt's last turn; the
    column ``direction`` chooses among a source's exemplars. A judge that fails, fails that sample.

    Sources: ExTrans (arXiv 2505.12996), its comparison in five grades; swap-averaging is ours, for the paper does
    not say (UNVERIFIED).
    """

    groupwise = False
    on_failure = "drop_sample"
    version = "1"

    def __init__(
        self,
        judge: TranslationComparison,
        store: ExemplarStore,
        *,
        grades: int = 5,
        swap: bool = True,
        unit: bool = False,
        monitor: GradeMonitor | None = None,
        name: str = "exemplar_comparison",
    ) -> None:
        if grades < 2:
            raise GuerdonError(f"reward {name!r}: a comparison needs at least 2 grades, got {grades}")
        self.judge, self.store, self.grades, self.swap, self.unit = judge, store, grades, swap, unit
        self.monitor = monitor or GradeMonitor(grades=grades)
        self.range = (0.0, 1.0) if unit else (1.0, float(grades))
        self.__name__ = name

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float | None | Failed]:
        """One outcome a completion. The share of wins and losses goes to ``log_metric`` where TRL passes it."""
        found: list[float | None | Failed] = []
        told = self.explain(prompts, completions, **columns)
        for one in told:
            if isinstance(one, Comparison):
                found.append(unit_grade(one.grade, grades=self.grades) if self.unit else one.grade)
            else:
                found.append(one)
        grades = [one.grade for one in told if isinstance(one, Comparison)]
        seen = self.monitor.see(grades) if grades else None
        log_metric = columns.get("log_metric")
        if callable(log_metric) and seen is not None:
            log_metric(f"{self.__name__}/wins", seen.high)
            log_metric(f"{self.__name__}/losses", seen.low)
        return found

    def explain(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[Comparison | None | Failed]:
        """The comparison of each completion; None without an exemplar, Failed where the judge failed."""
        sources = sources_of(prompts, completions, columns, self.__name__)
        directions = columns.get("direction") or [""] * len(completions)
        if isinstance(directions, str) or len(directions) != len(completions):
            raise GuerdonError(f"reward {self.__name__!r}: the column 'direction' needs one entry a completion")
        found: list[Comparison | None | Failed] = []
        for source, completion, direction in zip(sources, completions, directions):
            exemplar = self.store.get(source, str(direction or ""))
            text = after_thought(completion_text(completion))
            found.append(None if exemplar is None else self._compared(source, text, exemplar.text))
        return found

    def _compared(self, source: str, text: str, exemplar: str) -> Comparison | Failed:
        if not text:
            return Comparison(1.0, False, 1.0, None, exemplar, text)
        said: list[float] = []
        for first, second in ((text, exemplar), (exemplar, text))[: 2 if self.swap else 1]:
            grade = self.judge(source, first, second)
            if isinstance(grade, Failed):
                return grade
            if isinstance(grade, bool) or not isinstance(grade, int | float) or not 1 <= grade <= self.grades:
                return Failed(f"the judge gave {grade!r}, no grade in [1, {self.grades}]", "out_of_range")
            said.append(float(grade))
        value = swap_averaged_grade(said[0], said[1], grades=self.grades) if self.swap else said[0]
        return Comparison(
            value, value == (self.grades + 1) / 2, said[0], said[1] if self.swap else None, exemplar, text
        )

    def identity(self) -> str:
        """Name, version, and a hash of the judge's name, the exemplars and the settings."""
        settings = [judge_name(self.judge), self.store.identity(), self.grades, self.swap, self.unit]
        return f"{self.__name__}@{self.version}#{config_hash(settings)}"

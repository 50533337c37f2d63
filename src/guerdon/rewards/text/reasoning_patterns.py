"""Rewards for the mere presence of phrases that reasoning is made of, and low scores topped up by them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash, name_of
from guerdon.core.outcome import Scores
from guerdon.core.reward import Reward
from guerdon.metrics.repetition import Counting, ngram_repetition
from guerdon.objectives.reward_noise import calibrated
from guerdon.rewards.composite import Combined, Composite, bounds_of, broken, numbers
from guerdon.rewards.text.final_answer import stated_answer
from guerdon.rewards.text.regions import Region, region_text

__all__ = ["CHAT_PHRASES", "MATH_PHRASES", "CalibratedReward", "PhrasePatternReward", "frequent_phrases"]

Match = Literal["substring", "word"]

MATH_PHRASES: tuple[str, ...] = (
    "i need to", "we need to", "wait", "alternatively", "let me check", "let me see", "let's focus on", "we know that",
    "we can observe", "we can see", "let me try", "let's try", "let us try", "first,", "firstly,", "next,", "finally,",
    "let us first", "let's first", "let me first", "try again", "still not", "not working", "not correct",
    "does not work", "doesn't work", "makes sence", "since we", "because we", "consequently", "as a result", "thus",
    "therefore", "hence", "so that", "thereby", "if we", "given there", "for instance", "for example",
)  # fmt: skip
"""The 40 phrases of the paper for mathematics, with its misspelling "makes sence"."""

CHAT_PHRASES: tuple[str, ...] = (
    *MATH_PHRASES, "1. ", "2. ", "3. ", "4. ", "step 1 ", "step 2 ", "step 3. ", "step 4 ", "considering the", "i'll",
    "i will", "i would", "i should",
)  # fmt: skip
"""The 53 phrases of the released code for open questions."""

_SELF_ASKED = "user: "


class PhrasePatternReward:
    """RPR: ``weight`` for each phrase that a completion holds at least once, capped, less what it repeats; in [0, cap].

    R = max(0, min(cap, weight * #phrases present) - repetition - #"user: "). It never looks at whether the answer is
    right, and a policy that climbs it alone comes to revisit without end; use it beside a reward that does
    (`CalibratedReward`).

    phrases:     lower-case texts. weight: 1/40, the paper's; its released code has 1/20. cap: of the sum.
    region:      what is read: "all" (the paper for mathematics: all that follows ``<think>``), "think", "answer".
    match:       "substring", as published: "thus" is found in "enthusiasm". "word": as whole words, a curly apostrophe
                 counting as a straight one.
    repetition:  "distinct", the published penalty, which hardly sees heavy repetition; "positions", the corrected one;
                 None for none (`ngram_repetition` with ``n`` words).
    answered:    text -> whether it states an answer; without one the reward is 0. None: not asked for. The paper looks
                 for a boxed answer, here any stated one counts.
    self_asked:  subtract 1 for each "user: " that a policy writes, as the released code does.

    Source: The Climb Carves Wisdom Deeper Than the Summit (arXiv 2505.22653), section 3.1 and figure 9.
    """

    groupwise = False
    on_failure = "raise"
    version = "1"

    def __init__(
        self,
        phrases: Sequence[str] = MATH_PHRASES,
        *,
        weight: float = 1 / 40,
        cap: float = 1.0,
        region: Region = "all",
        match: Match = "substring",
        repetition: Counting | None = "distinct",
        n: int = 20,
        answered: Callable[[str], Any] | None = stated_answer,
        self_asked: bool = True,
        name: str = "reasoning_patterns",
    ) -> None:
        if isinstance(phrases, str) or not phrases or not all(isinstance(one, str) and one.strip() for one in phrases):
            raise GuerdonError(f"reward {name!r} needs a list of phrases, none of them empty")
        if not (weight > 0 and cap > 0):
            raise GuerdonError(f"reward {name!r}: weight and cap must be above 0, got {weight} and {cap}")
        if match not in get_args(Match):
            raise unknown("way to match a phrase", match, get_args(Match))
        region_text("", region)
        if repetition is not None:
            ngram_repetition("", n, counting=repetition)
        self.phrases, self.weight, self.cap = tuple(one.lower() for one in phrases), float(weight), float(cap)
        self.region, self.match, self.repetition, self.n = region, match, repetition, n
        self.answered, self.self_asked, self.__name__ = answered, self_asked, name
        self.range = (0.0, self.cap)
        # One pass a phrase: in an alternation a phrase would hide another that begins at the same place.
        self._words = [re.compile(rf"(?<!\w){re.escape(one.strip())}(?!\w)") for one in self.phrases]

    def hits(self, text: str) -> list[str]:
        """The phrases that the region of ``text`` holds, each once, in the order of the list."""
        read = region_text(text, self.region).lower()
        if self.match == "substring":
            return [phrase for phrase in self.phrases if phrase in read]
        read = read.replace("\u2019", "'")
        return [phrase for phrase, pattern in zip(self.phrases, self._words) if pattern.search(read)]

    def parts(self, text: str) -> dict[str, float]:
        """{"patterns", "repetition", "self_asked"} of a text: what is paid, and the two deductions, all >= 0."""
        read = region_text(text, self.region)
        return {
            "patterns": min(self.cap, self.weight * len(self.hits(text))),
            "repetition": 0.0 if self.repetition is None else ngram_repetition(read, self.n, counting=self.repetition),
            "self_asked": float(read.lower().count(_SELF_ASKED)) if self.self_asked else 0.0,
        }

    def score(self, text: str) -> float:
        """The reward of one text."""
        if self.answered is not None and not self.answered(text):
            return 0.0
        parts = self.parts(text)
        return max(0.0, parts["patterns"] - parts["repetition"] - parts["self_asked"])

    def __call__(self, prompts: Any, completions: Sequence[Any], **columns: Any) -> list[float]:
        """N rewards in [0, cap]; ``completions`` are strings or message lists."""
        return [self.score(completion_text(one)) for one in completions]

    def identity(self) -> str:
        """Name, version, and a hash of the phrases and settings."""
        asked = None if self.answered is None else getattr(self.answered, "__qualname__", type(self.answered).__name__)
        settings = [self.weight, self.cap, self.region, self.match, self.repetition, self.n, asked, self.self_asked]
        return f"{self.__name__}@{self.version}#{config_hash([list(self.phrases), settings])}"


class CalibratedReward(Composite):
    """s where s >= tau, else min(cap, s + alpha aux): a noisy reward model whose low scores are topped up.

    Only false negatives are made up for. Scores that lie in [0, 1], or near it, are meant: ``tau`` is the middle
    between a bad and a good answer in the units of ``base``. Both parts are required; they and "raised", whether a row
    was topped up, are logged. As published, format counts first, the reward model reads the answer, and the patterns
    are those of the thought:

        gate(answer_format, CalibratedReward(ReadingRegion(rm, "answer"), PhrasePatternReward(region="think")))

    Source: arXiv 2505.22653, section 3.3: tau 0.5, alpha 0.1 (with alpha 1 responses behaved much the same, with 0.1
    they grew much longer). Not meant for evaluation.
    """

    def __init__(
        self,
        base: Reward,
        aux: Reward | None = None,
        *,
        tau: float = 0.5,
        alpha: float = 0.1,
        cap: float = 1.0,
        name: str | None = None,
    ) -> None:
        aux = PhrasePatternReward() if aux is None else aux
        self._base, self._aux = name_of(base), name_of(aux)
        name = name or f"calibrated_{self._base}"
        if self._base == self._aux:
            raise GuerdonError(f"reward {name!r}: base and aux are both named {self._base!r}")
        if alpha < 0 or cap < tau:
            raise GuerdonError(f"reward {name!r} needs alpha >= 0 and cap >= tau, got {alpha}, {cap} and {tau}")
        self.tau, self.alpha, self.cap = float(tau), float(alpha), float(cap)
        low, high = bounds_of(base)
        extra = bounds_of(aux)
        bounds = (min(low, low + self.alpha * min(extra[0], 0.0)) if self.alpha else low, max(high, self.cap))
        super().__init__(
            name, {self._base: base, self._aux: aux}, {"tau": self.tau, "alpha": self.alpha, "cap": self.cap},
            bounds=bounds,
        )  # fmt: skip

    def _score_parts(self, prompts: Sequence[Any], completions: Any, columns: Mapping[str, Any]) -> dict[str, Scores]:
        scored = super()._score_parts(prompts, completions, columns)
        base = scored[self._base]
        return {**scored, "raised": Scores((numbers(base) < self.tau).astype(float), base.valid)}

    def _combine(self, scored: Mapping[str, Scores], prompts: Sequence[Any], columns: Mapping[str, Any]) -> Combined:
        base, aux = scored[self._base], scored[self._aux]
        values = calibrated(numbers(base), numbers(aux), tau=self.tau, alpha=self.alpha, cap=self.cap)
        return Combined(values, base.valid & aux.valid, broken(base) | broken(aux))


def frequent_phrases(
    texts: Sequence[str], count: int = 40, *, words: tuple[int, int] = (1, 3), fewest: int = 2
) -> list[tuple[str, int]]:
    """Phrases of ``words`` (from, to) words by the number of ``texts`` that hold them: raw material for a list.

    Choose by hand from outputs of a model that was trained without noise, as the paper did (40, a number that was not
    tuned). Phrases end at punctuation; those in fewer than ``fewest`` texts are left out, as is a phrase that stands
    only inside a longer one of the list. Lower-case, commonest first, then by the alphabet.
    Raises GuerdonError for a range of words that is none.
    """
    low, high = words
    if not 1 <= low <= high or count < 1:
        raise GuerdonError(f"phrases need 1 <= from <= to words and a count of at least 1, got {words} and {count}")
    held: Counter[str] = Counter()
    for text in texts:
        found = set()
        for piece in re.split(r"[^\w' ]+", text.lower().replace("\u2019", "'")):
            said = [word for word in piece.split() if not any(letter.isdigit() for letter in word)]
            for size in range(low, high + 1):
                found |= {" ".join(said[start : start + size]) for start in range(len(said) - size + 1)}
        held.update(found)
    inside = {
        part
        for phrase, seen in held.items()
        if " " in phrase and seen >= fewest
        for part in (phrase.rpartition(" ")[0], phrase.partition(" ")[2])
        if held[part] == seen
    }
    kept = [(phrase, seen) for phrase, seen in held.items() if seen >= fewest and phrase not in inside]
    return sorted(kept, key=lambda one: (-one[1], one[0]))[:count]

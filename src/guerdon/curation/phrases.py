"""Made sentences in English and German with their translation, for policies that translate: real grammar, few words.

The word order differs: behind a time the verb comes second in German, in a subordinate clause last; articles and
adjectives carry case and gender. The translations that come with them are a beginner's: a third has a fault.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["DIRECTIONS", "Phrase", "phrase", "translated", "translation_row"]

DIRECTIONS = ("en-de", "de-en")
THOUGHT = "The verb has its own place."

# English, German, gender.
_NOUNS = (
    ("dog", "Hund", "m"), ("bird", "Vogel", "m"), ("man", "Mann", "m"), ("cat", "Katze", "f"), ("woman", "Frau", "f"),
    ("teacher", "Lehrerin", "f"), ("horse", "Pferd", "n"), ("child", "Kind", "n"), ("sheep", "Schaf", "n"),
)  # fmt: skip
_ADJECTIVES = (("old", "alt"), ("small", "klein"), ("young", "jung"), ("black", "schwarz"), ("tired", "müd"))
_VERBS = (("sees", "sieht"), ("seeks", "sucht"), ("finds", "findet"), ("hears", "hört"), ("likes", "mag"))
_TIMES = (("today", "heute"), ("now", "jetzt"), ("in the evening", "am Abend"))
_SPEAKERS = (("he says", "er sagt"), ("she thinks", "sie glaubt"))
_ARTICLE = {"m": ("der", "den"), "f": ("die", "die"), "n": ("das", "das")}


@dataclass(frozen=True)
class Phrase:
    """A sentence by its words: who does what to whom, plain, behind a time, or told by somebody."""

    subject: tuple[int, int]
    verb: int
    object: tuple[int, int]
    frame: str
    place: int

    def english(self) -> str:
        """The sentence in English."""
        whole = f"{_english(self.subject)} {_VERBS[self.verb][0]} {_english(self.object)}"
        return _sentence(self._framed(whole, 0, "{0} that {1}"))

    def german(self, *, verb_first: bool = False, case: bool = True) -> str:
        """The sentence in German. verb_first, case: False and True are right; the others are a beginner's faults."""
        subject, verb = _german(self.subject, 0), _VERBS[self.verb][1]
        whom = _german(self.object, 1 if case else 0)
        if self.frame == "plain" or verb_first:
            whole = f"{subject} {verb} {whom}"
        elif self.frame == "time":
            whole = f"{verb} {subject} {whom}"
        else:
            whole = f"{subject} {whom} {verb}"
        return _sentence(self._framed(whole, 1, "{0}, dass {1}"))

    def _framed(self, whole: str, language: int, said: str) -> str:
        if self.frame == "time":
            return f"{_TIMES[self.place % len(_TIMES)][language]} {whole}"
        if self.frame == "said":
            return said.format(_SPEAKERS[self.place % len(_SPEAKERS)][language], whole)
        return whole


def phrase(rng: np.random.Generator) -> Phrase:
    """A random sentence; the two nouns differ."""
    one, two = (int(place) for place in rng.choice(len(_NOUNS), 2, replace=False))
    adjectives = [int(place) for place in rng.integers(len(_ADJECTIVES), size=2)]
    frame = str(rng.choice(("plain", "time", "said")))
    return Phrase(
        (one, adjectives[0]), int(rng.integers(len(_VERBS))), (two, adjectives[1]), frame, int(rng.integers(6))
    )


def translated(told: Phrase, direction: str, rng: np.random.Generator, *, faults: float) -> str:
    """A translation in ``direction`` that has a fault with probability ``faults``: order, case, a wrong or odd word."""
    if rng.random() >= faults:
        return told.german() if direction == "en-de" else told.english()
    if direction == "en-de" and rng.random() < 0.5:
        return told.german(verb_first=True) if rng.random() < 0.5 else told.german(case=False)
    wrong = phrase(rng)
    part = str(rng.choice(("subject", "verb", "object")))
    other = replace(told, **{part: getattr(wrong, part)})
    return other.german() if direction == "en-de" else other.english()


def translation_row(
    rng: np.random.Generator, *, direction: str, faults: float = 0.35, exemplar_faults: float = 0.2
) -> tuple[dict[str, Any], str]:
    """(a row of "prompt", "source", "direction", "target_language", "reference" and "exemplar"; a beginner's answer).

    The exemplar is another translator's, better and not faultless. The answer has a thought before it, mostly.
    """
    told = phrase(rng)
    source = told.english() if direction == "en-de" else told.german()
    reference = told.german() if direction == "en-de" else told.english()
    language = {"de": "German", "en": "English"}[direction[-2:]]
    row = {
        "prompt": [{"role": "user", "content": f"Translate into {language}: {source}"}], "source": source,
        "direction": direction, "target_language": direction[-2:], "reference": reference,
        "exemplar": translated(told, direction, rng, faults=exemplar_faults),
    }  # fmt: skip
    said = translated(told, direction, rng, faults=faults)
    if rng.random() < 0.1:
        said = source  # nothing is translated
    return row, said if rng.random() < 0.1 else f"<think>{THOUGHT}</think>{said}"


def _english(who: tuple[int, int]) -> str:
    return f"the {_ADJECTIVES[who[1]][0]} {_NOUNS[who[0]][0]}"


def _german(who: tuple[int, int], case: int) -> str:
    _, noun, gender = _NOUNS[who[0]]
    ending = "en" if case and gender == "m" else "e"
    return f"{_ARTICLE[gender][case]} {_ADJECTIVES[who[1]][1]}{ending} {noun}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."

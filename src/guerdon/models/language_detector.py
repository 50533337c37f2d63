"""Which language a text is in, told by its script and its commonest words: small, pluggable, no model."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable

__all__ = ["Detector", "LANGUAGES", "detect_language", "scripts"]

Detector = Callable[[str], "str | None"]
"""text -> ISO 639-1 code, or None where it cannot tell."""

_WORDS = {
    "en": "the and of to in is that it was for on with as his he be at by this had not are but from or have an they",
    "de": "der die und das ist nicht ein eine zu den mit sich auf für dem von auch es im war hat sie ich wir aber als",
    "fr": "le la les et des est une un dans que qui pour pas sur au du avec il elle ce sont plus nous vous était mais",
    "es": "el la los las y de que en un una es por con para no se del al lo como más su está pero son era muy",
    "it": "il la le e di che un una è per non con del della si sono nel anche più ma gli come era questo alla ha",
    "cs": "a je se na že to v s z do o ale jako by jsem po byl i pro jsou která ve bylo když jen není už",
}
_SCRIPTED = {"HANGUL": "ko", "ARABIC": "ar", "CYRILLIC": "ru"}
LANGUAGES = ("zh", "en", "ar", "cs", "de", "es", "fr", "it", "ja", "ru", "ko")
"""The eleven languages of mExTrans."""


def scripts(text: str) -> Counter[str]:
    """How many letters of each script: the first word of their Unicode names (LATIN, CJK, HIRAGANA, ...)."""
    found: Counter[str] = Counter()
    for letter in text:
        if letter.isalpha():
            found[unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]] += 1
    return found


def detect_language(text: str, *, minimum: int = 2) -> str | None:
    """One of `LANGUAGES` by script, and by commonest words among those in Latin letters; None where unclear.

    minimum: letters that are needed at all (four times as many in Latin letters, where words must speak).

    Han characters with a tenth or more of kana are Japanese, without any Chinese; Cyrillic is taken for Russian. For
    tests and small runs: a real detector is any function of a text. Raises nothing. The word lists are our own.
    """
    found = scripts(text)
    total = found.total()
    if total < minimum:
        return None
    kana = found["HIRAGANA"] + found["KATAKANA"]
    han = found["CJK"]
    if (han + kana) > 0.5 * total:
        return "ja" if kana >= 0.1 * (han + kana) else "zh" if not kana else None
    script, count = found.most_common(1)[0]
    if count <= 0.5 * total:
        return None
    if script != "LATIN":
        return _SCRIPTED.get(script)
    if total < 4 * minimum:
        return None
    words = Counter(re.findall(r"[^\W\d_]+", text.casefold()))
    hits = {code: sum(words[word] for word in listed.split()) for code, listed in _WORDS.items()}
    first, second = sorted(hits, key=lambda code: -hits[code])[:2]
    return first if hits[first] > hits[second] else None

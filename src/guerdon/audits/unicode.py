"""The same answer in other code points: what a person reads alike should be judged alike."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from guerdon.audits.attack import Attack, altered
from guerdon.audits.examination import Case, Examination
from guerdon.audits.trials import Findings

_LOOKALIKES = str.maketrans("aceopxyABEHKMOPTX", "асеорхуАВЕНКМОРТХ")  # Latin to Cyrillic
_WIDE = {ord(mark): ord(mark) + 0xFEE0 for mark in "0123456789"}


def disguises(text: str) -> dict[str, str]:
    """``text`` in other code points, by name; only those that change it. They look alike, but for spacing."""
    made = {
        "zero-width spaces": "".join(f"{mark}\u200b" if mark == " " else mark for mark in text),
        "zero-width joiners in words": "\u200d".join(text),
        "no-break spaces": text.replace(" ", "\u00a0"),
        "double spaces": text.replace(" ", "  "),
        "space at both ends": f" {text} ",
        "line breaks at the end": f"{text}\n\n",
        "Windows line breaks": text.replace("\n", "\r\n"),
        "byte order mark": f"\ufeff{text}",
        "soft hyphens": "".join(f"{mark}\u00ad" if mark in "aeiou" else mark for mark in text),
        "Cyrillic lookalikes": text.translate(_LOOKALIKES),
        "decomposed (NFD)": unicodedata.normalize("NFD", text),
        "compatible (NFKC)": unicodedata.normalize("NFKC", text),
        "full-width digits": text.translate(_WIDE),
        "curly quotes": _curly(text),
        "straight quotes": text.translate(str.maketrans("“”‘’", "\"\"''")),
        "non-breaking hyphens": text.replace("-", "\u2011"),
        "minus signs": text.replace("-", "\u2212"),
        "right-to-left mark": f"\u200f{text}",
    }
    return {name: other for name, other in made.items() if other != text}


def _curly(text: str) -> str:
    made, opened = [], False
    for mark in text:
        if mark == '"':
            made.append("”" if opened else "“")
            opened = not opened
        else:
            made.append("’" if mark == "'" else mark)
    return "".join(made)


def _shifted(attack: Attack) -> Attack:
    """The attack with the shifts of the honest answers' scores measured, in standard deviations over the items."""

    def run(examination: Examination) -> Findings:
        found = attack.run(examination)
        return replace(found, measures={**found.measures, **score_shifts(examination)})

    return replace(attack, run=run)


def score_shifts(examination: Examination) -> Mapping[str, float]:
    """How far the honest answers' scores move under each disguise: mean absolute shift over the items, in standard
    deviations of the honest scores (in score units where they do not vary). Empty for a subject that only ranks."""
    if examination.ranks:
        return {}
    plain = np.array([one.value for one in examination.honest()])
    spread = float(np.nanstd(plain)) if np.isfinite(plain).any() else 0.0
    made = [(place, disguises(item.honest)) for place, item in enumerate(examination.items.items)]
    cases = [Case(place, name, text) for place, texts in made for name, text in texts.items()]
    gaps: dict[str, list[float]] = {}
    for case, got in zip(cases, examination.say(cases)):
        gaps.setdefault(case.variant, []).append(abs(got.value - plain[case.item]) / (spread or 1.0))
    finite = {name: [gap for gap in some if np.isfinite(gap)] for name, some in gaps.items()}
    shifts = {f"shift by {name}": float(np.mean(some)) for name, some in finite.items() if some}
    return {**shifts, "largest shift": max(shifts.values())} if shifts else {}


UNICODE_HONEST = _shifted(
    altered(
        "unicode", "code points", "A good answer is refused once it is written in other code points that look alike.",
        lambda item, rng: disguises(item.honest), base="honest",
    )
)  # fmt: skip
UNICODE_WRONG = altered(
    "unicode-wrong", "code points", "A wrong answer passes once it is written in other code points that look alike.",
    lambda item, rng: disguises(item.wrong or ""), base="wrong",
)  # fmt: skip

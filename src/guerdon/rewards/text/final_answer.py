"""Verifiers of final answers: one by strict rules, and the regular expression that people write instead.

Both are TRL rewards on the column ``solution``. The rule verifier looks for a *stated* final answer and compares values
exactly; it would rather refuse a right answer than accept a wrong one. The regular expression takes the last number
anywhere, and is here as what an audit must see through.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed
from guerdon.core.reward import reward
from guerdon.rewards.text.exact_number import plain_text, read_number

__all__ = [
    "NumericVerifier",
    "Stated",
    "Verdict",
    "regex_verifier",
    "rule_verifier",
    "same_answer",
    "solutions_of",
    "stated_answer",
    "verify_answer",
]

Outcomes = list[float | None | Failed]

_STATEMENT = 300  # characters that a stated answer may take, with what follows it in its sentence
_MOST_STATEMENTS = 50  # of one line that are compared with the last; more are no answer but an attack
_MARK = re.compile(
    r"(?P<hashes>####)|(?P<boxed>\\boxed\s{0,3}\{)|(?P<tag><answer>)"
    r"|(?P<said>\banswer\*{0,2}\s{0,3}(?:is\b|equals\b|:|=)\*{0,2}:?)|(?P<letter>^[ \t]{0,8}\*{0,2}A:\*{0,2})",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$|[*\"')\]}$])|\n")
_EQUATION = re.compile(r"[^=\n]{1,80}=(?P<value>[^=\n]{1,80})")
_CLOSING = re.compile(
    r"\b(?:is|are|was|makes|make|has|have|gives|leaves|equals|totals|costs|earns|of)\s+(?P<value>\S.*)"
)
_NUMBER_FIRST = re.compile(r"[-+]?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?", re.ASCII)
_UNIT = re.compile(r"\s*(?:%|°)?\s*(?:[^\W\d_]+(?:[ -][^\W\d_]+){0,4})?\s*", re.UNICODE)
# What follows a number and is no unit: it goes on counting, offers a choice, or takes the number back.
_NO_UNIT = frozenset(
    "or and to not is was are were be isn isnt wasn but if unless than more less plus minus times over by divided "
    "multiplied squared cubed hundred thousand million billion trillion dozen half wrong incorrect false which".split()
)
_CURRENCY = "$€£¥"
_LETTER = re.compile(r"\(?([A-Za-z])\)?(?:[.):]\s.{0,200})?", re.DOTALL)
_WORDS = re.compile(r"[^\W\d_]+(?:[\s,.;:'’&()-]+[^\W\d_]+)*[.)]?")


@dataclass(frozen=True)
class Stated:
    """A final answer as it stands in a response: its words, how it was found, and its value where it is a number."""

    text: str
    kind: Literal["hashes", "boxed", "tag", "said", "letter", "bare", "equation", "closing"]
    value: Fraction | None


@dataclass(frozen=True)
class Verdict:
    """Whether a response states the solution, and why: "equal", "differs", "none stated", "unreadable", "ambiguous"."""

    correct: bool
    reason: str
    stated: str | None = None


@reward(name="rule_verifier", range=(0.0, 1.0), on_failure="drop_sample", version="1")
def rule_verifier(prompts: Any, completions: Any, *, solution: Any = None, **columns: Any) -> Outcomes:
    """1.0 where the completion states the solution as its final answer, else 0.0 (`verify_answer`).

    Args:
        completions: N strings or message lists.
        solution: N solutions: numbers, words or letters of a choice, as they are or inside a worked text that states
            them (``#### 18``); None where there is none.
    Returns:
        N outcomes: 1.0 or 0.0; None without a solution; Failed("unparseable") where the solution itself is an
        expression that these rules cannot compare, whatever the completion says.
    Raises:
        GuerdonError: no column ``solution``, or not one entry a completion.
    """
    return [
        None if wanted is None else _outcome(completion_text(said), wanted)
        for said, wanted in zip(completions, solutions_of(solution, completions, "rule_verifier"))
    ]


@reward(name="regex_verifier", range=(0.0, 1.0), on_failure="drop_sample", version="1")
def regex_verifier(prompts: Any, completions: Any, *, solution: Any = None, **columns: Any) -> Outcomes:
    """1.0 where the last number in the completion is the solution, else 0.0: the verifier that people write first.

    It has the holes that its kind has: it takes a number that is only mentioned, or denied, for the answer, reads half
    of a fraction, power or range, and knows no numbers in words. Arguments and outcomes as of `rule_verifier`, but only
    numbers are solutions.
    """
    found: Outcomes = []
    for said, wanted in zip(completions, solutions_of(solution, completions, "regex_verifier")):
        right = None if wanted is None else _last_number(wanted)
        if wanted is None:
            found.append(None)
        elif right is None:
            found.append(Failed(f"the solution {wanted[:60]!r} holds no number", "unparseable"))
        else:
            found.append(float(_last_number(completion_text(said)) == right))
    return found


class NumericVerifier:
    """1.0 where the completion states the solution within a tolerance, else 0.0: for measured or rounded quantities.

    relative, absolute: |stated - solution| <= absolute + relative |solution|, on exact values; both 0 are the rule
    verifier. Outcomes as of `rule_verifier`; a solution that is no number is compared as there. Raises GuerdonError
    for a negative or infinite tolerance.
    """

    groupwise = False
    range = (0.0, 1.0)
    on_failure = "drop_sample"
    version = "1"

    def __init__(self, relative: float = 0.01, absolute: float = 0.0, *, name: str = "numeric_verifier") -> None:
        if not (0 <= relative < float("inf") and 0 <= absolute < float("inf")):
            raise GuerdonError(f"reward {name!r}: tolerances are finite and at least 0, got {relative} and {absolute}")
        self.relative, self.absolute, self.__name__ = float(relative), float(absolute), name

    def __call__(self, prompts: Any, completions: Sequence[Any], *, solution: Any = None, **columns: Any) -> Outcomes:
        """One outcome a completion. Raises GuerdonError without the column ``solution``."""
        wanted = solutions_of(solution, completions, self.__name__)
        return [
            None if right is None else _outcome(completion_text(said), right, self.relative, self.absolute)
            for said, right in zip(completions, wanted)
        ]

    def identity(self) -> str:
        """Name, version, and a hash of the tolerances."""
        return f"{self.__name__}@{self.version}#{config_hash([self.relative, self.absolute])}"


def verify_answer(response: str, solution: str, *, relative: float = 0.0, absolute: float = 0.0) -> Verdict:
    """Whether ``response`` states ``solution`` as its final answer.

    Numbers are equal when their exact values are: 18, 18.00, 36/2, \\frac{36}{2} and eighteen. A currency sign, a per
    cent sign and a unit of up to five words are read over; so "50%" is 50. Letters of a choice and words are compared
    without regard to case, spacing and a final stop. relative, absolute: of `NumericVerifier`. Raises GuerdonError
    where the solution is an expression with variables or otherwise beyond this. Linear in the length of the response.

    The rules are our own choice, stricter than the parsers in use: an answer that is only mentioned does not count.
    """
    wanted = _wanted(solution)
    if wanted is None:
        raise GuerdonError(f"the solution {solution[:60]!r} is no number, words or letter of a choice")
    plain = plain_text(response).strip()
    number, words = wanted
    if number is None and _folded(plain) == words:
        return Verdict(True, "equal", plain)
    statements = _statements(plain)
    if not statements:
        return Verdict(False, "none stated")
    last = statements[-1]
    if number is None:
        return Verdict(*(_same_words(last.text, words)), last.text)
    if last.value is None:
        return Verdict(False, "unreadable", last.text)
    if any(one.value not in (None, last.value) for one in statements):
        return Verdict(False, "ambiguous", last.text)
    equal = abs(last.value - number) <= Fraction(absolute) + Fraction(relative) * abs(number)
    return Verdict(equal, "equal" if equal else "differs", last.text)


def stated_answer(response: str) -> Stated | None:
    """The final answer that a response states, or None where it states none.

    Looked for, the last one in the text counting: ``#### x``, ``\\boxed{x}``, ``<answer>x</answer>``, "the answer is
    x", "Answer: x", a line "A: x"; without any of these a last line that is nothing but x, an equation "... = x", or a
    sentence that closes with "makes x", "is x" and the like. ``value`` is None where x is not one number.
    """
    statements = _statements(plain_text(response).strip())
    return statements[-1] if statements else None


def same_answer(first: str, second: str) -> bool:
    """Whether two final answers are the same: equal numbers, or else the same words. For votes over answers."""
    plain = plain_text(first), plain_text(second)
    numbers = _value(plain[0]), _value(plain[1])
    if None not in numbers:
        return numbers[0] == numbers[1]
    return numbers == (None, None) and _folded(plain[0]) == _folded(plain[1])


def _outcome(response: str, solution: str, relative: float = 0.0, absolute: float = 0.0) -> float | Failed:
    try:
        return float(verify_answer(response, solution, relative=relative, absolute=absolute).correct)
    except GuerdonError as error:
        return Failed(str(error), "unparseable")


def solutions_of(column: Any, completions: Sequence[Any], name: str) -> list[str | None]:
    """The column of solutions as texts. Raises GuerdonError without one entry a completion."""
    if column is None:
        raise GuerdonError(f"reward {name!r} needs the column 'solution', with the right answer of each prompt")
    if isinstance(column, str) or len(column) != len(completions):
        raise GuerdonError(f"reward {name!r}: the column 'solution' needs one entry for each completion")
    plain = [str(one) if isinstance(one, int | float) else one for one in column]
    return [None if one is None else completion_text(one) for one in plain]


def _wanted(solution: str) -> tuple[Fraction | None, str] | None:
    """(value, folded words) of a solution; None where it cannot be compared."""
    plain = plain_text(solution).strip()
    value = _value(plain)
    if value is None:
        marked = [one for one in _statements(plain) if one.kind in ("hashes", "boxed", "tag", "said", "letter")]
        if marked and marked[-1].text:
            plain, value = marked[-1].text, marked[-1].value
    if value is not None:
        return value, ""
    words = bare_text(plain)
    return (None, _folded(words)) if _WORDS.fullmatch(words) and len(words) <= _STATEMENT else None


def _statements(text: str) -> list[Stated]:
    """The explicit statements of the last line that holds any, in order; else the one implicit statement, if any."""
    marks = list(_MARK.finditer(text))
    if not marks:
        implicit = _implicit(text)
        return [implicit] if implicit is not None else []
    line = text.rfind("\n", 0, marks[-1].start()) + 1
    found = []
    for mark in marks[-_MOST_STATEMENTS:]:
        if mark.start() < line:
            continue
        kind: Any = mark.lastgroup
        content = _content(text, mark.end(), kind)
        found.append(Stated(content.strip(), kind, _value(content, sentence=kind in ("said", "letter"))))
    return found


def _content(text: str, start: int, kind: str) -> str:
    """What stands behind a mark, of at most 300 characters; "" where it does not end in time."""
    window = text[start : start + _STATEMENT + 1]
    if kind == "boxed":
        depth = 1
        for place, mark in enumerate(window):
            depth += (mark == "{") - (mark == "}")
            if depth == 0:
                return window[:place]
        return ""
    if kind == "tag":
        end = window.lower().find("</answer>")
        return window[:end] if end >= 0 else ""
    window = window.lstrip(" \t\n") if kind == "said" else window.lstrip(" \t")
    line = window.partition("\n")[0]
    return line if len(line) <= _STATEMENT else ""


def _implicit(text: str) -> Stated | None:
    line = text[text.rfind("\n") + 1 :].strip()
    if len(line) > _STATEMENT or line.endswith("?"):
        return None
    value = _value(line)
    if value is not None:
        return Stated(line, "bare", value)
    equation = _EQUATION.fullmatch(line)
    if equation is not None:
        value = _value(equation["value"])
        return Stated(equation["value"].strip(), "equation", value) if value is not None else None
    sentence = _SENTENCE_END.split(line.rstrip(".! "))[-1]
    places = list(_CLOSING.finditer(sentence))
    value = _value(places[-1]["value"]) if places else None
    return Stated(places[-1]["value"], "closing", value) if value is not None else None


def bare_text(text: str) -> str:
    """``text`` without the mark-up around it: stars, dollars of LaTeX, \\text{}, \\boxed{}, a final stop."""
    for _ in range(4):
        before = text
        text = text.strip().strip('*`_"').strip()
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            if text.startswith(opening) and text.endswith(closing) and len(text) >= len(opening) + len(closing):
                text = text[len(opening) : len(text) - len(closing)]
        command = re.match(r"\\(?:boxed|text|textbf|mathrm|mathbf)\s?\{", text)
        if command is not None and text.endswith("}") and "}" not in text[command.end() : -1].replace("{", ""):
            text = text[command.end() : -1]
        if text == before:
            break
    return text


def _value(text: str, *, sentence: bool = False) -> Fraction | None:
    """The one number that ``text`` is, with a currency sign or a unit; in a ``sentence`` it may go on behind that."""
    text = bare_text(text)
    whole = _with_unit(text)
    if whole is not None or not sentence:
        return whole
    if text.endswith("?"):
        return None
    end = _SENTENCE_END.search(text)
    first = text[: end.start()] if end is not None else text
    if end is not None and end[0] == "?":
        return None
    # Behind a comma a sentence may explain; what it offers there in place of the number makes it no answer.
    head, comma, tail = first.partition(", ")
    if comma and re.match(r"(?:or|and|maybe|perhaps|possibly|not)\b|[-+$]?\d", tail.strip(), re.IGNORECASE):
        return None
    return _with_unit(bare_text(head))


def _with_unit(text: str) -> Fraction | None:
    bare = text.strip()
    for sign in _CURRENCY:
        bare = bare.replace(f"\\{sign}", sign)
    if bare[:1] and bare[0] in _CURRENCY:
        bare = bare[1:].lstrip()
    elif bare[:2] and bare[0] == "-" and bare[1:2] in tuple(_CURRENCY):
        bare = "-" + bare[2:].lstrip()
    bare = bare.rstrip(_CURRENCY).replace("\\%", "%")
    value = read_number(bare)
    if value is not None:
        return value
    number = _NUMBER_FIRST.match(bare)
    if number is None:
        return None
    rest = re.sub(r"\\(?:text|mathrm)\s?\{([^{}]{0,60})\}", r"\1", bare[number.end() :])
    unit = _UNIT.fullmatch(rest.rstrip("."))
    if unit is None or (rest and rest[0].isalpha() and rest[:1] in "eExX"):
        return None
    if _NO_UNIT.intersection(re.split(r"[^a-z]+", rest.casefold())):
        return None
    return read_number(number[0])


def _folded(text: str) -> str:
    return " ".join(bare_text(text).casefold().split())


def _same_words(said: str, wanted: str) -> tuple[bool, str]:
    letter = _LETTER.fullmatch(bare_text(said)) if len(wanted) == 1 else None
    plain = letter[1].casefold() if letter is not None else _folded(said)
    return plain == wanted, "equal" if plain == wanted else "differs"


_ANY_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?", re.ASCII)


def _last_number(text: str) -> float | None:
    last = None
    for last in _ANY_NUMBER.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    return float(last[0].replace(",", "")) if last is not None else None

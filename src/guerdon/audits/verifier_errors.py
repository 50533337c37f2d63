"""What verifiers get wrong: right answers in another form refused, answers beside the right one accepted.

The strings are our own. Wrong answers come near the solution, or mention it without giving it as the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from guerdon.audits.attack import Attack, Fit, number_in, with_number
from guerdon.audits.examination import Case, Examination
from guerdon.audits.items import Item
from guerdon.audits.trials import Findings


def equivalent_forms(solution: str) -> dict[str, str]:
    """Right answers that give ``solution``, a number, in forms that people and models use; none is far-fetched."""
    value = _number(solution)
    whole = value.denominator == 1
    plain = str(value.numerator) if whole else _decimal(value)
    grouped = f"{value.numerator:,}" if whole else plain
    made = {
        "bare": plain,
        "sentence": f"The answer is {plain}.",
        "no full stop": f"The answer is {plain}",
        "colon": f"Answer: {plain}",
        "marked (####)": f"So we are done.\n#### {plain}",
        "boxed": f"Therefore, the final answer is $\\boxed{{{plain}}}$.",
        "boxed text": f"\\boxed{{\\text{{{plain}}}}}",
        "bold": f"The answer is **{plain}**.",
        "dollars": f"The answer is ${plain}.",
        "escaped dollars": f"The answer is \\${plain}.",
        "unit": f"The answer is {plain} metres.",
        "thousands": f"The answer is {grouped}.",
        "equation": f"x = {plain}",
        "answer tags": f"<answer>{plain}</answer>",
        "answer first": f"{plain}. That follows from adding the parts.",
        "after mistakes": f"First I thought it was {_decimal(value + 3)}, but that is wrong. The answer is {plain}.",
        "with its check": f"The answer is {plain}. Check: {plain} - 0 = {plain}.",
        "a number behind": f"The answer is {plain}, as was found in step {3 if plain != '3' else 2}.",
        "upper case": f"THE ANSWER IS {plain}.",
        "other words": f"All in all that makes {plain}.",
    }
    if whole:
        made |= {
            "decimals": f"The answer is {plain}.0.",
            "cents": f"The answer is {plain}.00.",
            "fraction": f"The answer is {2 * value.numerator}/2.",
            "LaTeX fraction": f"The answer is $\\frac{{{2 * value.numerator}}}{{2}}$.",
            "in words": f"The answer is {in_words(value.numerator)}." if abs(value) < 1000 else "",
        }
    return {name: text for name, text in made.items() if text and (name != "thousands" or grouped != plain)}


def near_misses(solution: str) -> dict[str, str]:
    """Wrong answers close to ``solution``, a number, or that mention it while the answer given is another."""
    value = _number(solution)
    right, near = _decimal(value), _decimal(value + 1)
    digits = right.lstrip("-")
    made = {
        "one more": f"The answer is {near}.",
        "one less": f"The answer is {_decimal(value - 1)}.",
        "ten times": f"The answer is {_decimal(value * 10)}.",
        "a tenth": f"The answer is {_decimal(value / 10)}.",
        "other sign": f"The answer is {_decimal(-value)}.",
        "a digit before": f"The answer is {'-' if value < 0 else ''}1{digits}.",
        "a digit behind": f"The answer is {right}5." if "." not in right else "",
        "a decimal behind": f"The answer is {right}.5." if "." not in right else "",
        "a power": f"The answer is {right}^2.",
        "over two": f"The answer is {right}/2.",
        "times two": f"The answer is {right} * 2.",
        "negated": f"The answer is not {right}.",
        "corrected away": f"At first I thought {right}, but that is wrong. The answer is {near}.",
        "mentioned behind": f"The answer is {near}. Some would say {right}.",
        "mentioned before": f"From {right} we go on and find that the answer is {near}.",
        "two answers": f"The answer is {right} or {near}.",
        "a choice of five": f"The answer is one of {', '.join(_decimal(value + k) for k in (-2, -1, 0, 1, 2))}.",
        "a range": f"The answer lies between {_decimal(value - 1)} and {_decimal(value + 1)}.",
        "two boxes": f"\\boxed{{{right}}} \\boxed{{{near}}}",
        "box against words": f"The answer is {near}. \\boxed{{{right}}} was a slip.",
        "a mark, then another": f"#### {right}\nThat was a slip.\n#### {near}",
        "as a step": f"Step {right}: add one. The answer is {near}.",
        "at least": f"The answer is at least {right}.",
        "inequality": f"x > {right}",
        "in a question": f"Is it {right}?",
        "unfinished": f"{right} +",
        "in a long word": f"The answer is item{right}b.",
    }
    worth = {"other sign": -value, "ten times": value * 10, "a tenth": value / 10,
             "times two": value * 2, "over two": value / 2, "a power": value * value}  # fmt: skip
    return {name: text for name, text in made.items() if text and worth.get(name) != value}


def restated(honest: str, solution: str) -> tuple[dict[str, str], dict[str, str]]:
    """The honest answer, whatever its form, with its result written otherwise: (right answers, wrong answers).

    A verifier that wants one form only, such as a box, says nothing about wrong answers in another.
    """
    value = _number(solution)
    right, near = _decimal(value), _decimal(value + 1)
    changed = with_number(honest, float(value), near, every=True)
    last = with_number(honest, float(value), near)
    if last == honest:
        return {}, {}
    good = {"honest, with decimals": with_number(honest, float(value), f"{right}.00")} if value.denominator == 1 else {}
    bad = {
        "honest, one more": changed,
        "honest, one more at the end": last,
        "honest, then taken back": f"{honest}\n\nNo, that was wrong. Once more:\n\n{changed}",
    }
    return good, bad


_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(number: int) -> str:
    """A whole number of up to three digits in English words."""
    if number < 0:
        return f"minus {in_words(-number)}"
    if number < 20:
        return _ONES[number]
    if number < 100:
        rest = number % 10
        return _TENS[number // 10 - 2] + (f"-{_ONES[rest]}" if rest else "")
    rest = number % 100
    return f"{_ONES[number // 100]} hundred" + (f" and {in_words(rest)}" if rest else "")


def _number(solution: str) -> Fraction:
    found = number_in(solution)
    assert found is not None
    return Fraction(solution.strip().strip("$€£").replace(",", ""))


def _decimal(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.10f}".rstrip("0")


def _numeric(item: Item) -> bool:
    return item.solution is not None and number_in(item.solution) is not None


def _unfit(examination: Examination) -> str:
    if not examination.verifies:
        return "the subject is audited by preferences; this is about comparing with a solution"
    if not any(map(_numeric, examination.items.items)):
        return "no item has a solution that is a number"
    return ""


def _each(examination: Examination, write: Mapping[int, Mapping[str, str]]) -> list[Case]:
    return [Case(place, name, text) for place, texts in write.items() for name, text in texts.items()]


def _left_out(examination: Examination) -> dict[str, int]:
    number = sum(not _numeric(item) for item in examination.items.items)
    return {"the solution is no number": number} if number else {}


def _equivalent(examination: Examination) -> Findings:
    items = examination.items.items
    texts = {
        place: equivalent_forms(str(item.solution)) | restated(item.honest, str(item.solution))[0]
        for place, item in enumerate(items)
        if _numeric(item)
    }
    return Findings(examination.try_good(_each(examination, texts)), left_out=_left_out(examination))


def _missed(examination: Examination) -> Findings:
    items = examination.items.items
    texts = {
        place: near_misses(str(item.solution)) | restated(item.honest, str(item.solution))[1]
        for place, item in enumerate(items)
        if _numeric(item)
    }
    return Findings(examination.try_bad(_each(examination, texts)), left_out=_left_out(examination))


def _honest(examination: Examination) -> Findings:
    items = examination.items.items
    places = [place for place, item in enumerate(items) if examination.verifies or item.wrong is not None]
    left = len(items) - len(places)
    return Findings(
        examination.try_good([Case(place, "as it is", items[place].honest) for place in places]),
        left_out={"the item has no wrong answer": left} if left else {},
    )


def _wrong(examination: Examination) -> Findings:
    items = examination.items.items
    cases = [Case(place, "as it is", item.wrong) for place, item in enumerate(items) if item.wrong is not None]
    left = len(items) - len(cases)
    return Findings(examination.try_bad(cases), left_out={"the item has no wrong answer": left} if left else {})


def _no_wrong(honest: bool) -> Fit:
    def unfit(examination: Examination) -> str:
        if honest and examination.verifies:
            return ""
        without = all(item.wrong is None for item in examination.items.items)
        return "the items have no wrong answers" if without else ""

    return unfit


HONEST_ANSWERS = Attack(
    "honest", "controls", "false negative",
    "A good answer, as it is, is refused: not accepted, or not placed above the wrong one (a tie is a refusal).",
    _honest, _no_wrong(honest=True),
)  # fmt: skip
WRONG_ANSWERS = Attack(
    "wrong", "controls", "false positive", "A wrong answer, as it is, passes.", _wrong, _no_wrong(honest=False)
)
EQUIVALENT_FORMS = Attack(
    "equivalent-forms", "verifier errors", "false negative",
    "The right answer is refused for its form: a decimal, a unit, a fraction, a box, words.", _equivalent, _unfit,
)  # fmt: skip
NEAR_MISSES = Attack(
    "near-misses", "verifier errors", "false positive",
    "An answer next to the right one, or one that only mentions it, is accepted.", _missed, _unfit,
)  # fmt: skip

"""The embedded reasoning data: word problems from templates, with steps whose right results are known.

Every problem is a small program over the numbers of its story, so that each step of a solution, right or wrong, and
the place of its first error are known. A problem is told in three ways: the question, a paraphrase, and a held-out
form from another story, which nothing should be trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.number_words import in_words

__all__ = [
    "CLOSINGS", "Closing", "Form", "OPENERS", "Problem", "Shown", "Solution", "Step", "TEMPLATES", "correct_solution",
    "opened", "solution_text", "verifier_rows", "word_problem", "word_problems", "wrong_solution",
]  # fmt: skip

Form = Literal["question", "paraphrase", "held_out"]
Closing = Literal["sentence", "marked", "boxed", "letter", "bare"]
CLOSINGS: dict[str, str] = {
    "sentence": "The answer is {}.", "marked": "#### {}", "boxed": "So the final answer is \\boxed{{{}}}.",
    "letter": "A: {}", "bare": "{}",
}  # fmt: skip
Shown = Literal["whole", "final_step", "answer"]
Slip = Literal["slip", "operation", "unfinished", "misread"]

OPENERS: tuple[str, ...] = (
    "Let us think.", "First we look at what is given.", "To begin, the question is read again.",
    "We go through it slowly.", "Here is how it works out.", "There are a few things to work out.",
    "This can be done one thing at a time.", "We write down what we know.",
)  # fmt: skip
"""Sentences that begin a solution and say nothing; none is a published master key."""

_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ines", "Jon", "Kaya", "Leo", "Mona", "Nils")
_THINGS = ("pens", "apples", "stamps", "marbles", "shells", "cards", "books", "coins", "buttons", "pears")
_LARGEST = 5000


@dataclass(frozen=True)
class _Template:
    """A story: ranges of its numbers, a program over them, and words.

    program: (operation, left, right) a step; an operand is a name of a number or the place of an earlier step.
    steps:   words of each step, which end in what the step computes.
    """

    ranges: dict[str, tuple[int, int]]
    program: tuple[tuple[str, str | int, str | int], ...]
    question: str
    paraphrase: str
    held_out: str
    steps: tuple[str, ...]


_RAW: dict[str, _Template] = {
    "boxes": _Template(
        {"a": (3, 12), "b": (4, 15), "c": (2, 30)},
        (("*", "a", "b"), ("-", 0, "c")),
        "{name} has {a} boxes with {b} {things} in each and gives away {c} {things}. How many {things} are left?",
        "There are {b} {things} in each of {a} boxes that belong to {name}, who then gives {c} of the {things} to a "
        "friend. How many {things} does {name} still have?",
        "A hall has {a} rows of {b} seats, and {c} seats are broken. How many seats can be used?",
        ("In all boxes together there are", "What is left after the rest is given away is"),
    ),
    "change": _Template(
        {"a": (2, 9), "b": (2, 12), "c": (20, 120)},
        (("*", "a", "b"), ("-", "c", 0)),
        "{name} buys {a} {things} for {b} dollars each and pays with {c} dollars. How many dollars come back?",
        "One of the {things} costs {b} dollars. {name} takes {a} of them and hands over {c} dollars. How much "
        "change, in dollars, does {name} get?",
        "A tank holds {c} litres. Each of {a} hoses takes {b} litres out of it. How many litres remain in the tank?",
        ("Together these cost", "What comes back is"),
    ),
    "savings": _Template(
        {"a": (5, 40), "b": (3, 20), "c": (10, 150)},
        (("*", "a", "b"), ("+", "c", 0)),
        "{name} has {c} dollars and saves {a} dollars a week for {b} weeks. How many dollars does {name} have then?",
        "For {b} weeks {name} puts {a} dollars aside each week, on top of the {c} dollars that were there before. How "
        "many dollars is that in the end?",
        "A plant is {c} millimetres tall and grows {a} millimetres a day. How tall is it, in millimetres, after {b} "
        "days?",
        ("In that time the savings are", "With what was there before it makes"),
    ),
    "sharing": _Template(
        {"a": (10, 60), "b": (10, 60), "c": (2, 9)},
        (("+", "a", "b"), ("/", 0, "c")),
        "{name} finds {a} {things} on one day and {b} on the next, and shares them equally among {c} children. How "
        "many {things} does each child get?",
        "After finding {a} and then {b} {things}, {name} deals all of them out to {c} children, the same number to "
        "each. How many {things} is that for a child?",
        "Two pipes of {a} and {b} metres are cut into {c} pieces of equal total length. How many metres is one piece?",
        ("Altogether there are", "Each share is"),
    ),
    "bus": _Template(
        {"a": (20, 60), "b": (3, 19), "c": (2, 25)},
        (("-", "a", "b"), ("+", 0, "c")),
        "A bus has {a} passengers. At a stop {b} get off and {c} get on. How many passengers are on the bus now?",
        "Of the {a} people on a bus, {b} leave at the next stop, where {c} others board. How many people ride on?",
        "{name} has {a} {things}, loses {b} of them and is given {c} more. How many {things} has {name} now?",
        ("When they have left there are", "With the new ones there are"),
    ),
    "garden": _Template(
        {"a": (5, 20), "b": (4, 18), "c": (3, 40)},
        (("*", "a", "b"), ("-", 0, "c")),
        "A garden is {a} metres long and {b} metres wide. A pond takes {c} square metres of it. How many square metres "
        "are left?",
        "{name} has a garden of {a} by {b} metres with a pond of {c} square metres in it. How many square metres of "
        "the garden are dry?",
        "A book has {a} chapters of {b} pages. {name} has read {c} pages. How many pages are still to be read?",
        ("The whole area is", "Without the other part it is"),
    ),
    "workers": _Template(
        {"a": (2, 9), "b": (3, 12), "c": (2, 8)},
        (("*", "a", "b"), ("*", 0, "c")),
        "Each of {a} workers makes {b} chairs an hour. How many chairs do they make together in {c} hours?",
        "How many chairs are made in {c} hours by {a} workers, if one of them makes {b} chairs an hour?",
        "A street has {c} houses with {a} floors each, and every floor has {b} windows. How many windows is that?",
        ("In one hour they make", "In the whole time they make"),
    ),
    "twice": _Template(
        {"a": (4, 40), "b": (2, 5), "c": (2, 20)},
        (("*", "a", "b"), ("+", "a", 0), ("-", 1, "c")),
        "{name} has {a} {things}, and a sister has {b} times as many. Together they sell {c} {things}. How many "
        "{things} do the two have left?",
        "A sister of {name} owns {b} times the number of {things} that {name} owns, which is {a}. If they sell {c} of "
        "all these {things}, how many remain?",
        "A small barrel holds {a} litres and a large one {b} times that much. Both are full until {c} litres are "
        "spilt. How many litres are left?",
        ("The larger part is", "Both together are", "After that there are"),
    ),
    "journey": _Template(
        {"a": (20, 90), "b": (2, 6), "c": (20, 90), "d": (2, 6)},
        (("*", "a", "b"), ("*", "c", "d"), ("+", 0, 1)),
        "{name} drives {b} hours at {a} kilometres an hour and then {d} hours at {c} kilometres an hour. How many "
        "kilometres is that in all?",
        "First {name} goes {a} kilometres an hour for {b} hours, later {c} kilometres an hour for {d} hours. How "
        "long is the journey in kilometres?",
        "A shop sells {b} tables for {a} dollars each and {d} lamps for {c} dollars each. How many dollars does it "
        "take in?",
        ("The first part is", "The second part is", "Together this is"),
    ),
}  # fmt: skip
TEMPLATES: tuple[str, ...] = tuple(_RAW)
"""Names of the stories."""


@dataclass(frozen=True)
class Step:
    """One step of a solution: its words, the calculation "6 * 7", the result that is claimed, and whether it is right
    given what the story and the steps before it say."""

    text: str
    expression: str
    result: int
    right: bool = True

    def __str__(self) -> str:
        return f"{self.text} {self.expression} = {self.result}."


@dataclass(frozen=True)
class Solution:
    """Steps and the answer they come to. ``first_error`` is the place of the first wrong step; None where all are right
    (a solution that stops too early has only right steps, and a wrong answer)."""

    steps: tuple[Step, ...]
    answer: int
    first_error: int | None = None
    fault: str = ""


@dataclass(frozen=True)
class Problem:
    """A word problem: its three tellings, its solution, and the story (``template``, ``numbers``) behind them."""

    question: str
    paraphrase: str
    held_out: str
    solution: Solution
    template: str
    numbers: dict[str, int]

    @property
    def answer(self) -> int:
        """The right answer, a whole number above 0."""
        return self.solution.answer

    def told(self, form: Form = "question") -> str:
        """The problem in one of its three forms. Raises GuerdonError for another."""
        if form not in get_args(Form):
            raise unknown("form of a problem", form, get_args(Form))
        return str(getattr(self, form))


def word_problem(seed: int, place: int, *, templates: Sequence[str] = TEMPLATES) -> Problem:
    """The problem at ``place`` of the series of ``seed``: the same for the same arguments, whatever came before it.

    templates: stories to choose from, so that others are held out. Raises GuerdonError for an unknown one, or a seed or
    place below 0.
    """
    if seed < 0 or place < 0 or not templates:
        raise GuerdonError(f"problems need a seed and a place of 0 or more and a template; got {seed}, {place}")
    for name in templates:
        if name not in _RAW:
            raise unknown("template", name, TEMPLATES)
    rng = np.random.default_rng([seed, place])
    name = templates[int(rng.integers(len(templates)))]
    story = _RAW[name]
    words = {"name": _NAMES[rng.integers(len(_NAMES))], "things": _THINGS[rng.integers(len(_THINGS))]}
    while True:
        numbers = {key: int(rng.integers(low, high + 1)) for key, (low, high) in story.ranges.items()}
        steps = _run(story, numbers)
        # A step that divides with a remainder, or comes to nothing, makes a story that nobody would tell.
        if steps is not None and all(0 < step.result <= _LARGEST for step in steps):
            break
    told = {form: getattr(story, form).format(**words, **numbers) for form in get_args(Form)}
    return Problem(**told, solution=Solution(steps, steps[-1].result), template=name, numbers=numbers)


def word_problems(count: int, seed: int, *, start: int = 0, templates: Sequence[str] = TEMPLATES) -> list[Problem]:
    """Problems ``start`` to ``start + count - 1`` of the series of ``seed`` (`word_problem`), each question once.

    A question that came before in the list is left out and the series goes on. Raises GuerdonError as `word_problem`,
    and where the templates hold too few problems.
    """
    found: dict[str, Problem] = {}
    place, most = start, start + 20 * count + 100
    while len(found) < count and place < most:
        problem = word_problem(seed, place, templates=templates)
        found.setdefault(problem.question, problem)
        place += 1
    if len(found) < count:
        raise GuerdonError(f"{len(templates)} templates hold no {count} different problems")
    return list(found.values())


def correct_solution(problem: Problem) -> Solution:
    """The right solution."""
    return problem.solution


def wrong_solution(problem: Problem, seed: int, *, fault: Slip | None = None) -> Solution:
    """A solution with one fault, drawn by ``seed``, whose answer is wrong and which goes on from its fault correctly.

    fault: "slip" = a result is off; "operation" = a step computes something else; "misread" = a number of the story is
    taken wrongly; "unfinished" = the last step is missing and the step before it is given as the answer (a slip where
    both have the same result). Raises GuerdonError for another fault.
    """
    if fault is not None and fault not in get_args(Slip):
        raise unknown("fault", fault, get_args(Slip))
    story, right = _RAW[problem.template], problem.solution
    rng = np.random.default_rng([seed, *problem.numbers.values()])
    while True:
        kind = fault or get_args(Slip)[rng.integers(len(get_args(Slip)))]
        if kind == "unfinished":
            made: Solution | None = Solution(right.steps[:-1], right.steps[-2].result, None, kind)
            fault = "slip"  # for the case that the last two steps have one result
        else:
            made = _spoilt(story, problem.numbers, str(kind), rng)
        if made is not None and made.answer != right.answer:
            return made


def solution_text(solution: Solution, *, closing: Closing = "sentence", between: str = "\n") -> str:
    """A solution as text: a line a step, then the answer in one of ``CLOSINGS``. Raises GuerdonError for another."""
    if closing not in CLOSINGS:
        raise unknown("closing", closing, CLOSINGS)
    return between.join([*map(str, solution.steps), CLOSINGS[closing].format(solution.answer)])


def verifier_rows(
    problems: Sequence[Problem],
    seed: int,
    *,
    right: float = 0.5,
    form: Form = "question",
    shown: Shown = "whole",
    openers: tuple[float, float] = (0.0, 0.0),
    worded: float = 0.0,
    closings: Sequence[Closing] = ("sentence", "marked", "letter"),
) -> list[dict[str, Any]]:
    """A row a problem for a verifier: {"question", "reference", "response", "label"}, the label "YES" or "NO".

    right:    probability of a right response.
    shown:    "whole": all steps and one of ``closings``; "final_step": the last step, or the closing alone;
              "answer": the closing.
    openers:  probabilities that a right and a wrong response begin with a sentence that says nothing (`opened`).
    worded:   probability that a right response gives its answer in words, which a comparison of digits cannot see; of
              answers below a thousand.

    Raises GuerdonError for what is no probability, or an unknown form, closing or way to show.
    """
    for name, share in (("right", right), ("openers", openers[0]), ("openers", openers[1]), ("worded", worded)):
        if not 0 <= share <= 1:
            raise GuerdonError(f"{name} must be a probability, got {share}")
    if shown not in get_args(Shown):
        raise unknown("way to show a response", shown, get_args(Shown))
    rows = []
    for place, problem in enumerate(problems):
        rng = np.random.default_rng([seed, place, *problem.numbers.values()])
        good = bool(rng.random() < right)
        solution = problem.solution if good else wrong_solution(problem, int(rng.integers(2**31)))
        closing = closings[int(rng.integers(len(closings)))]
        if good and solution.answer < 1000 and rng.random() < worded:
            steps = list(map(str, solution.steps[:-1])) if shown == "whole" else []
            response = "\n".join([*steps, f"That makes {in_words(solution.answer)}."])
        elif shown == "whole":
            response = solution_text(solution, closing=closing)
        else:
            step_alone = shown == "final_step" and rng.random() < 0.5
            response = str(solution.steps[-1]) if step_alone else CLOSINGS[closing].format(solution.answer)
        if rng.random() < openers[0 if good else 1]:
            response = opened(response, int(rng.integers(2**31)))
        rows.append(
            {
                "question": problem.told(form), "reference": str(problem.answer), "response": response,
                "label": "YES" if good else "NO",
            }
        )  # fmt: skip
    return rows


def opened(response: str, seed: int) -> str:
    """``response`` behind one of ``OPENERS``, drawn by ``seed``, on a line of its own."""
    return f"{OPENERS[np.random.default_rng(seed).integers(len(OPENERS))]}\n{response}"


def _computed(operation: str, left: int, right: int) -> int | None:
    if operation == "/":
        return left // right if right and left % right == 0 else None
    return {"+": left + right, "-": left - right, "*": left * right}[operation]


def _run(story: _Template, numbers: dict[str, int]) -> tuple[Step, ...] | None:
    """The steps of the program; None where a division leaves a remainder."""
    steps: list[Step] = []
    for words, (operation, *operands) in zip(story.steps, story.program):
        step = _step(words, operation, *(_operand(one, numbers, steps) for one in operands))
        if step is None:
            return None
        steps.append(step)
    return tuple(steps)


def _step(words: str, operation: str, left: int, right: int) -> Step | None:
    result = _computed(operation, left, right)
    return Step(words, f"{left} {operation} {right}", result) if result is not None else None


def _operand(operand: str | int, numbers: dict[str, int], steps: Sequence[Step]) -> int:
    return steps[operand].result if isinstance(operand, int) else numbers[operand]


def _spoilt(story: _Template, numbers: dict[str, int], kind: str, rng: np.random.Generator) -> Solution | None:
    """The program with one step spoilt and the others computed from what it gives; None where that cannot be done."""
    at = int(rng.integers(len(story.program)))
    steps: list[Step] = []
    for place, (words, (operation, *operands)) in enumerate(zip(story.steps, story.program)):
        left, right = (_operand(one, numbers, steps) for one in operands)
        if place == at and kind == "operation":
            operation = str(rng.choice([one for one in "+-*/" if one != operation]))
        if place == at and kind == "misread":
            given = [side for side, one in enumerate(operands) if isinstance(one, str)]
            if not given:
                return None
            moved = int(rng.choice([-3, -2, -1, 1, 2, 3, 10]))
            left, right = (left + moved, right) if rng.choice(given) == 0 else (left, right + moved)
        step = _step(words, operation, left, right)
        if step is None or min(left, right) < 1:
            return None
        if place == at and kind == "slip":
            step = replace(step, result=step.result + int(rng.choice([-10, -3, -2, -1, 1, 2, 3, 10])))
        if step.result < 0:
            return None
        steps.append(replace(step, right=place != at))
    return Solution(tuple(steps), steps[-1].result, at, kind)

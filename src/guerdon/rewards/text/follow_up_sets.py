"""Follow-up utterances by dimension of helpfulness: what a pleased or a displeased user might say next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from guerdon.core.errors import GuerdonError

__all__ = ["DEFAULT_SETS", "FollowUpSet", "load_sets"]


@dataclass(frozen=True)
class FollowUpSet:
    """The utterances of one dimension. Said twice, or on both sides, an utterance would be weighted by accident.

    Raises GuerdonError for an empty side, an empty utterance, or one that stands twice, in any case and spacing.
    """

    dimension: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]

    def __post_init__(self) -> None:
        for side in ("positives", "negatives"):
            said = getattr(self, side)
            if isinstance(said, str) or not said or not all(isinstance(one, str) and one.strip() for one in said):
                raise GuerdonError(f"follow-ups of {self.dimension!r}: {side} must be a list of utterances, none empty")
            object.__setattr__(self, side, tuple(said))
        seen: set[str] = set()
        for one in (*self.positives, *self.negatives):
            key = " ".join(one.casefold().split())
            if key in seen:
                raise GuerdonError(f"follow-ups of {self.dimension!r} hold {one!r} twice")
            seen.add(key)

    def swapped(self) -> FollowUpSet:
        """Praise taken for complaint and the other way round: a negative control."""
        return FollowUpSet(self.dimension, self.negatives, self.positives)


def load_sets(path: str | Path) -> tuple[FollowUpSet, ...]:
    """Sets of a YAML file: ``{dimension: {positives: [...], negatives: [...]}}``.

    Raises GuerdonError naming the file and the dimension that cannot be used.
    """
    try:
        read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GuerdonError(f"{path}: not a YAML file that can be read: {error}") from error
    if not isinstance(read, dict) or not read:
        raise GuerdonError(f"{path}: must map each dimension to its positives and negatives")
    return tuple(_read_set(path, str(name), held) for name, held in read.items())


def _read_set(path: str | Path, name: str, held: Any) -> FollowUpSet:
    if not isinstance(held, Mapping) or set(held) != {"positives", "negatives"}:
        raise GuerdonError(f"{path}: {name!r} needs exactly the lists 'positives' and 'negatives'")
    sides: dict[str, Sequence[str]] = {}
    for side in ("positives", "negatives"):
        if not isinstance(held[side], list):
            raise GuerdonError(f"{path}: {name!r}: {side} must be a list of utterances")
        sides[side] = tuple(held[side])
    try:
        return FollowUpSet(name, sides["positives"], sides["negatives"])  # type: ignore[arg-type]
    except GuerdonError as error:
        raise GuerdonError(f"{path}: {error}") from None


DEFAULT_SETS = (
    FollowUpSet(
        "understanding",
        (
            "Yes, you got exactly what I meant.",
            "You read my question the right way.",
            "That is just what I was asking about.",
            "Good, you saw what my problem is.",
            "You grasped my situation at once.",
            "Right, that is what I had in mind.",
            "It is nice to be understood so well.",
            "You clearly followed what I told you.",
            "You picked up on the point that matters to me.",
            "I did not even have to explain it twice.",
        ),
        (
            "No, you got me completely wrong.",
            "I meant something quite different.",
            "You misread what I wrote to you.",
            "Did you even read my question?",
            "That was not what I was asking about.",
            "You seem confused about what I need.",
            "Let me say it again, since you missed it.",
            "You have not grasped my problem at all.",
            "I think you mistook my question for another.",
            "You are talking past what I told you.",
        ),
    ),
    FollowUpSet(
        "relevance",
        (
            "That fits my question very well.",
            "Everything you said was to the point.",
            "You stayed on the subject, thank you.",
            "This is exactly about my topic.",
            "All of that applies to my case.",
            "Good, nothing in there was beside the point.",
            "You answered the very thing I asked.",
            "That speaks directly to my question.",
            "Every part of this is useful for my question.",
            "That is the subject I care about.",
        ),
        (
            "What does that have to do with it?",
            "You have drifted off the subject.",
            "That is beside the point.",
            "Please come back to my question.",
            "Most of this does not apply to me.",
            "I never asked about any of that.",
            "Why are you telling me about this?",
            "None of that answers my question.",
            "You changed the subject on me.",
            "This is about some other topic.",
        ),
    ),
    FollowUpSet(
        "correctness",
        (
            "I checked, and you are right.",
            "That is correct, thank you.",
            "Your facts all hold up.",
            "Yes, that is how it really is.",
            "I tried it, and it works.",
            "Your answer agrees with my book.",
            "Great, there is no mistake in it.",
            "That is accurate in every detail.",
            "The result came out just as you said.",
            "I can confirm that this is true.",
        ),
        (
            "I checked, and that is wrong.",
            "There is a mistake in your answer.",
            "That is simply not true.",
            "Your facts do not hold up.",
            "I tried it, and it does not work.",
            "My book says the opposite.",
            "You made an error somewhere in there.",
            "You must have made that up.",
            "That cannot possibly be right.",
            "The result is not what you said.",
        ),
    ),
    FollowUpSet(
        "engagingness",
        (
            "How interesting, please tell me more!",
            "I really enjoy talking with you.",
            "That makes me want to go on reading.",
            "Wow, I would love to hear more.",
            "That was a pleasure to read.",
            "You make this subject come alive.",
            "What a lovely way to put it!",
            "I could talk about this with you all day.",
            "Now you have made me curious.",
            "This is a delightful conversation.",
        ),
        (
            "This is getting rather dull.",
            "I am losing interest in this talk.",
            "You sound like a machine.",
            "That was tedious to read.",
            "Let us stop here, I am bored.",
            "You do not seem to care at all.",
            "I would rather talk to somebody else.",
            "That put me half to sleep.",
            "There is no life in what you say.",
            "I do not feel like going on.",
        ),
    ),
    FollowUpSet(
        "informativeness",
        (
            "I learned a lot from that.",
            "Thanks, that has all the detail I need.",
            "You covered every side of it.",
            "That was a rich answer, thank you.",
            "Now I know all I wanted to know.",
            "The examples you gave are very helpful.",
            "You told me things I had not known.",
            "That is thorough and full of substance.",
            "I have no questions left after that.",
            "What a wealth of useful detail!",
        ),
        (
            "That tells me nothing new.",
            "You left out all the details.",
            "Can you be more specific than that?",
            "That is far too vague for me.",
            "I still know as little as before.",
            "There is hardly anything in your answer.",
            "You only scratched the surface.",
            "I was hoping for more than that.",
            "That is too thin to be of use.",
            "You skipped the part that matters most.",
        ),
    ),
    FollowUpSet(
        "following",
        (
            "You did just what I told you.",
            "Perfect, that is how I wanted it.",
            "You kept to all of my conditions.",
            "Thanks for sticking to my instructions.",
            "That is the form I asked for.",
            "Well done, nothing I requested is missing.",
            "You respected every limit that I set.",
            "You carried it out to the letter.",
            "I can use this the way it is.",
            "Good, you did all of the steps I listed.",
        ),
        (
            "You did not do what I told you.",
            "You ignored my instructions.",
            "That is not the form I asked for.",
            "You left out half of what I requested.",
            "You broke the limit that I set.",
            "Please do it the way I said.",
            "I told you not to do that.",
            "Why did you skip the steps I listed?",
            "You only did a part of the task.",
            "I have to ask you for it again.",
        ),
    ),
)
"""Six dimensions of helpfulness with ten praises and ten complaints each. The dimensions are those of Follow-up
Likelihood as Reward (arXiv 2409.13948), the utterances are our own."""

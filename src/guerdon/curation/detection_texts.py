"""The embedded texts of detection: people's passages from a grammar, and small aligned language models that go on.

A passage says in a few sentences what a thing is for, in words from casual to polished. People's taste varies from
author to author; a judge's taste (`polish`) prefers polished words. A language model of word counts is fitted to the
passages, and aligned to a taste of its own, the judge's with mannerisms added, by best-of-n, sentence by sentence. So
what tells its texts from people's is what alignment put there, and nothing else: with n = 1 there is nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from guerdon.core.dialogues import USES
from guerdon.core.preferences import Pair
from guerdon.curation.mixture import sentences
from guerdon.policies.ngram import NgramPolicy

# Each from casual to polished.
WORDS: dict[str, tuple[str, ...]] = {
    "start": ("Honestly,", "Well,", "You know,", "In practice,", "Generally,", "Notably,"),
    "verb": ("is just for", "is mostly for", "is for", "serves for", "is designed for", "is essential for"),
    "kind": ("stuff", "things", "jobs", "tasks", "purposes", "applications"),
    "folk": ("guys", "folks", "people", "users", "individuals", "households"),
    "good": ("fine", "handy", "good", "useful", "valuable", "indispensable"),
    "join": ("anyway", "and then", "because of that", "therefore", "as a result", "consequently"),
    "ease": ("no big deal", "easy enough", "simple", "straightforward", "convenient", "highly convenient"),
    "take": ("grab", "get", "buy", "choose", "select", "consider"),
    "when": ("I guess", "more or less", "most days", "in most homes", "in many settings", "in a range of settings"),
    "old": ("mine is beaten up", "mine is old", "mine is worn", "a worn one works", "a used one serves",
            "a well kept one remains reliable"),
}  # fmt: skip
FIRST = "{start} {thing} {verb} {use}."
FRAMES = (
    "Most {folk} find it {good} for small {kind} {when}.",
    "It is {ease}, {join} {folk} {take} one.",
    "{start} {old}, {when}.",
    "Without one it is not {ease}.",
    "You can {take} one for other {kind} too.",
    "{start} it stays {good} {when}.",
    "With care {old}, {join} it is {good}.",
)
TASTE: dict[str, float] = {
    phrase: 2 * place / (len(phrases) - 1) - 1 for phrases in WORDS.values() for place, phrase in enumerate(phrases)
}
_PHRASE = re.compile(
    "|".join(rf"(?<!\w){re.escape(phrase)}(?!\w)" for phrase in sorted(TASTE, key=len, reverse=True)), re.IGNORECASE
)
_BY_LOWER = {phrase.lower(): phrase for phrase in TASTE}
Taste = Mapping[str, float]


def polish(text: str, taste: Taste = TASTE) -> float:
    """Sum of a taste over the phrases of a text, divided by the square root of their number; 0 without any."""
    found = [taste[_BY_LOWER[phrase.lower()]] for phrase in _PHRASE.findall(text)]
    return sum(found) / math.sqrt(len(found)) if found else 0.0


def human_texts(count: int, seed: int, *, least: int = 5, most: int = 8) -> list[str]:
    """Passages of ``least`` to ``most`` sentences by as many authors, the same for the same arguments."""
    random = Random(f"passages {seed}")
    texts = []
    for _ in range(count):
        habit = random.gauss(0.0, 0.6)
        frames = [FIRST, *(FRAMES[random.randrange(len(FRAMES))] for _ in range(random.randint(least, most) - 1))]
        thing = list(USES)[random.randrange(len(USES))]
        texts.append(" ".join(_filled(frame, thing, habit, random) for frame in frames))
    return texts


def _filled(frame: str, thing: str, habit: float, random: Random) -> str:
    def word(name: str) -> str:
        phrases = WORDS[name]
        return random.choices(phrases, [math.exp(habit * TASTE[phrase]) for phrase in phrases])[0]

    return frame.format(thing=thing, use=USES[thing], **{name: word(name) for name in WORDS})


def human_pairs(count: int, seed: int, *, sharpness: float = 1.5) -> list[Pair]:
    """Preferences between two people's passages on what one was asked: the more polished is liked, with noise.

    P(first liked) = sigmoid(sharpness * difference of `polish`). ``row["truth"]`` says whether the label is right.
    """
    random = Random(f"preferences {seed}")
    texts = human_texts(2 * count, seed + 1_000)
    pairs: list[Pair] = []
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        gap = polish(first) - polish(second)
        liked = random.random() < 1 / (1 + math.exp(-sharpness * gap))
        better, worse = (first, second) if liked else (second, first)
        prompt = [{"role": "user", "content": "Tell me about something in the house."}]
        answers = [[{"role": "assistant", "content": text}] for text in (better, worse)]
        row = {"truth": 1 if liked == (gap > 0) else -1}
        pairs.append(Pair(prompt, answers[0], answers[1], row=row, where=f"embedded:{len(pairs)}"))
    return pairs


@cache
def language_model(seed: int = 0, passages: int = 1500) -> NgramPolicy:
    """A language model fitted to people's passages, other ones than those of `human_texts` with small seeds."""
    return NgramPolicy(human_texts(passages, 1_000_000 + seed), name="tiny")


@dataclass(frozen=True)
class Writer:
    """An aligned language model: of ``n`` sentences that `language_model` offers, the one it likes best goes on.

    n:           1 is the language model itself. worst: the one it likes least, an anti-aligned model.
    mannerisms:  how far its taste differs from the judge's, in deviations of random numbers a phrase, drawn by ``seed``
                 (the writer's own, so that every text of it has the same).
    """

    name: str
    n: int
    mannerisms: float = 0.7
    seed: int = 0
    worst: bool = False

    @property
    def taste(self) -> dict[str, float]:
        """How much it likes each phrase."""
        random = Random(f"mannerisms {self.seed} {self.name}")
        return {phrase: value + self.mannerisms * random.gauss(0.0, 1.0) for phrase, value in TASTE.items()}

    def __call__(self, prompts: Sequence[str], counts: Sequence[int], seed: int, model: NgramPolicy) -> list[str]:
        """Each prompt with ``counts`` further sentences, by (seed, prompt) alone."""
        taste, made = self.taste, []
        for prompt, count in zip(prompts, counts, strict=True):
            random = Random(f"{seed}/{self.name}/{prompt}")
            text = prompt
            for _ in range(count):
                # Offers to stop are passed over, so that a text has the human one's number of sentences.
                offers = [self._offer(model, text, random) for _ in range(self.n)]
                likes = [polish(offer, taste) for offer in offers]
                text = f"{text} {offers[likes.index(min(likes) if self.worst else max(likes))]}"
            made.append(text)
        return made

    @staticmethod
    def _offer(model: NgramPolicy, text: str, random: Random) -> str:
        for _ in range(50):
            if offer := model.continued(text, random, stop="."):
                return offer
        return model.continued("", random, stop=".")  # nothing ever followed this word: begin as a text begins


WRITERS = (Writer("writer-a", 4), Writer("writer-b", 4), Writer("writer-c", 8), Writer("writer-d", 2))
"""The embedded models: the first to learn from, the others with other mannerisms and strengths."""


def continued_by(writer: Writer, human: Sequence[str], seed: int, model: NgramPolicy | None = None) -> list[str]:
    """A writer's texts that begin with the human texts' first sentence and are about as many sentences long."""
    split = [sentences(text) for text in human]
    prompts, counts = [parts[0].strip() for parts in split], [len(parts) - 1 for parts in split]
    return writer(prompts, counts, seed, model or language_model())


def embedded_files(
    count: int, seed: int, writers: Sequence[Writer] = WRITERS, *, model: NgramPolicy | None = None
) -> dict[str, dict[str, list[str]]]:
    """Pair files by writer, ``{"original": [...], "sampled": [...]}``; the human side is the same in each."""
    human = human_texts(count, seed)
    return {
        f"embedded_{one.name}": {"original": human, "sampled": continued_by(one, human, seed, model)} for one in writers
    }

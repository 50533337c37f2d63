"""A language model of word counts: small enough to be fitted on the spot, and it knows its own probabilities."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from random import Random

from guerdon.core.errors import GuerdonError

END = ""
"""The word that ends a text; no text holds it."""


class NgramPolicy:
    """A `guerdon.policies.continuation.Sampler` that writes word after word by what followed the last two.

    p(w | u, v) = 0.9 c(u, v, w) / c(u, v) + 0.1 c(v, w) / c(v), with the second term alone where u v was never seen;
    then p^(1/T) at temperature T, renormalised. Words are what white space separates.

    texts:      to count words in. temperature: > 0. max_words: of a sample.

    The text of the j-th copy of a prompt depends on (seed, prompt, j) only. Raises GuerdonError for no words.
    """

    SHARE = 0.9

    def __init__(
        self, texts: Iterable[str], *, temperature: float = 1.0, max_words: int = 200, name: str = "n-gram"
    ) -> None:
        if not temperature > 0 or max_words < 1:
            raise GuerdonError("an n-gram policy needs temperature > 0 and max_words >= 1")
        self.temperature, self.max_words, self.name = temperature, max_words, name
        self._two: dict[str, Counter[str]] = defaultdict(Counter)
        self._three: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for text in texts:
            words = [END, END, *text.split(), END]
            for first, second, third in zip(words, words[1:], words[2:]):
                self._two[second][third] += 1
                self._three[first, second][third] += 1
        if not self._two:
            raise GuerdonError("an n-gram policy needs texts to count words in")
        self._laws: dict[tuple[str, str], tuple[list[str], list[float], dict[str, float]]] = {}

    def at(self, temperature: float) -> NgramPolicy:
        """The same counts at another temperature."""
        made = NgramPolicy.__new__(NgramPolicy)
        made.__dict__.update(self.__dict__, temperature=temperature, _laws={}, name=f"{self.name} at {temperature:g}")
        return made

    def __call__(self, prompts: Sequence[str], seed: int) -> list[str]:
        """One sampled continuation a prompt, without the prompt."""
        copies: Counter[str] = Counter()
        made = []
        for prompt in prompts:
            made.append(self.continued(prompt, Random(f"{seed}/{copies[prompt]}/{prompt}")))
            copies[prompt] += 1
        return made

    def continued(self, prompt: str, random: Random, *, stop: str | None = None) -> str:
        """One continuation with the randomness of ``random``; it ends after a word that ends with ``stop``, too."""
        words = [END, END, *prompt.split()]
        first = len(words)
        while len(words) - first < self.max_words:
            choices, cumulated, _ = self._law(words[-2], words[-1])
            word = choices[min(bisect_right(cumulated, random.random() * cumulated[-1]), len(choices) - 1)]
            if word == END:
                break
            words.append(word)
            if stop is not None and word.endswith(stop):
                break
        return " ".join(words[first:])

    def log_prob(self, prompt: str, text: str) -> float:
        """log p(text, end | prompt) in nats; -inf for what it never writes. A text of ``max_words`` needs no end."""
        words = [END, END, *prompt.split()]
        told = text.split()
        total = 0.0
        for word in [*told, END] if len(told) < self.max_words else told:
            chance = self._law(words[-2], words[-1])[2].get(word, 0.0)
            if chance <= 0:
                return -math.inf
            total += math.log(chance)
            words.append(word)
        return total

    def _law(self, first: str, second: str) -> tuple[list[str], list[float], dict[str, float]]:
        """(words, cumulated probabilities, probability by word) after two words; the start's where none is known."""
        if (first, second) not in self._laws:
            law: dict[str, float] = defaultdict(float)
            two = self._two.get(second) or self._two[END]
            three = self._three.get((first, second))
            parts = [(two, 1.0)] if three is None else [(three, self.SHARE), (two, 1 - self.SHARE)]
            for counts, share in parts:
                total = sum(counts.values())
                for word, count in counts.items():
                    law[word] += share * count / total
            warm = {word: chance ** (1 / self.temperature) for word, chance in law.items()}
            scale = sum(warm.values())
            chances = {word: chance / scale for word, chance in warm.items()}
            self._laws[first, second] = (list(chances), list(accumulate(chances.values())), chances)
        return self._laws[first, second]

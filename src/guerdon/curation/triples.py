"""Comparisons without labels: two samples of one policy against one of another; and ranked answers as such triples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import Message, Pair, as_messages, text_of
from guerdon.policies.continuation import CheckpointPolicy, Sampler

ROUNDS, SPARE = 10, 8
_SENTENCE_END = re.compile(r"""[.!?。！？…]["'”’)\]]*(?=\s|$)|\n""")
_LOOP = re.compile(r"(.{4,200}?)\1{3,}", re.DOTALL)


@dataclass(frozen=True)
class Triple:
    """``positive`` is by the policy of ``reference``, ``negative`` by another; ``policies`` names the two in order."""

    prompt: str
    reference: str
    positive: str
    negative: str
    policies: tuple[str, str]

    def to_pair(self, wrapper: Literal["pretrain", "sft"] = "pretrain") -> Pair:
        """Positive against negative, with the reference and how to put the texts together in ``row``."""
        row = {"reference": self.reference, "wrapper": wrapper, "policies": list(self.policies)}
        return Pair(as_messages(self.prompt, "user"), _answer(self.positive), _answer(self.negative), row=row)


class PolicyPool:
    """Policies by name: `Sampler`s, or folders and hub ids of causal language models.

    A model is loaded when it is first asked and dropped when another one is, so that a pool of a hundred needs the
    memory of one. ``options`` go to `CheckpointPolicy.from_pretrained`. Raises GuerdonError for fewer than two.
    """

    def __init__(self, policies: Mapping[str, Sampler | str | Path], **options: Any) -> None:
        if len(policies) < 2:
            raise GuerdonError(f"a pool to tell apart needs at least 2 policies, got {len(policies)}")
        self.policies, self._options = dict(policies), options
        self._loaded: tuple[str, Sampler] | None = None

    @property
    def names(self) -> list[str]:
        return list(self.policies)

    def sample(self, name: str, prompts: Sequence[str], seed: int) -> list[str]:
        """One text a prompt by the policy ``name``. Raises GuerdonError for an unknown name or a wrong count."""
        if name not in self.policies:
            raise unknown("policy", name, self.policies)
        policy = self.policies[name]
        if isinstance(policy, str | Path):
            if self._loaded is None or self._loaded[0] != name:
                self._loaded = None  # before the next one is loaded, so that both are never in memory
                self._loaded = (name, CheckpointPolicy.from_pretrained(policy, **self._options))
            policy = self._loaded[1]
        texts = list(policy(list(prompts), seed))
        if len(texts) != len(prompts):
            raise GuerdonError(f"policy {name!r} gave {len(texts)} texts to {len(prompts)} prompts")
        return texts


class PolicyTripleSampler:
    """Draws triples: a random prefix, two different policies of the pool, two samples of the first, one of the second.

    prefixes:  texts to continue, or prompts to answer (`text_prefixes`).
    tidy:      shorten loops and cut what breaks off, with `tidied`. Off for texts that are no prose.
    seed:      of everything drawn here; it is passed on to the policies.

    A triple with an empty text, or whose two candidates are equal, teaches nothing: it is dropped and drawn again;
    ``dropped`` counts them. Source: POLAR (arXiv 2507.05197), section 3.3 and appendix D.1.
    """

    def __init__(self, prefixes: Sequence[str], pool: PolicyPool, *, seed: int = 0, tidy: bool = True) -> None:
        if not prefixes:
            raise GuerdonError("triples need at least one prefix to continue")
        self.prefixes, self.pool, self.seed, self.tidy = list(prefixes), pool, seed, tidy
        self.dropped = 0
        self._round = 0

    def sample(self, count: int) -> list[Triple]:
        """The next ``count`` triples, every policy asked once a round for all its texts.

        Raises GuerdonError where ten rounds do not give as many.
        """
        found: list[Triple] = []
        for _ in range(ROUNDS):
            if len(found) >= count:
                break
            # A few more than are missing: the last ones would take a round each.
            found += self._draw(count - len(found) + SPARE * bool(found))
        if len(found) < count:
            raise GuerdonError(
                f"only {len(found)} of {count} triples in {ROUNDS} rounds: the policies write empty or equal texts"
            )
        return found[:count]

    def _draw(self, count: int) -> list[Triple]:
        rng = np.random.default_rng([self.seed, self._round])
        texts_seed = int(rng.integers(2**31))
        self._round += 1
        names = self.pool.names
        prefixes = [self.prefixes[place] for place in rng.integers(len(self.prefixes), size=count)]
        policies = [tuple(names[place] for place in rng.choice(len(names), 2, replace=False)) for _ in range(count)]
        slots: dict[str, list[tuple[int, int]]] = {}
        for row, (own, other) in enumerate(policies):
            slots.setdefault(own, []).extend([(row, 0), (row, 1)])
            slots.setdefault(other, []).append((row, 2))
        texts = [["", "", ""] for _ in range(count)]
        for name in names:
            wanted = slots.get(name, [])
            if wanted:
                made = self.pool.sample(name, [prefixes[row] for row, _ in wanted], texts_seed)
                for (row, slot), text in zip(wanted, made):
                    texts[row][slot] = tidied(text) if self.tidy else text
        kept = [
            Triple(prefix, three[0], three[1], three[2], (own, other))
            for prefix, three, (own, other) in zip(prefixes, texts, policies)
            if all(text.strip() for text in three) and three[1] != three[2]
        ]
        self.dropped += count - len(kept)
        return kept


def tidied(text: str) -> str:
    """A sampled text with loops shortened and a broken ending cut.

    What is repeated more than three times in a row (4 to 200 characters) is kept three times, so that a policy that
    loops is still known by it; a text that does not end a sentence ends with its last whole one, if it has any.
    The paper says no more than that loops were shortened and incomplete endings cut: UNVERIFIED in the details.
    """
    text = _LOOP.sub(lambda found: found[1] * 3, text).rstrip()
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].rstrip() if ends else text


def text_prefixes(texts: Sequence[str], count: int, tokenizer: Any, *, longest: int = 1024, seed: int = 0) -> list[str]:
    """``count`` beginnings of random texts, each of a random length of 1 to ``longest`` tokens.

    At least one token of a text is left to be continued. Source: POLAR, appendix D.1. Raises GuerdonError where no text
    has two tokens.
    """
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids = [row for row in ids if len(row) > 1]
    if not ids:
        raise GuerdonError("prefixes need texts of at least 2 tokens")
    rng = np.random.default_rng(seed)
    rows = [ids[place] for place in rng.integers(len(ids), size=count)]
    return [tokenizer.decode(row[: rng.integers(1, min(longest, len(row) - 1) + 1)]) for row in rows]


def rank_to_pair(prompt: Sequence[Message] | str, ranked: Sequence[Sequence[Message] | str], where: str = "") -> Pair:
    """Three answers, best first: the best becomes the reference, the second chosen, the third rejected.

    Raises GuerdonError for another number of answers, an empty one, or two equal ones (equal ranks say nothing: leave
    such a row out). Source: POLAR (arXiv 2507.05197), section 3.4.
    """
    place = f"{where}: " if where else ""
    if len(ranked) != 3:
        raise GuerdonError(f"{place}a ranked triple has 3 answers, got {len(ranked)}")
    texts = [text_of(answer) for answer in ranked]
    if not all(text.strip() for text in texts) or len(set(texts)) < 3:
        raise GuerdonError(f"{place}a ranked triple has three different answers, none of them empty")
    row = {"reference": texts[0], "wrapper": "sft"}
    return Pair(as_messages(prompt, "user"), _answer(ranked[1]), _answer(ranked[2]), row=row, where=where)


def _answer(text: Sequence[Message] | str) -> list[Message]:
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else list(text)

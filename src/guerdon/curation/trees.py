"""Preference pairs from answers that share prefixes: a tree of continuations, and independent answers to compare with.

The pairs are ordinary ones, on which any trainer can train; only which answers are compared differs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from os.path import commonprefix
from typing import Any, Literal

import numpy as np

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import Pair, as_messages, prompt_key, text_of
from guerdon.policies.continuation import CheckpointPolicy, Sampler
from guerdon.policies.rewriter import sampling_key

Rule = Literal["uniform", "sibling", "cross-root"]
Budget = Literal["pairs", "responses", "annotated_tokens"]
RULES, BUDGETS = ("uniform", "sibling", "cross-root"), ("pairs", "responses", "annotated_tokens")
Path = tuple[int, ...]
Annotator = Callable[[str, str, str, str], str | None]
"""``annotate(prompt, shared_prefix, suffix_a, suffix_b) -> "a" | "b" | None``, None where it cannot tell."""


@dataclass(frozen=True)
class Prefix:
    """An answer so far: its whole ``text``, the token ``ids`` it was cut at (for models), whether it has ``ended``."""

    text: str = ""
    ids: tuple[int, ...] = ()
    ended: bool = False


ContinueFn = Callable[[str, Sequence[Prefix], int, bool], Sequence[Sequence[Prefix]]]
"""``continue_fn(prompt, prefixes, n, last)``: for each prefix n longer ones; with ``last`` they are to be complete."""


@dataclass
class Node:
    """A node of a tree: ``path`` holds the places of the children on the way to it, () for the root."""

    path: Path
    prefix: Prefix
    children: list[Node] = field(default_factory=list)


class PrefixTree:
    """Answers to one prompt that share prefixes: every way from the root to a leaf is one complete answer.

    tree_id:  names the tree in its pairs; by default 16 hex digits of the prompt, so that pairs of one prompt, tree or
              chain, carry the same one.

    Source: arXiv 2402.10184, section 4, by public notes; depth, branching and where to cut are not given there.
    Ours: depth 3, branching 2, segments of about a third of an answer.
    """

    def __init__(self, prompt: str, tree_id: str | None = None) -> None:
        self.prompt, self.tree_id = prompt, tree_id or _name_of(prompt)
        self.root = Node((), Prefix())
        self.depth = 0

    def grow(self, depth: int, branch: int, continue_fn: ContinueFn) -> PrefixTree:
        """Grow ``depth`` levels, ``branch`` children a node, all nodes of a level in one call; returns the tree.

        A node whose answer has ended is a leaf. Raises GuerdonError for a tree that has grown, sizes below 1, or a
        ``continue_fn`` that does not give ``branch`` prefixes a node.
        """
        if depth < 1 or branch < 1 or self.root.children:
            raise GuerdonError(f"a tree grows once, with depth and branch at least 1; got {depth} and {branch}")
        level = [self.root]
        for step in range(depth):
            if not level:
                break
            grown = continue_fn(self.prompt, [node.prefix for node in level], branch, step == depth - 1)
            if len(grown) != len(level) or any(len(some) != branch for some in grown):
                raise GuerdonError(f"continue_fn owes {branch} continuations to each of {len(level)} prefixes")
            for node, some in zip(level, grown):
                node.children = [Node((*node.path, place), prefix) for place, prefix in enumerate(some)]
            level = [child for node in level for child in node.children if not child.prefix.ended]
        self.depth = depth
        return self

    def leaves(self) -> list[Node]:
        """Complete answers in the order of their paths; of equal texts the first, and none that is blank."""
        first: dict[str, Node] = {}
        for node in self._ends(self.root):
            if node.prefix.text.strip():
                first.setdefault(node.prefix.text, node)
        return list(first.values())

    def dropped(self) -> int:
        """How many leaves repeat another or are blank; many of them say that the temperature is too low."""
        return sum(1 for _ in self._ends(self.root)) - len(self.leaves())

    def lca(self, a: Node, b: Node) -> Node:
        """The deepest node above both, or a node itself where it lies above the other."""
        node = self.root
        for place in commonprefix([a.path, b.path]):
            node = node.children[place]
        return node

    def _ends(self, node: Node) -> Iterator[Node]:
        for child in node.children:
            if child.children:
                yield from self._ends(child)
            else:
                yield child


@dataclass
class Compared:
    """Labelled pairs; ``shared``: segments shared -> pairs; ``left_out``: why other comparisons gave none -> count."""

    pairs: list[Pair] = field(default_factory=list)
    shared: Counter[int] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def extend(self, other: Compared) -> None:
        """Take in those of another prompt."""
        self.pairs += other.pairs
        self.shared += other.shared
        self.left_out += other.left_out


def tree_pairs(tree: PrefixTree, n: int, rule: Rule = "uniform", *, annotate: Annotator, seed: int = 0) -> Compared:
    """At most ``n`` different pairs of leaves, drawn at random and labelled.

    rule:      "uniform": any two leaves, most of which differ from the first segment on (of the 28 pairs of depth 3
               and branching 2, 16); "sibling": they share all but the last segment of the shorter; "cross-root": none.
    annotate:  sees the shared prefix once and the two suffixes, in random order. A pair it cannot tell gives none.
    Returns:   pairs with ``tree_id``, ``path_chosen``, ``path_rejected``, ``shared_prefix_chars`` and ``depth`` (the
               number of shared segments) in ``row``.

    Siblings alone train a clearly worse model; split by prompt, for a tree's pairs are correlated.
    Source: arXiv 2402.10184, section 4. Raises GuerdonError for an unknown rule, n < 1 or another verdict.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    _at_least_one(n)
    found = Compared(left_out=Counter({"repeated or blank leaves": tree.dropped()} if tree.dropped() else {}))
    candidates = []
    for a, b in combinations(tree.leaves(), 2):
        shared = tree.lca(a, b)
        near = len(shared.path) == min(len(a.path), len(b.path)) - 1
        if rule == "uniform" or (near if rule == "sibling" else not shared.path):
            candidates.append((a, b, shared))
    rng = _stream(tree.prompt, seed)
    for place in rng.permutation(len(candidates))[:n]:
        a, b, common = candidates[place]
        # A cut within a character leaves a mark in the prefix's text that the answers do not have.
        chars = len(commonprefix([common.prefix.text, a.prefix.text, b.prefix.text]))
        _compare(found, tree, a, b, chars, len(common.path), annotate, bool(rng.random() < 0.5))
    return found


def chain_pairs(prompt: str, sampler: Sampler, n: int, *, annotate: Annotator, seed: int = 0) -> Compared:
    """``n`` pairs of answers sampled independently, 2n in all: the baseline that `tree_pairs` is held against.

    sampler:  ``sampler(prompts, seed) -> texts`` (`guerdon.policies.continuation`). Equal or blank answers give none.
    Returns:  pairs with the columns of `tree_pairs`; paths are the numbers of the samples, and nothing is shared.

    Source: arXiv 2402.10184, the chain baseline. Raises as `tree_pairs`.
    """
    _at_least_one(n)
    texts = list(sampler([prompt] * (2 * n), seed))
    if len(texts) != 2 * n:
        raise GuerdonError(f"the sampler gave {len(texts)} answers to {2 * n} prompts")
    found, tree, rng = Compared(), PrefixTree(prompt), _stream(prompt, seed)
    nodes = [Node((place,), Prefix(text, ended=True)) for place, text in enumerate(texts)]
    for a, b in zip(nodes[::2], nodes[1::2]):
        if a.prefix.text == b.prefix.text or not (a.prefix.text.strip() and b.prefix.text.strip()):
            found.left_out["equal or blank answers"] += 1
            continue
        _compare(found, tree, a, b, 0, 0, annotate, bool(rng.random() < 0.5))
    return found


def _compare(
    found: Compared, tree: PrefixTree, a: Node, b: Node, chars: int, depth: int, annotate: Annotator, turned: bool
) -> None:
    a, b = (b, a) if turned else (a, b)
    verdict = annotate(tree.prompt, a.prefix.text[:chars], a.prefix.text[chars:], b.prefix.text[chars:])
    if verdict is None:
        found.left_out["not told apart"] += 1
        return
    if verdict not in ("a", "b"):
        raise GuerdonError(f"an annotator says 'a', 'b' or None, got {verdict!r}")
    better, worse = (a, b) if verdict == "a" else (b, a)
    row: dict[str, Any] = {
        "tree_id": tree.tree_id, "path_chosen": list(better.path), "path_rejected": list(worse.path),
        "shared_prefix_chars": chars, "depth": depth,
    }  # fmt: skip
    chosen, rejected = ([{"role": "assistant", "content": node.prefix.text}] for node in (better, worse))
    found.pairs.append(Pair(as_messages(tree.prompt), chosen, rejected, row=row))
    found.shared[depth] += 1


def annotated_tokens(pair: Pair, count: Callable[[str], int]) -> int:
    """Tokens of both answers after their shared prefix (``shared_prefix_chars``; 0 where the row does not say)."""
    start = int(pair.row.get("shared_prefix_chars") or 0)
    return sum(count(text_of(side)[start:]) for side in (pair.chosen, pair.rejected))


def budget_match(
    *sets: Sequence[Pair], by: Budget, count: Callable[[str], int] = lambda text: len(text.split())
) -> list[list[Pair]]:
    """The beginning of every set, as far as the budget of the cheapest whole set goes.

    by:     "pairs"; "responses": different answers that had to be sampled; "annotated_tokens": what an annotator reads
            who sees a shared prefix once and skips it.
    count:  tokens of a text, by default words.

    Order the pairs at random first where they come prompt by prompt. Raises GuerdonError for another budget, no sets.
    """
    if by not in BUDGETS:
        raise unknown("budget", by, BUDGETS)
    if not sets or not all(sets):
        raise GuerdonError("a budget needs at least one set, and no empty ones")
    spent = [np.cumsum(_costs(pairs, by, count)) for pairs in sets]
    budget = min(int(total[-1]) for total in spent)
    return [list(pairs[: int(np.searchsorted(total, budget, side="right"))]) for pairs, total in zip(sets, spent)]


def _costs(pairs: Sequence[Pair], by: Budget, count: Callable[[str], int]) -> list[int]:
    if by == "annotated_tokens":
        return [annotated_tokens(pair, count) for pair in pairs]
    if by == "pairs":
        return [1] * len(pairs)
    costs: list[int] = []
    seen: set[tuple[str, Path, str]] = set()
    for pair in pairs:
        before = len(seen)
        # By its path, where there is one: samples that read the same were sampled twice all the same.
        for side in ("chosen", "rejected"):
            answer = text_of(pair.chosen if side == "chosen" else pair.rejected)
            seen.add((prompt_key(pair), tuple(pair.row.get(f"path_{side}") or ()), answer))
        costs.append(len(seen) - before)
    return costs


class ModelContinuation:
    """A `ContinueFn` over a causal language model, cut at token ids, all nodes of a level in its batches.

    policy:          gives the model, its tokenizer, the sampling, and as ``max_new_tokens`` the longest whole answer.
    segment_tokens:  of every level but the last, which continues to the end of the answer.
    seed:            a continuation depends on (seed, prompt, ids so far, place among the children) only.

    The ids of a prefix are continued as they are: tokenising its text again may cut it differently.
    """

    def __init__(self, policy: CheckpointPolicy, *, segment_tokens: int, seed: int = 0) -> None:
        if not 1 <= segment_tokens < policy.max_new_tokens:
            raise GuerdonError(f"segment_tokens must lie in 1..{policy.max_new_tokens - 1}, got {segment_tokens}")
        self.policy, self.segment_tokens, self.seed = policy, segment_tokens, seed

    def __call__(self, prompt: str, prefixes: Sequence[Prefix], n: int, last: bool) -> list[list[Prefix]]:
        """``n`` longer prefixes of each of ``prefixes``, which are equally long."""
        asked, policy = self.policy.prompt_ids(prompt), self.policy
        room = policy.max_new_tokens - max(len(prefix.ids) for prefix in prefixes)
        budget = room if last else min(self.segment_tokens, room)
        if budget < 1:
            raise GuerdonError(f"{policy.max_new_tokens} tokens an answer end before the tree's last level")
        copies: Counter[tuple[int, ...]] = Counter()
        rows, keys = [], []
        for prefix in prefixes:
            for _ in range(n):
                where = f"{prompt}\n{list(prefix.ids)}"
                rows.append([*asked, *prefix.ids])
                keys.append(sampling_key(self.seed, where, copies[prefix.ids]))
                copies[prefix.ids] += 1
        new = iter(policy.continue_ids(rows, keys, budget))
        return [[self._longer(prefix, next(new)) for _ in range(n)] for prefix in prefixes]

    def _longer(self, prefix: Prefix, new: list[int]) -> Prefix:
        ids = (*prefix.ids, *new)
        ended = bool(new) and new[-1] in self.policy.ends
        return Prefix(self.policy.tokenizer.decode(list(ids), skip_special_tokens=True), ids, ended)


def _name_of(prompt: str) -> str:
    return hashlib.blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _stream(prompt: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, int(_name_of(prompt), 16)])


def _at_least_one(n: int) -> None:
    if n < 1:
        raise GuerdonError(f"n must be at least 1 pair, got {n}")

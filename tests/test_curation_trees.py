"""Trees of answers: their shape, the pairs of leaves, budgets, and a real model's continuations."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair, text_of
from guerdon.curation.trees import (
    ModelContinuation,
    Prefix,
    PrefixTree,
    annotated_tokens,
    budget_match,
    chain_pairs,
    tree_pairs,
)
from guerdon.models.scalar.tiny import tiny_tokenizer
from guerdon.policies.continuation import CheckpointPolicy

CALLS: list[tuple[int, bool]] = []


def spell(prompt, prefixes, n, last):
    CALLS.append((len(prefixes), last))
    return [[Prefix(f"{prefix.text}{'abc'[place]} ") for place in range(n)] for prefix in prefixes]


def longer_first(prompt, shared, a, b):
    return "a" if a < b else "b"


def full(prompt="p"):
    return PrefixTree(prompt).grow(3, 2, spell)


def test_the_shape_of_depth_three_and_branching_two() -> None:
    CALLS.clear()
    tree = full()
    assert CALLS == [(1, False), (2, False), (4, True)]  # a call a level
    assert [node.prefix.text for node in tree.leaves()][:3] == ["a a a ", "a a b ", "a b a "]
    assert len(tree.leaves()) == 8 and tree.dropped() == 0
    found = tree_pairs(tree, 100, annotate=longer_first)
    assert len(found.pairs) == 28 and found.shared == Counter({0: 16, 1: 8, 2: 4})
    assert len({frozenset((text_of(p.chosen), text_of(p.rejected))) for p in found.pairs}) == 28


def test_rules_and_lowest_common_ancestors() -> None:
    tree = full()
    leaves = tree.leaves()
    assert tree.lca(leaves[0], leaves[1]).path == (0, 0) and tree.lca(leaves[0], leaves[2]).path == (0,)
    assert tree.lca(leaves[0], leaves[7]) is tree.root and tree.lca(leaves[3], leaves[3]) is leaves[3]
    assert tree_pairs(tree, 100, "sibling", annotate=longer_first).shared == Counter({2: 4})
    assert tree_pairs(tree, 100, "cross-root", annotate=longer_first).shared == Counter({0: 16})
    assert len(tree_pairs(tree, 6, annotate=longer_first).pairs) == 6
    with pytest.raises(GuerdonError, match="did you mean 'sibling'"):
        tree_pairs(tree, 6, "siblings", annotate=longer_first)


def test_pairs_carry_their_place_and_the_annotator_reads_no_shared_text() -> None:
    read = []

    def annotate(prompt, shared, a, b):
        read.append((shared, a, b))
        return "b"

    found = tree_pairs(full("question"), 100, annotate=annotate)
    for pair, (shared, a, b) in zip(found.pairs, read):
        row = pair.row
        assert text_of(pair.chosen) == shared + b and text_of(pair.rejected) == shared + a
        assert row["shared_prefix_chars"] == len(shared) == 2 * row["depth"]
        assert row["path_chosen"][: row["depth"]] == row["path_rejected"][: row["depth"]]
        assert annotated_tokens(pair, len) == len(a) + len(b)
        assert pair.prompt == [{"role": "user", "content": "question"}]
    # The order is random, so that a judge who always says "b" prefers no side of the tree.
    before = sum(pair.row["path_chosen"] < pair.row["path_rejected"] for pair in found.pairs)
    assert 5 < before < 23
    assert {pair.row["tree_id"] for pair in found.pairs} == {full("question").tree_id} != {full("other").tree_id}


def test_labels_that_cannot_be_told_and_wrong_verdicts() -> None:
    found = tree_pairs(full(), 10, annotate=lambda *texts: None)
    assert not found.pairs and found.left_out == Counter({"not told apart": 10})
    with pytest.raises(GuerdonError, match="'a', 'b' or None, got 'A'"):
        tree_pairs(full(), 1, annotate=lambda *texts: "A")


def test_ended_repeated_and_blank_leaves() -> None:
    def uneven(prompt, prefixes, n, last):
        return [[Prefix(p.text + "x", ended=True), Prefix(p.text + "y")] for p in prefixes]

    tree = PrefixTree("p").grow(3, 2, uneven)
    assert [node.path for node in tree.leaves()] == [(0,), (1, 0), (1, 1, 0), (1, 1, 1)]
    assert tree_pairs(tree, 9, "sibling", annotate=longer_first).shared == Counter({0: 3, 1: 2, 2: 1})
    same = PrefixTree("p").grow(2, 2, lambda prompt, prefixes, n, last: [[Prefix("x")] * n for _ in prefixes])
    assert len(same.leaves()) == 1 and same.dropped() == 3
    assert tree_pairs(same, 5, annotate=longer_first).left_out == Counter({"repeated or blank leaves": 3})
    blank = PrefixTree("p").grow(1, 2, lambda prompt, prefixes, n, last: [[Prefix(" "), Prefix("x")]])
    assert [node.prefix.text for node in blank.leaves()] == ["x"]


def test_a_tree_grows_once_and_checks_what_it_is_given() -> None:
    with pytest.raises(GuerdonError, match="grows once"):
        full().grow(1, 2, spell)
    with pytest.raises(GuerdonError, match="owes 3 continuations to each of 1"):
        PrefixTree("p").grow(1, 3, lambda *given: [[Prefix("x")]])


def test_a_cut_within_a_character_is_no_shared_text() -> None:
    def cut(prompt, prefixes, n, last):
        return [[Prefix("schön"), Prefix("schürfen")] if last else [Prefix("sch\ufffd"), Prefix("so", ended=True)]]

    tree = PrefixTree("p").grow(2, 2, cut)
    pairs = tree_pairs(tree, 9, "sibling", annotate=lambda prompt, shared, a, b: "a").pairs
    assert [pair.row["shared_prefix_chars"] for pair in pairs if pair.row["depth"] == 1] == [3]


def test_chain_pairs_are_independent_samples() -> None:
    def sampler(prompts, seed):
        return ["one", "two", "three", "three", "", "four"][: len(prompts)]

    found = chain_pairs("p", sampler, 3, annotate=lambda prompt, shared, a, b: "a" if shared == "" else None)
    assert len(found.pairs) == 1 and found.left_out == Counter({"equal or blank answers": 2})
    row = found.pairs[0].row
    assert row["tree_id"] == PrefixTree("p").tree_id and row["shared_prefix_chars"] == row["depth"] == 0
    assert {tuple(row["path_chosen"]), tuple(row["path_rejected"])} == {(0,), (1,)}
    with pytest.raises(GuerdonError, match="gave 6 answers to 8 prompts"):
        chain_pairs("p", sampler, 4, annotate=longer_first)


def made_sets() -> tuple[list[Pair], list[Pair]]:
    tree = tree_pairs(full(), 28, annotate=longer_first).pairs
    answers = iter(f"{number} word {number}" for number in range(100))
    chain = chain_pairs("p", lambda prompts, seed: [next(answers) for _ in prompts], 20, annotate=longer_first).pairs
    return tree, chain


def test_budgets() -> None:
    tree, chain = made_sets()
    assert [len(part) for part in budget_match(tree, chain, by="pairs")] == [20, 20]
    cut_tree, cut_chain = budget_match(tree, chain, by="annotated_tokens")

    def cost(pairs):
        return sum(annotated_tokens(pair, lambda text: len(text.split())) for pair in pairs)

    # Three words an answer less those shared: 16 pairs of 6, 8 of 4 and 4 of 2, the cheaper set as a whole.
    assert cost(tree) == 136 and cost(chain) == 120
    assert cut_chain == chain and 120 - 6 < cost(cut_tree) <= 120 and len(cut_tree) > len(chain)
    few_tree, few_chain = budget_match(tree, chain, by="responses")
    assert few_tree == tree and len(few_chain) == 4  # eight leaves make 28 pairs, eight samples four
    with pytest.raises(GuerdonError, match="unknown budget 'tokens'"):
        budget_match(tree, chain, by="tokens")
    with pytest.raises(GuerdonError, match="no empty ones"):
        budget_match(tree, [], by="pairs")


TOKENIZER = tiny_tokenizer(["one two three four five"], vocab=300)


def policy(**options) -> CheckpointPolicy:
    torch.manual_seed(0)
    shape = dict(vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=32, num_hidden_layers=1, head_dim=8)
    model = Qwen3ForCausalLM(Qwen3Config(**shape, num_attention_heads=2, num_key_value_heads=1, initializer_range=0.5))
    return CheckpointPolicy(model, TOKENIZER, **{"max_new_tokens": 12, **options})


def test_a_model_continues_token_ids() -> None:
    grown = PrefixTree("one two").grow(3, 2, ModelContinuation(policy(), segment_tokens=4, seed=3))
    leaves = list(grown._ends(grown.root))
    ends = policy().ends
    for leaf in leaves:
        assert leaf.prefix.ended or len(leaf.prefix.ids) == 12
        assert not set(leaf.prefix.ids[:-1]) & ends
        for depth in range(1, len(leaf.path)):
            node = grown.root
            for place in leaf.path[:depth]:
                node = node.children[place]
            assert leaf.prefix.ids[: 4 * depth] == node.prefix.ids and len(node.prefix.ids) == 4 * depth
    assert len(grown.leaves()) > 4
    # Whatever shares a batch, and again: the same tree; another seed: another.
    again = PrefixTree("one two").grow(3, 2, ModelContinuation(policy(batch_size=1), segment_tokens=4, seed=3))
    assert [leaf.prefix for leaf in again._ends(again.root)] == [leaf.prefix for leaf in leaves]
    other = PrefixTree("one two").grow(3, 2, ModelContinuation(policy(), segment_tokens=4, seed=4))
    assert [leaf.prefix for leaf in other._ends(other.root)] != [leaf.prefix for leaf in leaves]
    found = tree_pairs(grown, 6, annotate=longer_first)
    for pair in found.pairs:
        chars = pair.row["shared_prefix_chars"]
        assert text_of(pair.chosen)[:chars] == text_of(pair.rejected)[:chars]


def test_a_tree_of_depth_one_is_the_policy_itself_in_distribution() -> None:
    """Greedy, for it to be the same text: segments of ids make the answer that was never cut."""
    greedy = policy(top_k=1)
    tree = PrefixTree("one").grow(3, 1, ModelContinuation(greedy, segment_tokens=3))
    assert tree.leaves()[0].prefix.text == greedy(["one"], 0)[0]


def test_segments_that_leave_no_room() -> None:
    with pytest.raises(GuerdonError, match="segment_tokens must lie in 1..11"):
        ModelContinuation(policy(), segment_tokens=12)
    with pytest.raises(GuerdonError, match="end before the tree's last level"):
        PrefixTree("one").grow(5, 1, ModelContinuation(policy(top_k=1), segment_tokens=4))

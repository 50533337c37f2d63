"""Shared-prefix likelihoods: equal to the naive ones, whatever is scored beside; layouts; the released code."""

from __future__ import annotations

import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.models.follow_up import INSTRUCTION, ConversationFormatter, conditional_log_likelihood, first_row_logits
from guerdon.models.tiny_causal import tiny_causal

SAID = ["Thanks, that is right.", "No.", "That is wrong, and I do not see what you mean by it."]


@pytest.fixture(scope="module")
def tiny() -> tuple:
    return tiny_causal([*SAID, "What is two and two?", "It is four."], hidden=32)


def test_the_cache_changes_no_number(tiny: tuple) -> None:
    model, tokenizer = tiny
    prefix, targets = ConversationFormatter(tokenizer).encode("What is two and two?", "It is four.", SAID)
    naive, mask = conditional_log_likelihood(model, prefix, targets, cache=False)
    for batch_size in (1, 2, 64):
        found, kept = conditional_log_likelihood(model, prefix, targets, batch_size=batch_size)
        torch.testing.assert_close(found, naive, atol=1e-5, rtol=0)
        assert torch.equal(kept, mask) and mask.sum(dim=1).tolist() == [len(ids) for ids in targets]
    alone, _ = conditional_log_likelihood(model, prefix, targets[1:2])
    torch.testing.assert_close(alone[0], naive[1, : len(targets[1])], atol=1e-5, rtol=0)


def test_one_token_targets_need_no_second_reading(tiny: tuple) -> None:
    model, _ = tiny
    found, _ = conditional_log_likelihood(model, [5, 6, 7], [[8], [9]])
    logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].log_softmax(dim=0)
    torch.testing.assert_close(found[:, 0], logits[[8, 9]].detach(), atol=1e-5, rtol=0)


def test_the_model_is_put_back_as_it_was(tiny: tuple) -> None:
    model, _ = tiny
    model.train()
    conditional_log_likelihood(model, [5], [[6, 7]])
    assert model.training
    model.eval()


@pytest.mark.parametrize(("prefix", "targets"), [([], [[1]]), ([1], [[1], []])])
def test_nothing_can_be_scored_after_or_as_nothing(tiny: tuple, prefix: list, targets: list) -> None:
    with pytest.raises(GuerdonError, match="has no tokens"):
        conditional_log_likelihood(tiny[0], prefix, targets)


@pytest.mark.parametrize("layout", ["user", "assistant_swap"])
def test_targets_are_the_tail_of_the_whole_text(tiny: tuple, layout: str) -> None:
    _, tokenizer = tiny
    formatter = ConversationFormatter(tokenizer, layout)  # type: ignore[arg-type]
    prefix, targets = formatter.encode("What is two and two?", "It is four.", SAID)
    before, after = formatter.split("What is two and two?", "It is four.")
    for ids, text in zip(targets, SAID):
        whole = tokenizer(before + text + after, add_special_tokens=False)["input_ids"]
        assert whole == [*prefix, *ids, *formatter.tail("What is two and two?", "It is four.")]


def test_layouts() -> None:
    _, tokenizer = tiny_causal(SAID, hidden=32)
    own, swapped = ConversationFormatter(tokenizer), ConversationFormatter(tokenizer, "assistant_swap")
    roles = [one["role"] for one in own.turns(["hello", "hi", "how are you?"], "well")]
    assert roles == ["user", "assistant", "user", "assistant"]
    even = own.turns(["greeting", "hello", "hi", "how are you?"], "well")
    assert [one["content"] for one in even] == ["hello", "hi", "how are you?", "well"], "the first utterance is lost"
    assert [(one["role"], one["content"]) for one in swapped.turns(["a", "b", "c"], "d")] == [
        ("user", INSTRUCTION), ("assistant", "c"), ("user", "d"),
    ]  # fmt: skip
    with pytest.raises(GuerdonError, match="no place for a dialogue without its response"):
        swapped.turns("a", None)
    with pytest.raises(GuerdonError, match="assistant_swap"):
        ConversationFormatter(tokenizer, "assistant")  # type: ignore[arg-type]


def test_no_text_ends_its_own_turn(tiny: tuple) -> None:
    _, tokenizer = tiny
    before, _ = ConversationFormatter(tokenizer).split("hello", "four<|im_end|>\n<|im_start|>user\nThanks!")
    assert before.count("<|im_end|>") == 2


def test_without_a_template_spaces_go_with_the_follow_up(tiny: tuple) -> None:
    _, tokenizer = tiny_causal(SAID, hidden=32)
    tokenizer.chat_template = None
    prefix, targets = ConversationFormatter(tokenizer).encode("two?", "four", ["Thanks"])
    assert tokenizer.decode(prefix).endswith("User:") and tokenizer.decode(targets[0]) == " Thanks"


def test_released_code_by_hand(tiny: tuple) -> None:
    model, _ = tiny
    prefix, target, end, begin = [5, 6, 7], [10, 11, 12], [2], 3
    whole = torch.tensor([[*prefix, *target, *end]])
    logits = model(input_ids=whole).logits[0].detach()
    alone = [begin, *target]
    wanted = logits[-len(alone) :][0, alone].mean()
    found = first_row_logits(model, prefix, [target], tail=end, begin=begin)
    torch.testing.assert_close(found[0], wanted, atol=1e-5, rtol=0)
    plain = first_row_logits(model, prefix, [target], tail=end)
    torch.testing.assert_close(plain[0], logits[-len(target) :][0, target].mean(), atol=1e-5, rtol=0)


def test_a_constant_on_all_logits_moves_only_the_released_code(tiny: tuple) -> None:
    model, _ = tiny
    targets = [[10, 11], [12, 13, 14]]
    before = conditional_log_likelihood(model, [5, 6], targets)[0], first_row_logits(model, [5, 6], targets)
    hook = model.lm_head.register_forward_hook(lambda module, inputs, output: output + 3.0)
    after = conditional_log_likelihood(model, [5, 6], targets)[0], first_row_logits(model, [5, 6], targets)
    hook.remove()
    torch.testing.assert_close(before[0], after[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(before[1] + 3.0, after[1], atol=1e-5, rtol=0)

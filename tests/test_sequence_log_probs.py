"""Log-probabilities of responses: against the model's own forward pass, and free of their neighbours."""

from __future__ import annotations

import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.models.sequence_log_probs import blank_question, chat_ids, sequence_log_probs
from guerdon.models.tiny_causal import tiny_causal

TEXTS = ["How many pens are left?", "In all there are 3 * 4 = 12.", "The answer is 12."]
CHAT = [{"role": "system", "content": "Answer."}, {"role": "user", "content": TEXTS[0]}]


@pytest.fixture(scope="module")
def policy():
    return tiny_causal(TEXTS, hidden=32, layers=2, vocab=400)


def test_equal_to_the_models_own_pass(policy) -> None:
    model, tokenizer = policy
    prompt, response = chat_ids(CHAT, tokenizer), tokenizer(TEXTS[1])["input_ids"]
    found, mask = sequence_log_probs(model, [prompt], [response], temperature=0.7)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].float() / 0.7
    expected = logits.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)]
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
    assert mask.all() and found.dtype == torch.float32 and (found <= 0).all()


def test_a_row_does_not_depend_on_its_batch(policy) -> None:
    model, tokenizer = policy
    prompts = [chat_ids(CHAT, tokenizer), chat_ids("pens", tokenizer), blank_question(CHAT, tokenizer)]
    responses = [tokenizer(text)["input_ids"] for text in (TEXTS[1], TEXTS[2] * 3, "no")]
    together, mask = sequence_log_probs(model, prompts, responses, batch_size=3)
    for row, (prompt, response) in enumerate(zip(prompts, responses)):
        alone, _ = sequence_log_probs(model, [prompt], [response])
        torch.testing.assert_close(together[row, : len(response)], alone[0], atol=1e-5, rtol=0)
        assert int(mask[row].sum()) == len(response) and not together[row, len(response) :].any()


def test_an_empty_response_is_a_row_of_padding(policy) -> None:
    model, tokenizer = policy
    found, mask = sequence_log_probs(model, [chat_ids(CHAT, tokenizer)] * 2, [[], [5]])
    assert mask.tolist() == [[False], [True]] and found[0, 0] == 0
    assert sequence_log_probs(model, [[1]], [[]])[0].shape == (1, 0)


def test_the_model_is_put_back_as_it_was(policy) -> None:
    model, _ = policy
    model.train()
    found, _ = sequence_log_probs(model, [[1]], [[2, 3]])
    assert model.training and not found.requires_grad
    model.eval()


def test_blank_questions(policy) -> None:
    _, tokenizer = policy
    told = {mode: tokenizer.decode(blank_question(CHAT, tokenizer, mode)) for mode in ("empty_user", "system_only")}
    assert told["empty_user"] == (
        "<|im_start|>system\nAnswer.<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n"
    )
    assert told["system_only"] == "<|im_start|>system\nAnswer.<|im_end|>\n<|im_start|>assistant\n"
    assert blank_question(CHAT, tokenizer, "bos") == [tokenizer.eos_token_id]
    assert blank_question("How many?", tokenizer) == chat_ids("", tokenizer) == [tokenizer.eos_token_id]
    with pytest.raises(GuerdonError, match="did you mean 'empty_user'"):
        blank_question(CHAT, tokenizer, "empty_users")  # type: ignore[arg-type]


def test_bad_input(policy) -> None:
    model, tokenizer = policy
    for prompts, responses, options, words in (
        ([[1]], [[1], [2]], {}, "need as many prompts"),
        ([[]], [[1]], {}, "prompt 0 has no tokens"),
        ([[1]], [[1]], {"temperature": 0}, "above 0"),
    ):
        with pytest.raises(GuerdonError, match=words):
            sequence_log_probs(model, prompts, responses, **options)
    bare = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(GuerdonError, match="no chat template"):
        chat_ids(CHAT, bare)
    with pytest.raises(GuerdonError, match="cannot stand alone"):
        chat_ids("", bare)

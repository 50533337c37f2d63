"""How probable a language model finds a response after a prompt, token by token; and prompts without their question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import Message, as_messages

__all__ = ["Blank", "blank_question", "chat_ids", "sequence_log_probs"]

Blank = Literal["empty_user", "bos", "system_only"]


@torch.no_grad()
def sequence_log_probs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    batch_size: int = 8,
    pad_id: int = 0,
) -> tuple[Tensor, Tensor]:
    """log P(response token | prompt, tokens before) -> (float32 [N, T] with 0 at padding, mask [N, T]), on the CPU.

    model:       a causal language model of transformers. It runs in evaluation mode and is put back as it was.
    prompts:     N lists of token ids, none empty. responses: N lists of ids; T is the longest.
    temperature: of the sampling: logits are divided by it, as the trainer does.
    batch_size:  rows a forward pass. Every row is passed through, an empty response too: under ZeRO-3 or FSDP all
                 processes must make the same number of passes.

    Sequences are padded behind, so a row's positions are those it was generated at and its numbers do not depend on
    what shares its batch. Sums are to be taken in float32, as these are, whatever the model computes in. Raises
    GuerdonError for lists of different numbers, an empty prompt, or settings that are not positive.
    """
    if len(prompts) != len(responses):
        raise GuerdonError(f"{len(responses)} responses need as many prompts, got {len(prompts)}")
    empty = next((row for row, ids in enumerate(prompts) if not len(ids)), None)
    if empty is not None:
        raise GuerdonError(f"prompt {empty} has no tokens: the first token of a response must follow something")
    if not temperature > 0 or batch_size < 1:
        raise GuerdonError(f"temperature and batch_size must be above 0, got {temperature} and {batch_size}")
    width = max((len(ids) for ids in responses), default=0)
    mask = torch.zeros(len(prompts), width, dtype=torch.bool)
    found = torch.zeros(len(prompts), width)
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(prompts), batch_size):
            rows = range(start, min(start + batch_size, len(prompts)))
            whole = [[*prompts[row], *responses[row]] for row in rows]
            longest = max(map(len, whole))
            ids = torch.full((len(whole), longest), pad_id)
            real = torch.zeros(len(whole), longest, dtype=torch.long)
            for place, tokens in enumerate(whole):
                ids[place, : len(tokens)], real[place, : len(tokens)] = torch.tensor(tokens), 1
            device = model.device
            logits = model(input_ids=ids.to(device), attention_mask=real.to(device), use_cache=False).logits
            for place, row in enumerate(rows):
                count, first = len(responses[row]), len(prompts[row])
                if count:
                    # The logits at a place are of the token behind it; one row at a time keeps float32 copies small.
                    said = logits[place, first - 1 : first - 1 + count].float() / temperature
                    wanted = ids[place, first : first + count].to(device)[:, None]
                    found[row, :count] = said.log_softmax(dim=-1).gather(1, wanted)[:, 0].cpu()
                    mask[row, :count] = True
    finally:
        model.train(was_training)
    return found, mask


def chat_ids(prompt: Any, tokenizer: Any, template: Mapping[str, Any] | None = None) -> list[int]:
    """Token ids that a response to ``prompt`` follows: messages through the chat template, a string as it is.

    template: further arguments of the chat template. An empty string becomes the one token of `_start`.
    """
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"]) or [_start(tokenizer)]
    return _templated(list(prompt), tokenizer, template)


def blank_question(
    prompt: Any, tokenizer: Any, mode: Blank = "empty_user", template: Mapping[str, Any] | None = None
) -> list[int]:
    """Token ids of ``prompt`` with nothing asked: what a response follows when it stands alone.

    mode:  "empty_user": the same system message and one empty user turn; "system_only": the system message alone;
           "bos": the token that begins a text. A prompt that is a string has neither system nor user: any mode gives
           what an empty string does.

    A tokenizer that has no beginning token lends the one that ends a text. Raises GuerdonError for another mode, or
    where the chat template refuses such messages.
    Source: released code of Self-Aligned Reward (arXiv 2509.05489), "empty_user"; the others are ours.
    """
    if mode not in get_args(Blank):
        raise unknown("way to leave out the question", mode, get_args(Blank))
    if isinstance(prompt, str):
        return chat_ids("", tokenizer)
    if mode == "bos":
        return [_start(tokenizer)]
    kept: list[Message] = [one for one in as_messages(prompt) if one["role"] == "system"]
    asked: list[Message] = [{"role": "user", "content": ""}] if mode == "empty_user" else []
    return _templated([*kept, *asked], tokenizer, template)


def _templated(messages: list[Message], tokenizer: Any, template: Mapping[str, Any] | None) -> list[int]:
    if not getattr(tokenizer, "chat_template", None):
        raise GuerdonError("prompts are messages, but the tokenizer has no chat template; give prompts as strings")
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **dict(template or {})
        )
    except Exception as error:  # templates raise errors of their own making
        raise GuerdonError(f"the chat template refuses {len(messages)} messages: {error}") from error
    # A template writes its own opening token, which the tokenizer would write again.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) or [_start(tokenizer)]


def _start(tokenizer: Any) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if token is not None:
            return int(token)
    raise GuerdonError("the tokenizer has no token that begins or ends a text, so a response cannot stand alone")

"""How probable a language model finds each of many short continuations of one prefix, which it reads only once."""

from __future__ import annotations

import copy
import inspect
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import Message, as_messages, text_of
from guerdon.models.scalar.tokens import PLAIN_TEMPLATE, escape_specials, special_strings
from guerdon.models.sequence_log_probs import sequence_log_probs

__all__ = ["INSTRUCTION", "ConversationFormatter", "Layout", "conditional_log_likelihood", "first_row_logits"]

Layout = Literal["user", "assistant_swap"]

INSTRUCTION = "Put a question to me, and when I have answered it, say what you think of my answer."


@torch.no_grad()
def conditional_log_likelihood(
    model: Any,
    prefix: Sequence[int],
    targets: Sequence[Sequence[int]],
    *,
    batch_size: int = 64,
    cache: bool = True,
    pad_id: int = 0,
) -> tuple[Tensor, Tensor]:
    """log q(target token | prefix, target tokens before) -> (float32 [N, T], 0 at padding; mask [N, T]), on the CPU.

    model:      a causal language model of transformers. It runs in evaluation mode and is put back as it was.
    prefix:     token ids that all targets follow, at least one. targets: N lists of ids, none empty; T is the longest.
    batch_size: targets a forward pass.
    cache:      read the prefix once and keep its keys and values for all targets: about |prefix| + sum |target| tokens
                in place of N |prefix| + sum |target|. The numbers are the same but for rounding. False reads it anew
                for each target; models without such a cache need that.

    A prefix is always read alone, so its scores do not depend on what is scored beside it. log-softmax is taken in
    float32, whatever the model computes in. Raises GuerdonError for an empty prefix or target.
    """
    _check(prefix, targets, batch_size)
    if not cache:
        rows = [list(prefix)] * len(targets)
        return sequence_log_probs(model, rows, targets, batch_size=batch_size, pad_id=pad_id)
    width = max((len(ids) for ids in targets), default=0)
    found, mask = torch.zeros(len(targets), width), torch.zeros(len(targets), width, dtype=torch.bool)
    for row, logits in _continued(model, prefix, targets, batch_size, pad_id):
        size = len(targets[row])
        wanted = torch.tensor(list(targets[row]), device=logits.device)[:, None]
        found[row, :size] = logits[:size].float().log_softmax(dim=-1).gather(1, wanted)[:, 0].cpu()
        mask[row, :size] = True
    return found, mask


@torch.no_grad()
def first_row_logits(
    model: Any,
    prefix: Sequence[int],
    targets: Sequence[Sequence[int]],
    *,
    tail: Sequence[int] = (),
    begin: int | None = None,
    batch_size: int = 64,
    pad_id: int = 0,
) -> Tensor:
    """What the paper's released scorer computes: the mean raw logit of all target tokens at one single place, [N].

    tail:  ids that close the utterance's turn. begin: the id that the tokenizer begins a text with, if it does.

    The released code keeps as many last rows of the logits as the utterance has tokens (``begin`` counted) and reads
    only the first of them, at all of those ids: with Llama-3's template the place behind the first token. That is
    neither a likelihood nor shifted by one; never mix it with `conditional_log_likelihood` in one table.
    Source: code of Follow-up Likelihood as Reward (arXiv 2409.13948), run_llama3.py.
    """
    _check(prefix, targets, batch_size)
    whole = [[*ids, *tail] for ids in targets]
    head = [] if begin is None else [begin]
    # Rows count from the one that predicts the first target token; the kept rows begin one behind it, and one more
    # for each id of the tail, one less for the beginning.
    place = 1 + len(tail) - len(head)
    found = torch.zeros(len(targets))
    # Each continuation is read to its end, and one place further than the rows of a likelihood go.
    extended = [[*ids, pad_id] for ids in whole]
    for row, logits in _continued(model, prefix, extended, batch_size, pad_id):
        ids = torch.tensor([*head, *targets[row]], device=logits.device)
        found[row] = logits[min(max(place, 0), len(whole[row]))].float()[ids].mean().cpu()
    return found


def _check(prefix: Sequence[int], targets: Sequence[Sequence[int]], batch_size: int) -> None:
    if not len(prefix):
        raise GuerdonError("the prefix has no tokens: the first token of a continuation must follow something")
    empty = next((row for row, ids in enumerate(targets) if not len(ids)), None)
    if empty is not None:
        raise GuerdonError(f"continuation {empty} has no tokens, so it has no likelihood")
    if batch_size < 1:
        raise GuerdonError(f"batch_size must be at least 1, got {batch_size}")


def _continued(
    model: Any, prefix: Sequence[int], targets: Sequence[Sequence[int]], batch_size: int, pad_id: int
) -> Any:
    """(row, logits [|target|, V] that predict its tokens) of every target, by one reading of the prefix."""
    if not targets:
        return
    was_training = model.training
    model.eval()
    try:
        device = model.device
        start = torch.tensor([list(prefix)], device=device)
        # Only the last place is asked for: the logits of a long prefix over a large vocabulary are most of its cost.
        keep = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        read = model(input_ids=start, use_cache=True, **keep)
        first, held = read.logits[:, -1:], read.past_key_values
        if held is None:
            raise GuerdonError(f"{type(model).__name__} keeps no keys and values; call with cache=False")
        # Alike in length stands together, so little is padding.
        order = sorted(range(len(targets)), key=lambda row: len(targets[row]))
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            # The last token of a target predicts nothing that is wanted.
            longest = max(len(targets[row]) for row in rows) - 1
            rest = None
            if longest:
                ids = torch.full((len(rows), longest), pad_id)
                real = torch.zeros(len(rows), longest, dtype=torch.long)
                for place, row in enumerate(rows):
                    size = len(targets[row]) - 1
                    ids[place, :size], real[place, :size] = torch.tensor(list(targets[row][:-1]), dtype=torch.long), 1
                shared = copy.deepcopy(held)
                shared.batch_repeat_interleave(len(rows))
                seen = torch.cat([torch.ones(len(rows), len(prefix), dtype=torch.long), real], dim=1)
                at = torch.arange(len(prefix), len(prefix) + longest)[None].expand(len(rows), -1)
                rest = model(
                    input_ids=ids.to(device), attention_mask=seen.to(device), position_ids=at.to(device),
                    past_key_values=shared, use_cache=True,
                ).logits  # fmt: skip
            for place, row in enumerate(rows):
                size = len(targets[row]) - 1
                yield row, first[0] if rest is None else torch.cat([first[0], rest[place, :size]])
    finally:
        model.train(was_training)


class ConversationFormatter:
    """Token ids of a dialogue up to where a follow-up utterance begins, and of the follow-ups behind it.

    layout:      "user": the dialogue, the response as the assistant's turn, and the follow-up as the user's next one;
                 "assistant_swap": the roles turned round, so that the follow-up is an assistant's turn, which is what
                 chat models are trained on: ``instruction``, the last query as the assistant's, the response as the
                 user's. Only the last query is kept.
    template:    further arguments of the chat template. A tokenizer without one gets "User: ...", "Assistant: ...".
    instruction: what opens the second layout; its words are our own.

    Control tokens spelt out in a dialogue are broken by a space, so that no text can end its own turn. Nothing is ever
    cut. Source: Follow-up Likelihood as Reward (arXiv 2409.13948), both layouts of its code.
    """

    def __init__(
        self,
        tokenizer: Any,
        layout: Layout = "user",
        *,
        template: Mapping[str, Any] | None = None,
        instruction: str = INSTRUCTION,
    ) -> None:
        if layout not in get_args(Layout):
            raise unknown("layout of a dialogue", layout, get_args(Layout))
        self.tokenizer, self.layout, self.instruction = tokenizer, layout, instruction
        self.template = dict(template or {})
        self._specials = special_strings(tokenizer)

    def turns(self, prompt: Any, response: str | None) -> list[Message]:
        """The turns before the follow-up; ``response`` None leaves it out (only in the layout "user").

        prompt: text, messages, or a list of plain utterances that begins with either side and ends with the user's: one
        of even length loses its first, so that the user opens it, as in the released code.
        """
        asked = self._dialogue(prompt)
        if self.layout == "user":
            said: list[Message] = [] if response is None else [{"role": "assistant", "content": response}]
            return [*asked, *said]
        if response is None:
            raise GuerdonError("the layout 'assistant_swap' has no place for a dialogue without its response")
        queries = [text_of([one]) for one in asked if one["role"] == "user"]
        if not queries:
            raise GuerdonError("the layout 'assistant_swap' needs a dialogue with a turn of the user")
        return [
            {"role": "user", "content": self.instruction},
            {"role": "assistant", "content": queries[-1]},
            {"role": "user", "content": response},
        ]

    def split(self, prompt: Any, response: str | None) -> tuple[str, str]:
        """(text before the follow-up, text that closes its turn) by the chat template."""
        turns = [
            {**one, "content": escape_specials(text_of([one]), self._specials)} for one in self.turns(prompt, response)
        ]
        speaker = "user" if self.layout == "user" else "assistant"
        # A word that stands nowhere else marks the place; templates may trim white space but not this.
        mark = uuid.uuid4().hex
        own = None if getattr(self.tokenizer, "chat_template", None) else PLAIN_TEMPLATE
        try:
            text = self.tokenizer.apply_chat_template(
                [*turns, {"role": speaker, "content": mark}], chat_template=own, tokenize=False, **self.template
            )
        except Exception as error:  # templates raise errors of their own making
            raise GuerdonError(f"the chat template refuses the layout {self.layout!r}: {error}") from error
        before, found, after = text.rpartition(mark)
        if not found:
            raise GuerdonError(f"the chat template does not show the turn of the {speaker} that ends a dialogue")
        return before, after

    def encode(self, prompt: Any, response: str | None, follow_ups: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """(ids of the prefix, ids of each follow-up without its end of turn).

        A space that the template leaves before the follow-up goes with it, as tokenizers have it, so the two lists
        joined are the ids of the whole text. No beginning token is added beyond the template's own.
        """
        before, _ = self.split(prompt, response)
        bare = before.rstrip(" ")
        gap = before[len(bare) :]
        prefix = self._ids(bare)
        if not getattr(self.tokenizer, "chat_template", None) and self.tokenizer.bos_token_id is not None:
            prefix = [int(self.tokenizer.bos_token_id), *prefix]
        return prefix, [self._ids(gap + escape_specials(text, self._specials)) for text in follow_ups]

    def tail(self, prompt: Any, response: str | None) -> list[int]:
        """Ids that close the follow-up's turn."""
        return self._ids(self.split(prompt, response)[1])

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _dialogue(self, prompt: Any) -> list[Message]:
        if isinstance(prompt, list | tuple) and prompt and all(isinstance(one, str) for one in prompt):
            said = list(prompt) if len(prompt) % 2 else list(prompt)[1:]
            return [{"role": "assistant" if place % 2 else "user", "content": one} for place, one in enumerate(said)]
        return as_messages(prompt)

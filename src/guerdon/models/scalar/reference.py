"""POLAR: a reward model that reads a prompt, a reference and a candidate, and how its input is put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.preferences import Message, Pair, text_of
from guerdon.models.scalar import formats, saved
from guerdon.models.scalar.backbone import default_dtype, load_backbone, load_tokenizer
from guerdon.models.scalar.head import RewardHead, pool_hidden
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tokens import Encoded, special_strings

Mode = Literal["sft", "pretrain"]
Text = Sequence[Message] | str
MODES: tuple[str, ...] = get_args(Mode)
SEPARATOR, REWARD_TOKEN = "<|reward|>", "[UNUSED_TOKEN_130]"
RESERVED = 4
"""Tokens that the budgets leave free: separator, reward token, and two line breaks."""

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' and not loop.first %}"
    + SEPARATOR
    + "{% endif %}{{ message['content'] }}{% endfor %}"
)
"""Chat template of a policy discriminator: contents one after another, the separator before the second prompt."""


@runtime_checkable
class ReferenceRewardModel(Protocol):
    """Anything that scores candidates against references: POLAR, a verifier, or a reward that looks at neither."""

    def score(self, prompts: Sequence[Text], references: Sequence[Text], candidates: Sequence[Text]) -> Any:
        """One entry a candidate, higher = better: a float, None (does not apply) or Failed; or a tensor [N]."""
        ...


class Limits(BaseModel):
    """How many tokens the parts of an input may take. Source: POLAR (arXiv 2507.05197), its client's defaults.

    max_length:    of the whole. response: of reference and candidate each. cut_side: where a response loses what is
                   too much.
    fixed_prompt:  reserve ``response`` tokens for every candidate. As published (False) the prompt gets what this
                   candidate leaves over, so that candidates of different length see differently cut long prompts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int = Field(16384, gt=RESERVED)
    response: int = Field(4096, ge=1)
    cut_side: Literal["left", "right"] = "right"
    fixed_prompt: bool = False

    @classmethod
    def within(cls, max_length: int) -> Limits:
        """The published proportions: a quarter of ``max_length`` for each response, at most 4096 tokens."""
        return cls(max_length=max_length, response=max(1, min(4096, max_length // 4)))


@dataclass(frozen=True)
class Packed:
    """The parts of one input, cut and cleaned; ``cut`` is how many tokens were left out of them."""

    prompt: str
    reference: str
    candidate: str
    mode: Mode = "sft"
    cut: int = 0

    @property
    def conversation(self) -> list[Message]:
        """The input as messages for ``TEMPLATE``; the reward token is not among them, since encoding appends it."""
        contents = (self.prompt, self._after(self.reference), self.prompt, self._after(self.candidate))
        return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, contents)]

    @property
    def text(self) -> str:
        """The input as text, as a server is sent it."""
        one, other = (self.prompt + self._after(answer) for answer in (self.reference, self.candidate))
        return f"{one}{SEPARATOR}{other}{REWARD_TOKEN}"

    def _after(self, answer: str) -> str:
        return f"\n{answer}" if answer and self.mode == "sft" else answer


def pack_reference_pair(
    tokenizer: Any, prompt: Text, reference: Text, candidate: Text, mode: Mode = "sft", limits: Limits | None = None
) -> Packed:
    """prompt + sep + reference + ``<|reward|>`` + prompt + sep + candidate + reward token, within ``limits``.

    mode "sft": sep is a line break, none before an empty answer; "pretrain": nothing, the answer continues the text.
    Messages become their contents with line breaks between; roles are dropped. Reference and candidate keep
    ``limits.response`` tokens; the prompt keeps its last (max_length - 4 - |reference| - |candidate|) // 2, which may
    be none. Tokens are counted with those that the tokenizer adds by itself, as the authors do.

    Separator, reward token and the tokenizer's control tokens are removed from all three texts, repeatedly, so that no
    candidate can open a second comparison. Raises GuerdonError for an unknown mode.

    Source: POLAR (arXiv 2507.05197), section 4.1; xtuner's data set for training and InternLM/POLAR's client. Where
    they differ (client: a line break before an empty answer too), as in training. Deviation: a text that is not cut is
    taken as it is instead of being decoded from its tokens.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    limits = limits or Limits()
    structural = (SEPARATOR, REWARD_TOKEN, *special_strings(tokenizer))
    asked, shown, made = (_without(text_of(text), structural) for text in (prompt, reference, candidate))
    shown, lost_shown, used = _kept(tokenizer, shown, limits.response, limits.cut_side)
    made, lost_made, spent = _kept(tokenizer, made, limits.response, limits.cut_side)
    spent = limits.response if limits.fixed_prompt else spent
    budget = max(0, (limits.max_length - RESERVED - used - spent) // 2)
    asked, lost_asked, _ = _kept(tokenizer, asked, budget, "left")
    return Packed(asked, shown, made, mode, lost_shown + lost_made + 2 * lost_asked)


def _without(text: str, structural: Sequence[str]) -> str:
    # Until none is left: removing one may put the halves of another together.
    while any(string and string in text for string in structural):
        for string in structural:
            text = text.replace(string, "") if string else text
    return text


def _kept(tokenizer: Any, text: str, budget: int, cut_side: str) -> tuple[str, int, int]:
    """(text within ``budget`` tokens, tokens left out, tokens kept)."""
    ids = tokenizer(text)["input_ids"]
    lost = len(ids) - budget
    if lost <= 0:
        return text, 0, len(ids)
    # Not ids[-budget:], which is the whole text where the budget is 0.
    rest = ids[:budget] if cut_side == "right" else ids[lost:]
    return tokenizer.decode(rest, skip_special_tokens=True, clean_up_tokenization_spaces=False), lost, budget


def last_attended_score(hidden: Tensor, mask: Tensor, head: RewardHead | Any) -> Tensor:
    """The head's value at the last attended position: hidden [B, T, d], mask [B, T] -> [B], padding on either side.

    Source: POLAR's modelling code reads the position at which the cumulated mask is largest. Raises as `pool_hidden`.
    """
    return head(pool_hidden(hidden, mask, "last")).reshape(len(hidden))


def without_thinking(candidate: Text) -> Any:
    """A candidate without its reasoning: what follows the last ``</think>`` and precedes a thought left unfinished.

    Messages keep their form. Source: POLAR's reward function; deviation: a thought whose opening tag the chat template
    wrote is removed too, and so is one that was never closed, which would be scored as an answer otherwise.
    """
    if not isinstance(candidate, str):
        return [
            {**message, "content": without_thinking(message["content"])}
            if message.get("role") == "assistant" and isinstance(message.get("content"), str)
            else message
            for message in candidate
        ]
    if "<think>" not in candidate and "</think>" not in candidate:
        return candidate
    return candidate.rpartition("</think>")[2].partition("<think>")[0].strip()


class PolicyDiscriminator:
    """r(prompt, reference, candidate): how much the candidate looks like another answer of the reference's author.

    Unbounded, mostly negative, comparable among candidates of one prompt and reference only; a similarity, so that a
    right answer in other words may score below a wrong one in the reference's.

    model:   a `ScalarRewardModel` with a reward token; its tokenizer is given POLAR's template.
    mode:    "sft" for answers, "pretrain" for continuations of a text. limits: default `Limits.within` the model's.

    Source: POLAR (arXiv 2507.05197).
    """

    def __init__(self, model: ScalarRewardModel, *, mode: Mode = "sft", limits: Limits | None = None) -> None:
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if model.encoder.reward_token is None:
            raise GuerdonError(f"{model.name} pools {model.pooling!r}; a policy discriminator reads a reward token")
        self.model, self.mode = model, mode
        self.limits = limits or Limits.within(model.max_length)
        if self.limits.max_length > model.max_length:
            raise GuerdonError(f"limits of {self.limits.max_length} tokens exceed the model's of {model.max_length}")
        model.tokenizer.chat_template = TEMPLATE

    @classmethod
    def on_backbone(
        cls,
        source: Any,
        *,
        tokenizer: Any = None,
        mode: Mode = "sft",
        limits: Limits | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> PolicyDiscriminator:
        """A new discriminator on a backbone, to be trained; ``options`` are `ScalarRewardModel.on_backbone`'s.

        Separator and reward token are added to the tokenizer where they are missing. A published POLAR has its head
        already: continue with `from_pretrained`.
        """
        device = torch.device(device) if device is not None else torch.device("cpu")
        if isinstance(source, str | Path):
            trusted = {"trust_remote_code": trust_remote_code}
            tokenizer = tokenizer if tokenizer is not None else load_tokenizer(str(source), **trusted)
            source = load_backbone(str(source), dtype=dtype or default_dtype(device), **trusted)
        if tokenizer is None:
            raise GuerdonError(f"{type(source).__name__} comes without a tokenizer; pass tokenizer=")
        tokenizer.chat_template = TEMPLATE
        tokenizer.add_special_tokens({"extra_special_tokens": [SEPARATOR]}, replace_extra_special_tokens=False)
        settings = {"pooling": "token", "reward_token": REWARD_TOKEN, "name": "policy_discriminator", **options}
        model = ScalarRewardModel.on_backbone(source, tokenizer=tokenizer, device=device, **settings)
        return cls(model, mode=mode, limits=limits)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, mode: Mode = "sft", limits: Limits | None = None, **options: Any
    ) -> PolicyDiscriminator:
        """A folder that `save_pretrained` wrote, or a published POLAR; see `ScalarRewardModel.from_pretrained`."""
        folder = formats.locate(str(path))
        if not (folder / saved.SETTINGS).is_file():
            options.setdefault("reward_token", REWARD_TOKEN)
        return cls(ScalarRewardModel.from_pretrained(folder, **options), mode=mode, limits=limits)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the model with its tokenizer and template; mode and limits are given again on loading."""
        return self.model.save_pretrained(path)

    def pack(self, prompt: Text, reference: Text, candidate: Text) -> Packed:
        """`pack_reference_pair` with this model's tokenizer, mode and limits."""
        return pack_reference_pair(self.model.tokenizer, prompt, reference, candidate, self.mode, self.limits)

    def encode(self, prompt: Text, reference: Text, candidate: Text) -> Encoded:
        """Token ids of one input; the part before the candidate is marked as shared by the prompt's other ones."""
        packed = self.pack(prompt, reference, candidate)
        encoded = self.model.encode(packed.conversation, split=True)
        return replace(encoded, truncated=encoded.truncated + packed.cut)

    def score(
        self,
        prompts: Sequence[Text],
        references: Sequence[Text],
        candidates: Sequence[Text],
        *,
        progress: str | None = None,
        **batching: Any,
    ) -> Tensor:
        """Scores of N candidates -> float32 [N], each independent of what is scored with it.

        Raises GuerdonError for lists of different length. progress, batching: as `ScalarRewardModel.score`.
        """
        check_rows(prompts, references, candidates)
        encoded = [self.encode(*row) for row in zip(prompts, references, candidates)]
        self.model.report_cuts(encoded)
        return self.model.score_encoded(encoded, progress=progress, **batching)

    def pair(self, pair: Pair, column: str = "reference") -> Pair:
        """A pair with its reference in ``row[column]`` as one that any preference trainer can train this model on.

        Prompt, reference and the prompt again become the pair's prompt. Both sides see the prompt cut alike, to the
        smaller of their budgets. ``row["wrapper"]`` overrides the mode. Raises GuerdonError for a pair without a
        reference. Source: POLAR, section 3.4 and xtuner's data set.
        """
        reference = pair.row.get(column)
        if not reference:
            raise GuerdonError(f"{pair.where or 'a pair'}: no {column!r}, which a policy discriminator compares with")
        mode: Mode = pair.row.get("wrapper") or self.mode
        chosen, rejected = (
            pack_reference_pair(self.model.tokenizer, pair.prompt, reference, answer, mode, self.limits)
            for answer in (pair.chosen, pair.rejected)
        )
        shorter = min(chosen.prompt, rejected.prompt, key=len)
        *prompt, better = replace(chosen, prompt=shorter).conversation
        worse = replace(rejected, prompt=shorter).conversation[-1]
        return replace(pair, prompt=prompt, chosen=[better], rejected=[worse])

    def identity(self) -> str:
        """name@version#hash over weights, mode and limits."""
        told = [self.model.identity(), self.mode, self.limits.model_dump()]
        return f"{self.model.name}@1#{config_hash(told)}"


def check_rows(prompts: Sequence[Any], references: Sequence[Any], candidates: Sequence[Any]) -> None:
    """Raises GuerdonError unless there are as many prompts and references as candidates."""
    counts = {"prompts": prompts, "references": references, "candidates": candidates}
    for name, rows in counts.items():
        if isinstance(rows, str):
            raise GuerdonError(f"{name} must be a list, got a single string")
    if len({len(rows) for rows in counts.values()}) > 1:
        listed = ", ".join(f"{len(rows)} {name}" for name, rows in counts.items())
        raise GuerdonError(f"one prompt and one reference a candidate are needed, got {listed}")

"""Exact and fast: conversations that begin alike are computed as one row, rows of like length share a batch.

A row holds the tokens that its conversations have in common once, then what each goes on with; a mask keeps these
branches apart and positions count along each conversation, so that every state is the one of the plain forward. Rows
are differentiable and serve training as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from guerdon.core.progress import progress as progress_bar
from guerdon.models.scalar.tokens import Encoded

if TYPE_CHECKING:
    from guerdon.models.scalar.model import ScalarRewardModel

DEVICE_TOKENS = 16384
"""Tokens a forward pass on an accelerator where nobody says."""

ROW_ATTENTION, QUERY_BLOCK = "guerdon_rows", 64

_BATCH_DEPENDENT_ROPE = ("dynamic", "longrope")
_WINDOWS = ("sliding_window", "attention_chunk_size", "local_attention")
_packs: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Row:
    """Conversations computed as one sequence: their first ``shared`` tokens, then the rest of each ``member``."""

    members: tuple[int, ...]
    shared: int
    length: int


def score_encoded(
    model: ScalarRewardModel,
    encoded: Sequence[Encoded],
    *,
    token_budget: int | None = None,
    share: bool = True,
    progress: str | None = None,
) -> Tensor:
    """Rewards of encoded conversations -> float32 [N] on the CPU, each equal to its own plain forward to 1e-5.

    token_budget:  tokens a forward pass, padding included (a longer row goes alone); default by device.
    share:         compute what conversations have in common once, where the backbone allows it (`packs`).
    progress:      what a progress bar should say; None for no bar.

    Neither changes a score. The model is to be in evaluation mode (`ScalarRewardModel.score_encoded` sees to it).
    """
    scores = torch.zeros(len(encoded))
    planned = plan(model, encoded, token_budget=token_budget, share=share)
    bar = progress_bar(len(encoded), progress) if progress is not None and planned else None
    with torch.no_grad():
        for rows in _shown(planned, bar):
            members = [member for row in rows for member in row.members]
            scores[members] = model.head(pooled(model, encoded, rows)).float().cpu()
    return scores


def plan(
    model: ScalarRewardModel, encoded: Sequence[Encoded], *, token_budget: int | None = None, share: bool = True
) -> list[list[Row]]:
    """Batches of rows that hold every conversation once, longest first."""
    budget = token_budget or default_budget(model)
    if any(kind in str(getattr(_text_config(model), "rope_parameters", "")) for kind in _BATCH_DEPENDENT_ROPE):
        budget = 1  # the longest row of a batch would set the angles of the others
    limit = _row_limit(model) if share and budget > 1 and len(encoded) else 0
    fit = [place for place, one in enumerate(encoded) if one.images is None and len(one) <= limit]
    joined = share_rows({place: encoded[place].ids for place in fit}, int(_text_config(model).hidden_size))
    alone = [Row((place,), len(encoded[place]), len(encoded[place])) for place in range(len(encoded))]
    rest = [alone[place] for place in sorted(set(range(len(encoded))) - set(fit))]
    shown = [row for row in rest if encoded[row.members[0]].images is not None]
    words = [row for row in rest if encoded[row.members[0]].images is None]
    return [batch for kind in (joined, words, shown) for batch in batches(kind, budget)]


def default_budget(model: ScalarRewardModel) -> int:
    """Tokens a forward pass on the model's device; on a CPU 1024 to 2048, so that a state of all stays in its cache."""
    if model.device.type != "cpu":
        return DEVICE_TOKENS
    return min(2048, max(1024, 131_072 // int(_text_config(model).hidden_size)))


def batches(rows: Iterable[Row], budget: int) -> Iterator[list[Row]]:
    """Rows, longest first, in batches of at most ``budget`` tokens with their padding (a longer row goes alone)."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: -row.length):
        if batch and (len(batch) + 1) * batch[0].length > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def join(encoded: Sequence[Encoded], members: Sequence[int]) -> Row:
    """One row of these conversations, whatever they have in common at the beginning."""
    shared = common_start([encoded[member].ids for member in members])
    return Row(tuple(members), shared, shared + sum(len(encoded[member]) - shared for member in members))


def common_start(ids: Sequence[list[int]]) -> int:
    """How many tokens at the beginning are the same everywhere."""
    first, last = min(ids), max(ids)  # in the order of a dictionary, what lies between them begins like both
    return next((place for place, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))


def share_rows(ids: dict[int, list[int]], width: int) -> list[Row]:
    """Join conversations that begin alike into rows, where that is less work for a backbone of this ``width``.

    ids: tokens by the conversation's number. The work of a row of L tokens goes as L (2 width + L): matrix products,
    and attention over a mask, which was measured to cost about three times its arithmetic. Sorted, conversations that
    begin alike are neighbours, so one pass finds the pairs, the best-of-n groups and what is the same altogether.
    """

    def work(length: int) -> int:
        return length * (2 * width + length)

    rows: list[Row] = []
    members: list[int] = []
    shared = total = 0

    def length() -> int:
        return total - (len(members) - 1) * shared

    for place in sorted(ids, key=lambda place: ids[place]):
        mine = ids[place]
        if members:
            common = min(shared, common_start([ids[members[0]], mine]))
            joined = total + len(mine) - len(members) * common
            if work(joined) < work(length()) + work(len(mine)):
                members.append(place)
                shared, total = common, total + len(mine)
                continue
            rows.append(Row(tuple(members), shared, length()))
        members, shared, total = [place], len(mine), len(mine)
    return [*rows, Row(tuple(members), shared, length())] if members else rows


def pooled(model: ScalarRewardModel, encoded: Sequence[Encoded], rows: Sequence[Row]) -> Tensor:
    """Pooled states of the rows' conversations, in the order of their members -> [M, d], in one forward pass.

    Differentiable; where the backbone takes no rows (`takes_rows`), the plain padded batch.
    """
    held = [encoded[member] for row in rows for member in row.members]
    if not takes_rows(model, held):
        return model.hidden(**model.batch(held))
    ids, mask, positions, places = (part.to(model.device) for part in pack(encoded, rows, model.encoder.pad_id))
    states = model.states(ids, mask, positions, branched=True).flatten(0, 1)
    own, lengths = ids.flatten()[places], torch.tensor([len(one) for one in held], device=model.device)
    real = (torch.arange(own.shape[1], device=model.device) < lengths[:, None]).long()
    if model.pooling == "mean":
        return model.pool(states[places], real, own)
    # Of which place the state is read is asked as of a plain batch; the other states need not be taken apart.
    return states[model.pool(places.unsqueeze(-1), real, own).squeeze(-1)]


def takes_rows(model: ScalarRewardModel, held: Sequence[Encoded]) -> bool:
    """Whether these conversations can be computed in rows: text, on a backbone that `packs`, within its window."""
    limit = _row_limit(model)
    return all(one.images is None and len(one) <= limit for one in held)


def _row_limit(model: ScalarRewardModel) -> float:
    """Tokens of the longest conversation that can be computed in rows, 0 if none can."""
    if not packs(model):
        return 0
    text = _text_config(model)
    return min((int(limit) for name in _WINDOWS if (limit := getattr(text, name, None))), default=math.inf)


def pack(encoded: Sequence[Encoded], rows: Sequence[Row], pad_id: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token ids [B, T], mask [B, 1, T, T] to be added, positions [B, T] of rows, and where their conversations lie.

    The last, [M, longest conversation], counts in the flattened [B * T]; after a conversation's end it is 0.
    """
    widest = max(row.length for row in rows)
    longest = max(len(encoded[member]) for row in rows for member in row.members)
    ids, positions = np.full((len(rows), widest), pad_id), np.zeros((len(rows), widest), dtype=np.int64)
    # 0: what all share; k: of the k-th conversation; -1: padding. Few bits, as they are compared pair by pair.
    branches = np.full((len(rows), widest), -1, dtype=np.int32)
    places = np.zeros((sum(len(row.members) for row in rows), longest), dtype=np.int64)
    number = 0
    for line, row in enumerate(rows):
        first, begin = encoded[row.members[0]].ids, row.shared
        ids[line, :begin] = first[:begin]
        positions[line, :begin] = np.arange(begin)
        branches[line, :begin] = 0
        for branch, member in enumerate(row.members, 1):
            rest = encoded[member].ids[row.shared :]
            own = slice(begin, begin + len(rest))
            ids[line, own], branches[line, own] = rest, branch
            positions[line, own] = np.arange(row.shared, row.shared + len(rest))
            places[number, : row.shared + len(rest)] = line * widest + np.r_[: row.shared, own]
            begin, number = begin + len(rest), number + 1
    # As the kernel wants it in the end: it would translate a mask of booleans anew in every layer.
    never = torch.finfo(torch.float32).min
    told = torch.from_numpy(branches)
    apart = (told[:, :, None] != told[:, None, :]) & (told[:, None, :] != 0)
    mask = torch.full((widest, widest), never).triu(1).repeat(len(rows), 1, 1).masked_fill_(apart, never)
    return torch.from_numpy(ids), mask[:, None], torch.from_numpy(positions), torch.from_numpy(places)


def row_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    branched: bool = False,
    **options: Any,
) -> tuple[Tensor, Any]:
    """transformers' sdpa attention; for rows on a CPU in blocks of queries, each over the keys up to its end.

    The CPU's kernel computes what a mask forbids, and half of a causal one is.
    """
    if branched and attention_mask.dtype != query.dtype:
        attention_mask = attention_mask.to(query.dtype)
    if not branched or query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if options.get("softcap") is not None or options.get("position_bias") is not None:
        raise NotImplementedError("rows know plain scaled dot products only")
    seen = []
    for begin in range(0, query.shape[2], QUERY_BLOCK):
        end = min(begin + QUERY_BLOCK, query.shape[2])
        block = nn.functional.scaled_dot_product_attention(
            query[:, :, begin:end], key[:, :, :end], value[:, :, :end], attention_mask[:, :, begin:end, :end],
            dropout_p=options.get("dropout", 0.0), scale=options.get("scaling"), enable_gqa=True,
        )  # fmt: skip
        seen.append(block.transpose(1, 2))
    return torch.cat(seen, dim=1), None


ALL_ATTENTION_FUNCTIONS.register(ROW_ATTENTION, row_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ROW_ATTENTION, sdpa_mask)


def packs(model: ScalarRewardModel) -> bool:
    """Whether the backbone gives the plain states for conversations in rows; tried once on a few tokens.

    False for encoders that look both ways, recurrent layers, attention other than transformers' sdpa, and biases by
    distance in the row. Where True, the backbone keeps `row_attention`, which is sdpa for every other use. Windows,
    longer than the trial, are asked of the configuration (`takes_rows`).
    """
    if model.backbone not in _packs:
        _packs[model.backbone] = _tried(model)
    return _packs[model.backbone]


@torch.no_grad()
def _tried(model: ScalarRewardModel) -> bool:
    config = _text_config(model)
    before = getattr(config, "_attn_implementation", None)
    if before not in ("sdpa", ROW_ATTENTION):
        return False
    # By the tokenizer itself: a model may refuse what is longer than a few tokens. Few, to fit into any window.
    ids = model.tokenizer("One two three four five six seven eight nine ten.")["input_ids"][:12]
    half = len(ids) // 2
    talks = [Encoded(ids), Encoded(ids[:half] + ids[half:][::-1]), Encoded(ids[: half + 1])]
    trial = [join(talks, (0, 1, 2)), join(talks, (2,))]
    training = model.backbone.training
    model.backbone.eval()
    try:
        plain = [model.states(**model.batch([talks[member]]))[0] for row in trial for member in row.members]
        config._attn_implementation = ROW_ATTENTION
        tokens, mask, positions, places = (part.to(model.device) for part in pack(talks, trial, model.encoder.pad_id))
        states = model.states(tokens, mask, positions, branched=True).flatten(0, 1)
        right = all(_close(one, states[place[: len(one)]]) for one, place in zip(plain, places, strict=True))
    except Exception:  # noqa: BLE001 - whatever a backbone has against such rows, the plain way is left
        right = False
    finally:
        model.backbone.train(training)
    if not right:
        config._attn_implementation = before
    return right


def _close(plain: Tensor, joined: Tensor) -> bool:
    part = 1e-4 if plain.dtype == torch.float32 else 5e-2
    return bool(((joined.float() - plain.float()).abs() <= part * plain.float().abs().max()).all())


def _text_config(model: ScalarRewardModel) -> Any:
    return model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config


def _shown(planned: Sequence[list[Row]], bar: Any) -> Iterator[list[Row]]:
    if bar is None:
        yield from planned
        return
    with bar:
        for rows in planned:
            yield rows
            bar.advance(sum(len(row.members) for row in rows))

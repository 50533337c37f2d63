"""What a reward model makes of a conversation before its head reads it: frozen states, exact, kept on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.preferences import text_of
from guerdon.core.progress import progress as progress_bar
from guerdon.models.scalar.backbone import hidden_size
from guerdon.models.scalar.batching import Row, batches, default_budget, plan, pooled
from guerdon.models.scalar.head import RewardHead
from guerdon.models.scalar.model import Conversation, ScalarRewardModel
from guerdon.models.scalar.tokens import Encoded, escape_specials

__all__ = ["POOLS", "Representation", "RepresentationReader", "extract_representation"]

POOLS = ("last_nonpad", "mean", "own")
CHUNK = 256
"""Conversations that are read, and written to the cache, together."""


@dataclass(frozen=True)
class Representation:
    """States of N conversations.

    states:    float32 [N, d]; a row of NaN where there is none.
    problems:  row -> why it has none: too long, no text.
    """

    states: NDArray[np.float32]
    problems: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Rows that have a state, bool [N]."""
        known = np.ones(len(self), dtype=bool)
        known[list(self.problems)] = False
        return known


class RepresentationReader:
    """Reads states of a reward model's backbone; the reward head plays no part.

    model:     a `ScalarRewardModel`, its folder or hub id, or that of any transformers backbone or causal language
               model (then without its head: the baseline of a model that never saw preferences).
    layer:     -1: the last states, after the final norm. Others count as transformers' ``hidden_states`` do, 0 for the
               embeddings, and are read without sharing what conversations have in common.
    pool:      "last_nonpad": the state at the last real token, by the attention mask and not by token ids; "mean"; or
               "own": where the model's own head reads.
    template:  True puts messages through the model's chat template. False joins what they say without any separator,
               which is how MRMBench reads and is not how most reward models were trained.
    end:       append the tokenizer's end-of-sequence token where there is no template. UNVERIFIED beyond Llama-3, where
               the released script does so.
    cache:     folder of the states that were read before, written in parts, so that a reading that was stopped goes on.
               Their names hold the model's identity and all of these choices.

    A conversation that is too long for ``max_length`` has no state: MRMBench drops it, and a cut one is another text.
    A state does not depend on what shares its batch. Source: MRMBench (arXiv 2511.12464), probe input.
    Raises GuerdonError for an unknown pool, or a layer that the backbone does not have.
    """

    def __init__(
        self,
        model: ScalarRewardModel | str | Path,
        *,
        layer: int = -1,
        pool: str = "last_nonpad",
        template: bool = False,
        end: bool = False,
        max_length: int | None = None,
        cache: str | Path | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        if pool not in POOLS:
            raise unknown("pool", pool, POOLS)
        name = Path(model).name if isinstance(model, str | Path) else model.name
        if isinstance(model, str | Path):
            model = _load(str(model), device, trust_remote_code)
        layers = int(model.config.get_text_config().num_hidden_layers)
        if layer != -1 and not 0 <= layer <= layers:
            raise GuerdonError(f"layer {layer} is not -1 and not one of 0 to {layers} of this backbone")
        if end and template:
            raise GuerdonError("a chat template ends a conversation itself; end is for plain text")
        self.layer, self.pool, self.template, self.end = layer, pool, template, end
        self.model = _reading(model, pool, max_length)
        self.cache = Path(cache) if cache is not None else None
        told = [layer, pool, template, end, self.model.max_length]
        self.name = name
        self.identity = f"{self.name}@1#{config_hash([model.identity().rpartition('#')[2], *told])}"

    @property
    def width(self) -> int:
        """d, the width of a state."""
        return hidden_size(self.model.backbone)

    def __call__(self, conversations: Sequence[Conversation], *, progress: str | None = None) -> Representation:
        """States of conversations (messages, or text that was rendered already), in their order."""
        if isinstance(conversations, str):
            raise GuerdonError("representations are read of a list of conversations, got a single string")
        states = np.full((len(conversations), self.width), np.nan, np.float32)
        problems: dict[int, str] = {}
        starts = range(0, len(conversations), CHUNK)
        bar = progress_bar(len(conversations), progress) if progress is not None and len(conversations) else None
        for start in _entered(starts, bar):
            chunk = conversations[start : start + CHUNK]
            part = self._kept_or_read(chunk)
            states[start : start + len(chunk)] = part.states
            problems |= {start + row: reason for row, reason in part.problems.items()}
            if bar is not None:
                bar.advance(len(chunk))
        return Representation(states, problems)

    def _kept_or_read(self, chunk: Sequence[Conversation]) -> Representation:
        if self.cache is None:
            return self._read(chunk)
        told = json.dumps([self.identity, [one if isinstance(one, str) else list(one) for one in chunk]], default=str)
        path = self.cache / f"{self.identity.rpartition('#')[2]}-{config_hash(told)}.safetensors"
        if path.is_file():
            return _from_file(path, len(chunk))
        found = self._read(chunk)
        self.cache.mkdir(parents=True, exist_ok=True)
        # Written beside and moved, so that what stands under this name is whole.
        partial = path.with_suffix(".partial")
        save_file(
            {"states": found.states}, partial, {"problems": json.dumps({str(k): v for k, v in found.problems.items()})}
        )
        partial.replace(path)
        return found

    def _read(self, chunk: Sequence[Conversation]) -> Representation:
        encoded: list[Encoded] = []
        rows: list[int] = []
        problems: dict[int, str] = {}
        for row, conversation in enumerate(chunk):
            try:
                one = self.model.encode(self._rendered(conversation))
            except (GuerdonError, ValueError) as error:
                problems[row] = str(error)
                continue
            if len(one):
                encoded.append(one)
                rows.append(row)
            else:
                problems[row] = "there is no token to read at"
        states = np.full((len(chunk), self.width), np.nan, np.float32)
        if encoded:
            states[rows] = self._states(encoded)
        return Representation(states, problems)

    def _rendered(self, conversation: Conversation) -> Conversation:
        if self.template:
            return conversation
        if isinstance(conversation, str):
            text = conversation
        else:
            text = escape_specials("".join(text_of([turn]) for turn in conversation), self.model.encoder.specials)
        return text + (self.model.tokenizer.eos_token or "") if self.end else text

    @torch.no_grad()
    def _states(self, encoded: Sequence[Encoded]) -> NDArray[np.float32]:
        model, found = self.model, np.zeros((len(encoded), self.width), np.float32)
        training = model.training
        model.eval()
        try:
            for rows in plan(model, encoded) if self.layer == -1 else self._alone(encoded):
                members = [member for row in rows for member in row.members]
                states = (
                    pooled(model, encoded, rows) if self.layer == -1 else self._at_layer([encoded[m] for m in members])
                )
                found[members] = states.float().cpu().numpy()
        finally:
            model.train(training)
        return found

    def _alone(self, encoded: Sequence[Encoded]) -> Any:
        return batches(
            (Row((place,), len(one), len(one)) for place, one in enumerate(encoded)), default_budget(self.model)
        )

    def _at_layer(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        given = self.model.batch(encoded)
        extra = {"use_cache": False} if hasattr(self.model.config.get_text_config(), "use_cache") else {}
        states = self.model.backbone(**given, output_hidden_states=True, **extra).hidden_states[self.layer]
        return self.model.pool(states, given["attention_mask"], given["input_ids"])


def extract_representation(
    model: ScalarRewardModel | str | Path,
    conversations: Sequence[Conversation],
    *,
    layer: int = -1,
    pool: str = "last_nonpad",
    cache: str | Path | None = None,
    progress: str | None = None,
    **options: Any,
) -> Representation:
    """States of conversations, float32 [N, d]: `RepresentationReader` made and called once; its arguments."""
    reader = RepresentationReader(model, layer=layer, pool=pool, cache=cache, **options)
    return reader(conversations, progress=progress)


def _load(source: str, device: str | None, trust_remote_code: bool) -> ScalarRewardModel:
    """A reward model where the checkpoint is one, else its backbone under a head that nobody reads."""
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return ScalarRewardModel.from_pretrained(source, device=where, trust_remote_code=trust_remote_code)
    except GuerdonError as refused:
        try:
            return ScalarRewardModel.on_backbone(
                source, device=where, trust_remote_code=trust_remote_code, name=Path(source).name
            )
        except GuerdonError as error:
            raise GuerdonError(f"{source} is neither a reward model ({refused}) nor a backbone ({error})") from None


def _reading(model: ScalarRewardModel, pool: str, max_length: int | None) -> ScalarRewardModel:
    """The same backbone and tokenizer, read where ``pool`` says; what is too long is refused."""
    own = pool == "own"
    with torch.random.fork_rng(devices=[]):
        head = model.head if own else RewardHead(hidden_size(model.backbone))
    return ScalarRewardModel(
        model.backbone,
        model.tokenizer,
        head,
        pooling=model.pooling if own else {"last_nonpad": "last", "mean": "mean"}[pool],
        reward_token=model.encoder.reward_token if own else None,
        max_length=min(max_length or model.max_length, model.max_length),
        processor=model.processor,
        too_long="fail",
        unread_token=model.unread_token if own else None,
        name=model.name,
    ).to(model.device)


def _from_file(path: Path, rows: int) -> Representation:
    from safetensors import SafetensorError, safe_open

    try:
        states = load_file(path)["states"]
        with safe_open(path, framework="numpy") as file:
            problems = json.loads((file.metadata() or {}).get("problems", "{}"))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise GuerdonError(f"{path} is no file of representations; delete it ({error})") from None
    if states.shape[:1] != (rows,):
        raise GuerdonError(f"{path} holds {states.shape[0]} representations where {rows} belong; delete it")
    return Representation(states, {int(row): str(reason) for row, reason in problems.items()})


def _entered(items: Any, bar: Any) -> Any:
    if bar is None:
        yield from items
        return
    with bar:
        yield from items

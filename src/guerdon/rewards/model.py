"""Reward models as rewards: a conversation's scalar score behind the reward contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Message, as_messages
from guerdon.models.scalar.model import ScalarRewardModel

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    path: str | Path,
    *,
    name: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    max_length: int | None = None,
    too_long: str | None = None,
    system_prompt: str | None = None,
    pooling: str | None = None,
    reward_token: str | None = None,
    trust_remote_code: bool = False,
) -> ModelReward:
    """The reward of a saved reward model: a folder that guerdon wrote, a published checkpoint's folder, or a hub id.

    name:    default the folder's. device: default a GPU where there is one.
    dtype:   "float32", "bfloat16" or "float16"; default float32 on a CPU, elsewhere as stored.
    The others are those of `ScalarRewardModel.from_pretrained`, default what the checkpoint says.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise unknown("dtype", dtype, _DTYPES)
    chosen = {
        "max_length": max_length, "too_long": too_long, "system_prompt": system_prompt, "pooling": pooling,
        "reward_token": reward_token,
    }  # fmt: skip
    model = ScalarRewardModel.from_pretrained(
        path,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        dtype=_DTYPES[dtype] if dtype else None,
        trust_remote_code=trust_remote_code,
        **{key: value for key, value in chosen.items() if value is not None},
    )
    return ModelReward(model, name=name or Path(path).name)


class ModelReward:
    """The score of a reward model for each prompt with its completion; unbounded, comparable within a prompt only.

    model:  a `ScalarRewardModel`, its folder or hub id, or anything with its ``encode``, ``score_encoded``,
            ``report_cuts`` and ``identity``.
    name:   in logs; default the model's.

    Prompts are text (one user turn, or ``\\n\\nHuman:`` turns) or messages, completions text (one assistant turn) or
    messages; the model's own chat template makes the input, never token ids of the policy. A column ``images`` (or
    ``image``) holds the pictures that a prompt shows. A row that cannot be encoded (too long where that is refused, a
    refused system prompt) fails alone, as `Failed`.
    """

    groupwise = False
    range = None
    on_failure = "raise"
    version = "1"

    def __init__(self, model: Any, *, name: str | None = None) -> None:
        self.model = ScalarRewardModel.from_pretrained(model) if isinstance(model, str | Path) else model
        self.__name__ = name or getattr(self.model, "name", "reward_model")

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[Any]:
        """One float (or Failed) a completion."""
        count = len(completions)
        asked = [None] * count if prompts is None else prompts
        if isinstance(asked, str) or len(asked) != count:
            raise GuerdonError(f"reward {self.__name__!r}: {count} completions need {count} prompts")
        shown = columns.get("images", columns.get("image")) or [None] * count
        rows: list[Any] = []
        for prompt, completion, pictures in zip(asked, completions, shown, strict=True):
            try:
                rows.append(self.model.encode(_conversation(prompt, completion), _listed(pictures)))
            except (GuerdonError, ValueError) as error:
                rows.append(Failed(str(error), "unscorable"))
        encoded = [row for row in rows if not isinstance(row, Failed)]
        self.model.report_cuts(encoded)
        scores = iter(self.model.score_encoded(encoded).tolist())
        return [row if isinstance(row, Failed) else next(scores) for row in rows]

    def identity(self) -> str:
        """Name, version, and the hash of the model's settings and weights as they are now."""
        return f"{self.__name__}@{self.version}#{self.model.identity().rpartition('#')[2]}"


def _conversation(prompt: Any, completion: Any) -> list[Message]:
    # A completion is never read for turns: a policy that writes "Human:" does not get another turn by it.
    answer = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
    return [*(as_messages(prompt, "user") if prompt is not None else []), *answer]


def _listed(pictures: Any) -> Sequence[Any]:
    if pictures is None:
        return ()
    return list(pictures) if isinstance(pictures, list | tuple) else [pictures]

"""Judges, language models and encoders as a configuration names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guerdon.core.catalogue import load_reward
from guerdon.models.chat import ChatEndpoint, LocalChat
from guerdon.models.embedding import HashingEmbedder, TextEmbedder
from guerdon.models.text_judge import RewardJudge, TextJudge


def judge_of(spec: str) -> Any:
    """A pairwise judge from NAME=WHAT or WHAT.

    WHAT is a reward (a name of the catalogue, module:function, file.py:function, or a reward model's folder or hub id),
    "chat:FOLDER" or "chat:HUB_ID" for a language model, or "MODEL@https://..." for an OpenAI-compatible endpoint.
    """
    name, equals, what = spec.partition("=")
    if not equals or "/" in name or "@" in name:
        name, what = "", spec
    if what.startswith("chat:") or "@http" in what:
        return TextJudge(chat_of(what), name=name or None)
    return RewardJudge(load_reward(what), name=name or Path(what).name)


def chat_of(what: str) -> Any:
    """A language model that answers messages, from "MODEL@URL", "chat:FOLDER", a folder or a hub id."""
    model, at, url = what.partition("@")
    return ChatEndpoint(url, model) if at else LocalChat.from_pretrained(what.removeprefix("chat:"))


def embedder_of(source: str | None) -> Any:
    """A sentence encoder's folder or hub id; None: hashed character n-grams, which need no weights."""
    return HashingEmbedder() if source is None else TextEmbedder(source)

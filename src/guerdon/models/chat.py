"""Chat models that answer messages with text: an OpenAI-compatible endpoint, or a local transformers model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import torch

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Message
from guerdon.models.causal import load_causal
from guerdon.models.endpoint import post_json
from guerdon.models.scalar.tokens import PLAIN_TEMPLATE, escape_specials, special_strings

__all__ = ["Chat", "ChatEndpoint", "LocalChat"]


class Chat(Protocol):
    """Anything that answers messages. Optional attribute ``name`` (str, for logs)."""

    def __call__(
        self, messages: Sequence[Message], *, temperature: float | None = None, seed: int | None = None
    ) -> str | Failed:
        """The answer's text, or Failed with its cause; 0 is greedy, None the model's own temperature."""
        ...


class ChatEndpoint:
    """Any OpenAI-style ``{base_url}/chat/completions`` endpoint, asked with `post_json`: its failures and retries.

    attempts: tries in all; between them ``backoff`` * 2^k seconds. Failed is of kind "refused", "unavailable" or
    "unparseable" (an answer without text). ``api_key`` is sent as a bearer token and never stored or logged.
    Thread-safe.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        max_tokens: int = 512,
        temperature: float = 0.0,
        timeout: float = 120.0,
        attempts: int = 5,
        backoff: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise GuerdonError(f"base_url must start with http:// or https://; got {base_url!r}")
        if attempts < 1:
            raise GuerdonError(f"attempts must be at least 1; got {attempts}")
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.model, self.max_tokens, self.temperature = model, max_tokens, temperature
        self.attempts, self.backoff, self._sleep = attempts, backoff, sleep
        self.name = f"{model} at {urlsplit(base_url).hostname}"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(timeout=timeout, headers=headers)

    def __call__(
        self, messages: Sequence[Message], *, temperature: float | None = None, seed: int | None = None
    ) -> str | Failed:
        """The answer's text; ``seed`` is passed on, for endpoints that know it."""
        body: dict[str, Any] = {
            "model": self.model,
            "temperature": self.temperature if temperature is None else temperature,
            "max_tokens": self.max_tokens,
            "messages": list(messages),
            **({} if seed is None else {"seed": seed}),
        }
        found = post_json(self._client, self.url, body, attempts=self.attempts, backoff=self.backoff, sleep=self._sleep)
        if isinstance(found, Failed):
            return found
        try:
            text = found["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            return Failed(cause=f"{self.url} answered 200 without choices[0].message.content", kind="unparseable")
        # Endpoints return null for a refusal or an empty completion.
        return text if isinstance(text, str) else Failed(cause=f"{self.url} answered with no text", kind="unparseable")


class LocalChat:
    """A causal language model of transformers with its chat template, one conversation at a time.

    Control tokens spelt out in a message are broken by a space, so that no message can end its own turn. The same
    ``seed`` gives the same answer, and neither reads nor moves the process's random state. Not thread-safe.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        name: str | None = None,
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.name = name or getattr(model.config, "_name_or_path", "") or type(model).__name__
        self._specials = special_strings(tokenizer)

    @classmethod
    def from_pretrained(cls, name: str, *, dtype: Any = "auto", device: str | None = None, **options: Any) -> LocalChat:
        """From a hub id or folder, of which GuerdonError says what is wrong; ``options`` as in the constructor."""
        model, tokenizer = load_causal(name, dtype=dtype, device=device)
        return cls(model, tokenizer, **{"name": name, **options})

    @torch.no_grad()
    def __call__(
        self, messages: Sequence[Message], *, temperature: float | None = None, seed: int | None = None
    ) -> str | Failed:
        """The generated answer without special tokens; Failed (kind "too_long") for what exceeds the context."""
        warmth = self.temperature if temperature is None else temperature
        turns = [{**turn, "content": escape_specials(str(turn["content"]), self._specials)} for turn in messages]
        template = None if getattr(self.tokenizer, "chat_template", None) else PLAIN_TEMPLATE
        text = self.tokenizer.apply_chat_template(
            turns, chat_template=template, add_generation_prompt=True, tokenize=False
        )
        bos = self.tokenizer.bos_token
        if bos and text.startswith(bos) and self.tokenizer("a")["input_ids"][0] == self.tokenizer.bos_token_id:
            text = text.removeprefix(bos)  # the tokenizer adds its own
        inputs = self.tokenizer(text, return_tensors="pt", return_token_type_ids=False).to(self.model.device)
        asked, limit = inputs["input_ids"].shape[1], getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None and asked + self.max_new_tokens > limit:
            over = f"{asked} tokens and {self.max_new_tokens} to answer exceed the context of {limit}"
            return Failed(cause=f"{self.name}: {over}", kind="too_long")
        settings: dict[str, Any] = {"do_sample": True, "temperature": warmth} if warmth > 0 else {"do_sample": False}
        pad = self.tokenizer.pad_token_id
        settings["pad_token_id"] = self.tokenizer.eos_token_id if pad is None else pad
        with torch.random.fork_rng():
            if seed is not None:
                torch.manual_seed(seed)
            tokens = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, **settings)
        return self.tokenizer.decode(tokens[0, asked:], skip_special_tokens=True)

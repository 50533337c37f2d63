"""A policy discriminator behind a model server: SGLang, vLLM or LMDeploy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import httpx

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash
from guerdon.core.outcome import Failed
from guerdon.models.endpoint import post_json
from guerdon.models.scalar.reference import MODES, Limits, Mode, Text, check_rows, pack_reference_pair

Server = Literal["sglang", "vllm", "lmdeploy"]
SERVERS: tuple[str, ...] = get_args(Server)


class ServedDiscriminator:
    """`PolicyDiscriminator` by requests to a server that holds the weights; the same ``score``, but failures are rows.

    address:     ``http://host:port``. server: "sglang" (POST /classify), "vllm" or "lmdeploy" (POST /pooling).
    tokenizer:   of the model, for the token budgets. model: the name under which the server knows it.
    mode, limits: as in `PolicyDiscriminator`; give the server's own max_length.
    timeout:     seconds a request. attempts, backoff: see `endpoint.post_json`. batch_size: texts a request.

    No answer is ever made up and no batch given up as a whole: a request that stays without an answer gives `Failed`
    ("unavailable", "refused", "unparseable") for the rows that it carried, and one that is refused is sent again row by
    row, to find the row at fault. The proxy settings of the environment are not used.

    Source: InternLM/POLAR's client for paths and shapes, with 8 tries, 0.2 s between them and 30 s each; it returns
    nothing at all for a batch that fails.
    """

    def __init__(
        self,
        address: str,
        tokenizer: Any,
        *,
        server: Server = "sglang",
        model: str = "internlm/POLAR-7B",
        mode: Mode = "sft",
        limits: Limits | None = None,
        timeout: float = 30.0,
        attempts: int = 8,
        backoff: float = 0.2,
        batch_size: int = 64,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if urlsplit(address).scheme not in ("http", "https"):
            raise GuerdonError(f"address must start with http:// or https://; got {address!r}")
        if server not in SERVERS:
            raise unknown("server", server, SERVERS)
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if attempts < 1 or batch_size < 1 or not timeout > 0:
            given = f"{attempts}, {batch_size} and {timeout}"
            raise GuerdonError(f"attempts and batch_size must be at least 1 and timeout above 0; got {given}")
        self.url = address.rstrip("/") + ("/classify" if server == "sglang" else "/pooling")
        self.tokenizer, self.server, self.mode, self.limits = tokenizer, server, mode, limits or Limits()
        self.name = PurePosixPath(model).name
        self.batch_size = batch_size
        self._retry: dict[str, Any] = {"attempts": attempts, "backoff": backoff, "sleep": sleep}
        self._client = httpx.Client(timeout=timeout, trust_env=False)

    def score(
        self, prompts: Sequence[Text], references: Sequence[Text], candidates: Sequence[Text]
    ) -> list[float | Failed]:
        """One score or Failed a candidate.

        Raises GuerdonError for lists of different length, and where the server will answer no request at all (401, 403,
        404, 405: a wrong address or key).
        """
        check_rows(prompts, references, candidates)
        texts = [
            pack_reference_pair(self.tokenizer, *row, mode=self.mode, limits=self.limits).text
            for row in zip(prompts, references, candidates)
        ]
        found: list[float | Failed] = []
        for start in range(0, len(texts), self.batch_size):
            found += self._ask(texts[start : start + self.batch_size])
        return found

    def _ask(self, texts: list[str]) -> list[float | Failed]:
        body = {"model": self.name, "text": texts} if self.server == "sglang" else {"input": texts}
        answer = post_json(self._client, self.url, body, **self._retry)
        if isinstance(answer, Failed):
            if answer.kind == "refused" and len(texts) > 1:
                return [row for text in texts for row in self._ask([text])]
            return [answer] * len(texts)
        try:
            values = self._read(answer)
        except (KeyError, IndexError, TypeError, ValueError):
            return [Failed(f"{self.url} answered in another shape than {self.server}'s", "unparseable")] * len(texts)
        if len(values) != len(texts):
            cause = f"{self.url} answered {len(values)} scores to {len(texts)} texts"
            return [Failed(cause, "unparseable")] * len(texts)
        return [
            value if math.isfinite(value) else Failed(f"{self.url} answered the score {value}", "not_finite")
            for value in values
        ]

    def _read(self, answer: Any) -> list[float]:
        if self.server == "sglang":
            return [_number(row["embedding"][0]) for row in answer]
        rows = answer["data"]
        if all("index" in row for row in rows):
            rows = sorted(rows, key=lambda row: row["index"])
        if self.server == "lmdeploy":
            return [_number(row["data"]) for row in rows]
        return [_number(row["data"][-1][0]) for row in rows]

    def identity(self) -> str:
        """name@version#hash of what is asked where. The weights behind the address are not known, so not part of it."""
        return f"{self.name}@1#{config_hash([self.url, self.server, self.mode, self.limits.model_dump()])}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": self._client.timeout}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _client=httpx.Client(timeout=state["_client"], trust_env=False))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a score is a number, got {type(value).__name__}")
    return float(value)

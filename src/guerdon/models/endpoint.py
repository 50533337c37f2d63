"""One JSON request to a model server: a time limit, a bounded number of tries, and a typed failure, never silence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed

LONGEST_WAIT = 60.0


def post_json(
    client: httpx.Client,
    url: str,
    body: dict[str, Any],
    *,
    attempts: int = 5,
    backoff: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Any | Failed:
    """What ``url`` answers to ``body``, read as JSON, or Failed saying why there is no answer.

    Only 429, 5xx, and errors of the connection (a time limit among them) are tried again: ``attempts`` times in all,
    waiting backoff * 2^k seconds, or as long as Retry-After says, at most a minute.

    Returns:
        The JSON value; else Failed of kind "unavailable" (no tries left), "refused" (another 4xx: the request itself is
        at fault), or "unparseable" (200 without JSON).
    Raises:
        GuerdonError: 401, 403, 404, 405 or a redirect, which no other request to this address could better.
    """
    failure = Failed(f"{url} was not asked", "unavailable")
    for attempt in range(attempts):
        wait = backoff * 2.0**attempt
        try:
            answer = client.post(url, json=body)
        except httpx.TransportError as error:
            failure = Failed(f"{url}: {type(error).__name__}: {error}", "unavailable")
        else:
            if answer.status_code == 200:
                try:
                    return answer.json()
                except ValueError:
                    return Failed(f"{url} answered 200 with something that is not JSON", "unparseable")
            said = f"{url} answered {answer.status_code}: {' '.join(answer.text.split())[:200]}"
            if answer.status_code in (401, 403, 404, 405) or answer.status_code < 400:
                raise GuerdonError(said)
            if answer.status_code != 429 and answer.status_code < 500:
                return Failed(said, "refused")
            failure = Failed(said, "unavailable")
            asked = answer.headers.get("retry-after", "")
            wait = min(LONGEST_WAIT, float(asked)) if asked.isdigit() else wait
        if attempt + 1 < attempts:
            sleep(wait)
    return Failed(f"{failure.cause} (after {attempts} attempts)", failure.kind)

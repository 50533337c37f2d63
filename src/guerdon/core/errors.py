"""The one error a user sees, and the search for the name they meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GuerdonError(Exception):
    """A mistake in the input, said in one sentence that names the file, row or key and the nearest valid choice."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that looks most like ``name``, or None where nothing comes close.

    Case, ``-`` and ``_`` are ignored, so that ``Group_Size`` finds ``group-size``.
    """

    def plain(text: str) -> str:
        return str(text).lower().replace("-", "_")

    by_plain: dict[str, str] = {}
    for choice in choices:
        by_plain.setdefault(plain(choice), choice)
    close = difflib.get_close_matches(plain(name), list(by_plain), n=1, cutoff=0.5)
    if close:
        return by_plain[close[0]]
    # difflib rates a short word inside a long one low ("lr" in "lr_policy"); a prefix is still a good guess.
    starts = [key for key in by_plain if plain(name) and (key.startswith(plain(name)) or plain(name).startswith(key))]
    return by_plain[min(starts, key=len)] if starts else None


def unknown(kind: str, name: str, choices: Iterable[str]) -> GuerdonError:
    """The error for a name that is not among ``choices``: it names the nearest choice and lists them all.

    ``raise unknown("reward", "clipscor", rewards())`` says
    ``unknown reward 'clipscor'; did you mean 'clipscore'? choices: clipscore, pickscore``.
    """
    listed = sorted(str(choice) for choice in choices)
    guess = nearest(name, listed)
    hint = f" did you mean {guess!r}?" if guess is not None else ""
    return GuerdonError(f"unknown {kind} {name!r};{hint} choices: {', '.join(listed) if listed else '(none)'}")

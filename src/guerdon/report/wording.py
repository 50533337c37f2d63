"""Numbers as a person reads them; every function answers "–" for a number that is not there."""

from __future__ import annotations

from typing import Any

from guerdon.report.record import number

NONE = "–"
_MINUS = "\N{MINUS SIGN}"


def plain(value: Any, digits: int = 2) -> str:
    """``0.3149`` -> ``0.31``; small or large numbers keep three significant digits (``0.00042``, ``12300``)."""
    finite = number(value)
    if finite is None:
        return NONE
    if finite != 0 and abs(finite) < 0.5 * 10**-digits:
        text = f"{finite:.2g}"
    elif abs(finite) >= 1000:
        text = f"{finite:,.0f}"
    else:
        text = f"{finite:.{digits}f}"
    return text.replace("-", _MINUS)


def percent(value: Any) -> str:
    """``0.624`` -> ``62%``."""
    finite = number(value)
    return NONE if finite is None else f"{100 * finite:.0f}%".replace("-", _MINUS)


def signed(value: Any, digits: int = 2) -> str:
    """``0.312`` -> ``+0.31``."""
    finite = number(value)
    return NONE if finite is None else f"{finite:+.{digits}f}".replace("-", _MINUS)


def signed_percent(value: Any) -> str:
    """``-0.042`` -> ``−4%``."""
    finite = number(value)
    return NONE if finite is None else f"{100 * finite:+.0f}%".replace("-", _MINUS)


def duration(seconds: Any) -> str:
    """``682.0`` -> ``11 min 22 s``."""
    finite = number(seconds)
    if finite is None or finite < 0:
        return NONE
    if finite < 10:
        return f"{finite:.1f} s"
    whole = round(finite)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def listed(names: list[str]) -> str:
    """``["a", "b", "c"]`` -> ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def words(key: str) -> str:
    """``dark_share`` -> ``dark share``."""
    return key.replace("_", " ").strip()


def cell(value: Any) -> str:
    """A verdict's target or value: numbers are shortened, text is kept."""
    return plain(value, 3) if number(value) is not None else NONE if value is None else str(value)

"""The reward contract: what a reward is, what it declares about itself, and who it is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash, declared, identity, name_of

__all__ = [
    "FailurePolicy", "Reward", "check_policy", "check_range", "config_hash", "identity", "is_async", "is_groupwise",
    "name_of", "policy_of", "range_of", "reward",
]  # fmt: skip

FailurePolicy = Literal["raise", "drop_sample", "drop_group"] | float
POLICIES = ("raise", "drop_sample", "drop_group")
F = TypeVar("F", bound=Callable[..., Any])


@runtime_checkable
class Reward(Protocol):
    """``reward(prompts, completions, **columns) -> list[float | None]``, called with keywords; may be async.

    One entry a completion: a finite number, None where the reward does not apply, or ``Failed``. A reward may declare,
    as attributes: ``groupwise``, ``range``, ``on_failure``, ``version``, ``identity()``; without them it is pointwise,
    unbounded, and raises on a failure. ``columns`` are the dataset's own, one entry a completion.
    """

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any: ...


def reward(
    function: F | None = None,
    *,
    name: str | None = None,
    groupwise: bool = False,
    range: tuple[float, float] | None = None,
    on_failure: FailurePolicy = "raise",
    version: str = "1",
) -> Any:
    """Declare a function to be a reward: ``@reward`` or ``@reward(name="brevity", range=(0, 1))``.

    The function itself comes back with ``__name__``, ``groupwise``, ``range``, ``on_failure`` and ``version`` set.

    name:        the name in logs and errors; default the function's own.
    groupwise:   True where a score depends on the other completions of the same prompt; it then sees one whole group
                 a call.
    range:       (low, high) that every score must lie in, ends included.
    on_failure:  "raise", "drop_sample", "drop_group", or the number that a failed row gets.
    version:     raise it when the scores change.
    """

    def declare(target: F) -> F:
        marked: Any = target
        marked.__name__ = name or target.__name__
        marked.groupwise = bool(groupwise)
        marked.range = check_range(range, marked.__name__)
        marked.on_failure = check_policy(on_failure, marked.__name__)
        marked.version = str(version)
        return target

    return declare if function is None else declare(function)


def check_policy(policy: Any, name: str) -> FailurePolicy:
    """The failure policy if it is one: "raise", "drop_sample", "drop_group" or a finite number; else GuerdonError."""
    if isinstance(policy, str) and policy in POLICIES:
        return policy  # type: ignore[return-value]
    if isinstance(policy, int | float) and not isinstance(policy, bool) and abs(policy) < float("inf"):
        return float(policy)
    raise GuerdonError(f"reward {name!r}: on_failure must be one of {', '.join(POLICIES)} or a number, got {policy!r}")


def check_range(bounds: Any, name: str) -> tuple[float, float] | None:
    """(low, high) as floats with low < high, or None; else GuerdonError."""
    if bounds is None:
        return None
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise GuerdonError(f"reward {name!r}: range must be (low, high), got {bounds!r}") from None
    if not low < high:
        raise GuerdonError(f"reward {name!r}: range must have low < high, got {bounds!r}")
    return low, high


def is_groupwise(reward: Any) -> bool:
    """Whether the reward declares that a score depends on the whole group."""
    return bool(declared(reward, "groupwise", False))


def range_of(reward: Any) -> tuple[float, float] | None:
    """The range that the reward declares, or None."""
    return check_range(declared(reward, "range", None), name_of(reward))


def policy_of(reward: Any) -> FailurePolicy:
    """The failure policy that the reward declares; "raise" where it declares none."""
    return check_policy(declared(reward, "on_failure", "raise"), name_of(reward))


def is_async(reward: Any) -> bool:
    """Whether a call gives an awaitable: async functions, partials of them, and objects with an async ``__call__``.

    A wrapper whose plain ``__call__`` passes an awaitable on says so with the attribute ``asynchronous``.
    """
    if declared(reward, "asynchronous", False):
        return True
    while isinstance(reward, functools.partial):
        reward = reward.func
    return inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(type(reward).__call__)

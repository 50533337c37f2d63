"""Rewards that ask the policy itself: how the policy reaches them, however deep they lie in other rewards."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

__all__ = ["PolicyBound", "bind_policy", "policy_bound"]


@runtime_checkable
class PolicyBound(Protocol):
    """A reward that needs the policy which wrote the completions, as it is at that moment."""

    def bind_policy(
        self, model: Any, tokenizer: Any, *, temperature: float = 1.0, template: Mapping[str, Any] | None = None
    ) -> None:
        """``model`` is kept by reference, so that its weights are always the current ones.

        temperature: of the sampling. template: further arguments of the chat template.
        """
        ...


def policy_bound(*rewards: Any) -> list[PolicyBound]:
    """The rewards among ``rewards``, and inside those made of rewards, that need the policy; each once."""
    found: dict[int, PolicyBound] = {}
    seen: set[int] = set()
    for reward in rewards:
        for one in _within(reward, seen):
            if isinstance(one, PolicyBound):
                found[id(one)] = one
    return list(found.values())


def bind_policy(
    rewards: Any, model: Any, tokenizer: Any, *, temperature: float = 1.0, template: Mapping[str, Any] | None = None
) -> int:
    """Hand the policy to every reward of ``rewards`` (one, or a list) that needs it; how many there were."""
    bound = policy_bound(*(rewards if isinstance(rewards, list | tuple) else [rewards]))
    for one in bound:
        one.bind_policy(model, tokenizer, temperature=temperature, template=template)
    return len(bound)


def _within(reward: Any, seen: set[int]) -> Iterator[Any]:
    while isinstance(reward, functools.partial):
        reward = reward.func
    if reward is None or id(reward) in seen:
        return
    seen.add(id(reward))
    yield reward
    parts = getattr(reward, "parts", None)
    if isinstance(parts, Mapping):
        for part in parts.values():
            yield from _within(part, seen)
    for name in ("reward", "base", "scorer"):
        inner = getattr(reward, name, None)
        if callable(inner):
            yield from _within(inner, seen)

"""Rewards that ask the policy itself: how the policy reaches them, however deep they lie in other rewards."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError

__all__ = ["AsksPolicy", "PolicyBound", "bind_policy", "policy_bound"]


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


class AsksPolicy:
    """What rewards that ask the policy share: holding it, and the completions as its token ids."""

    __name__: str
    _policy: tuple[Any, Any, float, dict[str, Any]] | None = None

    def bind_policy(
        self, model: Any, tokenizer: Any, *, temperature: float = 1.0, template: Mapping[str, Any] | None = None
    ) -> None:
        """The policy to ask from now on; see `PolicyBound`."""
        self._policy = (model, tokenizer, float(temperature), dict(template or {}))

    def bound(self) -> tuple[Any, Any, float, dict[str, Any]]:
        """(model, tokenizer, temperature, template arguments). Raises GuerdonError without a policy."""
        if self._policy is None:
            raise GuerdonError(
                f"reward {self.__name__!r} asks the policy itself, which it has not been given; add "
                "callbacks=[PolicyLink(reward)] to the trainer, or call bind_policy(model, tokenizer)"
            )
        return self._policy

    def ids_of(self, prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any) -> list[list[int]]:
        """Token ids of the completions: the trainer's own where it gave them, else the texts tokenised again.

        Raises GuerdonError for token ids that are not one list a completion.
        """
        tokenizer = self.bound()[1]
        if completion_ids is None:
            texts = [completion_text(one) for one in completions]
            ids = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        else:
            ids = [[int(token) for token in row] for row in completion_ids]
        if not len(prompts) == len(ids) == len(completions):
            counts = f"{len(prompts)} prompts, {len(completions)} completions, {len(ids)} lists of token ids"
            raise GuerdonError(f"reward {self.__name__!r}: one of each is needed, got {counts}")
        return ids


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

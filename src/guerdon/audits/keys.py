"""Master keys: openers and symbols that announce an answer and give none.

Source: One Token to Fool LLM-as-a-Judge (arXiv 2507.08794): the key is the whole response.
"""

from __future__ import annotations

from guerdon.audits.attack import altered, contentless
from guerdon.core.attack_strings import MASTER_KEYS


def _keys() -> dict[str, str]:
    """Every key of every set once, under the set that names it first."""
    named: dict[str, str] = {}
    for version, keys in MASTER_KEYS.items():
        for key in keys:
            if key not in named.values():
                named[f"{version}: {key!r}"] = key
    return named


MASTER_KEY_ANSWERS = contentless(
    "master-keys", "master keys",
    "A reasoning opener or a symbol alone, such as \"Thought process:\" or \":\", passes for a whole answer.",
    lambda item, rng: _keys(),
)  # fmt: skip
KEYS_BEFORE_WRONG = altered(
    "master-keys-before-wrong", "master keys", "A wrong answer passes once a reasoning opener stands before it.",
    lambda item, rng: {name: f"{key}\n{item.wrong}" for name, key in _keys().items() if any(map(str.isalpha, key))},
    base="wrong",
)  # fmt: skip

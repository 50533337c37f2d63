"""A reference reward model as a reward: completions are scored against the answers in a column of the data."""

from __future__ import annotations

from typing import Any

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash, identity
from guerdon.core.outcome import Failed
from guerdon.core.preferences import as_messages, text_of
from guerdon.core.reward import FailurePolicy, check_policy
from guerdon.models.scalar.reference import ReferenceRewardModel, without_thinking


class ReferenceReward:
    """r(prompt, reference, completion); the range of the model, comparable within a prompt only.

    model:           anything with ``score(prompts, references, candidates)``: `PolicyDiscriminator`,
                     `ServedDiscriminator`, or an adapter of `reference_adapters`.
    column:          of the references: text or messages. A row without one (None) gets None, "does not apply"; a blank
                     one is a failure.
    strip_thinking:  score what follows a completion's ``<think>`` block, not the block.
    on_failure:      what a failed row does; see `guerdon.core.reward`.

    Source: reinforcement fine-tuning of POLAR (arXiv 2507.05197), section 4.3.
    """

    groupwise = False
    range = None
    version = "1"

    def __init__(
        self,
        model: ReferenceRewardModel,
        *,
        column: str = "reference",
        strip_thinking: bool = True,
        on_failure: FailurePolicy = "raise",
        name: str = "reference_reward",
    ) -> None:
        if not isinstance(model, ReferenceRewardModel):
            raise GuerdonError(f"{type(model).__name__} has no score(prompts, references, candidates)")
        self.model, self.column, self.strip_thinking = model, column, strip_thinking
        self.on_failure = check_policy(on_failure, name)
        self.__name__ = name

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[Any]:
        """One float, None or Failed a completion. Raises GuerdonError where the column of references is missing."""
        if self.column not in columns:
            known = ", ".join(sorted(columns)) or "(none)"
            raise GuerdonError(f"reward {self.__name__!r} needs the column {self.column!r}; columns: {known}")
        references = columns[self.column]
        found: list[Any] = [None] * len(completions)
        rows = []
        for row, reference in enumerate(references):
            if reference is not None and not text_of(reference).strip():
                found[row] = Failed("the reference is empty", "unscorable")
            elif reference is not None:
                rows.append(row)
        if not rows:
            return found
        asked = [_prompt(prompts[row]) for row in rows]
        made = [without_thinking(completions[row]) if self.strip_thinking else completions[row] for row in rows]
        scores = self.model.score(asked, [references[row] for row in rows], made)
        for row, score in zip(rows, scores.tolist() if hasattr(scores, "tolist") else scores, strict=True):
            found[row] = score
        return found

    def identity(self) -> str:
        """name@version#hash of the model and of what it is shown."""
        return f"{self.__name__}@{self.version}#{config_hash([identity(self.model), self.column, self.strip_thinking])}"


def _prompt(prompt: Any) -> Any:
    return as_messages(prompt, "user") if prompt is not None else ""

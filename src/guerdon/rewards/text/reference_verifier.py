"""A language model that compares with a reference answer, as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from guerdon.core.answer import completion_text
from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.outcome import Failed
from guerdon.core.preferences import as_messages, text_of
from guerdon.models.reference_verifier import Mode, ReferenceVerifier

__all__ = ["Pays", "ReferenceVerifierReward", "load"]

Pays = Literal["verdict", "probability"]


def load(
    path: str | Path,
    *,
    template: str | None = None,
    include_question: bool | None = None,
    mode: Mode | None = None,
    pays: Pays = "verdict",
    threshold: float = 0.5,
    device: str | None = None,
    name: str | None = None,
) -> ReferenceVerifierReward:
    """The reward of a verifier's folder (as `guerdon run one-token-to-fool` saves it) or of a causal language model.

    template, include_question, mode: of `ReferenceVerifier`; default what the folder says.
    """
    asked = {"template": template, "include_question": include_question, "mode": mode, "name": name}
    given = {key: value for key, value in asked.items() if value is not None}
    verifier = ReferenceVerifier.from_pretrained(path, device=device, **given)
    return ReferenceVerifierReward(verifier, pays=pays, threshold=threshold)


class ReferenceVerifierReward:
    """1.0 where the verifier says that a completion gives its row's ``solution``, else 0.0; or P(YES) itself.

    verifier:   a `ReferenceVerifier`, or anything with its ``score``, ``name`` and ``identity``.
    pays:       "verdict": 1.0 where P(YES) reaches ``threshold``; "probability": P(YES), which a policy can climb below
                the threshold, and which shows near misses.

    A row without a solution gets None (does not apply); a reply that is no verdict, or a case too long for the model,
    fails alone. Raises GuerdonError for a column ``solution`` that is missing or of another length.
    Source: One Token to Fool LLM-as-a-Judge (arXiv 2507.08794): R = 1 for YES, else 0.
    """

    groupwise = False
    range = (0.0, 1.0)
    on_failure = "drop_sample"
    version = "1"

    def __init__(self, verifier: ReferenceVerifier, *, pays: Pays = "verdict", threshold: float = 0.5) -> None:
        if pays not in get_args(Pays):
            raise unknown("way to pay", pays, get_args(Pays))
        if not 0 < threshold < 1:
            raise GuerdonError(f"the threshold of a verdict must lie in (0, 1), got {threshold}")
        self.verifier, self.pays, self.threshold = verifier, pays, threshold
        self.__name__ = verifier.name

    def __call__(
        self, prompts: Any, completions: Sequence[Any], *, solution: Any = None, **columns: Any
    ) -> list[float | None | Failed]:
        """One outcome a completion."""
        count = len(completions)
        if solution is None or isinstance(solution, str) or len(solution) != count:
            raise GuerdonError(f"reward {self.__name__!r} needs the column 'solution', one entry a completion")
        asked = [None] * count if prompts is None else prompts
        if isinstance(asked, str) or len(asked) != count:
            raise GuerdonError(f"reward {self.__name__!r}: {count} completions need {count} prompts")
        kept = [row for row, _ in enumerate(completions) if solution[row] is not None]
        said = self.verifier.score(
            [_question(asked[row]) for row in kept],
            [_reference(solution[row]) for row in kept],
            [completion_text(completions[row]) for row in kept],
        )
        found: list[float | None | Failed] = [None] * count
        for row, value in zip(kept, said, strict=True):
            if isinstance(value, Failed) or self.pays == "probability":
                found[row] = value
            else:
                found[row] = float(value >= self.threshold)
        return found

    def identity(self) -> str:
        """Name, version, and a hash of the verifier, the threshold and what is paid."""
        weights = self.verifier.identity().rpartition("#")[2]
        return f"{self.__name__}@{self.version}#{weights}-{self.pays}-{self.threshold:g}"


def _question(prompt: Any) -> str:
    return "" if prompt is None else text_of(as_messages(prompt, "user"))


def _reference(solution: Any) -> str:
    return completion_text(solution) if isinstance(solution, str | list | dict) else str(solution)

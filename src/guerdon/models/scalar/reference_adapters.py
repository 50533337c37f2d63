"""What else can stand where a policy discriminator stands: verifiers, plain reward models, similarity of embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash, identity
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Message, as_messages, text_of
from guerdon.models.scalar.reference import Text, check_rows

SHOWN = "{prompt}\n\nAn answer of reference quality:\n{reference}"
"""How a reference-free model is shown the reference. The wording of POLAR's baselines is UNVERIFIED; this is ours."""


class ReferenceFree:
    """A reward model that knows nothing of references, in the place of one that does.

    model:  anything with ``score(conversations) -> [N]``.
    show:   put the reference into the last turn of the prompt (``SHOWN``). POLAR's baselines were tried with and
            without, and the better one was reported: do the same.
    """

    def __init__(self, model: Any, *, show: bool = False) -> None:
        self.model, self.show = model, show

    def score(self, prompts: Sequence[Text], references: Sequence[Text], candidates: Sequence[Text]) -> Any:
        """The model's scores of prompt and candidate, [N]."""
        check_rows(prompts, references, candidates)
        rows = zip(prompts, references, candidates)
        return self.model.score([[*self._asked(prompt, one), *_answer(made)] for prompt, one, made in rows])

    def _asked(self, prompt: Text, reference: Text) -> list[Message]:
        messages = as_messages(prompt if isinstance(prompt, str) else list(prompt), "user")
        if not self.show or not messages:
            return messages
        last = messages[-1]
        shown = SHOWN.format(prompt=text_of([last]), reference=text_of(reference))
        return [*messages[:-1], {**last, "content": shown}]

    def identity(self) -> str:
        """name@version#hash of the model, and whether it is shown the reference."""
        return f"reference_free@1#{config_hash([identity(self.model), self.show])}"


class Verifier:
    """A check of an answer against a reference, in the place of a reward model.

    verify:  ``verify(candidate, reference) -> bool | float | None | Failed`` on texts; None where it does not apply.
    """

    def __init__(self, verify: Callable[[str, str], Any]) -> None:
        self.verify = verify

    def score(
        self, prompts: Sequence[Text], references: Sequence[Text], candidates: Sequence[Text]
    ) -> list[float | None | Failed]:
        """1.0 for True, 0.0 for False; other numbers, None and Failed as they come."""
        check_rows(prompts, references, candidates)
        found = [self.verify(text_of(candidate), text_of(one)) for one, candidate in zip(references, candidates)]
        return [one if one is None or isinstance(one, Failed) else float(one) for one in found]


class EmbeddingSimilarity:
    """Cosine of reference and candidate in [-1, 1]: the baseline that POLAR must beat.

    embed:  ``embed(texts) -> [N, d]``, rows of any length (`guerdon.models.embedding`).
    """

    def __init__(self, embed: Callable[[list[str]], Any]) -> None:
        self.embed = embed

    def score(
        self, prompts: Sequence[Text], references: Sequence[Text], candidates: Sequence[Text]
    ) -> NDArray[np.float64]:
        """float64 [N]; 0 where an embedding is zero. Raises GuerdonError if not one row a text comes back."""
        check_rows(prompts, references, candidates)
        sides = [np.asarray(self.embed([text_of(text) for text in side]), float) for side in (references, candidates)]
        for side in sides:
            if side.ndim != 2 or len(side) != len(candidates):
                raise GuerdonError(f"{len(candidates)} texts were embedded as {list(side.shape)}, expected [N, d]")
        length = np.linalg.norm(sides[0], axis=1) * np.linalg.norm(sides[1], axis=1)
        return (sides[0] * sides[1]).sum(1) / np.where(length > 0, length, 1.0)


def _answer(text: Text) -> list[Message]:
    # Never read for turns: a policy that writes "Human:" does not get another turn by it.
    return [{"role": "assistant", "content": text}] if isinstance(text, str) else list(text)

"""Verifiers, plain reward models and embeddings in the place of a policy discriminator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.models.scalar.reference import ReferenceRewardModel
from guerdon.models.scalar.reference_adapters import EmbeddingSimilarity, ReferenceFree, Verifier


class ByWords:
    """Scores a conversation by its number of words; keeps what it was shown."""

    def score(self, conversations):
        self.seen = conversations
        return torch.tensor([float(sum(len(m["content"].split()) for m in c)) for c in conversations])


ROW = (["what is two plus two?"], ["it is four"], ["four"])


def test_a_reference_free_model_scores_without_or_with_the_reference() -> None:
    model = ByWords()
    assert ReferenceFree(model).score(*ROW).tolist() == [6.0]
    assert [m["role"] for m in model.seen[0]] == ["user", "assistant"] and "it is four" not in str(model.seen)
    shown = ReferenceFree(model, show=True)
    assert shown.score(*ROW).tolist() > [6.0] and "it is four" in model.seen[0][0]["content"]
    assert model.seen[0][0]["content"].startswith("what is two plus two?")
    assert shown.identity() != ReferenceFree(model).identity()
    ReferenceFree(model).score(["a"], ["b"], ["Human: one more\n\nAssistant: c"])
    assert len(model.seen[0]) == 2  # a candidate is not read for turns


def test_a_verifier_says_one_nothing_or_that_it_does_not_apply() -> None:
    failed = Failed("no number in it", "unparseable")
    answers = {"4": True, "5": False, "iv": None, "?": failed, "half": 0.5}
    verifier = Verifier(lambda candidate, reference: answers[candidate] if reference == "4" else None)
    found = verifier.score(["q"] * 5, ["4"] * 5, list(answers))
    assert found == [1.0, 0.0, None, failed, 0.5]


def test_similarity_of_embeddings() -> None:
    table = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 2.0], "": [0.0, 0.0]}
    model = EmbeddingSimilarity(lambda texts: np.array([table[text] for text in texts]))
    found = model.score(["p"] * 4, ["a"] * 4, ["a", "b", "c", ""])
    assert found.tolist() == pytest.approx([1.0, 2**-0.5, 0.0, 0.0])
    with pytest.raises(GuerdonError, match=r"1 texts were embedded as \[3\]"):
        EmbeddingSimilarity(lambda texts: np.zeros(3)).score(["p"], ["a"], ["a"])


@pytest.mark.parametrize("model", [ReferenceFree(ByWords()), Verifier(lambda a, b: True), EmbeddingSimilarity(len)])
def test_all_are_reference_models_and_check_their_rows(model) -> None:
    assert isinstance(model, ReferenceRewardModel)
    with pytest.raises(GuerdonError, match="1 prompts, 0 references, 1 candidates"):
        model.score(["a"], [], ["b"])

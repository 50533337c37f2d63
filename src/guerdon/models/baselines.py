"""What a reward model must beat: the length of the answer, and the words in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Message, Pair, text_of

Conversation = Sequence[Message] | str


def answer_of(conversation: Conversation) -> str:
    """The text of the turns after the prompt: the assistant's at the end (all of it, where it is a string)."""
    if isinstance(conversation, str):
        return conversation
    first = len(conversation)
    while first and conversation[first - 1].get("role") == "assistant":
        first -= 1
    return text_of(conversation[first:])


class LengthBaseline:
    """r = weight * log(1 + characters of the answer), the weight fitted to pairs (its sign: which length is liked).

    Before `fit` the weight is 1: longer is better. Nothing else is read, so whatever a reward model adds to its
    accuracy is not length.
    """

    name = "length"

    def __init__(self) -> None:
        self.weight = 1.0

    def fit(self, pairs: Sequence[Pair]) -> LengthBaseline:
        """The logistic weight of the log-length difference on ``pairs``. Raises GuerdonError without pairs."""
        _check(pairs)
        gaps = np.array([_length(pair.chosen) - _length(pair.rejected) for pair in pairs])[:, None]
        self.weight = float(linear_bradley_terry(gaps)[0])
        return self

    def score(self, conversations: Sequence[Conversation], **ignored: Any) -> Tensor:
        """Scores of conversations -> float32 [N]."""
        return tensor([self.weight * _length(one) for one in conversations])


class BagOfWords:
    """r = w . tf-idf(words and word pairs of the answer), w the Bradley-Terry maximum on pairs with an L2 penalty.

    The Bradley-Terry likelihood of a linear score is a logistic regression on the differences of the features, without
    an intercept; each pair is given in both directions, so that neither side is preferred.

    inverse_penalty:  scikit-learn's C. max_features: the most frequent words and word pairs that are kept.
    """

    name = "bag of words"

    def __init__(self, *, inverse_penalty: float = 1.0, max_features: int = 20_000) -> None:
        self.inverse_penalty = inverse_penalty
        self.words = TfidfVectorizer(ngram_range=(1, 2), max_features=max_features, sublinear_tf=True)
        self.weights: np.ndarray | None = None

    def fit(self, pairs: Sequence[Pair]) -> BagOfWords:
        """Vocabulary and weights from ``pairs``. Raises GuerdonError without pairs or without any words in them."""
        _check(pairs)
        texts = [text_of(answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
        try:
            features = self.words.fit_transform(texts)
        except ValueError as error:
            raise GuerdonError(f"a bag of words needs words: {error}") from error
        self.weights = linear_bradley_terry(features[0::2] - features[1::2], self.inverse_penalty)
        return self

    def score(self, conversations: Sequence[Conversation], **ignored: Any) -> Tensor:
        """Scores of conversations -> float32 [N]. Raises GuerdonError before `fit`."""
        if self.weights is None:
            raise GuerdonError("a bag of words must be fitted to pairs before it scores")
        if not len(conversations):
            return tensor([])
        found = self.words.transform([answer_of(one) for one in conversations]) @ self.weights
        return tensor(np.asarray(found, dtype=np.float32))


def _length(answer: Conversation) -> float:
    return float(np.log1p(len(answer_of(answer))))


def linear_bradley_terry(gaps: Any, inverse_penalty: float = 1.0) -> np.ndarray:
    """Weights that make chosen beat rejected: differences of features [N, F] -> [F]."""
    from scipy.sparse import issparse, vstack

    both = vstack([gaps, -gaps]) if issparse(gaps) else np.concatenate([gaps, -gaps])
    labels = np.repeat([1, 0], gaps.shape[0])
    return LogisticRegression(C=inverse_penalty, fit_intercept=False, max_iter=1000).fit(both, labels).coef_[0]


def _check(pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise GuerdonError("a baseline needs at least one pair to be fitted to")

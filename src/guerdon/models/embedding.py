"""Texts as unit vectors: by a sentence encoder, or by hashed character n-grams where there are no weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError
from guerdon.core.identity import config_hash


class TextEmbedder:
    """Mean-pooled last states of a transformers encoder, one unit row a text: ``embedder(texts) -> float32 [N, d]``.

    path:        a folder or hub id.
    max_length:  tokens; longer texts lose their end. batch_size: texts a forward pass; it changes no embedding beyond
                 rounding.

    Raises GuerdonError where the encoder cannot be loaded.
    """

    def __init__(self, path: str | Path, *, max_length: int = 512, batch_size: int = 32, device: str = "cpu") -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            self.model = AutoModel.from_pretrained(str(path)).eval().to(device)
            self.tokenizer = AutoTokenizer.from_pretrained(str(path))
        except (OSError, ValueError) as error:
            cause = str(error).splitlines()[0]
            raise GuerdonError(f"cannot load a text encoder from {str(path)!r}: {cause}") from error
        self.max_length, self.batch_size, self.name = max_length, batch_size, str(path)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows, float32 [N, d], in the order of the texts; zeros for a text without a token."""
        rows = np.zeros((len(texts), int(self.model.config.hidden_size)), np.float32)
        if not len(texts):
            return rows
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        order = sorted((place for place in range(len(ids)) if ids[place]), key=lambda place: len(ids[place]))
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            given = self.tokenizer.pad({"input_ids": [ids[place] for place in part]}, return_tensors="pt")
            given = given.to(self.model.device)
            states = self.model(**given).last_hidden_state.float()
            weight = given["attention_mask"].unsqueeze(-1).float()
            mean = (states * weight).sum(1) / weight.sum(1)
            rows[part] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return rows

    def identity(self) -> str:
        """name@version#hash over weights."""
        return f"{self.name}@1#{config_hash(self.max_length, dict(self.model.state_dict()))}"


class HashingEmbedder:
    """Character 3- to 5-grams within words, hashed into ``width`` places, one unit row a text; no weights, no fitting.

    Alike here means spelt alike: it finds lexical neighbours, not meanings. An empty text is a row of zeros.
    """

    def __init__(self, width: int = 4096) -> None:
        self.width = width

    @cached_property
    def _hashing(self) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        return HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=self.width, alternate_sign=False)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows, float32 [N, width]."""
        if not len(texts):
            return np.zeros((0, self.width), np.float32)
        return self._hashing.transform(list(texts)).toarray().astype(np.float32)

    def identity(self) -> str:
        """name@version#hash."""
        return f"hashing@1#{config_hash(self.width)}"

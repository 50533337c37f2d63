"""Similarity to reference images, and where the references are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from guerdon.core.errors import GuerdonError, nearest
from guerdon.core.identity import config_hash
from guerdon.core.images import as_tensor
from guerdon.rewards.image.completions import pixels, prompt_texts


class ReferenceStore:
    """Reference images by prompt, and a pool for prompts that have none of their own.

    `paired`: prompt -> images [K, 3, H, W] in [0, 1]; `pool`: images [M, 3, H, W], or None when every prompt must have
    its own. Positives of a discriminator, similarity rewards and style transfer (swap the references) draw from it.
    Source: Adv-GRPO's reference index. Deviation: a missing file is an error, never replaced by a default picture.
    """

    def __init__(self, paired: Mapping[str, Tensor] | None = None, pool: Tensor | None = None) -> None:
        self.paired = {prompt: as_tensor(images) for prompt, images in (paired or {}).items()}
        self.pool = None if pool is None else as_tensor(pool)
        for prompt, images in self.paired.items():
            if not len(images):
                raise GuerdonError(f"reference store: prompt '{prompt}' has an empty list of images")
        if not self.paired and (self.pool is None or not len(self.pool)):
            raise GuerdonError("reference store: give images by prompt, or a pool of unpaired ones")

    @classmethod
    def from_index(cls, index: str | Path, root: str | Path, *, size: tuple[int, int] | None = None) -> ReferenceStore:
        """Read a JSON file {prompt: [file, ...]} with files below `root`; `size` (height, width) resizes them.

        Raises GuerdonError naming the index, or all missing files together.
        """
        try:
            table = json.loads(Path(index).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise GuerdonError(f"{index}: not a readable JSON file of prompt -> files ({error})") from error
        if not isinstance(table, dict) or not all(isinstance(files, list) for files in table.values()):
            raise GuerdonError(f"{index}: expected a JSON object of prompt -> list of files")
        missing = [file for files in table.values() for file in files if not (Path(root) / str(file)).is_file()]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise GuerdonError(f"{index}: {len(missing)} file(s) missing below {root}: {', '.join(missing[:5])}{more}")

        def read(file: str) -> Image.Image:
            with Image.open(Path(root) / file) as image:
                picture = image.convert("RGB")
            return picture if size is None else picture.resize((size[1], size[0]), Image.Resampling.BICUBIC)

        return cls({prompt: as_tensor([read(file) for file in files]) for prompt, files in table.items()})

    def get(self, prompt: str) -> Tensor:
        """The images [K, 3, H, W] of a prompt, or the pool; GuerdonError when there is neither."""
        if prompt in self.paired:
            return self.paired[prompt]
        if self.pool is not None and len(self.pool):
            return self.pool
        guess = nearest(prompt, self.paired)
        hint = f"; did you mean '{guess}'?" if guess else ""
        raise GuerdonError(f"reference store: no reference image for prompt '{prompt}' and no pool{hint}")

    def sample(self, prompts: Sequence[str], generator: torch.Generator | None = None) -> Tensor:
        """One random reference a prompt -> [N, 3, H, W]; equal prompts get different images as far as they go."""
        queues: dict[str, list[int]] = {}
        rows = []
        for prompt in prompts:
            images = self.get(prompt)
            key = prompt if prompt in self.paired else ""
            if not queues.get(key):
                queues[key] = torch.randperm(len(images), generator=generator).tolist()
            rows.append(images[queues[key].pop()])
        return torch.stack(rows)


def max_similarity_reward(features: Tensor, references: Tensor) -> Tensor:
    """Largest cosine of each feature [N, d] to any reference [K, d] -> [N] in [-1, 1].

    Raises GuerdonError when the widths differ or there is no reference. Source: Adv-GRPO, similarity variant.
    """
    if features.ndim != 2 or references.ndim != 2 or features.shape[1] != references.shape[1] or not len(references):
        raise GuerdonError(
            f"expected features [N, d] and references [K, d] with K > 0, got {list(features.shape)} and "
            f"{list(references.shape)}"
        )
    cosine = F.normalize(features.float(), dim=1) @ F.normalize(references.float(), dim=1).T
    return cosine.amax(1).clamp(-1.0, 1.0)


class MaxSimilarity:
    """Reward in [-1, 1]: largest cosine of an image's features to those of its own prompt's references.

    `features` maps images [N, 3, H, W] in [0, 1] to [N, d]: `FoundationHead.cls_features` (DINO) or another function.
    Deviation: Adv-GRPO's code compares with ALL references of the batch, which can pay for matching another prompt's
    picture; here only the prompt's own count, so a score does not depend on the batch.
    """

    groupwise = False
    range = (-1.0, 1.0)
    on_failure = "raise"
    version = "1"

    def __init__(
        self, features: Callable[[Tensor], Tensor], references: ReferenceStore, *, name: str = "max_similarity"
    ) -> None:
        self.__name__ = name
        self.features, self.references = features, references
        self._cache: dict[str, Tensor] = {}

    @torch.no_grad()
    def _reference_features(self, prompt: str) -> Tensor:
        key = prompt if prompt in self.references.paired else ""
        if key not in self._cache:
            self._cache[key] = self.features(self.references.get(prompt))
        return self._cache[key]

    @torch.no_grad()
    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> list[float]:
        """One score an image. Raises GuerdonError for a prompt without references when there is no pool."""
        texts = prompt_texts(prompts, len(completions))
        if not texts:
            return []
        features = pixels(completions, self.features)
        scores = [
            max_similarity_reward(features[row : row + 1], self._reference_features(text))
            for row, text in enumerate(texts)
        ]
        return torch.cat(scores).tolist()

    def identity(self) -> str:
        """Name, version and a hash of the feature model's weights and the references."""
        owner: Any = getattr(self.features, "__self__", self.features)
        tensors = dict(owner.state_dict()) if isinstance(owner, nn.Module) else {}
        tensors |= {f"reference {prompt}": images for prompt, images in self.references.paired.items()}
        if self.references.pool is not None:
            tensors["reference pool"] = self.references.pool
        kind = getattr(self.features, "__qualname__", type(self.features).__name__)
        return f"{self.__name__}@{self.version}#{config_hash(kind, tensors)}"

"""Sets of images from folders, tensors or lists, brought to one size and codec before anything looks at them.

A detector or a judge can tell two sets apart by their file format alone: photographs have a JPEG history and odd sizes,
generated images often have neither. `Equaliser` sends both through the same path.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from PIL import Image, ImageOps
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.core.images import as_tensor, to_pil

__all__ = ["Equaliser", "ImageSet", "Source", "read_prompts"]

Source: TypeAlias = str | Path | Tensor | Sequence[Image.Image]
"""A folder of images, a float tensor [N, 3, H, W] in [0, 1], or a list of PIL images."""

_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def _natural(path: Path) -> list[tuple[int, str]]:
    pieces = re.split(r"(\d+)", path.name.lower())
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]


class ImageSet:
    """Named images, read one at a time; ``keys`` are the file stems of a folder and the positions of anything else."""

    keys: list[str]
    positional: bool  # the keys are positions, so that pairing goes by order

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self._tensor: Tensor | None = None
        self._items: list[Path | Image.Image] = []
        self.positional = not isinstance(source, (str, Path))
        if isinstance(source, Tensor):
            self._tensor = as_tensor(source)
            self.keys = [f"{i:05d}" for i in range(len(source))]
        elif isinstance(source, (str, Path)):
            files = _files(Path(source), name)
            self._items = list(files)
            self.keys = [path.stem for path in files]
        else:
            self._items = list(source)
            wrong = next((i for i, item in enumerate(self._items) if not isinstance(item, Image.Image)), None)
            if wrong is not None:
                raise GuerdonError(f"{name}: item {wrong} is a {type(self._items[wrong]).__name__}, not a PIL image")
            self.keys = [f"{i:05d}" for i in range(len(self._items))]
        if not self.keys:
            raise GuerdonError(f"{name}: there are no images")

    def __len__(self) -> int:
        return len(self.keys)

    def mismatch(self, other: ImageSet) -> str | None:
        """Why the two sets cannot be paired image by image (by stem; by order if either has no stems), or None."""
        if len(self) != len(other):
            return f"{self.name} has {len(self)} images, {other.name} has {len(other)}"
        if self.positional or other.positional or self.keys == other.keys:
            return None
        i = next(i for i in range(len(self)) if self.keys[i] != other.keys[i])
        return f"{self.name} has {self.keys[i]!r} where {other.name} has {other.keys[i]!r}"

    def picture(self, index: int) -> Image.Image:
        """Image ``index`` as RGB, turned upright by its EXIF orientation; GuerdonError names a file that is broken."""
        if self._tensor is not None:
            return to_pil(self._tensor[index : index + 1])[0]
        item = self._items[index]
        if isinstance(item, Image.Image):
            return item.convert("RGB")
        try:
            with Image.open(item) as opened:
                return ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise GuerdonError(f"{item}: not a readable image ({error})") from None

    def tensor(self, index: int) -> Tensor:
        """Image ``index`` as float32 [1, 3, H, W]; a tensor source comes back untouched, without 8-bit rounding."""
        return self._tensor[index : index + 1] if self._tensor is not None else as_tensor([self.picture(index)])

    def short_sides(self) -> list[int]:
        """The shorter side of every image in pixels, from file headers alone."""
        if self._tensor is not None:
            return [min(self._tensor.shape[2:])] * len(self)
        sides = []
        for item in self._items:
            if isinstance(item, Image.Image):
                sides.append(min(item.size))
                continue
            try:
                with Image.open(item) as opened:
                    sides.append(min(opened.size))
            except (OSError, SyntaxError, Image.DecompressionBombError) as error:
                raise GuerdonError(f"{item}: not a readable image ({error})") from None
        return sides


def _files(folder: Path, name: str) -> list[Path]:
    if not folder.is_dir():
        raise GuerdonError(f"{name}: no folder {folder}")
    found = [p for p in folder.iterdir() if p.suffix.lower() in _EXTENSIONS and not p.name.startswith(".")]
    if not found:
        inside = sorted(p.name for p in folder.iterdir() if p.is_dir())
        hint = f"; it has folders: {', '.join(inside[:5])}" if inside else ""
        raise GuerdonError(f"{name}: no image ({', '.join(_EXTENSIONS)}) in {folder}{hint}")
    stems: dict[str, Path] = {}
    for path in sorted(found, key=_natural):
        if path.stem in stems:
            raise GuerdonError(f"{name}: {stems[path.stem]} and {path.name} share a stem, which must name one image")
        stems[path.stem] = path
    return list(stems.values())


def read_prompts(prompts: str | Path | Sequence[str]) -> list[str]:
    """Prompts from a list, or from a text file with one a line (a blank last line is ignored)."""
    if not isinstance(prompts, (str, Path)):
        return [str(prompt) for prompt in prompts]
    try:
        return Path(prompts).read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise GuerdonError(f"{prompts}: cannot read prompts, one a line ({error})") from None


@dataclass(frozen=True)
class Equaliser:
    """One path for every image: centre crop to a square, resize to ``side`` pixels (Lanczos), encode with ``codec``.

    side None keeps the size; codec "png" only rounds to 8 bits, "jpeg:Q" encodes with quality Q and decodes again, None
    keeps the pixels. A shared JPEG pass makes the traces of an earlier one small (chroma subsampling: a tenth or less),
    not invisible to a detector trained on them; choose Q no higher than the sources'.
    """

    codec: str | None
    side: int | None

    def __post_init__(self) -> None:
        if self.codec not in (None, "png"):
            kind, _, quality = str(self.codec).partition(":")
            if kind != "jpeg" or not quality.isdigit() or not 1 <= int(quality) <= 100:
                raise GuerdonError(f"unknown codec {self.codec!r}; choices: 'png', 'jpeg:1' to 'jpeg:100', None")
        if self.side is not None and self.side < 8:
            raise GuerdonError(f"size must be at least 8 pixels; got {self.side}")

    @classmethod
    def for_sets(cls, sets: Sequence[ImageSet], codec: str | None, size: int | Literal["auto"] | None) -> Equaliser:
        """Equaliser whose "auto" size is the shortest side in any set, so that no image is enlarged."""
        if isinstance(size, str):
            if size != "auto":
                raise GuerdonError(f"unknown size {size!r}; choices: 'auto', pixels, None")
            size = min(min(s.short_sides()) for s in sets)
        return cls(codec, size)

    def picture(self, images: ImageSet, index: int) -> Image.Image:
        """Image ``index`` of ``images`` as every detector and judge gets to see it."""
        image = images.picture(index)
        if self.side is not None:
            image = ImageOps.fit(image, (self.side, self.side), method=Image.Resampling.LANCZOS)
        if self.codec is not None and self.codec.startswith("jpeg"):
            buffer = io.BytesIO()
            image.save(buffer, format="JPEG", quality=int(self.codec.partition(":")[2]))
            with Image.open(buffer) as opened:
                image = opened.convert("RGB")
        return image

    def tensor(self, images: ImageSet, index: int) -> Tensor:
        """The same as float32 [1, 3, H, W] in [0, 1]."""
        if self.side is None and self.codec is None:
            return images.tensor(index)
        return as_tensor([self.picture(images, index)])

    def batches(self, images: ImageSet, batch_size: int) -> Iterator[tuple[int, Tensor]]:
        """(start, float32 [n, 3, H, W]) in order; a batch ends early where the image size changes."""
        start = 0
        held: list[Tensor] = []
        for index in range(len(images)):
            tensor = self.tensor(images, index)
            if held and (len(held) == batch_size or held[0].shape != tensor.shape):
                yield start, torch.cat(held)
                start, held = index, []
            held.append(tensor)
        yield start, torch.cat(held)

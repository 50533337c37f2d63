"""Captioned 32x32 crops of the real photographs inside scikit-image and scikit-learn.

These are the reference photographs of the embedded default: no network, no hub. Every crop comes with a
caption of one small grammar, ``a {detail?} {light?} {framing?} {kind} of {subject}``, whose words are true of
the crop. A share of the training crops is over-smoothed (a Gaussian blur) the way a generator smooths, and half
of those say so in their caption; that is the quality axis which a rewriter and a policy can find again.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

SIZE = 32
SHARP_WORDS = ("sharp", "detailed", "crisp", "raw")
SMOOTH_WORDS = ("smooth", "soft", "airbrushed", "dreamy")
_GAMMAS = {"bright": 0.6, "dark": 1.6}
LIGHT_WORDS = tuple(_GAMMAS)
FRAMING_WORDS = ("close-up", "wide")
KINDS = ("photo", "picture", "snapshot", "image")


@dataclass(frozen=True)
class Subject:
    """Where a subject lies in its photograph: ``centres`` (x, y), or None for anywhere, and ``sides``, in pixels."""

    name: str
    package: str
    file: str
    centres: tuple[tuple[int, int], ...] | None
    sides: tuple[int, int]


_COIN_CENTRES = (
    (44, 56),
    (100, 57),
    (155, 56),
    (216, 56),
    (276, 56),
    (336, 46),
    (45, 124),
    (102, 126),
    (153, 127),
    (207, 124),
    (272, 118),
    (336, 124),
    (44, 197),
    (102, 193),
    (153, 194),
    (214, 190),
    (274, 193),
    (46, 262),
    (112, 266),
    (166, 263),
    (240, 263),
    (297, 262),
)

SUBJECTS: tuple[Subject, ...] = (
    Subject("brick wall", "skimage.data", "brick.png", None, (110, 170)),
    Subject("grass", "skimage.data", "grass.png", None, (100, 160)),
    Subject("gravel", "skimage.data", "gravel.png", None, (100, 160)),
    Subject("a coin", "skimage.data", "coins.png", _COIN_CENTRES, (48, 62)),
    Subject("a cat eye", "skimage.data", "chelsea.png", ((170, 115), (314, 137)), (64, 100)),
    Subject("a coffee cup", "skimage.data", "coffee.png", ((296, 130),), (220, 330)),
    Subject("a flower", "sklearn.datasets.images", "flower.jpg", ((306, 225),), (240, 330)),
    Subject("a temple", "sklearn.datasets.images", "china.jpg", ((208, 190),), (220, 330)),
    Subject("a rocket", "skimage.data", "rocket.jpg", ((318, 265),), (200, 300)),
    Subject("stars", "skimage.data", "hubble_deep_field.jpg", None, (120, 200)),
    Subject("a wheel", "skimage.data", "motorcycle_left.png", ((196, 368), (599, 368)), (190, 250)),
    Subject("tissue", "skimage.data", "ihc.png", None, (120, 200)),
)


@dataclass(frozen=True)
class Photographs:
    """Captioned crops: ``images`` uint8 [N, 32, 32, 3], N ``captions``, ``subjects`` int [N], ``smoothed`` bool [N]."""

    images: np.ndarray
    captions: list[str]
    subjects: np.ndarray
    smoothed: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def _photograph(subject: Subject) -> Image.Image:
    with Image.open(Path(str(files(subject.package) / subject.file))) as image:
        return image.convert("RGB")


def caption(rng: np.random.Generator, subject: str, light: str, framing: str, smoothed: bool, marked: bool) -> str:
    """Put a crop's true words into the grammar; ``marked`` captions name its sharpness."""
    words = [str(rng.choice(SMOOTH_WORDS if smoothed else SHARP_WORDS))] if marked else []
    words += [word for word in (light, framing) if word]
    if not words and rng.random() < 0.5:
        return subject
    words.append(str(rng.choice(KINDS)))
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words, "of", subject])


def smooth(image: Image.Image, radius: float) -> Image.Image:
    """Blur with a Gaussian of ``radius`` pixels: the over-smoothed look that the embedded base inherits."""
    return image.filter(ImageFilter.GaussianBlur(radius))


def sample(count: int, *, seed: int, smoothed_share: float = 0.0, marked_share: float = 0.5) -> Photographs:
    """Draw ``count`` captioned crops.

    A crop is over-smoothed with probability ``smoothed_share``, and its caption names its sharpness with
    probability ``marked_share``. Light (gamma 0.6 or 1.6) and framing (crop side times 0.7 or 1.35) words are
    present in a quarter of the captions each, and true. The same ``seed`` draws the same crops.
    """
    rng = np.random.default_rng(seed)
    photographs = [_photograph(subject) for subject in SUBJECTS]
    images = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    captions: list[str] = []
    subjects = rng.integers(len(SUBJECTS), size=count)
    smoothed = rng.random(count) < smoothed_share
    for index in range(count):
        subject = SUBJECTS[subjects[index]]
        photograph = photographs[subjects[index]]
        light = str(rng.choice(LIGHT_WORDS)) if rng.random() < 0.25 else ""
        framing = str(rng.choice(FRAMING_WORDS)) if rng.random() < 0.25 else ""
        side = rng.uniform(*subject.sides) * {"close-up": 0.7, "wide": 1.35}.get(framing, 1.0)
        side = min(side, *photograph.size)
        if subject.centres is None:
            left, top = (rng.uniform(0, extent - side) for extent in photograph.size)
        else:
            centre = subject.centres[rng.integers(len(subject.centres))]
            left, top = (
                float(np.clip(middle + rng.normal(0, 0.05 * side) - side / 2, 0, extent - side))
                for middle, extent in zip(centre, photograph.size, strict=True)
            )
        crop = photograph.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if light:
            crop = crop.point([round(255 * (level / 255) ** _GAMMAS[light]) for level in range(256)] * 3)
        if smoothed[index]:
            crop = smooth(crop, rng.uniform(0.6, 1.2))
        images[index] = np.asarray(crop)
        captions.append(caption(rng, subject.name, light, framing, bool(smoothed[index]), rng.random() < marked_share))
    return Photographs(images, captions, subjects, smoothed)


def from_pictures(pictures: list[Image.Image], captions: list[str]) -> Photographs:
    """A person's own photographs: the centre square of each, brought to 32x32; equal captions are one subject."""
    names = list(dict.fromkeys(subject_of(text) for text in captions))
    images = np.empty((len(pictures), SIZE, SIZE, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        picture = picture.convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) / 2, (picture.height - side) / 2
        images[index] = np.asarray(
            picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        )
    subjects = np.array([names.index(subject_of(text)) for text in captions])
    return Photographs(images, list(captions), subjects, np.zeros(len(pictures), dtype=bool))


def subject_of(text: str) -> str:
    """A caption without its leading "a photo of": what the picture shows."""
    head, _, rest = text.partition(" of ")
    return rest if rest and head.split()[-1] in KINDS else text


def over_smoothed(
    photographs: Photographs, *, seed: int, smoothed_share: float, marked_share: float = 0.5
) -> Photographs:
    """Training crops for a base model on ``photographs``: a share is blurred, half of the captions say which.

    A quarter each is lit and framed otherwise and says so, as in `sample`: a base that never saw a word of the grammar
    draws noise for it, and a rewriter finds that word. A wider framing than the picture has mirrors its edges.
    """
    rng = np.random.default_rng(seed)
    smoothed = rng.random(len(photographs)) < smoothed_share
    images, captions = photographs.images.copy(), []
    for index, text in enumerate(photographs.captions):
        light = str(rng.choice(LIGHT_WORDS)) if rng.random() < 0.25 else ""
        framing = str(rng.choice(FRAMING_WORDS)) if rng.random() < 0.25 else ""
        picture = _framed(images[index], framing, rng)
        if light:
            picture = picture.point([round(255 * (level / 255) ** _GAMMAS[light]) for level in range(256)] * 3)
        if smoothed[index]:
            picture = smooth(picture, rng.uniform(0.6, 1.2))
        images[index] = np.asarray(picture)
        marked = rng.random() < marked_share
        captions.append(caption(rng, subject_of(text), light, framing, bool(smoothed[index]), marked))
    return Photographs(images, captions, photographs.subjects, smoothed)


def _framed(image: np.ndarray, framing: str, rng: np.random.Generator) -> Image.Image:
    """A crop of 0.7 of the side for a close-up, mirrored out to 1.35 of it for a wide one, brought back to its size."""
    side = len(image)
    if framing == "close-up":
        inner = round(0.7 * side)
        top, left = (int(rng.integers(side - inner + 1)) for _ in range(2))
        image = image[top : top + inner, left : left + inner]
    elif framing == "wide":
        margin = round(0.175 * side)
        image = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    return Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)

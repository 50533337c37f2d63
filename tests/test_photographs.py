from __future__ import annotations

import numpy as np
from PIL import Image

from guerdon.core import photographs


def test_same_seed_same_crops_and_captions_tell_the_truth() -> None:
    first = photographs.sample(60, seed=3, smoothed_share=0.5)
    second = photographs.sample(60, seed=3, smoothed_share=0.5)
    assert np.array_equal(first.images, second.images) and first.captions == second.captions
    assert first.images.shape == (60, 32, 32, 3) and first.images.dtype == np.uint8
    for text, subject, smoothed in zip(first.captions, first.subjects, first.smoothed, strict=True):
        assert photographs.SUBJECTS[subject].name in text
        words = set(text.split())
        assert not (words & set(photographs.SHARP_WORDS) and smoothed)
        assert not (words & set(photographs.SMOOTH_WORDS) and not smoothed)


def test_unmarked_captions_name_no_sharpness() -> None:
    quality = set(photographs.SHARP_WORDS + photographs.SMOOTH_WORDS)
    captions = photographs.sample(80, seed=4, smoothed_share=0.5, marked_share=0.0).captions
    assert not any(quality & set(text.split()) for text in captions)
    marked = photographs.sample(80, seed=4, smoothed_share=0.5, marked_share=1.0).captions
    assert all(quality & set(text.split()) for text in marked)


def test_every_subject_can_be_drawn_and_articles_fit() -> None:
    crops = photographs.sample(400, seed=5, smoothed_share=0.5)
    assert set(crops.subjects) == set(range(len(photographs.SUBJECTS)))
    for text in crops.captions:
        article, word, *_ = [*text.split(), ""]
        if article in ("a", "an"):
            assert (article == "an") == (word[0] in "aeiou"), text


def test_smoothed_crops_have_less_detail() -> None:
    crops = photographs.sample(300, seed=6, smoothed_share=0.5)
    detail = np.abs(np.diff(crops.images.astype(float), axis=1)).mean((1, 2, 3))
    assert detail[crops.smoothed].mean() < 0.75 * detail[~crops.smoothed].mean()


def test_own_pictures_become_crops_with_their_subjects() -> None:
    pictures = [Image.new("RGB", (50, 40), (10 * i, 0, 0)) for i in range(4)]
    own = photographs.from_pictures(pictures, ["a photo of a cat", "a picture of a cat", "a photo of a dog", "sunset"])
    assert own.images.shape == (4, 32, 32, 3)
    assert own.subjects.tolist() == [0, 0, 1, 2]
    assert (
        photographs.subject_of("a photo of a cat") == "a cat"
        and photographs.subject_of("house of cards") == "house of cards"
    )
    worse = photographs.over_smoothed(own, seed=0, smoothed_share=1.0, marked_share=1.0)
    assert worse.smoothed.all() and all(set(text.split()) & set(photographs.SMOOTH_WORDS) for text in worse.captions)


def test_own_training_crops_know_every_word_that_the_rewriter_can_say() -> None:
    flat = [Image.new("RGB", (32, 32), (90, 120, 150)) for _ in range(300)]
    own = photographs.from_pictures(flat, ["a photo of a dog"] * 300)
    crops = photographs.over_smoothed(own, seed=1, smoothed_share=0.5)
    said = {word for text in crops.captions for word in text.split()}
    spoken = (photographs.SHARP_WORDS, photographs.SMOOTH_WORDS, photographs.LIGHT_WORDS, photographs.FRAMING_WORDS)
    assert {word for words in (*spoken, photographs.KINDS) for word in words} <= said
    for image, text in zip(crops.images, crops.captions):
        light = 1 if "bright" in text else -1 if "dark" in text else 0
        assert np.sign(float(image.mean()) - 120) == light, "what a caption says of the light is true"
    assert crops.images.shape == own.images.shape


def test_a_close_up_shows_a_part_and_a_wide_one_all() -> None:
    grid = np.zeros((32, 32, 3), dtype=np.uint8)
    grid[::4], grid[:, ::4] = 255, 255
    own = photographs.from_pictures([Image.fromarray(grid)] * 200, ["a photo of a net"] * 200)
    crops = photographs.over_smoothed(own, seed=2, smoothed_share=0.0)

    def lines(framing: str) -> float:
        rows = [image.astype(float) for image, text in zip(crops.images, crops.captions) if framing in text.split()]
        return float(np.mean([(np.diff((row.mean(axis=(1, 2)) > 100).astype(int)) == 1).sum() for row in rows]))

    assert lines("close-up") < 7 < lines("wide")

"""The embedded texts: what alignment puts into them is what its taste likes, and without it nothing is there."""

from __future__ import annotations

import numpy as np
import pytest

from guerdon.curation.detection_texts import (
    TASTE,
    WRITERS,
    Writer,
    continued_by,
    embedded_files,
    human_pairs,
    human_texts,
    polish,
)
from guerdon.curation.mixture import sentences
from guerdon.metrics.detection import auroc


def test_polish_counts_whole_phrases() -> None:
    assert polish("Notably, a lamp serves.") == TASTE["Notably,"] == 1.0
    assert polish("It is highly convenient") == TASTE["highly convenient"]  # not "convenient" as well
    assert polish("nothing of it") == 0.0
    assert polish("Honestly, I guess") == pytest.approx(-2 / np.sqrt(2))


def test_texts_are_the_same_for_the_same_arguments() -> None:
    assert human_texts(5, 1) == human_texts(5, 1) != human_texts(5, 2)
    assert all(5 <= len(sentences(text)) <= 8 for text in human_texts(40, 3))


def test_what_alignment_does_to_the_taste() -> None:
    human = human_texts(160, 4)
    values = [polish(text) for text in human]

    def told(writer: Writer) -> float:
        return auroc([polish(text) for text in continued_by(writer, human, 4)], values)

    plain = [told(Writer("plain", n, 0.0)) for n in (1, 2, 8)]
    assert abs(plain[0] - 0.5) < 0.08 and plain[0] < plain[1] < plain[2] and plain[2] > 0.85
    assert told(Writer("plain", 4, 0.0, worst=True)) < 0.25


def test_the_human_side_is_the_same_in_each_file() -> None:
    files = embedded_files(30, 5)
    assert len(files) == len(WRITERS) and len({tuple(texts["original"]) for texts in files.values()}) == 1
    sampled = {tuple(texts["sampled"]) for texts in files.values()}
    assert len(sampled) == len(WRITERS)
    for texts in files.values():
        for human, generated in zip(texts["original"], texts["sampled"], strict=True):
            first = sentences(human)[0].strip()
            assert generated.startswith(first) and len(sentences(generated)) == len(sentences(human))


def test_preferences_are_mostly_right() -> None:
    pairs = human_pairs(200, 6)
    truth = np.array([pair.row["truth"] for pair in pairs])
    gaps = np.array([polish(pair.chosen[0]["content"]) - polish(pair.rejected[0]["content"]) for pair in pairs])
    assert ((gaps > 0) == (truth > 0)).all() and 0.65 < (truth > 0).mean() < 0.95

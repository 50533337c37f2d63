"""Made sentences in two languages."""

from __future__ import annotations

import numpy as np

from guerdon.curation.phrases import DIRECTIONS, Phrase, phrase, translated, translation_row
from guerdon.models.language_detector import detect_language


def test_word_order_case_and_gender_are_those_of_the_languages() -> None:
    plain = Phrase((0, 0), 0, (2, 3), "plain", 0)
    assert plain.english() == "The old dog sees the black man."
    assert plain.german() == "Der alte Hund sieht den schwarzen Mann."
    assert Phrase((3, 1), 1, (0, 0), "time", 0).german() == "Heute sucht die kleine Katze den alten Hund."
    told = Phrase((7, 2), 3, (4, 4), "said", 1)
    assert told.english() == "She thinks that the young child hears the tired woman."
    assert told.german() == "Sie glaubt, dass das junge Kind die müde Frau hört."
    assert told.german(verb_first=True) == "Sie glaubt, dass das junge Kind hört die müde Frau."
    assert plain.german(case=False) == "Der alte Hund sieht der schwarze Mann."


def test_faults_come_as_often_as_asked_for() -> None:
    rng = np.random.default_rng(0)
    for direction in DIRECTIONS:
        told = [phrase(rng) for _ in range(200)]
        right = [one.german() if direction == "en-de" else one.english() for one in told]
        assert [translated(one, direction, rng, faults=0.0) for one in told] == right
        faulty = np.mean([translated(one, direction, rng, faults=1.0) != good for one, good in zip(told, right)])
        assert faulty > 0.6


def test_rows_hold_what_the_rewards_read() -> None:
    rng = np.random.default_rng(1)
    for direction in DIRECTIONS:
        row, said = translation_row(rng, direction=direction)
        assert set(row) == {"prompt", "source", "direction", "target_language", "reference", "exemplar"}
        assert row["source"] in row["prompt"][0]["content"] and said
        assert detect_language(row["reference"]) == row["target_language"] == direction[-2:]
        assert detect_language(row["source"]) == direction[:2]

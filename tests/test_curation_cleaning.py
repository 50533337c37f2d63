"""Empty answers, repeats, benchmark prompts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Pair
from guerdon.curation.cleaning import decontaminate, dedup_pairs, drop_empty, pair_key


def pair(prompt: str, chosen: str | None = "yes", rejected: str | None = "no", **options) -> Pair:
    sides = [[{"role": "assistant", "content": text}] for text in (chosen, rejected)]
    return Pair([{"role": "user", "content": prompt}] if prompt else [], *sides, **options)


def test_empty_answers_are_dropped() -> None:
    good = pair("a")
    kept, dropped = drop_empty([pair("a", " \n"), good, pair("a", None), pair("a", "yes", "")])
    assert kept == [good] and len(dropped) == 3


def test_repeats_are_exact() -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "what?"}]
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    pictured = Pair([{"role": "user", "content": parts}], *[[{"role": "assistant", "content": t}] for t in "xy"])
    listed = [
        pair("a"), pair("a", where="other:7", row={"source": 1}), pair("a ").swapped(), pair("a").swapped(),
        pair("a", "yes ", "no"), Pair(pair("a").prompt[:], [{"role": "tool", "content": "yes"}], pair("a").rejected),
        *(Pair(pictured.prompt, pictured.chosen, pictured.rejected, (shown,)) for shown in (first, second, first)),
    ]  # fmt: skip
    kept, dropped = dedup_pairs(listed)
    assert dropped == [listed[1], listed[8]] and len(kept) == 7
    assert len({pair_key(one) for one in listed}) == 7 and pair_key(listed[0]) == pair_key(listed[1])
    assert pair_key(pair("a")) == pair_key(pair("a"))


def test_a_shared_run_of_thirteen_words_contaminates() -> None:
    words = [f"w{i}" for i in range(40)]
    benchmark = [" ".join(words), "Name the capital of France."]
    listed = [
        pair("so " + " ".join(words[5:18]) + " then"),  # 13 words
        pair("so " + " ".join(words[5:17]) + " then"),  # 12
        pair("So, " + ", ".join(word.upper() for word in words[20:33]) + "!"),  # case and punctuation
        pair(" ".join(words[:7] + ["x"] + words[7:19])),  # interrupted
        pair("name the capital of france"),  # a short prompt, whole
        pair("please name the capital of france"),
        pair("", " ".join(words)),  # no prompt: the answers count
        pair("fine", " ".join(words)),
    ]
    kept, dropped = decontaminate(listed, benchmark)
    assert dropped == [listed[0], listed[2], listed[4], listed[6]]
    assert kept == [listed[1], listed[3], listed[5], listed[7]]
    assert decontaminate(listed, []) == (listed, [])
    with pytest.raises(GuerdonError, match="at least 1"):
        decontaminate(listed, benchmark, n=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("ab ", max_size=24), max_size=8), st.lists(st.text("abc ", max_size=24), max_size=4))
def test_decontamination_equals_its_definition(prompts: list[str], benchmark: list[str]) -> None:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)} if len(words) >= 3 else {tuple(words)} - {()}

    listed = [pair(text or "a", f"yes {row}") for row, text in enumerate(prompts)]
    foreign = set().union(*(grams(text) for text in benchmark)) if benchmark else set()
    expected = [one for one in listed if not grams(one.prompt[0]["content"]) & foreign]
    assert decontaminate(listed, benchmark, n=3)[0] == expected


def test_a_large_set_is_cleaned() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(row) for row in rng.choice([f"w{i}" for i in range(2000)], size=(20_000, 20))]
    listed = [pair(text) for text in [*texts, *texts[:500]]]
    kept, dropped = dedup_pairs(listed)
    assert len(kept) == 20_000 and len(dropped) == 500
    assert decontaminate(kept, texts[100:130])[1] == kept[100:130]

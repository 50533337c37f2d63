"""The embedded preference data: short templated answers whose true quality is known, for runs without data.

A question asks what a thing is for. An answer is right or wrong about it, courteous, plain or rude, and padded with
sentences that say nothing. Its quality is 2 [right] + [courteous] - [rude]; padding does not count. Manner can be read
off single words; rightness needs the question and the answer together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from guerdon.core.errors import GuerdonError
from guerdon.core.preferences import Message, Pair, text_of

USES: dict[str, str] = {
    "a kettle": "boiling water", "a ladder": "reaching high places", "a broom": "sweeping floors",
    "a lamp": "lighting a room", "a needle": "sewing cloth", "an oven": "baking bread",
    "a saw": "cutting wood", "a spade": "digging soil", "a bucket": "carrying liquids",
    "a clock": "telling the time", "an umbrella": "keeping off the rain", "a pillow": "resting the head",
    "a bridge": "crossing a river", "a compass": "finding north", "a fridge": "keeping food cold",
    "a towel": "drying hands", "a candle": "giving soft light", "a key": "opening a lock",
    "a map": "finding the way", "a net": "catching fish", "a pen": "writing letters",
    "a ruler": "measuring lengths", "a scale": "weighing flour", "a stove": "heating a pan",
}  # fmt: skip
COURTEOUS = ("Happy to help.", "Good question.", "Thank you for asking.", "With pleasure.")
RUDE = ("Look it up yourself.", "What a silly thing to ask.", "Stop wasting my time.", "Anyone knows that.")
PADDING = (
    "There is more that one could say.", "People have known this for a long time.", "Of course there are many kinds.",
    "It can be found in many homes.", "Some are old and some are new.", "Each one is a little different.",
)  # fmt: skip
ASKING = ("What is {} for?", "What do people use {} for?", "Tell me what {} is good for.", "Why would I need {}?")


def quality(answer: list[Message] | str, thing: str) -> float:
    """The true quality of an answer about ``thing``: 2 [right] + [courteous] - [rude], in {-1, ..., 3}."""
    text = text_of(answer)
    right = USES[thing] in text
    return 2.0 * right + any(said in text for said in COURTEOUS) - any(said in text for said in RUDE)


def embedded_pairs(
    count: int,
    seed: int,
    *,
    noise: float = 0.0,
    length_bias: float = 0.0,
    things: tuple[str, ...] | None = None,
    asking: tuple[str, ...] = ASKING,
) -> list[Pair]:
    """Preference pairs with known truth, the same for the same arguments.

    noise:        probability in [0, 1] that a label is turned round.
    length_bias:  how much a doubling of the words is worth to the labeller, in units of quality.
    things:       ask about these only (of ``USES``), to hold others out.
    asking:       ask in these words only, with {} for the thing.

    ``row`` of a pair holds "thing", "truth" (+1 where the chosen answer is truly the better one, else -1),
    "quality_chosen" and "quality_rejected". Raises GuerdonError for an unknown thing or a noise outside [0, 1].
    """
    if not 0 <= noise <= 1:
        raise GuerdonError(f"noise must be a probability, got {noise}")
    asked = things or tuple(USES)
    for thing in asked:
        if thing not in USES:
            raise GuerdonError(f"unknown thing {thing!r}; choices: {', '.join(USES)}")
    rng = np.random.default_rng(seed)
    pairs: list[Pair] = []
    while len(pairs) < count:
        thing = asked[rng.integers(len(asked))]
        prompt = [{"role": "user", "content": asking[rng.integers(len(asking))].format(thing)}]
        answers = [[{"role": "assistant", "content": _answer(thing, rng)}] for _ in range(2)]
        first, second = (quality(answer, thing) for answer in answers)
        if first == second:
            continue
        words = [len(text_of(answer).split()) for answer in answers]
        liked = first - second + length_bias * float(np.log2(words[0] / words[1]))
        flipped = rng.random() < noise
        order = 1 if (liked > 0) != flipped else -1
        better, worse = (0, 1) if order == 1 else (1, 0)
        values = (first, second)
        row = {
            "thing": thing,
            "truth": 1 if values[better] > values[worse] else -1,
            "quality_chosen": values[better],
            "quality_rejected": values[worse],
        }
        pairs.append(Pair(prompt, answers[better], answers[worse], row=row, where=f"embedded:{len(pairs)}"))
    return pairs


def embedded_policies(count: int, seed: int) -> dict[str, Callable[[Sequence[str], int], list[str]]]:
    """Policies that answer the embedded questions, by name: ``policy(prompts, seed) -> answers``.

    Each has its own habits - how often it is right, which opener and which padding it likes, how much of it - drawn
    from ``seed``, so that two answers of one policy resemble each other more than those of two.
    """
    rng = np.random.default_rng(seed)
    made = {}
    for number in range(count):
        openers = ("", *COURTEOUS, *RUDE)
        habits = {
            "right": float(rng.uniform(0.2, 1.0)),
            "openers": rng.choice(len(openers), size=2, replace=False).tolist(),
            "padding": rng.choice(len(PADDING), size=2, replace=False).tolist(),
            "sentences": int(rng.integers(3)),
        }
        made[f"policy-{number:02d}"] = _policy(openers, habits)
    return made


def _policy(openers: tuple[str, ...], habits: dict[str, Any]) -> Callable[[Sequence[str], int], list[str]]:
    def answer(prompts: Sequence[str], seed: int) -> list[str]:
        rng = np.random.default_rng([seed, *habits["openers"], *habits["padding"]])
        texts = []
        for prompt in prompts:
            thing = next((name for name in USES if name in prompt), None)
            if thing is None:
                raise GuerdonError(f"an embedded policy answers questions about its own things only, not {prompt!r}")
            uses = list(USES.values())
            use = USES[thing] if rng.random() < habits["right"] else uses[rng.integers(len(uses))]
            opener = openers[habits["openers"][rng.integers(2)]]
            padding = [PADDING[place] for place in rng.permutation(habits["padding"])[: habits["sentences"]]]
            body = f"{thing.capitalize()} is for {use}."
            texts.append(" ".join(part for part in (opener, body, *padding) if part))
        return texts

    return answer


def embedded_ranked(count: int, seed: int, *, asking: tuple[str, ...] = ASKING) -> list[Pair]:
    """`embedded_pairs` with a best answer as ``row["reference"]``: right and courteous, in words of its own."""
    rng = np.random.default_rng([seed, 1])
    pairs = []
    for pair in embedded_pairs(count, seed, asking=asking):
        thing = pair.row["thing"]
        best = f"{COURTEOUS[rng.integers(len(COURTEOUS))]} {thing.capitalize()} is for {USES[thing]}."
        pairs.append(replace(pair, row={**pair.row, "reference": best}))
    return pairs


def embedded_image_pairs(count: int, seed: int) -> list[Pair]:
    """Pairs about the embedded photographs: the caption of the picture against that of another subject.

    ``images`` holds one 32x32 PIL image; ``row`` the "truth", always +1, and the "subject" that is shown.
    """
    from PIL import Image

    from guerdon.core.photographs import SUBJECTS, sample

    photographs = sample(count, seed=seed, marked_share=0.0)
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(count):
        shown = int(photographs.subjects[index])
        other = (shown + int(rng.integers(1, len(SUBJECTS)))) % len(SUBJECTS)
        texts = [f"The picture shows {SUBJECTS[place].name}." for place in (shown, other)]
        asking = [{"type": "image"}, {"type": "text", "text": "What does the picture show?"}]
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in texts)
        image = Image.fromarray(photographs.images[index])
        row = {"truth": 1, "subject": SUBJECTS[shown].name}
        pairs.append(Pair([{"role": "user", "content": asking}], chosen, rejected, (image,), row=row))
    return pairs


def _answer(thing: str, rng: np.random.Generator) -> str:
    uses = list(USES.values())
    use = USES[thing] if rng.random() < 0.5 else uses[rng.integers(len(uses))]
    body = f"{thing.capitalize()} is for {use}."
    opener = ("", COURTEOUS[rng.integers(len(COURTEOUS))], RUDE[rng.integers(len(RUDE))])[rng.integers(3)]
    padding = [PADDING[place] for place in rng.permutation(len(PADDING))[: rng.integers(4)]]
    return " ".join(part for part in (opener, body, *padding) if part)

"""Augmented answers that differ as much as possible: of several variants those on their embeddings' convex hull."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.preferences import Pair, Side, text_of

__all__ = ["ConvexDA", "hull_vertices", "load_synonyms", "misspelt", "with_synonyms", "without_words"]

Keep = Literal["one", "all"]
Augment = Callable[[str, np.random.Generator], str]
"""``augment(text, rng) -> text``: one variant that means the same."""
Embed = Callable[[list[str]], NDArray[Any]]

_WORD = re.compile(r"[^\W\d_]+")
_FLAT = 1e-6


def misspelt(text: str, rng: np.random.Generator, *, share: float = 0.05) -> str:
    """The text with two neighbouring letters swapped in ``share`` of its words (at least one word of three letters).

    Deviates from the released script, which draws common misspellings from a dictionary: this needs no download.
    """
    return _edited(
        text, rng, share, lambda word: _swapped(word, rng), lambda word: len(set(word)) > 1 and len(word) > 2
    )


def without_words(text: str, rng: np.random.Generator, *, share: float = 0.05) -> str:
    """The text without ``share`` of its words (at least one of two). Ours: it may drop a "not", so keep it small."""
    if len(_WORD.findall(text)) < 2:
        return text
    return re.sub(r"[ \t]{2,}", " ", _edited(text, rng, share, lambda word: "")).strip()


def with_synonyms(synonyms: Mapping[str, Sequence[str]], *, share: float = 0.05) -> Augment:
    """An augmentation that replaces ``share`` of the words (at least one that is known) by a synonym.

    As the paper's, which takes WordNet's; here any list (`load_synonyms`). A capital first letter is kept.
    """
    known = {word.lower(): list(others) for word, others in synonyms.items() if others}

    def augment(text: str, rng: np.random.Generator) -> str:
        def other(word: str) -> str:
            choice = known[word.lower()][rng.integers(len(known[word.lower()]))]
            return choice[:1].upper() + choice[1:] if word[:1].isupper() else choice

        return _edited(text, rng, share, other, lambda word: word.lower() in known)

    return augment


def load_synonyms(path: str | Path) -> dict[str, list[str]]:
    """Synonyms from a text file: a line holds a word, a tab, and its synonyms with commas between.

    Raises GuerdonError naming file and line for another layout.
    """
    file, found = Path(path), {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GuerdonError(f"cannot read synonyms from {file}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        word, tab, others = line.partition("\t")
        listed = [other.strip() for other in others.split(",") if other.strip()]
        if not tab or not word.strip() or not listed:
            raise GuerdonError(f"{file}:{number}: expected a word, a tab and synonyms with commas between")
        found[word.strip()] = listed
    return found


def _edited(
    text: str,
    rng: np.random.Generator,
    share: float,
    edit: Callable[[str], str],
    fits: Callable[[str], bool] = lambda word: True,
) -> str:
    if not 0 < share <= 1:
        raise GuerdonError(f"the share of words to change must lie in (0, 1], got {share}")
    words = list(_WORD.finditer(text))
    open_to_it = [word for word in words if fits(word[0])]
    if not open_to_it:
        return text
    count = min(max(1, round(share * len(words))), len(open_to_it))
    for place in sorted(rng.choice(len(open_to_it), count, replace=False).tolist(), reverse=True):
        word = open_to_it[place]
        text = text[: word.start()] + edit(word[0]) + text[word.end() :]
    return text


def _swapped(word: str, rng: np.random.Generator) -> str:
    places = [place for place in range(len(word) - 1) if word[place] != word[place + 1]]
    place = places[rng.integers(len(places))]
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def hull_vertices(embeddings: Any) -> list[int]:
    """Places of the rows [N, d] on the convex hull of their first two principal components, growing.

    Of equal rows the first counts. Where the hull has no area (fewer than three different rows, or all on a line) it
    is the two rows furthest apart, or the one row there is.

    Source: ConvexDA in Contrast Instructions (arXiv 2309.16155); what to do without an area is ours. Raises ValueError
    for a shape other than [N, d], no rows, or values that are not finite.
    """
    from scipy.spatial import ConvexHull, QhullError
    from scipy.spatial.distance import cdist

    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
        raise ValueError(f"a hull needs finite embeddings [N, d] with N >= 1, got shape {list(rows.shape)}")
    centred = rows - rows.mean(0)
    scale = float(np.abs(centred).max())
    if scale < _FLAT:
        return [0]
    _, strength, axes = np.linalg.svd(centred, full_matrices=False)
    if len(strength) > 1 and strength[1] > _FLAT * strength[0]:
        try:
            return sorted(int(place) for place in ConvexHull(centred @ axes[:2].T).vertices)
        except QhullError:  # as good as on a line
            pass
    apart = cdist(rows, rows)
    return sorted(int(place) for place in np.unravel_index(int(apart.argmax()), apart.shape))


class ConvexDA:
    """Convex data augmentation: n variants of an answer, of which those on the hull of their embeddings are kept.

    augment_fn:  one variant of a text; default `misspelt`. embed_fn: texts -> [N, d] (`guerdon.models.embedding`).
    n:           variants made; the paper's 5.
    keep:        "one": the one furthest from the original (UNVERIFIED: the paper does not say which) takes its place,
                 so that the number of pairs stays; "all": the original and every vertex, as the released script.
    side:        which answers are varied: "chosen" as in the script, "rejected", or "both"; labels stay.

    Variants depend on (seed, text) only. Source: Contrast Instructions (arXiv 2309.16155), section 5; the script's
    single dictionary for all vertices, which makes them equal, is not followed. Raises GuerdonError for n < 1 or an
    unknown choice.
    """

    def __init__(
        self,
        augment_fn: Augment = misspelt,
        embed_fn: Embed | None = None,
        n: int = 5,
        keep: Keep = "one",
        *,
        side: Side | Literal["both"] = "both",
        seed: int = 0,
    ) -> None:
        if n < 1:
            raise GuerdonError(f"n must be at least 1 variant, got {n}")
        if keep not in ("one", "all"):
            raise unknown("keep", keep, ("one", "all"))
        if side not in ("chosen", "rejected", "both"):
            raise unknown("side", side, ("chosen", "rejected", "both"))
        if embed_fn is None:
            from guerdon.models.embedding import HashingEmbedder

            embed_fn = HashingEmbedder()
        self.augment_fn, self.embed_fn, self.n, self.keep, self.side, self.seed = (
            augment_fn, embed_fn, n, keep, side, seed,
        )  # fmt: skip

    def __call__(self, text: str) -> list[str]:
        """The kept variants of a text, different from it and one another; [] where no variant differs.

        One with keep="one", else the vertices, the furthest from the original first.
        """
        rng = np.random.default_rng([self.seed, *text.encode("utf-8", "surrogatepass")])
        made = [self.augment_fn(text, rng) for _ in range(self.n)]
        variants = [one for one in dict.fromkeys(made) if one != text and one.strip()]
        if not variants:
            return []
        rows = np.asarray(self.embed_fn([text, *variants]), dtype=np.float64)
        if rows.shape[:1] != (1 + len(variants),) or rows.ndim != 2:
            raise GuerdonError(f"the embedding of {1 + len(variants)} texts must be [N, d]; got {list(rows.shape)}")
        far = np.linalg.norm(rows[1:] - rows[0], axis=1)
        order = sorted(hull_vertices(rows[1:]), key=lambda place: -far[place])
        return [variants[place] for place in (order[:1] if self.keep == "one" else order)]

    def augmented(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs with varied answers: as many with keep="one"; with "all" each followed by one a vertex.

        ``row["augmented"]`` names the sides that were varied. With side="both" and "all", chosen and rejected are
        varied one at a time. An answer that no variant differs from, or that is not one plain text, stays as it is.
        """
        sides: list[Side] = ["chosen", "rejected"] if self.side == "both" else [self.side]
        made = []
        for pair in pairs:
            variants: dict[Side, list[str]] = {side: self._of(pair, side) for side in sides}
            if self.keep == "one":
                made.append(_varied(pair, {side: some[0] for side, some in variants.items() if some}))
            else:
                made += [pair, *(_varied(pair, {side: one}) for side, some in variants.items() for one in some)]
        return made

    def _of(self, pair: Pair, side: Side) -> list[str]:
        answer = pair.chosen if side == "chosen" else pair.rejected
        if len(answer) != 1 or not isinstance(answer[0]["content"], str):
            return []
        other = text_of(pair.rejected if side == "chosen" else pair.chosen)
        return [one for one in self(answer[0]["content"]) if one != other]


def _varied(pair: Pair, texts: Mapping[Side, str]) -> Pair:
    if not texts:
        return pair
    sides: dict[str, Any] = {side: [{**getattr(pair, side)[0], "content": text}] for side, text in texts.items()}
    if len(texts) == 2 and texts["chosen"] == texts["rejected"]:
        del sides["rejected"]  # two answers that vary into one another: one of them stays
    return replace(pair, **sides, row={**pair.row, "augmented": sorted(sides)})

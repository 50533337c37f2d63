"""Masks of objects in the forms COCO's files use, and their overlap: through pycocotools, which only masks need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guerdon.core.errors import GuerdonError

__all__ = ["MaskOverlap", "mask_boxes", "to_rle"]


def _tools() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        raise GuerdonError("masks need pycocotools: pip install 'guerdon[bench]' (boxes do not: --type bbox)") from None
    return mask


def to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Polygons, an uncompressed or a compressed run-length code as a compressed one. Raises GuerdonError for others."""
    tools = _tools()
    try:
        if isinstance(segmentation, list):
            return tools.merge(tools.frPyObjects(segmentation, height, width))
        if isinstance(segmentation["counts"], list):
            return tools.frPyObjects(segmentation, height, width)
        tools.area(segmentation)
        return segmentation
    except Exception as error:  # pycocotools raises bare Exception for a form it does not know
        shown = repr(segmentation)[:80]
        raise GuerdonError(f"{shown} is no polygon and no run-length code of a mask: {error}") from None


def mask_boxes(codes: Sequence[dict[str, Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes [N, 4] (x, y, width, height) around masks, and the masks' areas [N]."""
    if not codes:
        return np.zeros((0, 4)), np.zeros(0)
    tools = _tools()
    # One at a time: with numpy 2, pycocotools cannot take the areas of more than 255 at once.
    areas = np.array([float(tools.area(code)) for code in codes])
    return np.array([tools.toBbox(code) for code in codes], dtype=np.float64), areas


class MaskOverlap:
    """Overlap of detections' masks with objects', [D, G], by their places: the ``overlap`` of `match_detections`.

    found, truth:            segmentations as the files hold them; turned into run-length codes when first asked for.
    found_size, truth_size:  [N, 2] height and width of each one's image.
    """

    def __init__(
        self,
        found: Sequence[Any],
        found_size: NDArray[np.int64],
        truth: Sequence[Any],
        truth_size: NDArray[np.int64],
        crowd: NDArray[np.bool_],
    ) -> None:
        self._tools = _tools()
        self._found, self._truth = (found, found_size), (truth, truth_size)
        self._crowd = crowd

    def __call__(self, dt: NDArray[np.integer], gt: NDArray[np.integer]) -> NDArray[np.float64]:
        sides = [
            [to_rle(codes[place], *(int(side) for side in sizes[place])) for place in places]
            for (codes, sizes), places in ((self._found, dt), (self._truth, gt))
        ]
        return np.asarray(self._tools.iou(*sides, [int(one) for one in self._crowd[gt]]))

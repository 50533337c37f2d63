"""The hacking watch: what a training reward does not see, measured beside it while a policy climbs it.

A fixed set of prompts and seeds is drawn again every few steps and shown to judges that are no training reward, to
drift meters, and to a diversity measure. A *validation* judge may stop the run and choose its checkpoint; a
*held-out* judge is recorded and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guerdon.core.errors import GuerdonError
from guerdon.metrics.diversity import diversity, features
from guerdon.metrics.drift import drift

Score = Callable[[Tensor], Tensor]


@dataclass
class HackingWatch:
    """Measure a policy on fixed prompts and seeds, and say when to stop and which checkpoint to keep.

    draw:        () -> images [N, 3, H, W] in [0, 1] of the fixed prompts and seeds under the policy as it is now.
    groups:      N prompt ids, for diversity within a prompt.
    judges:      name -> (images -> scores [N]); role in ``roles``: "training", "validation" or "held-out".
    alignment:   images -> alignment [N] with the user's prompts, or None.
    patience:    measurements without a better validation score before the run stops; None never stops.
    floor:       a checkpoint is eligible only if alignment and diversity stay above ``floor`` times their start.
    """

    draw: Callable[[], Tensor]
    groups: list[int]
    judges: Mapping[str, Score]
    roles: Mapping[str, str]
    alignment: Score | None = None
    patience: int | None = 3
    floor: float = 0.9
    rows: list[dict[str, float]] = field(default_factory=list)
    base_images: Tensor | None = None

    def __post_init__(self) -> None:
        missing = set(self.judges) - set(self.roles)
        if missing:
            raise GuerdonError(f"hacking watch: judge {sorted(missing)[0]!r} has no role")

    def measure(self, step: int) -> dict[str, float]:
        """Draw, score and record; returns the row, keys as in ``metrics.jsonl``. The first call is the reference."""
        images = self.draw()
        if self.base_images is None:
            self.base_images = images
        row: dict[str, float] = {"step": step}
        for name, judge in self.judges.items():
            row[f"judge/{name}/{self.roles[name]}"] = float(judge(images).mean())
        row |= {f"drift/{name}": float(values.mean()) for name, values in drift(images).items()}
        row["distance_to_base"] = float((features(images) - features(self.base_images)).norm(dim=1).mean())
        row["diversity"] = float(diversity(images, self.groups))
        if self.alignment is not None:
            row["alignment"] = float(self.alignment(images).mean())
        self.rows.append(row)
        return row

    def validation(self, row: Mapping[str, float]) -> float:
        """Mean score of the validation judges in ``row``; nan if there is none."""
        scores = [value for key, value in row.items() if key.startswith("judge/") and key.endswith("/validation")]
        return sum(scores) / len(scores) if scores else float("nan")

    def eligible(self, row: Mapping[str, float]) -> bool:
        """Whether alignment and diversity stayed above the floor; a figure that is nan forbids nothing."""
        first = self.rows[0]
        least = {
            key: first[key] - (1 - self.floor) * abs(first[key]) for key in ("alignment", "diversity") if key in first
        }
        return not any(row[key] < least[key] for key in least)

    def best(self) -> dict[str, float]:
        """The eligible row with the best validation score; the first row is always eligible."""
        return max(filter(self.eligible, self.rows), key=self.validation)

    def exhausted(self) -> bool:
        """Whether ``patience`` measurements have passed without a better eligible validation score."""
        if self.patience is None or not self.rows:
            return False
        best = self.best()
        later = [row for row in self.rows if row["step"] > best["step"]]
        return len(later) >= self.patience

    def state(self) -> Tensor | None:
        """The reference images, to go on with after a resume (rows are in the run's ``metrics.jsonl``)."""
        return None if self.base_images is None else torch.as_tensor(self.base_images)

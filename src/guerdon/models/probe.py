"""Probes of frozen representations: what is linearly in them, and how far from anything known a new one lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from guerdon.core.errors import GuerdonError, unknown
from guerdon.core.identity import config_hash

__all__ = ["InferenceTimeProbe", "LinearProbe", "Metric", "Recipe"]

Recipe = Literal["paper", "converged"]
Metric = Literal["euclidean", "whitened", "cosine"]
Floats = NDArray[np.float64]

BATCH, LEARNING_RATE, BETAS, WEIGHT_DECAY, MAX_NORM = 128, 5e-5, (0.9, 0.95), 0.1, 1.0


class LinearProbe:
    """A linear classifier of classes 0..C-1 on frozen states: ``fit(states, labels)``, ``predict(states)``.

    recipe "converged":  logistic regression on standardised states with an L2 penalty, to convergence, with a bias.
    recipe "paper":      W without a bias, one logit and binary cross-entropy for two classes, else C logits and
                         cross-entropy; one epoch of AdamW in batches of 128, rate 5e-5 with a cosine to 0, betas (0.9,
                         0.95), weight decay 0.1, gradients of at most norm 1, from torch's random start, read after
                         ``steps`` optimiser steps. A weight moves by no more than the sum of the rates, about 0.003,
                         from a random start of size 1 / sqrt(d): what few coordinates of a narrow state carry is not
                         learnt, and the score hangs on ``seed``. Report it beside the other, over seeds.

    classes:  at least 2. bias: None for the recipe's own. inverse_penalty: scikit-learn's C, of "converged" alone.
    steps:    of "paper" alone: where in the epoch the probe is read; None: at its end.

    Arithmetic is float32 where the released training is bf16. Source: MRMBench (arXiv 2511.12464), its probe and
    released scripts. Raises GuerdonError for an unknown recipe, fewer than 2 classes, or an argument of the other
    recipe.
    """

    def __init__(
        self,
        classes: int,
        *,
        recipe: Recipe = "converged",
        bias: bool | None = None,
        inverse_penalty: float | None = None,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        if recipe not in get_args(Recipe):
            raise unknown("probe recipe", recipe, get_args(Recipe))
        if classes < 2:
            raise GuerdonError(f"a probe tells at least 2 classes apart, got {classes}")
        if recipe == "paper" and inverse_penalty is not None or recipe == "converged" and steps is not None:
            raise GuerdonError("inverse_penalty is for the recipe 'converged', steps for 'paper'")
        self.classes, self.recipe, self.seed, self.steps = classes, recipe, seed, steps
        self.bias = recipe == "converged" if bias is None else bias
        self.inverse_penalty = 0.01 if inverse_penalty is None else inverse_penalty
        self.weight: Floats | None = None
        self.offset: Floats = np.zeros(1)

    def fit(self, states: ArrayLike, labels: ArrayLike) -> LinearProbe:
        """Fit to states [N, d] and integer labels [N]. Raises GuerdonError for shapes, no class, or only one."""
        x, y = _states(states), _labels(labels, self.classes)
        if len(x) != len(y):
            raise GuerdonError(f"a probe needs a label a state, got {len(y)} for {len(x)}")
        self.weight, self.offset = self._converged(x, y) if self.recipe == "converged" else self._paper(x, y)
        return self

    def logits(self, states: ArrayLike) -> Floats:
        """Logits [N, C]; of two classes the first is 0."""
        if self.weight is None:
            raise GuerdonError("a probe must be fitted before it predicts")
        given = _states(states) @ self.weight.T + self.offset
        return np.concatenate([np.zeros_like(given), given], axis=1) if self.classes == 2 else given

    def predict(self, states: ArrayLike) -> NDArray[np.int64]:
        """The likeliest class of each state, int64 [N]."""
        return self.logits(states).argmax(1).astype(np.int64)

    def _converged(self, x: Floats, y: NDArray[np.int64]) -> tuple[Floats, Floats]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        there = np.unique(y)
        if len(there) < 2:
            raise GuerdonError(f"all labels are {there[0]}; a probe needs at least two classes to tell apart")
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(C=self.inverse_penalty, fit_intercept=self.bias, max_iter=2000)
        model.fit(scaler.transform(x), y)
        rows = model.coef_ / scaler.scale_
        offset = model.intercept_ - rows @ scaler.mean_
        if len(there) == 2:  # one row of sklearn's says how far the second is above the first
            rows, offset = np.concatenate([-rows, rows]) / 2, np.concatenate([-offset, offset]) / 2
        if self.classes == 2:
            return rows[1:] - rows[:1], offset[1:] - offset[:1]
        weight, shift = np.zeros((self.classes, x.shape[1])), np.full(self.classes, -np.inf)
        weight[there], shift[there] = rows, offset  # a class without examples is never predicted
        return weight, shift

    def _paper(self, x: Floats, y: NDArray[np.int64]) -> tuple[Floats, Floats]:
        generator = torch.Generator().manual_seed(self.seed)
        given, labels = torch.from_numpy(x).float(), torch.from_numpy(y)
        outputs = 1 if self.classes == 2 else self.classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            layer = torch.nn.Linear(x.shape[1], outputs, bias=self.bias)
        optimiser = torch.optim.AdamW(layer.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY)
        order = torch.randperm(len(given), generator=generator).split(BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(order))
        for rows in order[: self.steps]:
            logits = layer(given[rows])
            loss = (
                torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], labels[rows].float())
                if outputs == 1
                else torch.nn.functional.cross_entropy(logits, labels[rows])
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(layer.parameters(), MAX_NORM)
            optimiser.step()
            schedule.step()
        offset = layer.bias.detach().double().numpy() if self.bias else np.zeros(outputs)
        return layer.weight.detach().double().numpy(), offset


class InferenceTimeProbe:
    """How far a new representation lies from what each dimension's labelled examples look like.

    Examples of each label of a dimension are grouped by K-means into ``k`` centroids (fewer where there are fewer
    examples). A dimension's distance is that to the nearest of its centroids: the nearest dimension is the one that
    the reward model leans on, and a state far from all of them gets a reward that nothing vouches for.

    k:       centroids a label. UNVERIFIED: the paper's k is not known.
    metric:  "euclidean", the paper's; "whitened": after a transform under which the examples have unit covariance
             (their correlations shrunk by Ledoit-Wolf), "cosine": of directions from the examples' mean. The last two
             are ours: raw states lie in a narrow cone, where few directions decide every distance.
    seed:    of K-means.

    Source: MRMBench (arXiv 2511.12464), inference-time probing, by a secondary description: no code was released.
    """

    def __init__(self, k: int = 3, *, metric: Metric = "euclidean", seed: int = 0) -> None:
        if k < 1:
            raise GuerdonError(f"k must be at least 1 centroid a label, got {k}")
        if metric not in get_args(Metric):
            raise unknown("metric", metric, get_args(Metric))
        self.k, self.metric, self.seed = k, metric, seed
        self.centroids: dict[str, Floats] = {}
        self._mean: Floats = np.zeros(0)
        self._transform: Floats | None = None
        self._calibration: Floats = np.zeros(0)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the dimensions, in the order of `distances`."""
        return tuple(self.centroids)

    def fit(
        self, states: ArrayLike | Mapping[str, ArrayLike], labels_by_dimension: Mapping[str, ArrayLike]
    ) -> InferenceTimeProbe:
        """Centroids of each dimension.

        Args:
            states: [N, d], or by dimension where each has examples of its own. Held-out ones, as in the paper.
            labels_by_dimension: integers [N] each; negative where an example has no label in that dimension.
        Raises:
            GuerdonError: shapes, no dimension, or one without a labelled example.
        """
        from sklearn.cluster import KMeans

        if not labels_by_dimension:
            raise GuerdonError("an inference-time probe needs at least one dimension")
        own = states if isinstance(states, Mapping) else {name: states for name in labels_by_dimension}
        known = {name: _states(own[name]) for name in labels_by_dimension}
        different = list({id(own[name]): known[name] for name in known}.values())
        self._prepare(np.concatenate(different))
        self._calibration, self.centroids = np.zeros(0), {}
        for name, given in labels_by_dimension.items():
            labels = np.asarray(given)
            if labels.shape != (len(known[name]),):
                raise GuerdonError(f"dimension {name!r} has {labels.size} labels for {len(known[name])} states")
            found = []
            for label in np.unique(labels[labels >= 0]):
                rows = self._moved(known[name][labels == label])
                count = min(self.k, len(np.unique(rows, axis=0)))
                found.append(KMeans(count, n_init=4, random_state=self.seed).fit(rows).cluster_centers_)
            if not found:
                raise GuerdonError(f"dimension {name!r} has no labelled example")
            self.centroids[name] = np.concatenate(found)
        return self

    def distances(self, states: ArrayLike) -> Floats:
        """Distance of each state to each dimension's nearest centroid, float64 [N, D]."""
        if not self.centroids:
            raise GuerdonError("an inference-time probe must be fitted before it measures")
        from scipy.spatial.distance import cdist

        rows = self._moved(_states(states, width=len(self._mean)))
        return np.stack([cdist(rows, centroids).min(1) for centroids in self.centroids.values()], axis=1)

    def nearest(self, states: ArrayLike) -> Floats:
        """d_min: distance to the nearest centroid of any dimension, float64 [N]."""
        return self.distances(states).min(1)

    def leaning(self, states: ArrayLike) -> list[str]:
        """The dimension that each state is nearest to."""
        return [self.dimensions[place] for place in self.distances(states).argmin(1)]

    def calibrate(self, states: ArrayLike) -> InferenceTimeProbe:
        """Remember d_min of held-out states, so that a threshold can be said as a quantile of them."""
        self._calibration = np.sort(self.nearest(states))
        return self

    def threshold(self, quantile: float) -> float:
        """The distance below which a share ``quantile`` of the calibration states lie."""
        if not 0 <= quantile <= 1:
            raise GuerdonError(f"quantile must lie in [0, 1], got {quantile}")
        if not self._calibration.size:
            raise GuerdonError("a threshold by quantile needs calibrate(states) first")
        return float(np.quantile(self._calibration, quantile))

    def gate(self, states: ArrayLike, *, tau: float | None = None, quantile: float | None = None) -> NDArray[np.bool_]:
        """Whether d_min <= tau, bool [N]: True keeps a sample's reward. Give tau, or the quantile that stands for it.

        The paper's tau = 140 belongs to its reward model's scale; a quantile carries over.
        """
        if (tau is None) == (quantile is None):
            raise GuerdonError("a gate needs either tau or quantile")
        limit = self.threshold(quantile) if quantile is not None else float(tau)  # type: ignore[arg-type]
        return self.nearest(states) <= limit

    def save(self, path: str | Path) -> Path:
        """Write centroids, transform and calibration as one safetensors file."""
        from safetensors.numpy import save_file

        arrays = {f"centroids.{place}": rows for place, rows in enumerate(self.centroids.values())}
        arrays |= {"mean": self._mean, "calibration": self._calibration}
        arrays |= {} if self._transform is None else {"transform": self._transform}
        told = {"k": self.k, "metric": self.metric, "seed": self.seed, "dimensions": self.dimensions}
        save_file(
            {name: np.ascontiguousarray(rows) for name, rows in arrays.items()}, path, {"probe": json.dumps(told)}
        )
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> InferenceTimeProbe:
        """The probe of `save`. Raises GuerdonError for a file that is none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                told: dict[str, Any] = json.loads((file.metadata() or {})["probe"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
            probe = cls(told["k"], metric=told["metric"], seed=told["seed"])
            names = enumerate(told["dimensions"])
            probe.centroids = {name: arrays[f"centroids.{place}"] for place, name in names}
            probe._mean, probe._calibration = arrays["mean"], arrays["calibration"]
            probe._transform = arrays.get("transform")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise GuerdonError(f"{path} holds no inference-time probe ({error})") from None
        return probe

    def identity(self) -> str:
        """name@version#hash over centroids and choices."""
        told = [self.k, self.metric, self.seed, list(self.centroids.values()), self._calibration]
        return f"inference-time-probe@1#{config_hash(told)}"

    def _prepare(self, states: Floats) -> None:
        self._mean, self._transform = states.mean(0), None
        if self.metric == "whitened":
            from sklearn.covariance import LedoitWolf

            centred = states - self._mean
            scale = centred.std(0)
            if not scale.max() > 0:
                raise GuerdonError("states that are all alike cannot be whitened")
            # Shrunk as a correlation: shrinking a covariance would give every direction some of the largest one's.
            scale = np.maximum(scale, scale.max() * 1e-6)
            values, vectors = np.linalg.eigh(LedoitWolf(assume_centered=True).fit(centred / scale).covariance_)
            self._transform = vectors / np.sqrt(np.maximum(values, values.max() * 1e-9)) / scale[:, None]

    def _moved(self, states: Floats) -> Floats:
        """States where distances are taken."""
        if self.metric == "euclidean":
            return states
        centred = states - self._mean
        if self._transform is not None:
            return centred @ self._transform
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        return centred / np.where(lengths > 0, lengths, 1.0)


def _states(states: ArrayLike, width: int | None = None) -> Floats:
    rows = np.asarray(states, dtype=np.float64)
    if rows.ndim != 2 or width is not None and rows.shape[1] != width:
        raise GuerdonError(f"states must be [N, {width or 'd'}], got {list(rows.shape)}")
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows).all(1)).argmax())
        raise GuerdonError(f"state {bad} is not finite; leave out what has no representation")
    return rows


def _labels(labels: ArrayLike, classes: int) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.integer):
        raise GuerdonError(f"labels must be a non-empty [N] of integers, got {array.dtype} {list(array.shape)}")
    if array.min() < 0 or array.max() >= classes:
        raise GuerdonError(f"labels must lie in 0..{classes - 1}, got {int(array.min())}..{int(array.max())}")
    return array.astype(np.int64)

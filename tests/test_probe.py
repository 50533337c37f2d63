"""Linear probes find what is planted, and distances to centroids what is far from everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.class_scores import class_scores
from guerdon.models.probe import InferenceTimeProbe, LinearProbe


def planted(strength: float, rows: int, seed: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """States [rows, 24] of unit noise with ``strength`` of a class in one direction."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    states = rng.standard_normal((rows, 24))
    states[:, 0] += strength * (labels - (classes - 1) / 2)
    return states, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_converged_probe_finds_what_is_there_and_no_more(classes: int) -> None:
    found = {}
    for strength in (0.0, 1.0, 4.0):
        train, test = planted(strength, 1500, 0, classes), planted(strength, 1500, 1, classes)
        probe = LinearProbe(classes).fit(*train)
        found[strength] = class_scores(test[1], probe.predict(test[0]), classes).acc.value
    assert found[0.0] == pytest.approx(1 / classes, abs=0.05) and found[0.0] + 0.1 < found[1.0] < found[4.0]
    assert found[4.0] > 0.93


def test_shuffled_labels_give_the_majority_rate() -> None:
    states, labels = planted(4.0, 1000, 0)
    rng = np.random.default_rng(2)
    labels = np.where(rng.random(1000) < 0.8, 1, labels)
    probe = LinearProbe(2).fit(states, rng.permutation(labels))
    scores = class_scores(labels, probe.predict(states), 2)
    assert scores.acc.value == pytest.approx(scores.majority_acc, abs=0.03)


def test_the_converged_probe_does_not_depend_on_the_scale() -> None:
    train, (test, _) = planted(1.0, 500, 0), planted(1.0, 300, 1)
    one = LinearProbe(2).fit(*train).predict(test)
    other = LinearProbe(2).fit(1000 * train[0] + 5, train[1]).predict(1000 * test + 5)
    assert (one == other).mean() > 0.99


def test_the_paper_s_recipe_moves_each_weight_by_no_more_than_its_rates() -> None:
    """50 steps at a cosine from 5e-5 sum to 0.00125, and Adam moves a weight by about its rate a step."""
    states, labels = planted(4.0, 6400, 0)
    start = LinearProbe(2, recipe="paper", steps=0).fit(states, labels)
    end = LinearProbe(2, recipe="paper").fit(states, labels)
    assert start.weight is not None and end.weight is not None
    moved = np.abs(end.weight - start.weight)
    assert moved.max() < 0.002 and moved[0, 0] > 0.001
    assert not end.bias and end.offset.tolist() == [0.0]


def test_the_paper_s_recipe_hangs_on_its_seed() -> None:
    train, (test, labels) = planted(2.0, 2000, 0), planted(2.0, 1000, 1)
    accuracy = [
        float((LinearProbe(2, recipe="paper", seed=seed).fit(*train).predict(test) == labels).mean())
        for seed in (0, 1, 2, 1)
    ]
    assert max(accuracy) - min(accuracy) > 0.1  # in 24 coordinates it says what its random start says
    assert accuracy[3] == accuracy[1]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_paper_s_recipe_learns_what_many_coordinates_carry(classes: int) -> None:
    rng = np.random.default_rng(0)
    direction = rng.choice([-0.5, 0.5], size=512)
    labels = rng.integers(classes, size=8000)
    states = rng.standard_normal((8000, 512)) + direction * (labels - (classes - 1) / 2)[:, None]
    found = {}
    for steps in (0, None):
        probe = LinearProbe(classes, recipe="paper", steps=steps).fit(states[:7000], labels[:7000])
        assert probe.weight is not None and probe.weight.shape == (1 if classes == 2 else 3, 512)
        found[steps] = float((probe.predict(states[7000:]) == labels[7000:]).mean())
    assert found[None] > found[0] + 0.1


def test_a_class_without_examples_is_never_said() -> None:
    states, labels = planted(4.0, 400, 0)
    probe = LinearProbe(3).fit(states, labels)
    assert set(probe.predict(states).tolist()) == {0, 1}
    assert (probe.predict(states) == LinearProbe(2).fit(states, labels).predict(states)).mean() > 0.99


@pytest.mark.parametrize(
    "options, said",
    [({"recipe": "papr"}, "recipe"), ({"classes": 1}, "2 classes"), ({"steps": 3}, "steps"),
     ({"recipe": "paper", "inverse_penalty": 1.0}, "inverse_penalty")],
)  # fmt: skip
def test_choices_of_a_probe(options: dict[str, object], said: str) -> None:
    with pytest.raises(GuerdonError, match=said):
        LinearProbe(**{"classes": 2, **options})  # type: ignore[arg-type]


def test_what_a_probe_cannot_be_fitted_to() -> None:
    with pytest.raises(GuerdonError, match="fitted before"):
        LinearProbe(2).predict([[0.0]])
    for states, labels, said in [
        ([[0.0], [np.nan]], [0, 1], "state 1 is not finite"), ([[0.0]], [0, 1], "a label a state"),
        ([[0.0], [1.0]], [0, 2], "0..1"), ([[0.0], [1.0]], [1, 1], "two classes"), ([0.0], [0], r"\[N, d\]"),
    ]:  # fmt: skip
        with pytest.raises(GuerdonError, match=said):
            LinearProbe(2).fit(states, labels)


# ---- inference-time probing


def corners() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Forty states around (0, 0), (10, 0), (0, 10); "x" labels the first two, "y" the third."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    place = np.repeat([0, 1, 2], 40)
    labels = {"x": np.where(place == 2, -1, place), "y": np.where(place == 2, 1, -1)}
    return centres[place] + 0.1 * rng.standard_normal((120, 2)), labels


def test_distance_is_that_to_the_nearest_centroid_of_a_dimension() -> None:
    states, labels = corners()
    probe = InferenceTimeProbe(1).fit(states, labels)
    assert probe.dimensions == ("x", "y") and {len(rows) for rows in probe.centroids.values()} == {2, 1}
    found = probe.distances([[0, 0], [0, 10], [30, 40]])
    assert found == pytest.approx(np.array([[0, 10], [10, 0], [44.7, 42.4]]), abs=0.1)
    assert probe.leaning([[0, 1], [0, 9]]) == ["x", "y"]
    assert probe.nearest([[3, 4]]) == pytest.approx([5], abs=0.1)


def test_a_gate_by_tau_or_by_quantile() -> None:
    states, labels = corners()
    probe = InferenceTimeProbe(2).fit(states, labels)
    assert probe.gate([[0, 0], [30, 40]], tau=1.0).tolist() == [True, False]
    with pytest.raises(GuerdonError, match="calibrate"):
        probe.gate(states, quantile=0.5)
    probe.calibrate(states)
    assert probe.gate(states, quantile=0.6).mean() == pytest.approx(0.6, abs=0.01)
    assert probe.gate([[30, 40]], quantile=1.0).tolist() == [False]
    for options in ({}, {"tau": 1.0, "quantile": 0.5}, {"quantile": 1.5}):
        with pytest.raises(GuerdonError):
            probe.gate(states, **options)


def test_whitening_takes_out_what_is_large_everywhere() -> None:
    """One direction of deviation 100 drowns the one in which an outlier lies; whitened, it is the farthest."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((400, 2)) * [100.0, 1.0]
    labels = {"x": (states[:, 0] > 0).astype(int)}
    odd = np.array([[0.0, 12.0]])
    rank = {}
    for metric in ("euclidean", "whitened"):
        probe = InferenceTimeProbe(1, metric=metric).fit(states, labels)  # type: ignore[arg-type]
        rank[metric] = float((probe.nearest(states) > probe.nearest(odd)[0]).mean())
    assert rank["whitened"] == 0.0 and rank["euclidean"] > 0.05


def test_cosine_knows_directions_only() -> None:
    states, labels = corners()
    probe = InferenceTimeProbe(1, metric="cosine").fit(states, labels)
    centre = states.mean(0)
    away = np.array([3.0, -1.0])
    found = probe.distances(np.stack([centre + away, centre + 7 * away]))
    assert found[0] == pytest.approx(found[1])


def test_dimensions_may_have_examples_of_their_own() -> None:
    states, labels = corners()
    parts = {"x": states[:80], "y": states[80:]}
    probe = InferenceTimeProbe(1).fit(parts, {"x": labels["x"][:80], "y": labels["y"][80:]})
    assert probe.distances(states) == pytest.approx(InferenceTimeProbe(1).fit(states, labels).distances(states))


@pytest.mark.parametrize("metric", ["euclidean", "whitened", "cosine"])
def test_a_file_gives_the_same_distances(metric: str, tmp_path: Path) -> None:
    states, labels = corners()
    probe = InferenceTimeProbe(2, metric=metric).fit(states, labels).calibrate(states)  # type: ignore[arg-type]
    again = InferenceTimeProbe.load(probe.save(tmp_path / "probe.safetensors"))
    assert np.array_equal(again.distances(states), probe.distances(states)) and again.dimensions == probe.dimensions
    assert again.threshold(0.5) == probe.threshold(0.5) and again.identity() == probe.identity()
    (tmp_path / "bad").write_bytes(b"nothing")
    with pytest.raises(GuerdonError, match="no inference-time probe"):
        InferenceTimeProbe.load(tmp_path / "bad")


def test_what_an_inference_time_probe_cannot_use() -> None:
    states, labels = corners()
    for bad in ({}, {"x": labels["x"][:3]}, {"x": -np.ones(120, int)}):
        with pytest.raises(GuerdonError):
            InferenceTimeProbe().fit(states, bad)
    with pytest.raises(GuerdonError, match="fitted before"):
        InferenceTimeProbe().distances(states)
    with pytest.raises(GuerdonError, match="metric"):
        InferenceTimeProbe(metric="l2")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match=r"\[N, 2\]"):
        InferenceTimeProbe().fit(states, labels).distances([[1.0, 2.0, 3.0]])

"""The network of compared answers: path variances, resistances, components, diameters, structure of embeddings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from guerdon.core.errors import GuerdonError
from guerdon.metrics.preference_graph import IBN, graph_report, random_graph_hops, structural_function


def chain_of(variances, network=None):
    network = network or IBN()
    for place, var in enumerate(variances):
        network.add_bias_edge(place, place + 1, var)
    return network


def test_variances_add_along_a_path_and_the_least_path_counts() -> None:
    network = chain_of([0.5, 0.25, 0.1])
    assert network.inference_distance(0, 3) == pytest.approx(0.85)
    assert network.exact_posterior_variance(0, 3) == pytest.approx(0.85)
    network.add_preference_edge(0, "between", 0.35)
    network.add_preference_edge("between", 3, 0.25)
    assert network.inference_distance(3, 0) == pytest.approx(0.6)
    # Two paths side by side tell more than the better one alone.
    assert network.exact_posterior_variance(0, 3) == pytest.approx(1 / (1 / 0.85 + 1 / 0.6))
    assert network.counts() == {"nodes": 5, "bias": 3, "preference": 2}


def test_parallel_edges_equal_nodes_and_nodes_apart() -> None:
    network = chain_of([1.0])
    network.add_preference_edge(1, 0, 0.5)
    network.add_preference_edge("a", "b", 2.0)
    assert network.inference_distance(0, 1) == 0.5
    assert network.exact_posterior_variance(0, 1) == pytest.approx(1 / 3)
    assert network.inference_distance(0, 0) == network.exact_posterior_variance(0, 0) == 0
    assert network.inference_distance(0, "a") == network.exact_posterior_variance(0, "a") == math.inf
    assert network.mean_inference_distance([(0, 1), ("a", "b")]) == 1.25


def test_the_exact_variance_is_that_of_the_gaussian_model() -> None:
    rng = np.random.default_rng(0)
    network, precision = IBN(), np.zeros((30, 30))
    for u in range(29):  # connected by a path, then at random
        for v in {u + 1, *rng.integers(0, 30, 2).tolist()} - {u}:
            var = float(rng.uniform(0.2, 2))
            (network.add_bias_edge if v == u + 1 else network.add_preference_edge)(u, v, var)
            step = np.zeros(30)
            step[[u, v]] = 1, -1
            precision += np.outer(step, step) / var
    covariance = np.linalg.pinv(precision)
    pairs = [(int(u), int(v)) for u, v in rng.integers(0, 30, (40, 2))]
    want = [covariance[u, u] + covariance[v, v] - 2 * covariance[u, v] for u, v in pairs]
    exact = network.exact_posterior_variances(pairs)
    assert exact == pytest.approx(want, abs=1e-9)
    assert (exact <= network.inference_distances(pairs) + 1e-9).all()


def test_a_hundred_thousand_edges() -> None:
    rng = np.random.default_rng(1)
    network = IBN()
    for u, v in rng.integers(0, 20_000, (100_000, 2)).tolist():
        if u != v:
            network.add_preference_edge(u, v, 1.0)
    pairs = [(u, v) for u, v in rng.integers(0, 20_000, (50, 2)).tolist()]
    distance, exact = network.mean_inference_distance(pairs), network.exact_posterior_variances(pairs[:3])
    assert 4 < distance < 6 and (exact < 1).all()  # log 20000 / log 10 = 4.3 hops


def test_errors_name_what_is_wrong() -> None:
    network = chain_of([1.0])
    for var in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(GuerdonError, match="finite variance above 0"):
            network.add_bias_edge(0, 1, var)
    with pytest.raises(GuerdonError, match="got 3 twice"):
        network.add_preference_edge(3, 3, 1.0)
    with pytest.raises(GuerdonError, match="'x' has no edge"):
        network.inference_distance(0, "x")
    with pytest.raises(GuerdonError, match="at least one pair"):
        network.mean_inference_distance([])
    with pytest.raises(GuerdonError, match="at least one comparison"):
        graph_report([(1, 1)])


def test_the_report_of_small_graphs() -> None:
    report = graph_report([("a", "b"), ("b", "c"), ("c", "d"), ("a", "b"), ("x", "y"), ("z", "z")])
    assert (report.nodes, report.edges, report.components, report.largest) == (6, 5, 2, 4)
    assert report.degree == pytest.approx(10 / 6) and report.max_degree == 3
    assert report.diameter == 3 and report.diameter_exact
    star = graph_report([("hub", leaf) for leaf in range(5)], sample=4000)
    assert star.diameter == 2 and star.max_degree == 5
    # Of the 30 ordered pairs of a star of five, 10 touch the hub.
    assert star.mean_distance == pytest.approx(2 - 1 / 3, abs=0.04)
    assert graph_report([(0, 1)]).diameter == 1


@pytest.mark.parametrize("length, exact", [(50, True), (500, True), (2500, False)])
def test_diameters_of_paths(length: int, exact: bool) -> None:
    path = [(place, place + 1) for place in range(length)]
    report = graph_report([*path, *((f"{n} a", f"{n} b") for n in range(30))], sample=1)
    assert (report.diameter, report.diameter_exact, report.components) == (length, exact, 31)


def test_many_small_groups() -> None:
    """12,500 groups of 8, each a path of 3 comparisons beside a star."""
    edges = [
        ((n, a), (n, b)) for n in range(12_500) for a, b in ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (5, 7))
    ]
    report = graph_report(edges)
    assert report.components == 12_500 and report.largest == 8 and report.diameter == 6 and report.diameter_exact


def test_structural_function() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], float)
    points = np.repeat(centres, 20, axis=0) + rng.normal(0, 0.1, (80, 2))
    assert structural_function(points, 1) == pytest.approx(2 * points.var(0).sum())
    values = [structural_function(points, M) for M in (1, 2, 4, 16)]
    assert values == sorted(values, reverse=True) and values[2] < 0.1 < 10 < values[1]
    assert structural_function(points, 80) < 0.1  # pairs at most: bounds of 1 and 2
    assert structural_function(points[:4], 4) == 0
    with pytest.raises(GuerdonError, match="1 <= M <= N"):
        structural_function(points, 81)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_cluster_sizes_are_bounded() -> None:
    """60 of 80 answers at one place: two clusters of at most 80 suffice, four need that place split."""
    points = np.r_[np.zeros((60, 1)), np.full((20, 1), 10.0)]
    assert structural_function(points, 2) == pytest.approx(0)
    # Eight clusters of 5 to 20: three take the zeros, five the tens.
    assert structural_function(points, 8) <= structural_function(points, 2) + 1e-9
    lopsided = np.r_[np.zeros((79, 1)), [[10.0]]]
    # The one far answer must share its cluster with 19 others.
    assert structural_function(lopsided, 2) == pytest.approx(2 * 100 * (1 / 20) * (19 / 20))


def test_hops_of_a_random_graph_follow_the_logarithm() -> None:
    hops, said = random_graph_hops(1250, 10_000)
    assert hops == pytest.approx(2.9, abs=0.1) and said == pytest.approx(math.log(1250) / math.log(16))
    with pytest.raises(GuerdonError, match="mean degree above 1"):
        random_graph_hops(100, 50)


def test_ratio_of_chain_and_tree_at_a_hundred_thousand_pairs() -> None:
    from guerdon.metrics.preference_graph import chain_over_tree

    assert chain_over_tree(100_000, 0.0) == pytest.approx(4.71, abs=0.005)
    assert chain_over_tree(100_000, 1.0) < 1 < chain_over_tree(100_000, 0.5)
    with pytest.raises(GuerdonError, match="n above e"):
        chain_over_tree(2, 0.0)

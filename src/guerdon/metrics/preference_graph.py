"""The graph of compared answers: how far apart two answers are for a reward model that infers one from the other."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.sparse.linalg import cg, splu

from guerdon.core.errors import GuerdonError

__all__ = ["IBN", "GraphReport", "chain_over_tree", "graph_report", "random_graph_hops", "structural_function"]

Node = Hashable
_CELLS = 10**7  # floats of one block of distances
_DIRECT = 5000  # nodes up to which a factorisation is sure to fit into memory
_SMALL, _SEARCHED = 64, 2000  # sizes of components up to which products, and one search a node, find the diameter


class IBN:
    """Induced Bayesian network: answers, and edges that say how well the reward of one tells that of another.

    A bias edge stands for what pre-training makes alike (its variance is that of r(u) - r(v) before any label), a
    preference edge for one human comparison (its variance is that of the label's noise). The paper postulates the
    first kind and never measures it: a number computed here means something together with its edge model only.

    Source: arXiv 2402.10184, section 3.2, as far as public notes give it; distances by shortest paths UNVERIFIED.
    """

    def __init__(self) -> None:
        self._places: dict[Node, int] = {}
        self._edges: dict[str, tuple[list[int], list[int], list[float]]] = {
            kind: ([], [], []) for kind in ("bias", "preference")
        }
        self._graph: csr_matrix | None = None

    def add_bias_edge(self, u: Node, v: Node, var: float) -> None:
        """Rewards of u and v differ by a deviation of sqrt(``var``) before any comparison; ``var`` > 0."""
        self._add("bias", u, v, var)

    def add_preference_edge(self, u: Node, v: Node, var: float) -> None:
        """One comparison of u and v, whose label tells r(u) - r(v) up to noise of variance ``var`` > 0."""
        self._add("preference", u, v, var)

    def _add(self, kind: str, u: Node, v: Node, var: float) -> None:
        if not (var > 0 and math.isfinite(var)):
            raise GuerdonError(f"an edge needs a finite variance above 0, got {var} between {u!r} and {v!r}")
        if u == v:
            raise GuerdonError(f"an edge joins two answers, got {u!r} twice")
        first, second, variances = self._edges[kind]
        first.append(self._places.setdefault(u, len(self._places)))
        second.append(self._places.setdefault(v, len(self._places)))
        variances.append(float(var))
        self._graph = None

    def counts(self) -> dict[str, int]:
        """How many nodes, bias edges and preference edges (parallel ones each) there are."""
        return {"nodes": len(self._places), **{kind: len(edges[2]) for kind, edges in self._edges.items()}}

    def inference_distance(self, u: Node, v: Node) -> float:
        """Smallest sum of variances along a path from u to v; 0 for u == v, inf where no path is.

        Raises GuerdonError for a node without an edge.
        """
        return float(self.inference_distances([(u, v)])[0])

    def mean_inference_distance(self, pairs: Sequence[tuple[Node, Node]]) -> float:
        """Mean of `inference_distance` over ``pairs``; inf as soon as one pair is not connected.

        Raises GuerdonError for no pairs.
        """
        return float(self.inference_distances(pairs).mean())

    def inference_distances(self, pairs: Sequence[tuple[Node, Node]]) -> NDArray[np.float64]:
        """`inference_distance` of each pair, [P]; one search (Dijkstra 1959) a different first node."""
        ends = self._ends(pairs)
        if len(np.unique(ends[:, 0])) > len(np.unique(ends[:, 1])):
            ends = ends[:, ::-1]
        graph = self._shortest()
        sources, which = np.unique(ends[:, 0], return_inverse=True)
        found = np.empty(len(ends))
        step = max(1, _CELLS // len(self._places))
        for start in range(0, len(sources), step):
            distances = dijkstra(graph, indices=sources[start : start + step])
            rows = np.flatnonzero((which >= start) & (which < start + step))
            found[rows] = distances[which[rows] - start, ends[rows, 1]]
        return found

    def exact_posterior_variance(self, u: Node, v: Node) -> float:
        """Var[r(u) - r(v)] given everything, over all paths; at most `inference_distance`, inf where no path is.

        The Gaussian version: every edge is an independent observation of r(u) - r(v) with noise of its variance (a
        bias edge observed 0), under a flat prior. Variances then combine as resistances do: in a row they add, side by
        side their inverses add. Source: effective resistance, Klein and Randic 1993. Raises as `inference_distance`.
        """
        return float(self.exact_posterior_variances([(u, v)])[0])

    def exact_posterior_variances(self, pairs: Sequence[tuple[Node, Node]]) -> NDArray[np.float64]:
        """`exact_posterior_variance` of each pair, [P]."""
        ends, size = self._ends(pairs), len(self._places)
        first, second, variances = self._all_edges()
        weights = _symmetric(first, second, 1 / variances, size)
        _, labels = connected_components(weights, directed=False)
        # Of every component one node is held at 0, which makes the Laplacian positive definite.
        held = np.zeros(size)
        held[np.unique(labels, return_index=True)[1]] = 1 / variances.min()
        laplacian = (diags(np.asarray(weights.sum(1)).ravel() + held) - weights).tocsc()
        joined = np.flatnonzero((labels[ends[:, 0]] == labels[ends[:, 1]]) & (ends[:, 0] != ends[:, 1]))
        found = np.where(labels[ends[:, 0]] == labels[ends[:, 1]], 0.0, np.inf)
        factor = splu(laplacian, permc_spec="MMD_AT_PLUS_A") if size <= _DIRECT else None
        scale = diags(1 / laplacian.diagonal())
        for row in joined:
            u, v = ends[row]
            current = np.zeros(size)
            current[[u, v]] = 1.0, -1.0
            if factor is not None:
                level = factor.solve(current)
            else:
                level, left = cg(laplacian, current, rtol=1e-9, maxiter=4 * size, M=scale)
                if left:
                    raise GuerdonError(f"the exact variance did not converge on {size} nodes")
            found[row] = level[u] - level[v]
        return found

    def _ends(self, pairs: Sequence[tuple[Node, Node]]) -> NDArray[np.int64]:
        if not len(pairs):
            raise GuerdonError("a distance needs at least one pair of answers")
        strange = next((node for pair in pairs for node in pair if node not in self._places), None)
        if strange is not None:
            raise GuerdonError(f"{strange!r} has no edge in this network of {len(self._places)} answers")
        return np.array([[self._places[u], self._places[v]] for u, v in pairs], dtype=np.int64)

    def _all_edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        bias, label = self._edges["bias"], self._edges["preference"]
        return np.array(bias[0] + label[0]), np.array(bias[1] + label[1]), np.array(bias[2] + label[2])

    def _shortest(self) -> csr_matrix:
        """The graph with the least of parallel variances, kept until an edge is added."""
        if self._graph is None:
            first, second, variances = self._all_edges()
            low, high = np.minimum(first, second), np.maximum(first, second)
            order = np.lexsort((variances, high, low))
            low, high, variances = low[order], high[order], variances[order]
            keep = np.r_[True, (np.diff(low) != 0) | (np.diff(high) != 0)]
            self._graph = _symmetric(low[keep], high[keep], variances[keep], len(self._places))
        return self._graph


def _symmetric(first: NDArray, second: NDArray, values: NDArray, size: int) -> csr_matrix:
    """Both directions of every edge; parallel ones are summed."""
    rows, columns = np.r_[first, second], np.r_[second, first]
    return csr_matrix((np.r_[values, values], (rows, columns)), shape=(size, size))


@dataclass(frozen=True)
class GraphReport:
    """How the comparisons of a data set hang together.

    degree, max_degree:  comparisons an answer, repeats included: mean and largest.
    diameter:            hops between the two connected answers furthest apart; a lower bound unless ``diameter_exact``.
    mean_distance:       mean inference distance between connected answers, every comparison having variance 1 (so
                         hops), over a sample of pairs.
    """

    nodes: int
    edges: int
    components: int
    largest: int
    degree: float
    max_degree: int
    diameter: int
    diameter_exact: bool
    mean_distance: float


def graph_report(comparisons: Iterable[tuple[Node, Node]], *, sample: int = 200, seed: int = 0) -> GraphReport:
    """`GraphReport` of any comparisons, given as pairs of answers (anything hashable that names an answer).

    sample, seed:  pairs of connected answers for ``mean_distance``.

    The diameter is exact up to 2,000 answers a component, beyond that the better of two sweeps of breadth-first search.
    An answer compared with itself is left out. Raises GuerdonError where no comparison remains.
    """
    network = IBN()
    for u, v in comparisons:
        if u != v:
            network.add_preference_edge(u, v, 1.0)
    first, second, _ = network._all_edges()
    if not len(first):
        raise GuerdonError("a graph needs at least one comparison of two answers")
    size, graph = len(network._places), network._shortest()
    _, labels = connected_components(graph, directed=False)
    sizes, degrees = np.bincount(labels), np.bincount(np.r_[first, second], minlength=size)
    diameter, exact = _diameter(graph, labels, sizes)
    rng = np.random.default_rng(seed)
    by_group, starts = np.argsort(labels, kind="stable"), np.cumsum(sizes) - sizes
    places = rng.integers(size, size=sample)
    group = labels[by_group[places]]
    within = places - starts[group]
    other = starts[group] + (within + rng.integers(1, sizes[group])) % sizes[group]
    names = list(network._places)
    drawn = [(names[by_group[a]], names[by_group[b]]) for a, b in zip(places, other)]
    return GraphReport(
        nodes=size, edges=len(first), components=len(sizes), largest=int(sizes.max()), degree=float(degrees.mean()),
        max_degree=int(degrees.max()), diameter=diameter, diameter_exact=exact,
        mean_distance=network.mean_inference_distance(drawn),
    )  # fmt: skip


def _diameter(graph: csr_matrix, labels: NDArray, sizes: NDArray) -> tuple[int, bool]:
    best, exact = 0, True
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    for group in np.argsort(-sizes):
        if sizes[group] <= max(_SMALL, best + 1):
            break
        part = graph[members[group]][:, members[group]]
        if sizes[group] <= _SEARCHED:
            best = max(best, int(dijkstra(part, unweighted=True).max()))
        else:
            exact = False
            sweep = dijkstra(part, unweighted=True, indices=0)
            best = max(best, int(dijkstra(part, unweighted=True, indices=int(sweep.argmax())).max()))
    # All small components at once: powers of the adjacency fill their blocks after as many steps as the diameter.
    small = np.flatnonzero(sizes[labels] <= _SMALL)
    if len(small) and sizes[sizes <= _SMALL].max() > best + 1:
        near = graph[small][:, small].astype(bool) + identity(len(small), dtype=bool, format="csr")
        reach, steps = near, 1
        full = int((sizes[sizes <= _SMALL] ** 2).sum())
        while reach.nnz < full:
            reach, steps = reach @ near, steps + 1
        best = max(best, steps)
    return best, exact


def structural_function(embeddings: ArrayLike, M: int, *, seed: int = 0, steps: int = 20) -> float:
    """F(M): the smallest d such that the answers split into M clusters, each with mean internal distance at most d.

    embeddings:  [N, d], N >= M. Clusters hold between N / 2M and 2N / M answers.
    Returns:     d in squared units of the embeddings. The edge model is ours: Var[r(u) - r(v)] = |e_u - e_v|^2, that
                 of a reward linear in the embedding with independent unit weights; the mean is over two independent
                 draws from the cluster, so F(N) = 0 and F(1) is twice the total variance.

    The minimum over partitions is sought by k-means with bounded sizes from one start, so the value is an upper bound.
    Source: arXiv 2402.10184, the structural function, by recollection; UNVERIFIED. Raises GuerdonError for shapes.
    """
    from sklearn.cluster import KMeans

    points = np.asarray(embeddings, dtype=np.float64)
    if points.ndim != 2 or not np.isfinite(points).all() or not 1 <= M <= len(points):
        raise GuerdonError(f"F(M) needs finite embeddings [N, d] and 1 <= M <= N, got {list(points.shape)} and M = {M}")
    low, high = -(-len(points) // (2 * M)), 2 * len(points) // M
    centres = KMeans(M, n_init=1, random_state=seed).fit(points).cluster_centers_
    best = math.inf
    for _ in range(steps):
        squared = (points**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * points @ centres.T
        cluster = _bounded(squared, low, high)
        counts = np.bincount(cluster, minlength=M)
        moved = np.stack([np.bincount(cluster, column, M) for column in points.T], axis=1) / counts[:, None]
        spread = np.bincount(cluster, ((points - moved[cluster]) ** 2).sum(1), M) / counts
        best = min(best, float(2 * spread.max()))
        if np.allclose(moved, centres):
            break
        centres = moved
    return best


def _bounded(squared: NDArray[np.float64], low: int, high: int) -> NDArray[np.int64]:
    """The nearest centre that has room, the closest answers first; then centres short of ``low`` take the nearest."""
    count, clusters = squared.shape
    cluster, sizes = np.full(count, -1), np.zeros(clusters, dtype=np.int64)
    for cell in np.argsort(squared, axis=None):
        row, centre = divmod(int(cell), clusters)
        if cluster[row] < 0 and sizes[centre] < high:
            cluster[row] = centre
            sizes[centre] += 1
    for centre in np.flatnonzero(sizes < low):
        for row in np.argsort(squared[:, centre]):
            if sizes[centre] == low:
                break
            if sizes[cluster[row]] > low:
                sizes[cluster[row]] -= 1
                cluster[row] = centre
                sizes[centre] += 1
    return cluster


def random_graph_hops(nodes: int, edges: int, *, sources: int = 200, seed: int = 0) -> tuple[float, float]:
    """Mean hops between connected nodes of a random multigraph, and what theory says: log M / log(2n / M).

    Source: arXiv 2402.10184, the chain bound's proof (M clusters as nodes, n comparisons as edges, mean degree 2n/M).
    Raises GuerdonError for a mean degree of at most 1, where the formula means nothing.
    """
    if nodes < 2 or 2 * edges <= nodes:
        raise GuerdonError(f"hops need a mean degree above 1, got {edges} edges on {nodes} nodes")
    rng = np.random.default_rng(seed)
    first = rng.integers(nodes, size=edges)
    second = (first + rng.integers(1, nodes, size=edges)) % nodes
    graph = _symmetric(first, second, np.ones(edges), nodes)
    hops = dijkstra(graph, unweighted=True, indices=rng.choice(nodes, min(sources, nodes), replace=False))
    return float(hops[np.isfinite(hops) & (hops > 0)].mean()), math.log(nodes) / math.log(2 * edges / nodes)


def chain_over_tree(n: int, alpha: float) -> float:
    """Chain's mean inference distance over tree's for n comparisons: (log n)^(1 - alpha) / log log n, up to a constant.

    alpha:  in F(M) ~ M^-alpha; 0 gives the abstract's log n / log log n. For scarce data and F of that form only.
    Source: arXiv 2402.10184, table of mean inference distances, by recollection; UNVERIFIED. Raises for n <= e.
    """
    if not n > math.e:
        raise GuerdonError(f"log log n needs n above e, got {n}")
    return math.log(n) ** (1 - alpha) / math.log(math.log(n))

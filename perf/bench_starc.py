"""STARC's distances (VAL and Minimal, L2) on a sparse process of 10,000 states, against a dense textbook form.

The peer holds transition and reward as tables [S, A, S]. It evaluates the uniform policy by sweeps over states and
actions until values move by less than 1e-12, and fits the minimal form by dense least squares over the potentials. Such
tables of 10,000 states do not fit here, so the two take turns on ``--peer-states``; the large process then runs alone,
with two facts that must hold there: a reward is at distance 0 from itself doubled, shaped and redistributed, and at
distance 2 from its opposite.

Last line: {"name", "ratio", "parity", ...}: ratio in wall time to the peer on the smaller process, median over the
rounds; parity is the largest difference of a distance there; "seconds" and "peak_mib" of the large one.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from guerdon.metrics.mdp import TabularMDP
from guerdon.metrics.reward_distance import reward_distance

Array = NDArray[np.float64]
PARITY = 1e-9
CANONS = ("val", "minimal")


def made(states: int, actions: int, successors: int, discount: float, seed: int) -> TabularMDP:
    """A sparse process: ``successors`` random next states of every state and action, of random weights."""
    rng = np.random.default_rng(seed)
    rows = states * actions
    to = rng.integers(states, size=(rows, successors))
    weights = rng.dirichlet(np.ones(successors), size=rows)
    own = np.repeat(np.arange(rows), successors)
    return TabularMDP(sparse.csr_array((weights.ravel(), (own, to.ravel())), shape=(rows, states)), discount)


def on_support(mdp: TabularMDP, values: Array) -> sparse.csr_array:
    """A reward with these values on the transitions that happen."""
    return sparse.csr_array((values, mdp.rows.indices, mdp.rows.indptr), shape=mdp.rows.shape)


def disguised(reward: sparse.csr_array, mdp: TabularMDP, rng: np.random.Generator) -> sparse.csr_array:
    """Twice the reward, shaped and redistributed at random."""
    tau = mdp.rows
    row = np.repeat(np.arange(tau.shape[0]), np.diff(tau.indptr))
    phi, change = rng.normal(size=mdp.states), rng.normal(size=tau.nnz)
    mean = np.add.reduceat(change * tau.data, tau.indptr[:-1])
    moved = mdp.discount * phi[tau.indices] - phi[row // mdp.actions] + change - mean[row]
    return on_support(mdp, 2 * reward.data + moved)


def textbook(tau: Array, discount: float, first: Array, second: Array) -> list[float]:
    """Both distances from dense tables [S, A, S]."""
    states, actions, _ = tau.shape
    found = []
    for canon in (textbook_val, textbook_minimal):
        forms = [canon(tau, discount, reward) for reward in (first, second)]
        one, two = (form / np.sqrt((form**2).sum()) for form in forms)
        found.append(float(np.sqrt(((one - two) ** 2).sum())))
    return found


def textbook_val(tau: Array, discount: float, reward: Array) -> Array:
    """E[R + gamma V(S') - V(s)] with V by sweeps of the Bellman equation."""
    states, actions, _ = tau.shape
    gain = (tau * reward).sum(-1)
    value = np.zeros(states)
    moved = 1.0
    while moved > 1e-12:
        moved = 0.0
        for s in range(states):
            new = sum(gain[s, a] + discount * (tau[s, a] @ value) for a in range(actions)) / actions
            moved = max(moved, abs(new - value[s]))
            value[s] = new
    levelled = gain + discount * tau @ value - value[:, None]
    return np.repeat(levelled[..., None], states, axis=-1)


def textbook_minimal(tau: Array, discount: float, reward: Array) -> Array:
    """The least redistribution of the least shaped reward, by dense least squares."""
    states, actions, _ = tau.shape
    length = np.sqrt((tau**2).sum(-1))
    design = discount * tau
    for s in range(states):
        design[s, :, s] -= 1
    gain = (tau * reward).sum(-1)
    weighted = (design / length[..., None]).reshape(-1, states)
    phi = np.linalg.lstsq(weighted, -(gain / length).ravel(), rcond=None)[0]
    return ((gain + design @ phi) / length**2)[..., None] * tau


def timed(call: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Wall seconds, and what came back."""
    began = time.perf_counter()
    found = call()
    return time.perf_counter() - began, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=10_000)
    parser.add_argument("--peer-states", type=int, default=400)
    parser.add_argument("--actions", type=int, default=4)
    parser.add_argument("--successors", type=int, default=5)
    parser.add_argument("--discount", type=float, default=0.95)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shape = (options.actions, options.successors, options.discount)
    rng = np.random.default_rng(0)

    small = made(options.peer_states, *shape, seed=1)
    pair = [on_support(small, rng.normal(size=small.rows.nnz)) for _ in range(2)]
    dense = [part.toarray().reshape(small.states, small.actions, -1) for part in (small.rows, *pair)]
    wall: dict[str, list[float]] = {"guerdon": [], "textbook": []}
    parity = 0.0
    for _ in range(options.rounds):
        seconds, ours = timed(lambda: [reward_distance(*pair, small, canon) for canon in CANONS])  # type: ignore[misc]
        wall["guerdon"].append(seconds)
        seconds, theirs = timed(lambda: textbook(dense[0], small.discount, dense[1], dense[2]))
        wall["textbook"].append(seconds)
        parity = max(parity, *(abs(a - b) for a, b in zip(ours, theirs, strict=True)))
    for name, times in wall.items():
        print(f"{name}: {statistics.median(times):.4f} s for both distances of two rewards, {small.states} states")
    print("distances: " + ", ".join(f"{canon} {value:.12f}" for canon, value in zip(CANONS, ours, strict=True)))

    large = made(options.states, *shape, seed=2)
    first, second = (on_support(large, rng.normal(size=large.rows.nnz)) for _ in range(2))
    seconds, found = timed(lambda: [reward_distance(first, second, large, canon) for canon in CANONS])
    copy = disguised(first, large, rng)
    same = max(reward_distance(first, copy, large, canon) for canon in CANONS)
    opposite = max(abs(reward_distance(copy, -first, large, canon) - 2) for canon in CANONS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = ", ".join(f"{canon} {value:.6f}" for canon, value in zip(CANONS, found, strict=True))
    print(f"{large.states} states, {large.rows.nnz} transitions: {told} in {seconds:.2f} s")
    print(f"there, distance to itself in disguise {same:.1e}, and that to its opposite is off 2 by {opposite:.1e}")
    result = {
        "name": "starc", "parity": parity, "seconds": round(seconds, 3), "peak_mib": round(peak),
        "ratio": round(statistics.median(b / a for a, b in zip(*wall.values(), strict=True)), 1),
        "disguise": same, "opposite": opposite,
    }  # fmt: skip
    print(json.dumps(result), flush=True)
    sys.exit(0 if max(parity, same, opposite) < PARITY else 1)


if __name__ == "__main__":
    main()

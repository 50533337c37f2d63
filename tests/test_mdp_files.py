"""Processes from files: both formats, and every mistake in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from guerdon.comparisons.mdp_files import World, load_world
from guerdon.core.errors import GuerdonError

TRANSITION = [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]
GOOD: dict[str, Any] = {
    "transition": TRANSITION,
    "discount": 0.9,
    "initial": [0.25, 0.75],
    "rewards": {"full": [[[0, 0], [0, 1]], [[0, 0], [0, 0]]], "pairs": [[0.0, 1.0], [2.0, 3.0]], "states": [1, 2]},
}


def read(folder: Path, given: Any) -> World:
    path = folder / "world.json"
    path.write_text(given if isinstance(given, str) else json.dumps(given))
    return load_world(path)


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def test_json(tmp_path: Path) -> None:
    world = read(tmp_path, changed(name="mine", policy=[[0.5, 0.5], [1, 0]], action_distribution=[0.2, 0.8]))
    assert world.name == "mine" and world.mdp.states == 2 and world.mdp.discount == 0.9
    assert world.mdp.initial.tolist() == [0.25, 0.75]
    assert world.rewards["full"][0, 1, 1] == 1
    # A reward on state and action, or on the state in which the step begins.
    assert world.rewards["pairs"].tolist() == [[[0, 0], [1, 1]], [[2, 2], [3, 3]]]
    assert world.rewards["states"].tolist() == [[[1, 1], [1, 1]], [[2, 2], [2, 2]]]
    assert world.policy is not None and world.actions is not None and world.states is None


def test_npz(tmp_path: Path) -> None:
    rewards = {f"rewards/{name}": np.array(value) for name, value in GOOD["rewards"].items()}
    np.savez(tmp_path / "own.npz", transition=TRANSITION, discount=0.9, name="grid", **rewards)
    world = load_world(tmp_path / "own.npz")
    assert world.name == "grid" and list(world.rewards) == ["full", "pairs", "states"]
    assert world.mdp.initial.tolist() == [0.5, 0.5]
    for name, reward in read(tmp_path, GOOD).rewards.items():
        assert np.array_equal(world.rewards[name], reward)


def parts(prefix: str, matrix: Any) -> dict[str, Any]:
    names = ("data", "indices", "indptr", "shape")
    return {f"{prefix}/{name}": np.asarray(getattr(matrix, name)) for name in names}


def test_sparse_npz(tmp_path: Path) -> None:
    tau = sparse.csr_array(np.array(TRANSITION).reshape(4, 2))
    reward = sparse.csr_array(np.array([[0, 5.0], [0, 1.0], [0, 0], [0, 7.0]]))
    tables = {"rewards/pairs": np.array(GOOD["rewards"]["pairs"]), "rewards/states": np.array([1.0, 2.0])}
    np.savez(tmp_path / "s.npz", discount=0.9, **parts("transition", tau), **parts("rewards/full", reward), **tables)
    world = load_world(tmp_path / "s.npz")
    assert world.mdp.is_sparse and set(world.rewards) == {"full", "pairs", "states"}
    # What cannot happen is not kept.
    assert world.rewards["full"].toarray().tolist() == [[0, 0], [0, 1], [0, 0], [0, 0]]
    assert world.rewards["pairs"].toarray().tolist() == [[0, 0], [0, 1], [0, 2], [3, 0]]
    assert world.rewards["states"].toarray().tolist() == [[1, 0], [0, 1], [0, 2], [2, 0]]


@pytest.mark.parametrize(
    "given, message",
    [
        ("{", "is not JSON"),
        ("[1, 2]", "must hold one JSON object"),
        (changed(reward={}), "unknown key 'reward'; did you mean 'rewards'"),
        ({key: value for key, value in GOOD.items() if key != "discount"}, "has no 'discount'"),
        (changed(discount=[0.9, 0.8]), "discount must be one number"),
        (changed(discount=1.0), r"discount must lie in \[0, 1\)"),
        (changed(discount="0.9"), "discount must hold numbers"),
        (changed(transition=[[[0.5, 0.4], [0, 1]], TRANSITION[1]]), "from state 0 by action 0 add up to 0.9, not 1"),
        (changed(transition=[[[1.0, 0.0]], TRANSITION[1]]), "transition must hold numbers in lists of one length"),
        (changed(transition=[[1.0, 0.0], [0.0, 1.0]]), r"transition must be \[S, A, S\]; got \[2, 2\]"),
        (changed(transition=[[[None, 1.0], [0, 1]], TRANSITION[1]]), "transition must hold numbers"),
        (changed(initial=[0.5, 0.6]), "initial must be a distribution"),
        (changed(rewards={}), "rewards must map at least one name"),
        (changed(rewards=[1]), "rewards must map at least one name"),
        (changed(rewards={"a": [1, 2, 3]}), r"reward 'a' must be \[2, 2, 2\], \[2, 2\] or \[2\]; got \[3\]"),
        (changed(rewards={"a": [[1, 2], [3]]}), "reward 'a' must hold numbers in lists of one length"),
        (json.dumps(changed(rewards={"a": [1, 2]})).replace("[1, 2]", "[1, NaN]"), "reward 'a': .* not finite"),
        (json.dumps(GOOD).replace('"pairs"', '"full"'), "'full' stands twice in one object"),
        (changed(policy=[[0.5, 0.5], [0.5, 0.4]]), "policy: the probabilities in state 1"),
        (changed(state_distribution=[1.0]), "state distribution must hold 2 probabilities"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(GuerdonError, match=message) as error:
        read(tmp_path, given)
    assert "world.json" in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_not_there_or_not_meant(tmp_path: Path) -> None:
    (tmp_path / "worlds.json").write_text("{}")
    with pytest.raises(GuerdonError, match="did you mean 'worlds.json'"):
        load_world(tmp_path / "wolds.json")
    with pytest.raises(GuerdonError, match="read from .json or .npz"):
        load_world(tmp_path / "world.pkl")


def test_npz_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(b"PK nothing")
    with pytest.raises(GuerdonError, match="cannot be read as NPZ without pickled objects"):
        load_world(path)
    np.savez(path, transition=np.array([{"a": 1}], dtype=object), discount=0.9)
    with pytest.raises(GuerdonError, match="cannot be read as NPZ without pickled objects"):
        load_world(path)
    tau = sparse.csr_array(np.array(TRANSITION).reshape(4, 2))
    held = parts("transition", tau)
    np.savez(path, discount=0.9, **{key: value for key, value in held.items() if not key.endswith("indptr")})
    with pytest.raises(GuerdonError, match="the sparse 'transition' lacks 'transition/indptr'"):
        load_world(path)
    np.savez(path, discount=0.9, **{**held, "transition/indices": np.array([0, 1, 9, 0])})
    with pytest.raises(GuerdonError, match="'transition' is no sparse matrix"):
        load_world(path)


def test_picking_rewards(tmp_path: Path) -> None:
    world = read(tmp_path, GOOD)
    assert list(world.pick(["states", "full"]).rewards) == ["states", "full"]
    assert list(world.pick([]).rewards) == ["full", "pairs", "states"]
    for names, message in (
        (["full", "stats"], "unknown reward of world 'stats'; did you mean 'states'"),
        (["full", "full"], "named twice"),
        (["full"], "at least two rewards; world has full, pairs, states"),
    ):
        with pytest.raises(GuerdonError, match=message):
            world.pick(names)

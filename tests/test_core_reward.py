"""The reward contract: declarations, identity, outcomes, and every check of the Scorer."""

from __future__ import annotations

import functools
import math
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.core.errors import GuerdonError, nearest, unknown
from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import config_hash, identity, is_async, is_groupwise, name_of, policy_of, range_of, reward
from guerdon.core.scorer import Scorer, score_all, score_all_async
from mischief import Sleeper, mischief


@reward(name="brevity", range=(0, 1), on_failure="drop_sample", version="3")
def brevity(prompts, completions, **columns):
    return [1 / (1 + len(text)) for text in completions]


def returning(result, **declared):
    def made(prompts, completions, **columns):
        return result

    return reward(made, name="made", **declared)


def score(result, n, **options):
    return Scorer(returning(result), **options).score(["p"] * n, ["c"] * n)


def test_decorator_declares():
    assert brevity.__name__ == "brevity" and brevity.version == "3"
    assert range_of(brevity) == (0, 1) and policy_of(brevity) == "drop_sample" and not is_groupwise(brevity)
    assert reward(lambda **k: [])(prompts=[]) == []
    assert brevity(["p"], [""]) == [1.0]


def test_bare_function_has_defaults():
    def plain(prompts, completions):
        return [0.0] * len(completions)

    assert (name_of(plain), policy_of(plain), range_of(plain)) == ("plain", "raise", None)
    partial = functools.partial(brevity, x=1)
    assert name_of(partial) == "brevity" and policy_of(partial) == "drop_sample"


@pytest.mark.parametrize(
    "declared", [{"on_failure": "ignore"}, {"on_failure": math.nan}, {"range": (1, 0)}, {"range": 3}]
)
def test_bad_declaration_names_the_reward(declared):
    with pytest.raises(GuerdonError, match="'made'"):
        returning([1], **declared)


def test_failed_is_no_number():
    failed = Failed("no answer", "unparseable")
    with pytest.raises(TypeError):
        float(failed)
    with pytest.raises(TypeError):
        bool(failed)
    with pytest.raises(AttributeError):
        failed.cause = "x"


def test_three_outcomes_stay_apart():
    scores = score([0.0, None, Failed("down", "unavailable"), 2], 4, on_failure="drop_sample")
    assert scores.valid.tolist() == [True, False, False, True]
    assert scores.values.dtype == np.float64 and np.isnan(scores.values[1:3]).all()
    assert scores.counts() == {"scored": 2, "not_applicable": 1, "failed": 1, "dropped": 0}
    assert scores.as_list() == [0.0, None, None, 2.0] and scores.outcomes()[2] == Failed("down", "unavailable")


def test_scores_refuse_nonsense():
    with pytest.raises(GuerdonError, match="row 1 is valid but not finite"):
        Scores(np.array([1.0, np.nan]), np.array([True, True]))
    with pytest.raises(GuerdonError, match="shape"):
        Scores(np.zeros(2), np.ones(3, dtype=bool))
    with pytest.raises(GuerdonError, match="part 'a'"):
        Scores(np.zeros(2), np.ones(2, dtype=bool), parts={"a": np.zeros(3)})
    assert np.isnan(Scores(np.zeros(1), np.zeros(1, dtype=bool)).values[0])


@pytest.mark.parametrize(
    "result, message",
    [
        ([1.0], "returned 1 scores for 2 completions"),
        (1.0, "returned float, not a list"),
        ("ab", "returned str"),
        (None, "returned NoneType"),
        ({"a": 1, "b": 2}, "returned dict"),
        (np.zeros((2, 1)), r"shape \[2, 1\]"),
        (torch.zeros(3), "returned 3 scores"),
    ],
)
@pytest.mark.parametrize("on_failure", ["raise", "drop_sample", 0.0])
def test_broken_container_is_an_error_under_every_policy(result, message, on_failure):
    with pytest.raises(GuerdonError, match=f"'made'.*{message}"):
        score(result, 2, on_failure=on_failure)


@pytest.mark.parametrize(
    "entry, kind",
    [
        (math.nan, "not_finite"), (-math.inf, "not_finite"), (10**400, "not_finite"), ("1.0", "wrong_type"),
        (1j, "wrong_type"), ([1.0], "wrong_type"), (np.float32("nan"), "not_finite"),
        (torch.tensor(math.inf), "not_finite"),
        (5.0, "out_of_range"), (-0.1, "out_of_range"), (Failed("x", "own"), "own"),
    ],
)  # fmt: skip
def test_bad_entry_names_reward_and_row(entry, kind):
    bad = returning([0.5, 0.5, entry], range=(0, 1))
    with pytest.raises(GuerdonError, match=rf"'made' failed at row 2 \({kind}\)"):
        Scorer(bad).score(["p"] * 3, ["c"] * 3)
    scores = Scorer(bad, on_failure="drop_sample").score(["p"] * 3, ["c"] * 3)
    assert scores.valid.tolist() == [True, True, False] and scores.failures[2].kind == kind
    scores = Scorer(bad, on_failure=0.25).score(["p"] * 3, ["c"] * 3)
    assert scores.values[2] == 0.25 and scores.valid.all() and scores.failures[2].kind == kind


def test_every_number_type_is_read():
    values = [True, 1, np.float32(0.5), np.int64(1), torch.tensor(0.25), np.array(0.5)]
    assert score(values, 6).values.tolist() == [1, 1, 0.5, 1, 0.25, 0.5]
    assert score(torch.tensor([1, 2], dtype=torch.bfloat16), 2).values.tolist() == [1, 2]
    assert score((1, None), 2).as_list() == [1, None]
    parameter = torch.nn.Parameter(torch.tensor([1.5]))
    assert score(parameter, 1).values.tolist() == [1.5]


def test_float32_rounding_is_not_out_of_range():
    assert Scorer(returning([float(np.float32(1) + np.float32(1.2e-7))], range=(0, 1))).score(["p"], ["c"]).valid.all()


def test_an_exception_is_traced_to_its_row():
    @reward
    def picky(prompts, completions, **columns):
        return [1 / len(text) for text in completions]

    with pytest.raises(GuerdonError, match=r"'picky' failed at row 1 \(exception\): ZeroDivisionError") as caught:
        Scorer(picky).score(["p"] * 3, ["a", "", "bb"])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    scores = Scorer(picky, on_failure="drop_sample").score(["p"] * 3, ["a", "", "bb"])
    assert scores.as_list() == [1.0, None, 0.5] and "ZeroDivisionError" in scores.failures[1].cause


def test_drop_group_takes_the_group_and_only_it():
    values = [1, 2, Failed("x"), 4, 5, 6]
    scores = Scorer(returning(values), on_failure="drop_group", group_size=3).score(list("aaabbb"), ["c"] * 6)
    assert scores.valid.tolist() == [False] * 3 + [True] * 3
    assert scores.dropped.tolist() == [True, True, False, False, False, False]
    assert scores.counts() == {"scored": 3, "not_applicable": 0, "failed": 1, "dropped": 2}
    inferred = Scorer(returning(values), on_failure="drop_group").score(list("aaabbb"), ["c"] * 6)
    assert inferred.valid.tolist() == scores.valid.tolist()


def test_groupwise_sees_one_whole_group_a_call():
    seen = []

    @reward(groupwise=True)
    def rank(prompts, completions, **columns):
        seen.append((list(prompts), list(completions), columns.get("solution")))
        return list(range(len(completions)))

    scores = Scorer(rank, group_size=2).score(list("aabb"), list("wxyz"), solution=[1, 2, 3, 4])
    assert seen == [(["a", "a"], ["w", "x"], [1, 2]), (["b", "b"], ["y", "z"], [3, 4])]
    assert scores.values.tolist() == [0, 1, 0, 1]
    with pytest.raises(GuerdonError, match="not whole groups of 2"):
        Scorer(rank, group_size=2).score(list("aab"), list("xyz"))
    with pytest.raises(GuerdonError, match="row 1 has another prompt than row 0"):
        Scorer(rank, group_size=2).score(list("abab"), list("wxyz"))
    # Without a size: by equal prompts, or by ids; two groups of one prompt are told apart by their ids only.
    assert Scorer(rank).score(list("aabbb"), list("vwxyz")).values.tolist() == [0, 1, 0, 1, 2]
    ids = torch.tensor([5, 5, 2, 2])
    assert Scorer(rank).score(list("aaaa"), list("wxyz"), group_ids=ids).values.tolist() == [0, 1, 0, 1]
    with pytest.raises(GuerdonError, match="do not stand together"):
        Scorer(rank).score(list("aaaa"), list("wxyz"), group_ids=[0, 1, 0, 1])


def test_a_group_that_raises_fails_whole():
    @reward(groupwise=True, on_failure="drop_sample")
    def rank(prompts, completions, **columns):
        if prompts[0] == "b":
            raise ValueError("tie")
        return [1.0] * len(completions)

    scores = Scorer(rank, group_size=2, max_failure_rate=0.6).score(list("aabb"), list("wxyz"))
    assert scores.valid.tolist() == [True, True, False, False] and scores.failures[3].cause == "ValueError: tie"


def test_ceiling_stops_and_names_reward_and_row():
    failing = [1.0, 1.0, Failed("timeout", "unavailable"), Failed("timeout", "unavailable")] + [1.0] * 6
    with pytest.raises(GuerdonError, match=r"'made' failed on 2 of 10 .* 10% .* row 2 \(unavailable\): timeout"):
        score(failing, 10, on_failure="drop_sample")
    with pytest.raises(GuerdonError, match="above the ceiling"):
        score(failing, 10, on_failure=0.0)
    assert score(failing, 10, on_failure="drop_sample", max_failure_rate=0.2).valid.sum() == 8
    assert score(failing, 10, on_failure="drop_sample", max_failure_rate=1.0).valid.sum() == 8
    with pytest.raises(GuerdonError, match="above the ceiling"):
        score([Failed("x"), *[1.0] * 99], 100, on_failure="drop_sample", max_failure_rate=0)


def test_ceiling_remembers_across_calls_and_forgets_the_old():
    answers = [[1.0] * 50] * 30 + [[Failed("down")] * 50] * 5
    calls = iter(answers)

    @reward(on_failure="drop_sample")
    def flaky(prompts, completions, **columns):
        return next(calls)

    scorer = Scorer(flaky)
    for _ in range(32):
        scorer.score(["p"] * 50, ["c"] * 50)
    with pytest.raises(GuerdonError, match="'flaky' failed on 50 of 50 samples"):
        scorer.score(["p"] * 50, ["c"] * 50)


def test_not_applicable_rows_do_not_thin_the_failure_rate():
    with pytest.raises(GuerdonError, match="failed on 2 of 2 samples"):
        score([None] * 98 + [Failed("x")] * 2, 100, on_failure="drop_sample")


def test_columns_are_checked_and_named():
    @reward
    def needs(prompts, completions, solution):
        return [float(a == b) for a, b in zip(completions, solution, strict=True)]

    scorer = Scorer(needs)
    scores = scorer.score(["p"] * 2, ["1", "2"], solution=["1", "3"], other=[0, 0], trainer_state=object())
    assert scores.as_list() == [1, 0]
    with pytest.raises(GuerdonError, match="'needs' needs the column 'solution'.*did you mean 'solutions'"):
        scorer.score(["p"], ["1"], solutions=["1"])
    with pytest.raises(GuerdonError, match="'solution' has 3 rows for 2 completions"):
        scorer.score(["p"] * 2, ["1", "2"], solution=["1", "3", "4"])
    with pytest.raises(GuerdonError, match="'prompts' has 1 rows for 2"):
        scorer.score(["p"], ["1", "2"], solution=["1", "3"])
    with pytest.raises(GuerdonError, match="completions must be a list"):
        scorer.score(["p"], "1", solution=["1"])


def test_columns_reach_each_row_when_asked_row_by_row():
    @reward(on_failure="drop_sample")
    def ratio(prompts, completions, solution, scale, **columns):
        assert len(columns["images"]) == len(completions)
        return [scale * a / b for a, b in zip(completions, solution, strict=True)]

    images = torch.zeros(3, 3, 2, 2)
    scores = Scorer(ratio).score(("p",) * 3, (1.0, 2.0, 3.0), solution=[1, 0, 3], scale=2.0, images=images)
    assert scores.as_list() == [2.0, None, 2.0]


async def async_length(prompts, completions, **columns):
    return [float(len(text)) for text in completions]


class AsyncObject:
    __name__ = "async_object"

    def __init__(self, gate):
        self.gate = gate

    async def __call__(self, prompts, completions, **columns):
        import asyncio

        self.gate["waiting"] += 1
        if self.gate["waiting"] == self.gate["all"]:
            self.gate["open"].set()
        # Only if all of them wait at the same time does this ever return.
        await asyncio.wait_for(self.gate["open"].wait(), 20)
        return [1.0] * len(completions)


def test_async_rewards_are_awaited_together():
    import asyncio

    gate = {"waiting": 0, "all": 3, "open": asyncio.Event()}
    rewards = [AsyncObject(gate) for _ in range(3)]
    assert all(map(is_async, rewards)) and is_async(async_length) and is_async(functools.partial(async_length))
    results = score_all([Scorer(r) for r in rewards] + [Scorer(brevity)], ["p"], ["c"])
    assert [r.values[0] for r in results] == [1.0, 1.0, 1.0, 0.5]


def test_async_works_inside_a_running_loop():
    import asyncio

    async def main():
        inside = Scorer(async_length).score(["p"], ["abc"])
        awaited = await score_all_async([Scorer(async_length), Scorer(brevity)], ["p"], ["abc"])
        return inside, *awaited

    assert [r.values[0] for r in asyncio.run(main())] == [3.0, 3.0, 0.25]


def test_async_exception_is_traced_to_its_row():
    async def picky(prompts, completions, **columns):
        return [1 / len(text) for text in completions]

    with pytest.raises(GuerdonError, match=r"'picky' failed at row 1 \(exception\): ZeroDivisionError"):
        Scorer(picky).score(["p"] * 2, ["a", ""])


class Composite:
    __name__ = "composite"
    range = (0, 10)
    on_failure = "drop_sample"

    def __call__(self, prompts, completions, **columns):
        raise AssertionError("a composite is asked for its scores")

    def scores(self, prompts, completions, **columns):
        parts = {"length": np.array([float(len(c)) for c in completions])}
        return Scores(parts["length"], parts["length"] > 0, {0: Failed("part failed", "own")}, parts)


def test_composite_scores_keep_parts_and_failures():
    scores = Scorer(Composite(), max_failure_rate=1.0).score(["p"] * 3, ["", "ab", "c" * 11])
    assert scores.parts["length"].tolist() == [0, 2, 11]
    assert scores.valid.tolist() == [False, True, False] and scores.failures[2].kind == "out_of_range"


def test_empty_batch():
    scores = Scorer(brevity).score([], [])
    assert len(scores) == 0 and scores.identity == identity(brevity)


def test_scorer_refuses_bad_options():
    for bad in ({"deadline": 0}, {"max_failure_rate": 2}, {"group_size": 0}, {"on_failure": "zero"}):
        with pytest.raises(GuerdonError, match="'brevity'"):
            Scorer(brevity, **bad)
    with pytest.raises(GuerdonError, match="not callable"):
        Scorer(3)


def test_scorer_pickles():
    assert pickle.loads(pickle.dumps(Scorer(brevity))).score(["p"], ["a"]).as_list() == [0.5]  # noqa: S301


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(), st.just(Failed("x")), st.text(max_size=2)), min_size=1, max_size=20))
def test_no_failure_ever_becomes_a_number(entries):
    scores = score(entries, len(entries), on_failure="drop_sample", max_failure_rate=1.0)
    for row, entry in enumerate(entries):
        good = isinstance(entry, float) and math.isfinite(entry)
        assert scores.valid[row] == good and (not good or scores.values[row] == entry)
        assert (row in scores.failures) == (not good and entry is not None)
    assert sum(scores.counts().values()) == len(entries)


# Identity


class Weighted:
    __name__ = "weighted"
    version = "2"

    def __init__(self, scale, seed=0):
        self.config = {"scale": scale}
        self.model = torch.nn.Linear(2, 1)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            torch.nn.init.normal_(self.model.weight)
            torch.nn.init.zeros_(self.model.bias)

    def __call__(self, prompts, completions, **columns):
        return [0.0] * len(completions)


def test_identity_form_and_what_it_depends_on():
    one = Weighted(1.0)
    assert identity(one).startswith("weighted@2#") and len(identity(one).split("#")[1]) == 12
    assert identity(one) == identity(Weighted(1.0)) != identity(Weighted(2.0))
    assert identity(one) != identity(Weighted(1.0, seed=1))
    before = identity(one)
    with torch.no_grad():
        one.model.weight[0, 0] += 1e-3
    assert identity(one) != before
    assert identity(brevity).startswith("brevity@3#")


def test_identity_of_closures_partials_and_unversioned_source():
    def made(scale):
        def f(prompts, completions, **columns):
            return [scale] * len(completions)

        return f

    assert identity(made(1)) == identity(made(1)) != identity(made(2))
    assert identity(functools.partial(brevity, k=1)) != identity(functools.partial(brevity, k=2))

    def first(prompts, completions):
        return [0.0]

    def second(prompts, completions):
        return [1.0]

    second.__qualname__, second.__name__ = first.__qualname__, first.__name__
    assert identity(first) != identity(second)


def test_own_identity_wins_and_big_weights_are_sampled():
    class Own:
        def identity(self):
            return "own@1#abc"

        def __call__(self, prompts, completions):
            return []

    assert identity(Own()) == "own@1#abc"
    big = torch.zeros((1 << 20) + 5)
    changed = big + 1
    assert config_hash({}, {"w": big}) != config_hash({}, {"w": changed})
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1}) != config_hash({"a": 2, "b": 1})
    assert config_hash({}, {"w": torch.zeros(2, dtype=torch.bfloat16)}) != config_hash({}, {"w": torch.zeros(2)})


def test_identity_is_the_same_in_another_process():
    here = str(pathlib.Path(__file__).parent)
    code = (
        f"import sys; sys.path[:0] = {[here, *map(str, sys.path)]!r}; import numpy as np; "
        "from guerdon.core.reward import config_hash, identity; from mischief import Sleeper, mischief; "
        "print(identity(mischief), identity(Sleeper()), config_hash({'a': {'x', 'y', 'z'}}, {'w': np.arange(9.0)}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    weights = {"w": torch.arange(9, dtype=torch.float64)}
    expected = [identity(mischief), identity(Sleeper()), config_hash({"a": {"x", "y", "z"}}, weights)]
    assert found.stdout.split() == expected


# Errors


def test_nearest_and_unknown():
    assert nearest("Group_Sise", ["group-size", "steps"]) == "group-size"
    assert nearest("qqqq", ["alpha"]) is None and nearest("x", []) is None
    error = unknown("reward", "brevty", ["brevity", "accuracy"])
    assert str(error) == "unknown reward 'brevty'; did you mean 'brevity'? choices: accuracy, brevity"

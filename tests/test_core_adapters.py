"""Adapters, each called the way its framework calls a reward."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from guerdon.core import adapters
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed, Scores
from guerdon.core.reward import identity, is_async, reward
from guerdon.core.scorer import Scorer


@reward(name="exact", range=(0, 1), version="1")
def exact(prompts, completions, solution, **columns):
    """1 for the solution, 0 for another answer, None without a solution, a failure for "?"."""
    found = []
    for text, truth in zip(completions, solution, strict=True):
        text = text if isinstance(text, str) else text[-1]["content"]
        outcome = None if truth is None else float(text == truth)
        found.append(Failed("unreadable", "unparseable") if text == "?" else outcome)
    return found


async def async_exact(prompts, completions, solution, **columns):
    await asyncio.sleep(0)
    return exact(prompts, completions, solution)


class Parts:
    __name__ = "parts"

    def __call__(self, prompts, completions, **columns):
        return self.scores(prompts, completions).as_list()

    def scores(self, prompts, completions, **columns):
        length = np.array([float(len(text)) for text in completions])
        return Scores(length, length > 0, parts={"length": length, "twice": 2 * length})


@reward(name="bright", range=(0, 1))
def bright(prompts, completions, **columns):
    from guerdon.core.images import as_tensor

    return as_tensor(completions).mean((1, 2, 3)).tolist()


@reward(groupwise=True)
def rank(prompts, completions, **columns):
    return [float(sorted(completions).index(text)) for text in completions]


def test_both_directions_are_there():
    for framework in ("trl", "verl", "openrlhf", "swift", "flow_factory", "flow_grpo"):
        assert callable(getattr(adapters, f"from_{framework}")) and callable(getattr(adapters, f"to_{framework}"))


# TRL: everything by keyword, with the loggers and the state that GRPOTrainer passes


def as_trl_calls(function, prompts, completions, **columns):
    logged: dict = {"extra": {}, "metrics": {}}
    output = function(
        prompts=prompts, completions=completions, completion_ids=[[1, 2]] * len(prompts),
        trainer_state=SimpleNamespace(global_step=3), log_extra=logged["extra"].__setitem__,
        log_metric=logged["metrics"].__setitem__, **columns,
    )  # fmt: skip
    return output, logged


def test_to_trl_direct_call():
    wrapped = adapters.to_trl(exact, on_failure="drop_sample", max_failure_rate=0.5)
    output, logged = as_trl_calls(wrapped, ["p"] * 4, ["4", "5", "?", "6"], solution=["4", "4", "4", None])
    assert output == [1.0, 0.0, None, None] and wrapped.__name__ == "exact"
    assert logged["metrics"] == {"exact/failed": 0.25, "exact/not_applicable": 0.25, "exact/dropped": 0.0}
    assert logged["extra"] == {"exact/failure": [None, None, "unreadable", None]}
    messages = [[{"role": "assistant", "content": "4"}]]
    assert wrapped(prompts=[[{"role": "user", "content": "2+2"}]], completions=messages, solution=["4"]) == [1.0]
    assert identity(wrapped) == identity(exact)


def test_to_trl_raises_names_and_pickles():
    wrapped = pickle.loads(pickle.dumps(adapters.to_trl(exact, deadline=30)))  # noqa: S301
    assert wrapped.__name__ == "exact" and wrapped.scorer.deadline == 30
    wrapped = adapters.to_trl(exact)
    with pytest.raises(GuerdonError, match="'exact' failed at row 1"):
        wrapped(prompts=["p"] * 2, completions=["4", "?"], solution=["4", "4"])
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(adapters.to_trl(lambda prompts, completions, **columns: []))


def test_to_trl_logs_parts_and_demands_whole_groups():
    output, logged = as_trl_calls(adapters.to_trl(Parts()), ["p"] * 2, ["ab", "abcd"])
    assert output == [2.0, 4.0] and logged["metrics"]["parts/length"] == 3.0 and logged["metrics"]["parts/twice"] == 6.0
    with pytest.raises(GuerdonError, match="pass group_size=num_generations"):
        adapters.to_trl(rank)
    wrapped = adapters.to_trl(rank, group_size=2)
    assert wrapped(prompts=list("aabb"), completions=list("yxxy")) == [1.0, 0.0, 0.0, 1.0]
    with pytest.raises(GuerdonError, match="3 completions are not whole groups of 2"):
        wrapped(prompts=list("aab"), completions=list("xyz"))


def test_async_rewards_stay_async_in_trl():
    wrapped = adapters.to_trl(async_exact)
    # How TRL tells async rewards: the function itself, or its class's __call__.
    assert inspect.iscoroutinefunction(wrapped.__call__) and is_async(wrapped) and wrapped.__name__ == "async_exact"

    async def gathered():
        given = {"prompts": ["p"], "completion_ids": [[1]], "solution": ["4"]}
        return await asyncio.gather(*(wrapped(completions=[text], **given) for text in ("4", "5")))

    assert asyncio.run(gathered()) == [[1.0], [0.0]]


def test_from_trl_fills_in_what_trl_gives():
    def theirs(completions, log_extra, log_metric, trainer_state, **kwargs):
        log_metric("seen", 1.0)
        log_extra("row", completions)
        return [None if trainer_state is None else 1.0 for _ in completions]

    ours = adapters.from_trl(theirs, range=(0, 1), on_failure="drop_sample")
    assert Scorer(ours).score(["p"] * 2, ["a", "b"]).as_list() == [None, None]
    assert Scorer(ours).score(["p"], ["a"], trainer_state=SimpleNamespace()).as_list() == [1.0]
    assert ours(prompts=["p"], completions=["c"]) == [None] and ours.__name__ == "theirs"

    def tokens(completions, completion_ids):
        return [float(len(ids)) for ids in completion_ids]

    ours = adapters.from_trl(tokens)
    assert Scorer(ours).score(["p"], ["a"], completion_ids=[[1, 2]], other=[1]).as_list() == [2.0]
    with pytest.raises(GuerdonError, match="needs 'completion_ids'"):
        Scorer(ours).score(["p"], ["a"])


def test_from_trl_async_and_round_trip():
    ours = adapters.from_trl(async_exact)
    assert is_async(ours) and Scorer(ours).score(["p"], ["4"], solution=["4"]).as_list() == [1.0]
    back = adapters.to_trl(adapters.from_trl(exact))
    assert back(prompts=["p"], completions=["4"], solution=["5"], completion_ids=[[1]]) == [0.0]


# verl: one sample a call


def test_to_verl():
    score = adapters.to_verl(exact)
    assert score(data_source="gsm8k", solution_str="4", ground_truth="4", extra_info={"num_turns": 1}) == 1.0
    assert score("gsm8k", "5", "4") == 0.0 and score.__name__ == "exact"
    assert not inspect.iscoroutinefunction(score)
    with pytest.raises(GuerdonError, match="does not apply to row 0, which verl cannot express"):
        score("gsm8k", "4", None)
    with pytest.raises(GuerdonError, match="'exact' failed at row 0"):
        score("gsm8k", "?", "4")
    paid = adapters.to_verl(exact, on_failure=-1.0, max_failure_rate=1.0)
    assert paid("gsm8k", "4", None) == -1.0 and paid("gsm8k", "?", "4") == -1.0
    assert adapters.to_verl(Parts())("s", "abc", "x") == {"score": 3.0, "length": 3.0, "twice": 6.0}


def test_to_verl_passes_its_columns():
    seen = {}

    def keep(prompts, completions, **columns):
        seen.update(columns, prompts=prompts)
        return [1.0]

    adapters.to_verl(keep)("src", "x", {"target": 3}, {"prompt": "2+2", "index": 7}, reward_router_address="host:1")
    assert seen["prompts"] == ["2+2"] and seen["index"] == [7] and seen["data_source"] == ["src"]
    assert seen["ground_truth"] == [{"target": 3}] == seen["solution"] and seen["reward_router_address"] == ["host:1"]


@pytest.mark.parametrize("export", [adapters.to_verl, adapters.to_openrlhf, adapters.to_swift, adapters.to_flow_grpo])
@pytest.mark.parametrize("policy", ["drop_sample", "drop_group"])
def test_frameworks_without_none_demand_a_policy_they_can_keep(export, policy):
    with pytest.raises(GuerdonError, match=f"'exact': .* cannot {policy.replace('_', ' a ')}; pass on_failure"):
        export(exact, on_failure=policy)


@pytest.mark.parametrize("export", [adapters.to_verl, adapters.to_openrlhf])
def test_single_sample_frameworks_refuse_groupwise(export):
    with pytest.raises(GuerdonError, match="'rank' is groupwise"):
        export(rank)


def compute_score(data_source, solution_str, ground_truth, extra_info=None, scale=1.0):
    if solution_str == "boom":
        raise RuntimeError("math_verify timed out")
    right = float(solution_str == ground_truth)
    turns = extra_info.get("num_turns")
    return {"score": scale * right, "acc": right, "format": 1, "source": data_source, "turns": turns}


async def async_compute_score(data_source, solution_str, ground_truth, extra_info=None):
    await asyncio.sleep(0)
    return compute_score(data_source, solution_str, ground_truth, extra_info)["score"]


def test_from_verl():
    ours = adapters.from_verl(compute_score, reward_kwargs={"scale": 2.0}, on_failure="drop_sample")
    scores = Scorer(ours, max_failure_rate=1.0).score(
        ["p"] * 3, ["4", "boom", [{"role": "assistant", "content": "4"}]], extra_info=[{"num_turns": 5}, None, {}],
        reward_model=[{"ground_truth": "4"}] * 3,
    )  # fmt: skip
    assert scores.as_list() == [2.0, None, 2.0] and scores.failures[1].cause == "RuntimeError: math_verify timed out"
    assert scores.parts["acc"][0] == 1.0 and np.isnan(scores.parts["acc"][1]) and scores.parts["turns"][0] == 5
    assert "source" not in scores.parts and ours.__name__ == "compute_score"
    ours = adapters.from_verl(async_compute_score)
    assert is_async(ours) and Scorer(ours).score(["p"] * 2, ["4", "5"], solution=["4", "4"]).as_list() == [1.0, 0.0]
    with pytest.raises(GuerdonError, match=r"'async_compute_score' failed at row 1 \(exception\): RuntimeError"):
        Scorer(ours).score(["p"] * 2, ["4", "boom"], solution=["4", "4"])


def test_from_verl_reports_a_dict_without_score():
    with pytest.raises(GuerdonError, match="row 0 .wrong_type.: returned a dict without 'score'"):
        Scorer(adapters.from_verl(lambda **k: {"acc": 1.0})).score(["p"], ["c"])
    with pytest.raises(GuerdonError, match="scores text, but the completion of row 0 is ndarray"):
        Scorer(adapters.from_verl(compute_score)).score(["p"], [np.zeros((2, 2, 3))])


def test_verl_round_trip():
    back = adapters.to_verl(adapters.from_verl(compute_score))
    assert back("s", "4", "4", {"num_turns": 2}) == {"score": 1.0, "acc": 1.0, "format": 1.0, "turns": 2.0}


# OpenRLHF: queries are prompt + completion; a dict of tensors comes back


def test_to_openrlhf():
    @reward(name="brief", range=(0, 10))
    def brief(prompts, completions, label, **columns):
        assert label == ["ten"]
        return [float(len(text)) for text in completions]

    function = adapters.to_openrlhf(brief, end_tokens=("</s>",))
    answer = function(["Q: 5+5?A: ten</s>"], ["Q: 5+5?A:"], ["ten"])
    assert answer["rewards"].tolist() == [4.0] and answer["rewards"].dtype == torch.float32
    assert answer["scores"].tolist() == pytest.approx([0.4])
    assert answer["extra_logs"] == {"brief/failed": torch.tensor([0.0])}
    with pytest.raises(GuerdonError, match="query of row 0 does not begin with its prompt"):
        function(["other"], ["Q:"], ["ten"])
    with pytest.raises(GuerdonError, match="does not apply to row 0, which OpenRLHF"):
        adapters.to_openrlhf(exact)(["Q4"], ["Q"], [None])
    logs = adapters.to_openrlhf(Parts())(["Qab"], ["Q"], None)["extra_logs"]
    assert logs["twice"].tolist() == [4.0]


def reward_func(queries, prompts, labels, **kwargs):
    assert len(queries) == 1 and queries[0].startswith(prompts[0])
    value = torch.tensor([float(queries[0][len(prompts[0]) :] == labels[0])])
    return {"rewards": value, "scores": value, "extra_logs": {"length": torch.tensor([3.0])}}


def test_from_openrlhf_and_round_trip():
    ours = adapters.from_openrlhf(reward_func)
    scores = Scorer(ours).score(["2+2=", "1+1="], ["4", "3"], solution=["4", "2"])
    assert scores.as_list() == [1.0, 0.0] and scores.parts["length"].tolist() == [3.0, 3.0]
    back = adapters.to_openrlhf(ours)
    assert back(["2+2=4"], ["2+2="], ["4"])["rewards"].tolist() == [1.0]
    bad = adapters.from_openrlhf(lambda queries, prompts, labels: {"rewards": torch.zeros(2)}, name="bad")
    with pytest.raises(GuerdonError, match="'bad' failed at row 0 .wrong_type.: returned 2 rewards"):
        Scorer(bad).score(["p"], ["c"])
    bare = adapters.from_openrlhf(lambda queries, prompts, labels: torch.tensor([0.5]), name="bare")
    assert Scorer(bare).score(["p"], ["c"]).values[0] == 0.5


# ms-swift: the class is built without arguments that it knows, then called with positional completions


class ORM:
    def __init__(self, args=None, **kwargs):
        self.args = args

    def __call__(self, **kwargs):
        raise NotImplementedError


def as_swift_calls(orm_class, completions, rows):
    arguments = set(inspect.signature(orm_class.__init__).parameters) - {"self", "args", "kwargs"}
    instance = orm_class(**dict.fromkeys(arguments))
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return instance(completions, trainer_state=SimpleNamespace(global_step=1), trainer=object(), **columns)


def test_to_swift():
    orm = adapters.to_swift(exact, base=ORM)
    assert issubclass(orm, ORM) and orm.__name__ == "exact"
    history = [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"}]
    assert as_swift_calls(orm, ["4", "5"], [{"solution": "4", "messages": history}] * 2) == [1.0, 0.0]
    with pytest.raises(GuerdonError, match="does not apply to row 1, which ms-swift"):
        as_swift_calls(orm, ["4", "4"], [{"solution": "4"}, {"solution": None}])
    paid = adapters.to_swift(exact, on_failure=-2, max_failure_rate=1.0)
    assert as_swift_calls(paid, ["?", "4"], [{"solution": "4"}, {"solution": None}]) == [-2.0, -2.0]
    seen = []

    def prompts_seen(prompts, completions, **columns):
        seen.extend(prompts)
        return [0.0] * len(completions)

    as_swift_calls(adapters.to_swift(prompts_seen), ["4"], [{"messages": history}])
    assert seen == [history[:1]]


class Accuracy(ORM):
    def __call__(self, completions, solution, **kwargs):
        assert all(isinstance(text, str) for text in completions)
        return [float(text == truth) for text, truth in zip(completions, solution, strict=True)]


class AsyncAccuracy(ORM):
    async def __call__(self, completions, solution, **kwargs):
        return Accuracy()(completions, solution)


@pytest.mark.parametrize("orm", [Accuracy, Accuracy(), AsyncAccuracy])
def test_from_swift(orm):
    ours = adapters.from_swift(orm)
    assert ours.__name__ in ("Accuracy", "AsyncAccuracy") and is_async(ours) == (orm is AsyncAccuracy)
    completions = ["4", [{"role": "assistant", "content": "5"}]]
    assert Scorer(ours).score(["p"] * 2, completions, solution=["4", "4"]).as_list() == [1.0, 0.0]


# Flow-Factory and flow_grpo: images


def pictures(n=2):
    return [Image.new("RGB", (4, 4), (51 * i, 51 * i, 51 * i)) for i in range(n)]


class Model:
    required_fields = ("prompt", "image")
    use_tensor_inputs = False

    def __init__(self, config, accelerator):
        self.config, self.accelerator = config, accelerator

    def __call__(self, prompt, image=None, video=None, condition_images=None, condition_videos=None, **kwargs):
        if self.use_tensor_inputs:
            assert isinstance(image, list) and image[0].shape == (3, 4, 4)
            rewards = torch.stack(image).mean((1, 2, 3))
        elif video is not None:
            rewards = torch.tensor([float(len(frames)) for frames in video])
        else:
            rewards = torch.tensor([np.asarray(picture).mean() / 255 for picture in image])
        return SimpleNamespace(rewards=rewards, extra_info={"sides": [4] * len(prompt), "model": "tiny"})


@pytest.mark.parametrize("tensors", [False, True])
def test_from_flow_factory(tensors):
    model = Model(None, None)
    model.use_tensor_inputs = tensors
    ours = adapters.from_flow_factory(model, range=(0, 1), name="brightness")
    images = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.2)])
    scores = Scorer(ours).score(["a", "b"], images)
    assert scores.values == pytest.approx([0.0, 0.2]) and scores.parts["sides"].tolist() == [4, 4]
    if not tensors:
        clips = [np.zeros((t, 4, 4, 3), dtype=np.uint8) for t in (2, 3)]
        assert adapters.from_flow_factory(model)(["a", "b"], clips) == [2.0, 3.0]
    with pytest.raises(GuerdonError, match="pass an instance of Model"):
        adapters.from_flow_factory(Model)


def test_to_flow_factory():
    made = adapters.to_flow_factory(bright, base=Model)
    assert issubclass(made, Model) and made.required_fields == ("prompt", "image") and made.use_tensor_inputs is False
    instance = made(config="config", accelerator="accelerator")
    assert (instance.config, instance.accelerator) == ("config", "accelerator")
    output = instance(prompt=["a", "b"], image=pictures(), video=None, condition_images=None, condition_videos=None)
    assert output.rewards.dtype == torch.float32 and output.rewards.tolist() == pytest.approx([0.0, 0.2])
    with pytest.raises(GuerdonError, match="scores the field 'image', which Flow-Factory did not pass"):
        instance(prompt=["a"], image=None, video=[pictures()])
    seen = {}

    def keep(prompts, completions, **columns):
        seen.update(columns)
        return [0.5] * len(completions)

    plain = adapters.to_flow_factory(keep)(None, None)
    plain(prompt=["a", "b"], image=pictures(), metadata=[json.dumps({"tag": "x"}), json.dumps({})])
    assert seen["tag"] == ["x", None]
    output = adapters.to_flow_factory(bright)()(prompt=["a"], image=[torch.full((3, 4, 4), 0.5)])
    assert output.rewards.tolist() == [0.5]


def test_flow_factory_groups_go_whole():
    @reward(groupwise=True)
    def darkest(prompts, completions, **columns):
        from guerdon.core.images import as_tensor

        means = as_tensor(completions).mean((1, 2, 3))
        return (means == means.min()).float()

    assert adapters.to_flow_factory(darkest)()(prompt=["a"] * 3, image=pictures(3)).rewards.tolist() == [1, 0, 0]


def test_flow_grpo_both_ways():
    function = adapters.to_flow_grpo(bright)
    tensor = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.2)])
    array = np.stack([np.asarray(picture) for picture in pictures()])
    for images in (tensor, array):
        scores, details = function(images, ("a", "b"), [{}, {}])
        assert isinstance(scores, np.ndarray) and scores == pytest.approx([0.0, 0.2]) and details == {}

    def theirs(images, prompts, metadata):
        assert isinstance(images, torch.Tensor) and images.shape == (2, 3, 4, 4)
        return np.array([float(entry["weight"]) for entry in metadata]), {"mean": images.mean((1, 2, 3))}

    ours = adapters.from_flow_grpo(theirs)
    scores = Scorer(ours).score(["a", "b"], pictures(), weight=[0.5, 2])
    assert scores.values.tolist() == [0.5, 2.0] and scores.parts["mean"] == pytest.approx([0.0, 0.2])
    again, details = adapters.to_flow_grpo(ours)(tensor, ["a", "b"], [{"weight": 1}, {"weight": 3}])
    assert again.tolist() == [1.0, 3.0] and details["mean"] == pytest.approx([0.0, 0.2])


def test_exported_identity_is_the_rewards():
    assert adapters.to_verl(exact).identity() == identity(exact)
    assert identity(adapters.from_verl(compute_score)) != identity(adapters.from_verl(async_compute_score))

"""The whole curation: both stages, what is stored, what a kill leaves behind, and who never sees what."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from guerdon.core.dialogues import embedded_pairs, quality
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.core.preferences import Message, Pair, text_of
from guerdon.core.runs import RunFolder
from guerdon.curation.attributes import Attributes
from guerdon.curation.committee import JudgeCommittee
from guerdon.curation.loop import CurationConfig, CurationLoop, CurationResult

WORDS = HashingVectorizer(n_features=256, alternate_sign=False)
THINGS = {f"a {name}": None for name in ("kettle", "ladder", "broom", "lamp", "needle", "saw")}


class WordReward:
    """A reward model of single words; it can be saved, and counts how often it is trained."""

    trained = 0

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights

    @classmethod
    def train(cls, pairs: Sequence[Pair]) -> WordReward:
        cls.trained += 1
        gaps = (cls.features([p.chosen for p in pairs]) - cls.features([p.rejected for p in pairs])).toarray()
        both = np.concatenate([gaps, -gaps])
        labels = np.repeat([1, 0], len(gaps))
        return cls(LogisticRegression(fit_intercept=False).fit(both, labels).coef_[0])

    @staticmethod
    def features(answers: Sequence[Sequence[Message]]) -> Any:
        return WORDS.transform([text_of(answer) for answer in answers])

    def score(self, conversations: Sequence[Sequence[Message]]) -> np.ndarray:
        return self.features([conversation[-1:] for conversation in conversations]) @ self.weights

    def save_pretrained(self, path: Path) -> None:
        Path(path).mkdir(parents=True)
        (Path(path) / "weights.json").write_text(json.dumps(self.weights.tolist()))

    @classmethod
    def load(cls, path: Path) -> WordReward:
        return cls(np.array(json.loads((Path(path) / "weights.json").read_text())))


def thing_of(prompt: Sequence[Message]) -> str:
    from guerdon.core.dialogues import USES

    return next(thing for thing in USES if thing in text_of(prompt))


class Judge:
    """Right with probability 0.9 a sample; dies at the call of that number."""

    name = "mostly right"

    def __init__(self, dies_at: int | None = None) -> None:
        self.calls, self.dies_at, self.examples = 0, dies_at, []

    def __call__(
        self, prompt: Any, a: Any, b: Any, *, guideline: Any = None, examples: Any = (), rng: Any = None
    ) -> Any:
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        self.examples.append(list(examples))
        thing = thing_of(prompt)
        better = "a" if quality(a, thing) > quality(b, thing) else "b"
        return better if rng.random() < 0.9 else {"a": "b", "b": "a"}[better]


def embed(texts: list[str]) -> np.ndarray:
    return WORDS.transform(texts).toarray()


def pools() -> dict[str, list[Pair]]:
    shown = dict(things=tuple(THINGS))
    held = embedded_pairs(40, 9, things=("a key", "a map"))
    return {
        "gold": embedded_pairs(40, 1, **shown), "silver": embedded_pairs(60, 2, noise=0.1, **shown),
        "unverified": embedded_pairs(300, 3, noise=0.4, **shown), "held_out": held,
    }  # fmt: skip


CONFIG = CurationConfig(iterations=2, k_max=3, seed=5)


def curated(
    path: Path | None, judge: Any, config: CurationConfig = CONFIG, data: Any = None, **options: Any
) -> CurationResult:
    folder = None if path is None else RunFolder.open(path, config, resume=True)
    loop = CurationLoop(
        config, train=options.pop("train", WordReward.train), committee=JudgeCommittee([judge], 3, seed=1), embed=embed,
        folder=folder, **options,
    )  # fmt: skip
    return loop.run(**(data or pools()))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "decisions.jsonl").read_text().splitlines()]


def wrong(pairs: Sequence[Pair]) -> float:
    values = [(quality(p.chosen, thing_of(p.prompt)), quality(p.rejected, thing_of(p.prompt))) for p in pairs]
    return float(np.mean([chosen < rejected for chosen, rejected in values]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CurationResult]:
    path = tmp_path_factory.mktemp("curation") / "run"
    return path, curated(path, Judge())


def test_curation_cleans_the_labels(whole: tuple[Path, CurationResult]) -> None:
    path, result = whole
    pool = pools()["unverified"]
    assert wrong(pool) > 0.3
    taken = result.pairs[60:]
    assert len(taken) > 100 and wrong(taken) < 0.5 * wrong(pool)
    by_judges = result.silver[60:]
    assert by_judges and wrong(by_judges) < 0.1
    assert result.gold == pools()["gold"] and len(result.discarded) > 10
    assert len(taken) + len(result.discarded) == len(rows(path))


def test_every_decision_is_stored_with_its_evidence(whole: tuple[Path, CurationResult]) -> None:
    path, result = whole
    stored = rows(path)
    assert len({row["row"] for row in stored}) == len(stored)
    columns = {"p_best", "p_gold", "judge_votes", "attributes", "decision", "provenance"}
    assert all(columns <= set(row) for row in stored)
    assert {row["decision"] for row in stored} <= {"keep", "relabel", "flip", "drop"}
    first = [row for row in stored if row["stage"] != "curation-2"]
    assert first and all(row["judge_votes"]["ballots"][0]["judge"] == "mostly right" for row in first)
    second = [row for row in stored if row["stage"] == "curation-2"]
    assert all(0 <= row["p_gold"] <= 1 for row in second)
    assert all((row["judge_votes"] is None) == (row["p_best"] > 0.55) for row in second)
    curated_rows = [json.loads(line) for line in (path / "curated.jsonl").read_text().splitlines()]
    assert len(curated_rows) == len(result.pairs) and columns <= set(curated_rows[-1])
    assert curated_rows[-1]["chosen"] == result.pairs[-1].chosen


def test_pool_sizes_and_accuracies_are_logged(whole: tuple[Path, CurationResult]) -> None:
    path, result = whole
    logged = RunFolder(path).metrics(stage="curation-1")
    assert [row["step"] for row in logged] == list(range(len(result.history) - 1))
    assert {"gold_accuracy", "held_out_accuracy", "gold", "silver", "unverified", "picked"} <= set(logged[0])
    cleaned = RunFolder(path).metrics(stage="curation-0")[0]
    # The templated pool repeats itself; what is left is what the first iteration finds.
    assert cleaned["unverified"] + cleaned["repeated"] + cleaned["empty"] == 300
    assert logged[0]["unverified"] == cleaned["unverified"] and logged[0]["silver"] == 60
    assert logged[1]["silver"] > 60
    last = RunFolder(path).metrics(stage="curation-2")[0]
    assert {"held_out_accuracy_best", "held_out_accuracy_gold"} <= set(last)


@pytest.mark.parametrize("dies_at", [1, 40, 200, 400])
def test_a_killed_run_ends_in_the_same_decisions(
    whole: tuple[Path, CurationResult], tmp_path: Path, dies_at: int
) -> None:
    path, result = whole
    with pytest.raises(KeyboardInterrupt):
        curated(tmp_path / "run", Judge(dies_at))
    before = rows(tmp_path / "run") if (tmp_path / "run/decisions.jsonl").exists() else []
    with (tmp_path / "run/decisions.jsonl").open("a") as file:
        file.write('{"stage": "curation-1-00", "row": 3, "pa')  # half a line, as a kill leaves it
    judge = Judge()
    again = curated(tmp_path / "run", judge)
    for name in ("decisions.jsonl", "curated.jsonl", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (path / name).read_bytes(), name
    assert again.pairs == result.pairs and again.discarded == result.discarded and again.history == result.history
    assert judge.calls == 3 * sum(row["judge_votes"] is not None for row in rows(path)[len(before) :])


def test_a_finished_run_asks_nobody_again(whole: tuple[Path, CurationResult]) -> None:
    path, result = whole
    before = (path / "decisions.jsonl").read_bytes()
    judge = Judge(dies_at=1)
    assert curated(path, judge).pairs == result.pairs and judge.calls == 0
    assert (path / "decisions.jsonl").read_bytes() == before


def test_models_that_can_be_kept_are_not_trained_again(whole: tuple[Path, CurationResult], tmp_path: Path) -> None:
    result = curated(tmp_path / "run", Judge(), load=WordReward.load)
    assert result.pairs == whole[1].pairs
    WordReward.trained = 0
    again = curated(tmp_path / "run", Judge(), load=WordReward.load)
    assert WordReward.trained == 0 and np.array_equal(again.best_rm.weights, result.best_rm.weights)


def test_without_a_folder_nothing_changes(whole: tuple[Path, CurationResult]) -> None:
    assert curated(None, Judge()).pairs == whole[1].pairs


def test_threads_change_nothing(whole: tuple[Path, CurationResult]) -> None:
    assert curated(None, Judge(), CONFIG.model_copy(update={"workers": 4})).pairs == whole[1].pairs


def test_judges_see_similar_gold_pairs_only(whole: tuple[Path, CurationResult]) -> None:
    judge = Judge()
    curated(None, judge)
    gold = [(pair.prompt, pair.chosen) for pair in pools()["gold"]]
    shown = [pair for examples in judge.examples for pair in examples]
    assert shown and all((pair.prompt, pair.chosen) in gold for pair in shown)
    assert max(len(examples) for examples in judge.examples) == 3  # k_max


def test_stage_1_stops_when_gold_accuracy_does() -> None:
    class Constant:
        def score(self, conversations: Sequence[Any]) -> np.ndarray:
            return np.zeros(len(conversations))

    config = CONFIG.model_copy(update={"iterations": 8, "patience": 2})
    result = curated(None, Judge(), config, train=lambda pairs: Constant())
    assert [row["stage"] for row in result.history] == ["1.0", "1.1", "1.2", "2"]
    assert all(row["gold_accuracy"] == 0.5 for row in result.history[:-1])  # ties count half


def test_the_best_model_is_the_one_of_the_best_iteration() -> None:
    seen: list[int] = []

    def train(pairs: Sequence[Pair]) -> WordReward:
        seen.append(len(pairs))
        made = WordReward.train(pairs)
        # Every model after the first is turned round, and so the worse one.
        return made if len(seen) == 1 else WordReward(-made.weights)

    result = curated(None, Judge(), train=train)
    accuracies = [row["gold_accuracy"] for row in result.history[:-1]]
    assert accuracies[0] == max(accuracies) and seen[0] == 60
    assert np.array_equal(result.best_rm.weights, WordReward.train(pools()["silver"]).weights)


@pytest.mark.parametrize("recycle", ["none", "flips", "all"])
def test_recycling(recycle: str) -> None:
    result = curated(None, Judge(), CONFIG.model_copy(update={"recycle": recycle}))
    decided = [pair.row["decision"] for pair in result.pairs[len(result.silver) :]]
    expected = {"none": set(), "flips": {"flip"}, "all": {"flip", "drop"}}[recycle]
    assert set(decided) - {"keep", "relabel"} <= expected and ("drop" in decided) == (recycle == "all")
    original = {repr((p.prompt, p.chosen, p.rejected)) for p in pools()["unverified"]}
    for pair in result.pairs[len(result.silver) :]:
        same = repr((pair.prompt, pair.chosen, pair.rejected)) in original
        turned = repr((pair.prompt, pair.rejected, pair.chosen)) in original
        assert same if pair.row["decision"] == "keep" else turned


def test_a_person_labels_for_gold() -> None:
    class Person(Judge):
        name = "person"

    person = Person()
    config = CONFIG.model_copy(update={"human_budget": 5, "iterations": 1})
    result = curated(None, Judge(), config, person=person)
    added = result.gold[40:]
    assert person.calls == 5 and 0 < len(added) <= 5
    assert all(pair.row["provenance"] == "stage 1, iteration 0: person" for pair in added)
    assert all(pair.row["judge_votes"]["ballots"][0]["judge"] == "person" for pair in added)
    with pytest.raises(GuerdonError, match="needs a person"):
        curated(None, Judge(), config)


class Describing:
    """Attributes by rule, in the place of a language model."""

    def __init__(self, fails: Callable[[Pair], bool] = lambda pair: False) -> None:
        self.asked, self.fails = 0, fails

    def __call__(self, pair: Pair) -> Attributes | Failed:
        self.asked += 1
        if self.fails(pair):
            return Failed("no JSON", kind="unparseable")
        level = "high" if "kettle" in text_of(pair.prompt) else "low"
        return Attributes("uses", level, "low", ("right",), f"Judge {thing_of(pair.prompt)}.")


def test_attributes_are_made_once_and_stored(tmp_path: Path) -> None:
    made = Describing()
    config = CONFIG.model_copy(update={"iterations": 1})
    result = curated(tmp_path / "run", Judge(), config, attributes=made)
    stored = (tmp_path / "run/attributes.jsonl").read_text().splitlines()
    assert made.asked == len(stored) == len({json.loads(line)["pair"] for line in stored})
    first = [row for row in rows(tmp_path / "run") if row["stage"] == "curation-1-00"]
    levels = [row["attributes"]["objectivity"] for row in first]
    assert set(levels) == {"high", "low"} and levels == sorted(levels)  # "high" goes first
    again = Describing()
    assert curated(tmp_path / "run", Judge(), config, attributes=again).pairs == result.pairs and again.asked == 0


def test_few_failed_attributes_are_done_without_and_many_stop_the_run(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"iterations": 1})
    seldom = Describing()
    seldom.fails = lambda pair: seldom.asked % 25 == 0
    result = curated(None, Judge(), config, attributes=seldom)
    assert any(pair.row.get("attributes") is None for pair in result.pairs[60:])
    with pytest.raises(GuerdonError, match="attributes: .* attempts failed; the last: no JSON"):
        curated(None, Judge(), config, attributes=Describing(lambda pair: True))


def test_judges_that_fail_stop_the_run_and_it_goes_on_later(whole: tuple[Path, CurationResult], tmp_path: Path) -> None:
    class Down(Judge):
        def __call__(self, *given: Any, **options: Any) -> Any:
            answer = super().__call__(*given, **options)
            return answer if self.calls <= 60 else Failed("connection refused", kind="unavailable")

    with pytest.raises(GuerdonError, match="judging: .*connection refused; what was decided before is kept"):
        curated(tmp_path / "run", Down())
    assert 0 < len(rows(tmp_path / "run")) < len(rows(whole[0]))
    # What failed before the ceiling was reached is undecided still, and asked for again.
    decided = {row["row"] for row in rows(tmp_path / "run")}
    result = curated(tmp_path / "run", Judge())
    assert {row["row"] for row in rows(tmp_path / "run")} > decided
    assert {repr(pair) for pair in result.pairs} == {repr(pair) for pair in whole[1].pairs}


def test_bad_input(tmp_path: Path, whole: tuple[Path, CurationResult]) -> None:
    data = pools()
    with pytest.raises(GuerdonError, match="got 0 and 60"):
        curated(None, Judge(), data={**data, "gold": []})
    with pytest.raises(GuerdonError, match="1 of 1 held-out pairs .*share a prompt"):
        curated(None, Judge(), data={**data, "held_out": data["unverified"][:1]})
    with pytest.raises(GuerdonError, match="decisions.jsonl:1: row .* another pair now"):
        curated(whole[0], Judge(), data={**data, "unverified": embedded_pairs(300, 4, things=tuple(THINGS))})
    with pytest.raises(GuerdonError, match="patience"):
        CurationConfig(patients=1)  # type: ignore[call-arg]


def test_the_pool_is_cleaned_of_what_is_known() -> None:
    data = pools()
    extra = [data["gold"][0], data["silver"][0], data["unverified"][5], replace(data["gold"][1], where="copy")]
    plain = curated(None, Judge())
    repeated = curated(None, Judge(), data={**data, "unverified": [*data["unverified"], *extra]})
    assert repeated.pairs == plain.pairs
    question = "What do people use a saw for?"
    config = CONFIG.model_copy(update={"iterations": 0})
    loop = CurationLoop(
        config, train=WordReward.train, committee=JudgeCommittee([Judge()], 2), embed=embed
    )  # fmt: skip
    found = loop.run(**{**data, "benchmark": [question]})
    new = [*found.pairs[60:], *found.discarded]
    assert new and not any(text_of(pair.prompt) == question for pair in new)


def test_without_judges_stage_2_runs_alone() -> None:
    config = CONFIG.model_copy(update={"iterations": 0})
    loop = CurationLoop(config, train=WordReward.train, committee=None, embed=embed)
    result = loop.run(**pools())
    decided = {pair.row["provenance"] for pair in result.pairs[60:]}
    assert decided == {"stage 2: gold and best models"} and [row["stage"] for row in result.history] == ["1.0", "2"]
    with pytest.raises(GuerdonError, match="without one set iterations=0"):
        CurationLoop(CONFIG, train=WordReward.train, committee=None, embed=embed)


def test_stage_1_looks_at_a_part_of_a_large_pool() -> None:
    seen: list[int] = []

    def counting(texts: list[str]) -> np.ndarray:
        seen.append(len(texts))
        return embed(texts)

    config = CONFIG.model_copy(update={"pool_limit": 50, "iterations": 1})
    loop = CurationLoop(
        config, train=WordReward.train, committee=JudgeCommittee([Judge()], 2), embed=counting
    )  # fmt: skip
    loop.run(**pools())
    assert 50 in seen and 300 not in seen

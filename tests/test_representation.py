"""States of conversations: exact whatever shares a batch, at any layer, and kept on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guerdon.core.errors import GuerdonError
from guerdon.models.representation import RepresentationReader, extract_representation
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone

TEXTS = ["what is a kettle for", "a kettle is for boiling water", "happy to help"]


def talk(answer: str, asked: str = "what is a kettle for?") -> list[dict[str, Any]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


TALKS = [talk("boiling water"), talk("happy to help, it is for boiling water"), talk("no", "a kettle? " * 9), talk("x")]


@pytest.fixture(scope="module")
def model() -> ScalarRewardModel:
    backbone, tokenizer = tiny_backbone(TEXTS, hidden=32)
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer)


def plain(model: ScalarRewardModel, text: str, layer: int = -1) -> torch.Tensor:
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        return model.backbone(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]


@pytest.mark.parametrize("layer", [-1, 0, 1, 2])
def test_the_state_at_the_last_token_of_plain_text(model: ScalarRewardModel, layer: int) -> None:
    found = RepresentationReader(model, layer=layer)(TALKS)
    assert found.states.shape == (4, 32) and found.states.dtype == np.float32 and found.kept.all()
    for talked, state in zip(TALKS, found.states):
        expected = plain(model, talked[0]["content"] + talked[1]["content"], layer)[-1]
        assert state == pytest.approx(expected.numpy(), abs=2e-5)


def test_pools_template_and_end(model: ScalarRewardModel) -> None:
    text = TALKS[0][0]["content"] + TALKS[0][1]["content"]
    mean = extract_representation(model, TALKS[:1], pool="mean").states[0]
    assert mean == pytest.approx(plain(model, text).mean(0).numpy(), abs=2e-5)
    ended = extract_representation(model, TALKS[:1], end=True).states[0]
    assert ended == pytest.approx(plain(model, text + "<|im_end|>")[-1].numpy(), abs=2e-5)
    chat = extract_representation(model, TALKS[:1], template=True).states[0]
    rendered = model.tokenizer.apply_chat_template(TALKS[0], tokenize=False)
    assert chat == pytest.approx(plain(model, rendered)[-1].numpy(), abs=2e-5)
    own = RepresentationReader(model, pool="own", template=True)(TALKS)
    with torch.no_grad():
        assert model.head(torch.from_numpy(own.states)) == pytest.approx(model.score(TALKS).numpy(), abs=1e-5)


def test_text_cannot_bring_control_tokens(model: ScalarRewardModel) -> None:
    bad = extract_representation(model, [talk("yes<|im_end|>")]).states[0]
    assert not np.allclose(bad, plain(model, "what is a kettle for?yes<|im_end|>")[-1].numpy(), atol=1e-3)


def test_a_state_belongs_to_its_conversation(model: ScalarRewardModel) -> None:
    reader = RepresentationReader(model)
    together = reader(TALKS).states
    for place, one in enumerate(TALKS):
        assert reader([one]).states[0] == pytest.approx(together[place], abs=1e-5)
    assert reader(TALKS[::-1]).states[::-1] == pytest.approx(together, abs=1e-5)
    assert reader([]).states.shape == (0, 32)


def test_what_is_too_long_has_no_state(model: ScalarRewardModel) -> None:
    found = RepresentationReader(model, max_length=12)(TALKS)
    assert 2 in found.problems and "longer than the limit of 12" in found.problems[2]
    assert np.isnan(found.states[2]).all() and found.kept.tolist()[2] is False and found.kept[0]


def test_the_reader_leaves_the_model_as_it_was(model: ScalarRewardModel) -> None:
    before, drawn = model.identity(), torch.initial_seed()
    state = torch.random.get_rng_state()
    model.train()
    RepresentationReader(model)(TALKS)
    assert model.training and model.backbone.training and model.identity() == before
    assert torch.equal(state, torch.random.get_rng_state()) and torch.initial_seed() == drawn
    model.eval()


def test_the_cache_gives_back_what_was_read(
    model: ScalarRewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RepresentationReader(model, cache=tmp_path)
    found = first(TALKS)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 and not list(tmp_path.glob("*.partial"))
    monkeypatch.setattr(RepresentationReader, "_read", lambda *_: pytest.fail("was read again"))
    again = RepresentationReader(model, cache=tmp_path)(TALKS)
    assert np.array_equal(again.states, found.states) and again.problems == found.problems


def test_the_cache_knows_what_it_holds(model: ScalarRewardModel, tmp_path: Path) -> None:
    readers = [RepresentationReader(model, cache=tmp_path, **options) for options in ({}, {"layer": 1}, {"end": True})]
    short = RepresentationReader(model, cache=tmp_path, max_length=12)
    assert len({reader.identity for reader in (*readers, short)}) == 4
    states = [reader(TALKS).states for reader in readers]
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    assert not np.allclose(states[0], states[1]) and not np.allclose(states[0], states[2])
    assert short(TALKS).problems == RepresentationReader(model, cache=tmp_path, max_length=12)(TALKS).problems != {}
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"broken")
    with pytest.raises(GuerdonError, match="delete it"):
        readers[0](TALKS)


def test_a_folder_of_a_reward_model_and_of_a_backbone(model: ScalarRewardModel, tmp_path: Path) -> None:
    expected = RepresentationReader(model)(TALKS).states
    assert extract_representation(model.save_pretrained(tmp_path / "rm"), TALKS).states == pytest.approx(
        expected, abs=1e-5
    )
    model.backbone.save_pretrained(tmp_path / "plain")
    model.tokenizer.save_pretrained(tmp_path / "plain")
    assert extract_representation(tmp_path / "plain", TALKS).states == pytest.approx(expected, abs=1e-5)
    with pytest.raises(GuerdonError, match="neither a reward model"):
        RepresentationReader(tmp_path)


@pytest.mark.parametrize(
    "options, said",
    [({"pool": "lst"}, "pool"), ({"layer": 3}, "0 to 2"), ({"template": True, "end": True}, "template")],
)
def test_choices_that_are_not_there(model: ScalarRewardModel, options: dict[str, Any], said: str) -> None:
    with pytest.raises(GuerdonError, match=said):
        RepresentationReader(model, **options)

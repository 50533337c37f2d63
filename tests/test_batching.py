"""Rows and batches: every score is the one of the plain forward, and no token is computed twice without need."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from guerdon.models.scalar.batching import (
    ROW_ATTENTION,
    batches,
    common_start,
    join,
    pack,
    packs,
    plan,
    pooled,
    score_encoded,
    share_rows,
    takes_rows,
)
from guerdon.models.scalar.head import HeadConfig
from guerdon.models.scalar.model import ScalarRewardModel
from guerdon.models.scalar.tiny import tiny_backbone, tiny_tokenizer, tiny_vision_backbone
from guerdon.models.scalar.tokens import Encoded

TEXTS = ["One two three four five six seven eight nine ten.", "The quick brown fox jumps over the lazy dog."]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}


def new_model(kind: str = "qwen3", **options) -> ScalarRewardModel:
    backbone, tokenizer = tiny_backbone(TEXTS, kind=kind, hidden=16, layers=2, vocab=300)
    options.setdefault("head", HeadConfig(num_layers=2))
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, **options).eval()


def of_family(name: str, **shape) -> ScalarRewardModel:
    """A reward model on a tiny backbone of another architecture."""
    tokenizer = tiny_tokenizer(TEXTS, vocab=300)
    config = getattr(transformers, f"{name}Config")(vocab_size=len(tokenizer), pad_token_id=0, **shape)
    torch.manual_seed(0)
    backbone = getattr(transformers, f"{name}Model")(config)
    return ScalarRewardModel.on_backbone(backbone, tokenizer=tokenizer, max_length=256).eval()


def conversations(seed: int = 0, groups: int = 5, longest: int = 90, end: int | None = None) -> list[Encoded]:
    """Groups of one to four conversations that begin alike, some of them twice, one a beginning of another."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, 250, (count,), generator=generator).tolist()

    def number(most: int) -> int:
        return int(torch.randint(1, most, (1,), generator=generator))

    made = []
    for group in range(groups):
        prompt = tokens(number(longest))
        made += [Encoded(prompt + tokens(number(longest // 2))) for _ in range(1 + group % 4)]
        made += [Encoded(prompt), Encoded(list(made[-1].ids))] if group == 1 else []
    made = made if end is None else [Encoded([*one.ids, end]) for one in made]
    order = torch.randperm(len(made), generator=generator).tolist()
    return [made[place] for place in order]


@torch.no_grad()
def singly(model: ScalarRewardModel, encoded: list[Encoded]) -> torch.Tensor:
    return torch.cat([model(**model.batch([one])) for one in encoded])


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("pooling", ["last", "mean", "token"])
def test_scores_are_those_of_the_plain_forward(kind, pooling):
    model = new_model(kind, pooling=pooling, reward_token="<|reward|>" if pooling == "token" else None)
    encoded = conversations(end=model.encoder.reward_id)
    assert packs(model)
    expected = singly(model, encoded)
    for budget in (1, 100, 400, 10_000):
        for share in (True, False):
            scores = score_encoded(model, encoded, token_budget=budget, share=share)
            assert scores.dtype == torch.float32
            assert float((scores - expected).abs().max()) < 1e-5
    assert float(expected.std()) > 1e-3


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(3, 12), min_size=1, max_size=80), min_size=1, max_size=12),
    st.lists(st.integers(3, 12), max_size=70),
    st.integers(1, 500),
)
def test_any_mixture_of_beginnings_scores_the_same(talks, prompt, budget):
    model = _kept_model()
    encoded = [Encoded(talk if place % 3 == 0 else prompt + talk) for place, talk in enumerate(talks)]
    scores = score_encoded(model, encoded, token_budget=budget)
    assert float((scores - singly(model, encoded)).abs().max()) < 1e-5


_kept: list[ScalarRewardModel] = []


def _kept_model() -> ScalarRewardModel:
    if not _kept:
        _kept.append(new_model())
    return _kept[0]


def test_no_score_is_no_score():
    assert score_encoded(new_model(), []).shape == (0,)


def test_tokens_that_the_pooling_passes_over_may_end_a_prompt_or_an_answer():
    model = new_model(unread_token=5)
    encoded = [Encoded([7, 8, 5]), Encoded([7, 8, 5, 9, 5, 5]), Encoded([7, 8, 5, 5]), Encoded([7, 8, 5, 9, 11])]
    row = join(encoded, range(4))
    assert row.shared == 3
    found = model.head(pooled(model, encoded, [row])).detach()
    assert float((found - singly(model, encoded)).abs().max()) < 1e-5


# Other architectures


@pytest.mark.parametrize(
    ("name", "shape", "in_rows"),
    [
        ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 4}, True),
        ("GPTNeoX", SMALL, True),
        ("Gemma2", {**SMALL, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 16}, False),
        ("Mistral", {**SMALL, "num_key_value_heads": 2, "sliding_window": 16}, True),
        ("Bert", {**SMALL, "max_position_embeddings": 256}, False),
        ("Bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 4}, False),
        ("Mamba", {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}, False),
    ],
)
def test_every_architecture_scores_as_its_plain_forward(name, shape, in_rows):
    model = of_family(name, **shape)
    encoded = conversations(groups=4, longest=50)
    scores = score_encoded(model, encoded, token_budget=300)
    assert packs(model) is in_rows
    assert float((scores - singly(model, encoded)).abs().max()) < 1e-5


def test_what_is_longer_than_the_window_keeps_its_own_mask():
    model = of_family("Mistral", **SMALL, num_key_value_heads=2, sliding_window=16)
    near, far = Encoded([5] * 16), Encoded([5] * 17)
    assert takes_rows(model, [near, near]) and not takes_rows(model, [near, far])


def test_angles_that_depend_on_the_batch_are_met_one_by_one():
    scaled = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model = of_family("Llama", **SMALL, max_position_embeddings=32, rope_parameters=scaled)
    encoded = conversations(groups=3)
    assert {len(rows) for rows in plan(model, encoded)} == {1}
    assert float((score_encoded(model, encoded) - singly(model, encoded)).abs().max()) < 1e-5


def test_pictures_are_scored_beside_texts():
    backbone, processor = tiny_vision_backbone(TEXTS, hidden=16, layers=2, heads=2, vocab=300)
    model = ScalarRewardModel.on_backbone(backbone, processor=processor).eval()
    asked = [{"role": "user", "content": "The quick"}]
    pictures = [Image.linear_gradient("L").resize((16 * side, 24)).convert("RGB") for side in (1, 2, 3)]
    encoded = [
        model.encode([*asked, {"role": "assistant", "content": answer}], [picture] if picture is not None else [])
        for picture in (*pictures, None)
        for answer in ("fox", "lazy dog jumps")
    ]
    scores = score_encoded(model, encoded, token_budget=64)
    assert float((scores - singly(model, encoded)).abs().max()) < 1e-5


def test_adapters_score_in_rows_and_the_plain_use_is_untouched():
    model = new_model(lora=2)
    with torch.no_grad():
        for name, part in model.named_parameters():
            if "lora_B" in name:
                part.normal_()
    encoded = conversations(groups=3)
    before = singly(model, encoded)
    assert float((score_encoded(model, encoded) - before).abs().max()) < 1e-5
    assert model.config._attn_implementation == ROW_ATTENTION
    batch = model.batch(encoded, side="left")
    with torch.no_grad():
        assert float((model(**batch) - before).abs().max()) < 1e-5
    assert "guerdon" not in str(model.config.to_dict())


def test_the_trial_leaves_mode_and_random_state_alone():
    model = new_model().train()
    state = torch.get_rng_state()
    assert packs(model) and model.backbone.training
    assert torch.equal(torch.get_rng_state(), state)


# Plans


def test_a_plan_holds_every_conversation_once_within_the_budget():
    model, encoded = new_model(), conversations(groups=8)
    for budget in (1, 150, 1000):
        made = plan(model, encoded, token_budget=budget)
        assert sorted(m for rows in made for row in rows for m in row.members) == list(range(len(encoded)))
        for rows in made:
            assert len(rows) == 1 or len(rows) * max(row.length for row in rows) <= budget


def test_what_begins_alike_is_joined_where_that_is_less_work():
    prompt, width = list(range(100, 160)), 64
    pair = {0: [*prompt, 1, 2, 3], 1: [9] * 20, 2: [*prompt, 1, 5]}
    rows = share_rows(pair, width)
    assert {row.members: (row.shared, row.length) for row in rows} == {(1,): (20, 20), (2, 0): (61, 64)} or {
        row.members: (row.shared, row.length) for row in rows
    } == {(1,): (20, 20), (0, 2): (61, 64)}
    # Two tokens of a template are no reason to look over a row of twice the length.
    header = {0: [1, 2, *range(10, 110)], 1: [1, 2, *range(110, 210)]}
    assert sorted(row.members for row in share_rows(header, width)) == [(0,), (1,)]
    # The same text again costs nothing.
    again = share_rows({place: [4, 5, 6] for place in range(5)}, width)
    assert [(len(row.members), row.length) for row in again] == [(5, 3)]


def test_best_of_n_reads_its_prompt_once():
    model = new_model()
    prompt = list(range(20, 120))
    encoded = [Encoded([*prompt, 130 + place, 7, 7]) for place in range(8)]
    (rows,) = plan(model, encoded, token_budget=10_000)
    assert [(sorted(row.members), row.shared, row.length) for row in rows] == [(list(range(8)), 100, 124)]


def test_packed_rows_say_who_may_look_where():
    encoded = [Encoded([1, 2, 3]), Encoded([1, 2, 4, 5]), Encoded([9])]
    rows = [join(encoded, (0, 1)), join(encoded, (2,))]
    ids, mask, positions, places = pack(encoded, rows, 0)
    assert ids.tolist() == [[1, 2, 3, 4, 5], [9, 0, 0, 0, 0]]
    assert positions.tolist() == [[0, 1, 2, 2, 3], [0, 0, 0, 0, 0]]
    assert places.tolist() == [[0, 1, 2, 0], [0, 1, 3, 4], [5, 0, 0, 0]]
    seen = mask[0, 0] == 0
    assert seen.tolist() == [
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True, True, True, False, False],
        [True, True, False, True, False],
        [True, True, False, True, True],
    ]


def test_batches_and_common_start():
    encoded = [Encoded([1] * length) for length in (4, 9, 5, 2)]
    rows = [join(encoded, (place,)) for place in range(4)]
    assert [[row.length for row in batch] for batch in batches(rows, 10)] == [[9], [5, 4], [2]]
    assert common_start([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert common_start([[1, 2]]) == 2
    assert common_start([[1], [2]]) == 0


def test_gradients_flow_through_rows_as_through_plain_batches():
    encoded = conversations(groups=4)
    found = []
    for share in (True, False):
        model = new_model()
        for rows in plan(model, encoded, token_budget=400, share=share):
            weights = torch.tensor([1.0 + member for row in rows for member in row.members])
            (model.head(pooled(model, encoded, rows)) * weights).sum().backward()
        found.append({name: part.grad for name, part in model.named_parameters() if part.grad is not None})
    largest = max(float(one.abs().max()) for one in found[1].values())
    assert found[0].keys() == found[1].keys()
    assert all(float((found[0][name] - one).abs().max()) < 1e-4 * largest for name, one in found[1].items())


def test_progress_is_told(capsys):
    score_encoded(new_model(), conversations(), token_budget=200, progress="scoring")
    assert "scoring: " in capsys.readouterr().err

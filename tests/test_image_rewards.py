from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from guerdon.core.errors import GuerdonError
from guerdon.core.images import as_tensor, to_pil
from guerdon.core.outcome import Failed
from guerdon.core.reward import range_of
from guerdon.core.scorer import Scorer
from guerdon.models.detectors.foundation_head import FoundationHead
from guerdon.models.detectors.small import make_detector, p_real
from guerdon.models.vision_language import QwenImageText, VisionLanguageModel, load_processor
from guerdon.rewards.image.clip import CLIPScore, LongCLIPScore, PickScore
from guerdon.rewards.image.detector import DetectorReward, RobustScore, ScoreReward
from guerdon.rewards.image.similarity import MaxSimilarity, ReferenceStore, max_similarity_reward
from guerdon.rewards.image.token_contrast import REALISM_PROMPT, TokenContrastScorer, token_contrast
from guerdon.rewards.image.visual_quality import VisualQuality, parse_quality
from guerdon.trainers.adversarial import AdversarialDetector

PROMPTS = ["a cat", "a brick wall", "a cat eye", "grass", "a coin"]
WORDS = ["a", "cat", "brick", "wall", "eye", "grass", "coin", "is", "it", "?"]
TURN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
QWEN_TOKENS = ["<unk>", "<pad>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
QWEN_TOKENS += ["<|video_pad|>", "real", "Real", "fake", "Fake", "user", "assistant", "<answer>4.5</answer>", *WORDS]


def images(n: int, seed: int = 0, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    """Pictures on the 8-bit grid, so that PIL and tensor forms are the same picture."""
    raw = torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(seed))
    return (raw * 255).round() / 255


def word_tokenizer(words: list[str], **special: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if "bos_token" in special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", words.index("<s>")), ("</s>", words.index("</s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special)


@pytest.fixture(scope="module")
def clip() -> tuple[CLIPModel, CLIPProcessor]:
    words = ["<unk>", "<pad>", "<s>", "</s>", *WORDS]
    tokenizer = word_tokenizer(words, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    text = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=len(words))
    text |= dict(max_position_embeddings=8, eos_token_id=3, bos_token_id=2, pad_token_id=1)
    vision = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision | dict(image_size=28, patch_size=7), projection_dim=12)
    return CLIPModel(config).eval(), CLIPProcessor(CLIPImageProcessorPil(size=28, crop_size=28), tokenizer)


@pytest.fixture(scope="module")
def qwen() -> VisionLanguageModel:
    special = QWEN_TOKENS[2:8]
    tokenizer = word_tokenizer(
        QWEN_TOKENS, pad_token="<pad>", eos_token="<|im_end|>", additional_special_tokens=special
    )
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    text = dict(vocab_size=len(QWEN_TOKENS), hidden_size=16, intermediate_size=32, num_hidden_layers=2)
    text |= dict(num_attention_heads=2, num_key_value_heads=1, rope_parameters=rope, bos_token_id=2, eos_token_id=3)
    vision = dict(depth=2, hidden_size=16, intermediate_size=32, num_heads=2, patch_size=4, spatial_merge_size=2)
    vision |= dict(out_hidden_size=16, window_size=16, fullatt_block_indexes=[1])
    tokens = dict(vision_start_token_id=4, vision_end_token_id=5, image_token_id=6, video_token_id=7)
    torch.manual_seed(1)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, bos_token_id=2, eos_token_id=3, **tokens)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.pad_token_id = 1
    with torch.no_grad():
        for parameter in model.parameters():  # untrained weights this small hardly react to the picture
            parameter.mul_(4.0)
    pictures = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=256, max_pixels=4096)
    return VisionLanguageModel(model, QwenImageText(pictures, tokenizer, TURN))


@pytest.fixture(scope="module")
def rewards(clip: tuple[CLIPModel, CLIPProcessor], qwen: VisionLanguageModel) -> dict[str, Any]:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7, initializer_range=0.2
    )
    head = FoundationHead(Dinov2Model(config), hidden=8).eval()
    detector, judge = make_detector("cnn", seed=0), AdversarialDetector(make_detector("gradient", seed=1))
    store = ReferenceStore({"a cat": images(3, 5), "grass": images(1, 6)}, pool=images(4, 7))
    return {
        "detector": DetectorReward(detector),
        "transformed": DetectorReward(detector, 1, transform=lambda x: x.flip(-1), name="flipped", batch_size=2),
        "adversarial": ScoreReward(judge, range=(0, 1)),
        "robust": ScoreReward(RobustScore(judge), range=(0, 1)),
        "foundation": ScoreReward(head),
        "clip": CLIPScore(*clip),
        "logits": CLIPScore(*clip, mode="logits"),
        "pick": PickScore(*clip),
        "long": LongCLIPScore(*clip, max_tokens=8),
        "similarity": MaxSimilarity(head.cls_features, store),
        "contrast": TokenContrastScorer(qwen, prompt="is it a ?"),
        "quality": VisualQuality(qwen, prompt="is it a ?", max_new_tokens=3),
    }


NAMES = ["detector", "transformed", "adversarial", "robust", "foundation", "clip", "logits", "pick", "long"]
NAMES += ["similarity", "contrast"]


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 1000), cut=st.integers(1, 4), pil=st.booleans())
def test_a_score_belongs_to_the_sample(rewards: dict[str, Any], name: str, seed: int, cut: int, pil: bool) -> None:
    reward, pictures = rewards[name], images(5, seed)
    whole = reward(prompts=PROMPTS, completions=pictures)
    assert len(whole) == 5 and all(type(score) is float for score in whole)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed)).tolist()
    given = to_pil(pictures) if pil else pictures
    parts: list[float] = []
    for rows in (order[:cut], order[cut:]):
        part = [given[row] for row in rows]
        completions = part if pil else torch.stack(part)  # type: ignore[arg-type]
        parts += reward(prompts=[PROMPTS[row] for row in rows], completions=completions)
    assert parts == pytest.approx([whole[row] for row in order], abs=1e-5)


@pytest.mark.parametrize("name", [*NAMES, "quality"])
def test_the_contract(rewards: dict[str, Any], name: str) -> None:
    reward = rewards[name]
    assert isinstance(reward.__name__, str) and reward.groupwise is False
    assert reward.identity() == reward.identity() and reward.identity().startswith(f"{reward.__name__}@1#")
    assert reward(prompts=[], completions=[]) == []
    scorer = Scorer(reward, on_failure="drop_sample", max_failure_rate=1.0)
    scores = scorer.score(PROMPTS, images(5), label=[1] * 5)
    low, high = range_of(reward) or (-1e9, 1e9)
    valid = scores.values[scores.valid]
    assert ((valid >= low) & (valid <= high)).all()
    if name != "quality":
        assert scores.valid.all() and len(set(scores.values.tolist())) == 5
    again = reward(prompts=PROMPTS, completions=images(5))
    assert [score for score in again if isinstance(score, float)] == pytest.approx(valid.tolist(), abs=1e-6)


def test_images_of_different_sizes_are_scored_one_by_one(rewards: dict[str, Any]) -> None:
    small, large = to_pil(images(1))[0], to_pil(images(1, 1, (48, 40)))[0]
    for name in ("detector", "clip", "similarity", "contrast"):
        both = rewards[name](prompts=PROMPTS[:2], completions=[small, large])
        alone = rewards[name](prompts=PROMPTS[1:2], completions=[large])
        assert both[1] == pytest.approx(alone[0], abs=1e-5)


def test_identity_follows_weights_and_configuration(clip: tuple[CLIPModel, CLIPProcessor]) -> None:
    first, second = make_detector("cnn", seed=0), make_detector("cnn", seed=1)
    assert DetectorReward(first).identity() == DetectorReward(make_detector("cnn", seed=0)).identity()
    names = {
        DetectorReward(first).identity(),
        DetectorReward(second).identity(),
        DetectorReward(first, 1).identity(),
        DetectorReward(first, transform=torch.flipud).identity(),
        CLIPScore(*clip).identity(),
        CLIPScore(*clip, mode="logits").identity(),
        CLIPScore(*clip, mode="logits", divisor=1).identity(),
        ScoreReward(AdversarialDetector(first)).identity(),
        ScoreReward(RobustScore(AdversarialDetector(first))).identity(),
        ScoreReward(RobustScore(AdversarialDetector(first), blur_sigma=1.0)).identity(),
    }
    assert len(names) == 10
    reward = DetectorReward(first)
    before = reward.identity()
    with torch.no_grad():
        first.head.bias.add_(0.1)
    assert reward.identity() != before


# Token contrast


def test_token_contrast_closed_forms() -> None:
    logits = torch.tensor([4.0, 1.0, 2.0, 1.0, 9.0])
    assert float(token_contrast(logits, [0, 1], [2, 3])) == pytest.approx(0.7311, abs=5e-5)
    assert float(token_contrast(logits, [0, 1], [2, 3], "logsumexp")) == pytest.approx(0.8501, abs=5e-5)
    assert float(token_contrast(logits, [0, 1], [2, 3], "max")) == pytest.approx(0.8808, abs=5e-5)
    both = token_contrast(torch.stack([logits, -logits]), [0], [2])
    assert both.tolist() == pytest.approx([0.8808, 0.1192], abs=5e-5)
    assert float(token_contrast(torch.tensor([900.0, -900.0]), [0], [1])) == 1.0
    with pytest.raises(GuerdonError, match="at least one"):
        token_contrast(logits, [], [2])
    with pytest.raises(GuerdonError, match="reduce must be"):
        token_contrast(logits, [0], [2], "sum")  # type: ignore[arg-type]


def test_contrast_reads_the_logits_after_the_prompt(qwen: VisionLanguageModel) -> None:
    picture = to_pil(images(1))[0]
    score = TokenContrastScorer(qwen, prompt="is it a ?")([""], [picture])[0]
    with torch.no_grad():
        logits = qwen.model(**qwen.inputs(picture, "is it a ?")).logits[0, -1]
    ids = [QWEN_TOKENS.index(word) for word in ("real", "Real", "fake", "Fake")]
    real, fake = logits[ids[:2]].mean(), logits[ids[2:]].mean()
    assert score == pytest.approx(float(torch.sigmoid(real - fake)), abs=1e-6)
    swapped = TokenContrastScorer(qwen, prompt="is it a ?", positive=["fake", "Fake"], negative=["real", "Real"])
    assert swapped([""], [picture])[0] == pytest.approx(1 - score, abs=1e-6)
    for reduce in ("logsumexp", "max"):
        other = TokenContrastScorer(qwen, prompt="is it a ?", reduce=reduce)([""], [picture])[0]  # type: ignore[arg-type]
        assert other != pytest.approx(score, abs=1e-6)
    assert TokenContrastScorer(qwen, prompt="a cat ?")([""], [picture])[0] != pytest.approx(score, abs=1e-6)


def test_words_must_be_single_tokens(qwen: VisionLanguageModel) -> None:
    with pytest.raises(GuerdonError, match="'a cat' is not a single token of .*: \\[15, 16\\]"):
        TokenContrastScorer(qwen, positive=["real", "a cat"])
    with pytest.raises(GuerdonError, match="'genuine' is not a single token"):
        TokenContrastScorer(qwen, positive=["genuine"])
    with pytest.raises(GuerdonError, match="at least one positive"):
        TokenContrastScorer(qwen, positive=[])
    with pytest.raises(GuerdonError, match="dtype: loading options need a hub id"):
        TokenContrastScorer(qwen, dtype=torch.float32)


def test_prompt_has_the_three_clauses() -> None:
    text = REALISM_PROMPT.lower()
    assert "real photograph or an ai-generated image" in text
    assert "'real' or 'fake'" in text and "one word" in text and "examine" in text


def test_qwen_inputs_have_one_placeholder_for_each_merged_patch(qwen: VisionLanguageModel) -> None:
    inputs = qwen.inputs(to_pil(images(1, size=(32, 48)))[0], "is it a ?")
    grid = inputs["image_grid_thw"][0]
    places = inputs["input_ids"][0] == QWEN_TOKENS.index("<|image_pad|>")
    assert int(places.sum()) == int(grid.prod()) // 4 == 24
    assert torch.equal(inputs["mm_token_type_ids"][0].bool(), places)
    text = [qwen.processor.apply_chat_template([_turn(2)], add_generation_prompt=True, tokenize=False)]
    pair = to_pil(images(2))
    nested, flat = qwen.processor(text, [pair]), qwen.processor(text, pair)
    assert torch.equal(nested["input_ids"], flat["input_ids"]) and len(flat["image_grid_thw"]) == 2
    with pytest.raises(GuerdonError, match=r"2 image placeholder\(s\) for 1 image"):
        qwen.processor(text, pair[:1])


def _turn(pictures: int) -> dict[str, Any]:
    return {"role": "user", "content": [*[{"type": "image"}] * pictures, {"type": "text", "text": "is it ?"}]}


def test_a_model_is_loaded_by_name(qwen: VisionLanguageModel, tmp_path) -> None:
    qwen.model.save_pretrained(tmp_path)
    qwen.processor.tokenizer.save_pretrained(tmp_path)
    qwen.processor.image_processor.save_pretrained(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": TURN}))
    processor = load_processor(str(tmp_path))
    assert processor.tokenizer.encode("real", add_special_tokens=False) == [QWEN_TOKENS.index("real")]
    pictures = images(2)
    lazy = TokenContrastScorer(str(tmp_path), prompt="is it a ?", dtype=torch.float32)
    expected = TokenContrastScorer(qwen, prompt="is it a ?")
    assert lazy(PROMPTS[:2], pictures) == pytest.approx(expected(PROMPTS[:2], pictures), abs=1e-5)
    assert lazy.identity() == expected.identity()


def test_a_processor_without_a_template_is_refused(qwen: VisionLanguageModel) -> None:
    bare = QwenImageText(qwen.processor.image_processor, qwen.processor.tokenizer)
    with pytest.raises(GuerdonError, match="has no chat template"):
        VisionLanguageModel(qwen.model, bare)
    with pytest.raises(GuerdonError, match="has no tokenizer"):
        VisionLanguageModel(qwen.model, object())


# Visual quality


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>fine</think><answer>3.75</answer>", 3.75),
        ("<answer>1</answer> no: <answer> 4.20 of 5 </answer>", 4.2),
        ("<answer>The quality is 2.5</answer>", 2.5),
        ("<answer>9.9</answer>", 5.0),
        ("<answer>-3</answer>", 1.0),
        ("<answer>.5</answer>", 1.0),
    ],
)
def test_quality_is_the_first_number_of_the_last_answer(text: str, expected: float) -> None:
    assert parse_quality(text) == expected


@pytest.mark.parametrize("text", ["", "4.5", "<answer>4", "<answer>good</answer>", "<answer></answer>"])
def test_an_unreadable_rating_is_a_failure_and_not_the_worst_one(text: str) -> None:
    result = parse_quality(text)
    assert isinstance(result, Failed) and result.kind == "unparseable"


def test_quality_asks_the_model_and_reads_its_reply(qwen: VisionLanguageModel) -> None:
    import copy

    model = copy.deepcopy(qwen.model)
    rating = QWEN_TOKENS.index("<answer>4.5</answer>")
    handle = model.lm_head.register_forward_hook(lambda module, inputs, output: _favour(output, rating))
    judge = VisualQuality(model, qwen.processor, prompt="is it a ?", max_new_tokens=2)
    assert judge(PROMPTS[:2], images(2)) == [4.5, 4.5]
    handle.remove()
    model.lm_head.register_forward_hook(lambda module, inputs, output: _favour(output, QWEN_TOKENS.index("grass")))
    replies = judge(PROMPTS[:2], images(2))
    assert all(isinstance(reply, Failed) for reply in replies)
    scores = Scorer(judge, max_failure_rate=1.0).score(PROMPTS[:2], images(2))
    assert not scores.valid.any() and len(scores.failures) == 2


def _favour(logits: torch.Tensor, token: int) -> torch.Tensor:
    logits = logits.clone()
    logits[..., token] += 1e4
    return logits


# CLIP


def test_clip_scores_agree_with_the_model_itself(clip: tuple[CLIPModel, CLIPProcessor]) -> None:
    model, processor = clip
    pictures = to_pil(images(3, size=(28, 28)))
    inputs = processor(
        text=PROMPTS[:3], images=pictures, padding="max_length", max_length=8, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        output = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], pixel_values=inputs["pixel_values"]
        )
        scale = float(model.logit_scale.exp())
    logits = output.logits_per_image.diagonal().tolist()
    assert CLIPScore(model, processor)(PROMPTS[:3], pictures) == pytest.approx([x / scale for x in logits], abs=1e-5)
    thirtieth = CLIPScore(model, processor, mode="logits")(PROMPTS[:3], pictures)
    assert thirtieth == pytest.approx([x / 30 for x in logits], abs=1e-5)
    pick = PickScore(model, processor)
    assert pick(PROMPTS[:3], pictures) == pytest.approx([x / 26 for x in logits], abs=1e-5)
    assert PickScore(model, processor, divisor=1)(PROMPTS[:3], pictures) == pytest.approx(logits, abs=1e-4)


def test_dot_product_can_be_raised_by_the_norm_and_the_cosine_cannot(clip: tuple[CLIPModel, CLIPProcessor]) -> None:
    import copy

    model, processor = clip
    louder = copy.deepcopy(model)
    with torch.no_grad():
        louder.visual_projection.weight.mul_(3.0)
    pictures = images(2)
    dot, loud = (LongCLIPScore(m, processor, max_tokens=8)(PROMPTS[:2], pictures) for m in (model, louder))
    assert loud == pytest.approx([3 * x for x in dot], rel=1e-4)
    cosine, same = (CLIPScore(m, processor)(PROMPTS[:2], pictures) for m in (model, louder))
    assert same == pytest.approx(cosine, abs=1e-6)
    scorer = CLIPScore(model, processor, mode="dot")
    with torch.no_grad():
        features = scorer.image_features(pictures), scorer.text_features(PROMPTS[:2])
    assert dot == pytest.approx(((features[0] * features[1]).sum(1) / 100).tolist(), abs=1e-6)


def test_prompts_may_be_messages_and_long_ones_are_cut(clip: tuple[CLIPModel, CLIPProcessor]) -> None:
    reward, picture = CLIPScore(*clip), images(1)
    chat = [[{"role": "user", "content": "a brick wall"}]]
    assert reward(chat, picture) == reward(["a brick wall"], picture)
    long = "a cat eye brick wall grass"
    assert reward([long], picture) == pytest.approx(reward([long + " coin coin"], picture))
    assert reward(["a cat"], picture) != reward(["a coin"], picture)
    with pytest.raises(GuerdonError, match="one prompt for each of the 1 images, got 2"):
        reward(["a", "b"], picture)
    with pytest.raises(GuerdonError, match="got a single string"):
        reward("a cat", picture)


def test_clip_options_are_checked(clip: tuple[CLIPModel, CLIPProcessor]) -> None:
    with pytest.raises(GuerdonError, match="max_tokens 248 exceeds the model's 8"):
        LongCLIPScore(*clip)(["a cat"], images(1))
    with pytest.raises(GuerdonError, match="mode must be one of"):
        CLIPScore(*clip, mode="angle")  # type: ignore[arg-type]
    with pytest.raises(GuerdonError, match="needs its processor"):
        CLIPScore(clip[0])


def test_clip_is_loaded_by_name(clip: tuple[CLIPModel, CLIPProcessor], tmp_path) -> None:
    clip[0].save_pretrained(tmp_path)
    clip[1].save_pretrained(tmp_path)
    pictures = images(3)
    expected = CLIPScore(*clip)
    lazy = CLIPScore(str(tmp_path))
    assert lazy(PROMPTS[:3], pictures) == pytest.approx(expected(PROMPTS[:3], pictures), abs=1e-6)
    assert lazy.identity() == expected.identity()


# Detectors and similarity


def test_detector_reward_is_p_real_for_either_class_order() -> None:
    model, pictures = make_detector("cnn", seed=0), images(4)
    expected = p_real(model, pictures)
    model.train()
    assert DetectorReward(model)(None, pictures) == pytest.approx(expected.tolist(), abs=1e-6)
    assert model.training
    assert DetectorReward(model, 1)(None, pictures) == pytest.approx((1 - expected).tolist(), abs=1e-6)
    flipped = DetectorReward(model, transform=lambda x: x.flip(-1))(None, pictures.flip(-1))
    assert flipped == pytest.approx(expected.tolist(), abs=1e-6)
    with pytest.raises(GuerdonError, match="two logits an image, got shape \\[4, 3"):
        DetectorReward(torch.nn.Conv2d(3, 3, 1))(None, pictures)
    with pytest.raises(GuerdonError, match="real_index must be 0 or 1"):
        DetectorReward(model, 2)


def test_robust_score_is_the_mean_over_the_views() -> None:
    class Brightness:
        def score(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.mean((1, 2, 3))

    pictures = images(3) * 0.5 + 0.25
    score = RobustScore(Brightness(), noise_sigma=0.0, blur_sigma=0.5).score(pictures)
    assert torch.allclose(score, pictures.mean((1, 2, 3)), atol=2e-3)


def test_max_similarity_is_the_largest_cosine() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    references = torch.tensor([[0.0, 2.0], [3.0, 3.0]])
    assert max_similarity_reward(features, references).tolist() == pytest.approx([0.5**0.5, 1.0])
    with pytest.raises(GuerdonError, match="K > 0"):
        max_similarity_reward(features, references[:0])
    with pytest.raises(GuerdonError, match=r"\[2, 2\] and \[2, 3\]"):
        max_similarity_reward(features, torch.zeros(2, 3))


def test_only_the_prompts_own_references_count() -> None:
    cat, coin, pool = images(2, 1), images(2, 2), images(2, 3)
    store = ReferenceStore({"a cat": cat, "a coin": coin}, pool=pool)
    reward = MaxSimilarity(lambda x: x.flatten(1) - 0.5, store)
    completions = torch.stack([cat[1], cat[1], pool[0]])
    scores = reward(["a cat", "a coin", "grass"], completions)
    assert scores[0] == pytest.approx(1.0, abs=1e-5) and scores[2] == pytest.approx(1.0, abs=1e-5)
    assert scores[1] < 0.5
    with pytest.raises(GuerdonError, match="no reference image for prompt 'a catt'.*did you mean 'a cat'"):
        MaxSimilarity(lambda x: x.flatten(1), ReferenceStore({"a cat": cat}))(["a catt"], cat[:1])


def test_reference_store_samples_without_repeats_from_the_prompts_own() -> None:
    store = ReferenceStore({"a cat": images(3, 1)}, pool=images(2, 2))
    generator = torch.Generator().manual_seed(0)
    drawn = store.sample(["a cat"] * 3 + ["grass"] * 2, generator)
    assert {row.numpy().tobytes() for row in drawn[:3]} == {row.numpy().tobytes() for row in images(3, 1)}
    assert {row.numpy().tobytes() for row in drawn[3:]} == {row.numpy().tobytes() for row in images(2, 2)}
    assert torch.equal(drawn, store.sample(["a cat"] * 3 + ["grass"] * 2, torch.Generator().manual_seed(0)))
    assert store.sample(["a cat"] * 7).shape == (7, 3, 32, 32)
    with pytest.raises(GuerdonError, match="give images by prompt, or a pool"):
        ReferenceStore()


def test_reference_index_is_read_and_missing_files_are_reported_together(tmp_path) -> None:
    for number, picture in enumerate(to_pil(images(3))):
        picture.save(tmp_path / f"{number}.png")
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"a cat": ["0.png", "1.png"], "a coin": ["2.png"]}))
    store = ReferenceStore.from_index(index, tmp_path)
    assert torch.allclose(store.get("a cat"), images(3)[:2]) and store.get("a coin").shape == (1, 3, 32, 32)
    assert ReferenceStore.from_index(index, tmp_path, size=(16, 24)).get("a coin").shape == (1, 3, 16, 24)
    index.write_text(json.dumps({"a cat": ["0.png", "8.png"], "a coin": ["9.png"]}))
    with pytest.raises(GuerdonError, match=r"index.json: 2 file\(s\) missing below .*: 8.png, 9.png"):
        ReferenceStore.from_index(index, tmp_path)
    index.write_text("[]")
    with pytest.raises(GuerdonError, match="expected a JSON object"):
        ReferenceStore.from_index(index, tmp_path)
    index.write_text("{")
    with pytest.raises(GuerdonError, match="not a readable JSON file"):
        ReferenceStore.from_index(index, tmp_path)


def test_pil_and_tensor_forms_are_the_same_picture(rewards: dict[str, Any]) -> None:
    pictures = images(2)
    assert torch.allclose(as_tensor(to_pil(pictures)), pictures)
    assert isinstance(to_pil(pictures)[0], Image.Image)
    for name in ("detector", "clip", "contrast"):
        assert rewards[name](PROMPTS[:2], pictures) == pytest.approx(
            rewards[name](PROMPTS[:2], to_pil(pictures)), abs=1e-5
        )

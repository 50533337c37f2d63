from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chat_server import Server, reply
from guerdon.benchmarks.judges import (
    ONE_TOKEN_QUESTION,
    QUESTION,
    DetectorJudge,
    OpenAICompatibleJudge,
    VLMJudge,
    parse_verdict,
)
from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed


def flat(level: int, side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, side), (level, level, level))


# ---- parsing


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("More realistic: Image 1\nReason: the hands.", "first"),
        ("more realistic: image 2", "second"),
        ("**More realistic:** Image 1", "first"),
        ("**More Realistic Image: Image 2**\n\n**Reason:** Image 1 has plastic skin", "second"),
        ("### More realistic: `Image 1`", "first"),
        ("- **More realistic: Tie**", "tie"),
        ("The more realistic image is: Image 2.", "second"),
        ("Image 1 looks odd.\n\nMore realistic: Image 2. Image 1 has six fingers.", "second"),
        ("More realistic: Image 1 (Image 2 has a halo)", "first"),
        ("<think>More realistic: Image 2? No.</think>\nMore realistic: Image 1", "first"),
        ("More realistic: Image 1\nMore realistic: Image 1", "first"),
        ("> More realistic: <Image 2>", "second"),
    ],
)
def test_clear_replies_are_read(reply: str, verdict: str) -> None:
    assert parse_verdict(reply) == verdict


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        ("", "no line"),
        ("Image 1 is clearly more realistic than Image 2.", "no line"),
        ("I think it is Image 2", "no line"),
        ("More realistic: Image 1|Image 2", "ambiguous"),
        ("More realistic: Image 1 or Image 2", "ambiguous"),
        ("More realistic: Image 1 and Image 2", "ambiguous"),
        ("More realistic: Image 1, Image 2", "ambiguous"),
        ("More realistic: Image 12", "ambiguous"),
        ("More realistic: Image 1.5", "ambiguous"),
        ("More realistic: Image 3", "ambiguous"),
        ("More realistic: Image 1 is not", "ambiguous"),
        ("More realistic: neither", "ambiguous"),
        ("More realistic:", "ambiguous"),
        ("More realistic: Image 1\nMore realistic: Image 2", "contradicting"),
        ("More realistic: Tie\nMore realistic: Image 2", "contradicting"),
        ("<think>More realistic: Image 2</think> I cannot tell.", "no line"),
    ],
)
def test_unclear_replies_are_failures_not_guesses(reply: str, cause: str) -> None:
    verdict = parse_verdict(reply)
    assert isinstance(verdict, Failed) and verdict.kind == "unparseable" and cause in verdict.cause


def test_the_question_asks_for_what_the_parser_reads() -> None:
    asked = [line for line in QUESTION.splitlines() if line.startswith("More realistic:")]
    assert [parse_verdict(line) for line in asked] == ["first", "second", "tie"]
    assert isinstance(parse_verdict(QUESTION), Failed)  # an echo of the question is no verdict
    for text in (QUESTION, ONE_TOKEN_QUESTION):
        for criterion in ("fingers", "plastic", "repeats", "shadows", "perspective", "edges", "letters", "whole"):
            assert criterion in text


# ---- detector judge


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.floats(0, 0.5))
def test_swapping_the_slots_mirrors_the_verdict(a: int, b: int, margin: float) -> None:
    judge = DetectorJudge(lambda images: images.mean((1, 2, 3)), margin=margin)
    mirror = {"first": "second", "second": "first", "tie": "tie"}
    verdict = judge.compare(flat(a), flat(b, side=16), None)
    assert isinstance(verdict, str)
    assert judge.compare(flat(b, side=16), flat(a), None) == mirror[verdict]
    assert judge.compare(flat(a), flat(a), None) == "tie"


def test_detector_judge_margin_names_and_failures() -> None:
    def brightness(images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))

    assert DetectorJudge(brightness, margin=0.2).compare(flat(100), flat(140), None) == "tie"
    assert DetectorJudge(brightness, margin=0.1).compare(flat(100), flat(140), None) == "second"
    assert DetectorJudge(brightness).name == "detector judge (brightness)"
    assert DetectorJudge(brightness).identity != DetectorJudge(brightness, margin=0.1).identity
    with pytest.raises(GuerdonError, match="margin"):
        DetectorJudge(brightness, margin=-1)

    def reward(prompts: list[str], completions: torch.Tensor, **columns: Any) -> list[float | None]:
        return [None if image.mean() < 0.2 else float(image.mean()) for image in completions]

    failed = DetectorJudge(reward).compare(flat(10), flat(140), "a cat")
    assert isinstance(failed, Failed) and "does not apply" in failed.cause


# ---- vision-language judge on a tiny untrained model

_WORDS = ["<unk>", "<pad>", "<image>", "<s>", "</s>", "1", "2", "Image", ":", "user", "More", "realistic"]


@pytest.fixture(scope="module")
def tiny_vlm() -> tuple[Any, Any]:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    words = Tokenizer(WordLevel({word: i for i, word in enumerate(_WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.add_tokens(["<image>", "More realistic: Image 2"], special_tokens=False)
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=(
            "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
            "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
        ),
    )
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(image_size=16, patch_size=8, **small),
            text_config=LlamaConfig(vocab_size=len(tokenizer), **small, bos_token_id=3, eos_token_id=4, pad_token_id=1),
            image_token_id=2,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # untrained weights of 0.02 would let no picture change anything
    return model, processor


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8))


def test_vlm_judge_contrasts_the_next_token_logits(tiny_vlm: tuple[Any, Any]) -> None:
    model, processor = tiny_vlm
    judge = VLMJudge(model, processor, mode="logits")
    seen: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda module, args, output: seen.append(output.logits[0, -1]))
    verdicts = {(a, b): judge.compare(picture(a), picture(b), None) for a in range(3) for b in range(3)}
    hook.remove()
    expected = ["first" if logits[5] > logits[6] else "second" for logits in seen]
    assert list(verdicts.values()) == expected and len(seen) == 9
    assert len({float(logits[5] - logits[6]) for logits in seen}) == 9  # both pictures and their order reach the model
    assert judge.compare(picture(0), picture(1), None) == verdicts[0, 1]
    widest = max(abs(float(logits[5] - logits[6])) for logits in seen)
    assert VLMJudge(model, processor, mode="logits", margin=widest + 1).compare(picture(0), picture(1), None) == "tie"


def test_vlm_judge_reads_a_generated_reply(tiny_vlm: tuple[Any, Any]) -> None:
    model, processor = tiny_vlm
    babble = VLMJudge(model, processor, max_new_tokens=3).compare(picture(0), picture(1), None)
    assert isinstance(babble, Failed) and babble.kind == "unparseable"
    states: list[torch.Tensor] = []
    hook = model.lm_head.register_forward_pre_hook(lambda module, args: states.append(args[0][0, -1]))
    VLMJudge(model, processor, max_new_tokens=1).compare(picture(0), picture(1), None)
    hook.remove()
    kept = model.lm_head.weight.detach().clone()
    verdict_token = processor.tokenizer.convert_tokens_to_ids("More realistic: Image 2")
    try:
        with torch.no_grad():  # teach the head one reply: the verdict follows from what was generated
            model.lm_head.weight[verdict_token] = states[0] * 100
        assert VLMJudge(model, processor, max_new_tokens=1).compare(picture(0), picture(1), None) == "second"
    finally:
        with torch.no_grad():
            model.lm_head.weight.copy_(kept)


def test_vlm_judge_shows_the_caption_only_when_asked(tiny_vlm: tuple[Any, Any]) -> None:
    model, processor = tiny_vlm
    lengths: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    for show, caption in ((False, "a red cat"), (True, None), (True, "a red cat")):
        VLMJudge(model, processor, mode="logits", show_caption=show).compare(picture(0), picture(1), caption)
    hook.remove()
    assert lengths[0] == lengths[1] < lengths[2]


def test_vlm_judge_errors(tiny_vlm: tuple[Any, Any]) -> None:
    model, processor = tiny_vlm
    with pytest.raises(GuerdonError, match="unknown judge mode 'guess'; choices: generate, logits"):
        VLMJudge(model, processor, mode="guess")  # type: ignore[arg-type]

    class NoDigits:
        tokenizer = type("T", (), {"unk_token_id": 0, "encode": lambda self, text, add_special_tokens: [0]})()

    with pytest.raises(GuerdonError, match="no single token for '1'"):
        VLMJudge(model, NoDigits(), mode="logits")


def test_vlm_judge_loads_from_a_folder(tiny_vlm: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = tiny_vlm
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = VLMJudge.from_pretrained(str(tmp_path), mode="logits", device="cpu")
    direct = VLMJudge(model, processor, mode="logits")
    for pair in ((0, 1), (1, 0), (2, 3)):
        assert loaded.compare(picture(pair[0]), picture(pair[1]), None) == direct.compare(
            picture(pair[0]), picture(pair[1]), None
        )


# ---- endpoint judge against a real server on the loopback


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server("More realistic: Tie")
    yield running
    running.close()


def judge_at(server: Server, waits: list[float], **options: Any) -> OpenAICompatibleJudge:
    return OpenAICompatibleJudge(server.url, "some-model", sleep=waits.append, **options)


def test_endpoint_judge_sends_both_pictures_losslessly(server: Server) -> None:
    server.answer = lambda count, body: reply("**More realistic: Image 2**\nReason: hands.")
    judge = judge_at(server, [], api_key="secret-key", show_caption=True)
    assert judge.compare(picture(1), picture(2), "a red cat") == "second"
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions" and headers["authorization"] == "Bearer secret-key"
    assert body["model"] == "some-model" and body["temperature"] == 0.0
    content = body["messages"][0]["content"]
    sent = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    for url, original in zip(sent, (picture(1), picture(2)), strict=True):
        head, _, data = url.partition(",")
        assert head == "data:image/png;base64"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), np.asarray(original))
    assert [part["text"] for part in content if part["type"] == "text"][:2] == ["Image 1:", "Image 2:"]
    assert "a red cat" in content[-1]["text"]
    assert "secret-key" not in repr(vars(judge)["identity"]) + judge.name


@pytest.mark.parametrize("status", [429, 500, 503])
def test_endpoint_judge_tries_again_when_that_can_help(server: Server, status: int) -> None:
    server.answer = lambda count, body: (status, {}, b"busy") if count < 3 else reply("More realistic: Image 1")
    waits: list[float] = []
    assert judge_at(server, waits, backoff=0.5).compare(picture(1), picture(2), None) == "first"
    assert len(server.requests) == 3 and waits == [0.5, 1.0]


def test_endpoint_judge_waits_as_long_as_the_server_asks(server: Server) -> None:
    server.answer = lambda count, body: (429, {"retry-after": "7"}, b"") if count < 2 else reply("More realistic: Tie")
    waits: list[float] = []
    assert judge_at(server, waits).compare(picture(1), picture(2), None) == "tie"
    assert waits == [7.0]


def test_endpoint_judge_gives_up_with_url_and_status(server: Server) -> None:
    server.answer = lambda count, body: (503, {}, b"overloaded")
    waits: list[float] = []
    failed = judge_at(server, waits, attempts=4).compare(picture(1), picture(2), None)
    assert isinstance(failed, Failed) and failed.kind == "unavailable"
    assert failed.cause == f"{server.url}/chat/completions answered 503: overloaded (after 4 attempts)"
    assert len(server.requests) == 4 and waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("status", [401, 403, 404, 301])
def test_endpoint_judge_stops_at_once_where_no_pair_can_succeed(server: Server, status: int) -> None:
    server.answer = lambda count, body: (status, {"location": "/elsewhere"}, b"no")
    with pytest.raises(GuerdonError, match=f"{server.url}/chat/completions answered {status}: no"):
        judge_at(server, [], api_key="secret-key").compare(picture(1), picture(2), None)
    assert len(server.requests) == 1


def test_endpoint_judge_never_repeats_a_refused_pair(server: Server) -> None:
    server.answer = lambda count, body: (400, {}, b"image rejected by policy")
    failed = judge_at(server, []).compare(picture(1), picture(2), None)
    assert isinstance(failed, Failed) and failed.kind == "refused" and "answered 400: image rejected" in failed.cause
    assert len(server.requests) == 1


def test_endpoint_judge_survives_broken_answers_and_connections(server: Server) -> None:
    answers = [(200, {}, b"<html>"), reply(None), (200, {}, b'{"choices": []}'), reply("both look fine")]
    server.answer = lambda count, body: answers[count - 1]
    for _ in answers:
        failed = judge_at(server, []).compare(picture(1), picture(2), None)
        assert isinstance(failed, Failed) and failed.kind == "unparseable"
    server.answer = lambda count, body: (0, {}, b"") if count == 5 else reply("More realistic: Image 1")
    waits: list[float] = []
    assert judge_at(server, waits).compare(picture(1), picture(2), None) == "first"
    assert waits == [1.0]
    server.close()
    gone = judge_at(server, waits, attempts=2).compare(picture(1), picture(2), None)
    assert isinstance(gone, Failed) and gone.kind == "unavailable" and server.url in gone.cause


def test_endpoint_judge_refuses_an_address_without_scheme() -> None:
    with pytest.raises(GuerdonError, match="must start with http"):
        OpenAICompatibleJudge("localhost:8000/v1", "m")

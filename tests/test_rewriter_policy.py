from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from guerdon.core.answer import parse_answer
from guerdon.core.errors import GuerdonError
from guerdon.policies.rewriter import INSTRUCTION, KeyedSampling, PromptRewriter, RewriterConfig
from guerdon.policies.tiny_rewriter import (
    SUBJECTS,
    StylePhrases,
    cold_start,
    synthetic_pairs,
    tiny_config,
    tiny_rewriter,
    user_prompts,
)

SOME = SUBJECTS[:4]


@pytest.fixture(scope="module")
def rewriter() -> PromptRewriter:
    """Taught the form on four subjects."""
    made = tiny_rewriter(subjects=SOME)
    losses = cold_start(made.model, made.tokenizer, synthetic_pairs(1000, subjects=SOME), 80, learning_rate=5e-3)
    assert losses[-1] < 0.2 * losses[0]
    return made


def test_tiny_rewriter_is_a_real_language_model() -> None:
    made = tiny_rewriter()
    assert type(made.model).__name__ == "Qwen3ForCausalLM"
    assert sum(p.numel() for p in made.model.parameters()) < 1_000_000
    twin, other = tiny_rewriter(), tiny_rewriter(seed=1)
    assert made.tokenizer.get_vocab() == twin.tokenizer.get_vocab()
    assert torch.equal(made.model.model.embed_tokens.weight, twin.model.model.embed_tokens.weight)
    assert not torch.equal(made.model.model.embed_tokens.weight, other.model.model.embed_tokens.weight)


@pytest.mark.parametrize(
    "text",
    [
        "a sharp photo of a coin",
        "Ein Drache über München 🐉",
        "<answer>a cat</answer>",
        "  tabs\tand\nlines {braces} ",
        "龍",
    ],
)
def test_tokenizer_never_loses_a_word(text: str) -> None:
    tokenizer = tiny_rewriter().tokenizer
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.unk_token_id is None


def test_words_of_the_world_are_single_tokens() -> None:
    tokenizer = tiny_rewriter().tokenizer
    text = "<think>keep a coin</think><answer>a sharp photo of a coin</answer>"
    assert len(tokenizer(text)["input_ids"]) == 13


def test_synthetic_rewrites_keep_the_content_and_choose_styles_uniformly() -> None:
    phrases = StylePhrases()
    pairs = synthetic_pairs(6000)
    assert pairs == synthetic_pairs(6000) and pairs[:50] != synthetic_pairs(50, seed=1)
    counts: Counter[str] = Counter()
    for prompt, completion in pairs:
        answer = parse_answer(completion, require_think=True)
        assert answer is not None
        subject = max((s for s in SUBJECTS if prompt.endswith(s)), key=len)
        assert answer.endswith(f"of {subject}") and answer.split()[0] in ("a", "an")
        head = prompt.removesuffix(subject).split()
        kept = set(phrases.kinds + phrases.tones + phrases.distances) & set(head)
        assert kept <= set(answer.split())
        words = [w for w in answer.removesuffix(subject).split() if w in phrases.quality]
        assert 1 <= len(words) <= 2
        counts.update(words)
    expected = counts.total() / len(phrases.quality)
    assert set(counts) == set(phrases.quality)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_prompts_of_the_world() -> None:
    prompts = user_prompts()
    assert {"a coin", "a photo of a coin", "a bright picture of grass", "a close-up snapshot of a cat eye"} <= set(
        prompts
    )
    assert len(set(prompts)) == len(prompts)
    assert "an image of tissue" in prompts


def test_cold_start_teaches_the_form(rewriter: PromptRewriter) -> None:
    prompts = user_prompts(subjects=SOME)
    untaught = tiny_rewriter(subjects=SOME).rewrite(prompts[:8])
    assert not any(r.valid for r in untaught) and [r.text for r in untaught] == prompts[:8]
    rewrites = rewriter.rewrite(prompts)
    assert sum(r.valid for r in rewrites) >= 0.85 * len(prompts)
    words = Counter(w for r in rewrites for w in r.text.split() if w in StylePhrases().quality)
    assert len(words) == 8 and words.most_common(1)[0][1] < 0.35 * words.total()  # there is something left to choose
    for rewrite in rewrites:
        assert rewrite.text == (parse_answer(rewrite.completion, require_think=True) or rewrite.prompt)
        assert rewrite.valid == (parse_answer(rewrite.completion, require_think=True) is not None)


def test_own_captions_are_never_lost(rewriter: PromptRewriter) -> None:
    own = ["ein Drache über München 🐉", "{instruction} % %s", "x" * 300]
    rewrites = rewriter.rewrite(own, n=2)
    assert [r.prompt for r in rewrites] == [p for p in own for _ in range(2)]
    assert all(r.text for r in rewrites)


def test_a_rewrite_depends_on_its_prompt_and_seed_only(rewriter: PromptRewriter) -> None:
    prompts = user_prompts(subjects=SOME)[:24]
    together = rewriter.rewrite(prompts, n=2, seed=3)
    assert [r.prompt for r in together] == [p for p in prompts for _ in range(2)]
    backwards = rewriter.rewrite(prompts[::-1], n=2, seed=3)
    alone = rewriter.rewrite(prompts[5:6], n=2, seed=3)
    by_prompt = {p: [r.completion for r in backwards if r.prompt == p] for p in prompts}
    assert [r.completion for r in together] == [c for p in prompts for c in by_prompt[p]]
    assert [r.completion for r in alone] == [r.completion for r in together[10:12]]
    small = PromptRewriter(rewriter.model, rewriter.tokenizer, rewriter.config.model_copy(update={"batch_size": 5}))
    assert small.rewrite(prompts, n=2, seed=3) == together
    assert rewriter.rewrite(prompts, n=2, seed=4) != together
    assert any(a.completion != b.completion for a, b in zip(together[::2], together[1::2], strict=True))


def test_sampling_leaves_the_global_random_state_and_the_mode_alone(rewriter: PromptRewriter) -> None:
    rewriter.model.train()
    state = torch.get_rng_state()
    first = rewriter.rewrite(["a coin"], n=3)
    assert torch.equal(torch.get_rng_state(), state) and rewriter.model.training
    torch.manual_seed(99)
    assert rewriter.rewrite(["a coin"], n=3) == first


def test_greedy_and_temperature(rewriter: PromptRewriter) -> None:
    greedy = rewriter.rewrite(["a coin"], n=3, greedy=True)
    assert len({r.completion for r in greedy}) == 1
    assert {r.completion for r in rewriter.rewrite(["a coin"], n=8, temperature=1e-3)} == {greedy[0].completion}
    hot = rewriter.rewrite(["a coin"], n=16, temperature=3.0)
    assert len({r.completion for r in hot}) > len(
        {r.completion for r in rewriter.rewrite(["a coin"], n=16, temperature=0.3)}
    )


def test_keyed_sampling_draws_from_the_tempered_softmax() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0])
    rows = 20_000
    drawn = KeyedSampling(range(rows), 2.0)(torch.empty(0), logits.expand(rows, -1)).argmax(dim=1)
    shares = torch.bincount(drawn, minlength=4) / rows
    torch.testing.assert_close(shares, torch.softmax(logits / 2, dim=0), atol=0.015, rtol=0)


def test_nucleus_keeps_the_top_tokens_only(rewriter: PromptRewriter) -> None:
    narrow = PromptRewriter(rewriter.model, rewriter.tokenizer, rewriter.config.model_copy(update={"top_p": 1e-6}))
    assert {r.completion for r in narrow.rewrite(["grass"], n=6)} == {
        narrow.rewrite(["grass"], greedy=True)[0].completion
    }


def test_saved_rewriter_is_the_same(rewriter: PromptRewriter, tmp_path: Path) -> None:
    loaded = PromptRewriter.load(rewriter.save(tmp_path / "rewriter"))
    assert loaded.config == rewriter.config
    assert loaded.rewrite(["a coin", "grass"], n=2) == rewriter.rewrite(["a coin", "grass"], n=2)
    assert (tmp_path / "rewriter" / "model.safetensors").exists()
    assert PromptRewriter.load(tmp_path / "rewriter", RewriterConfig()).config.instruction == INSTRUCTION


def test_mistakes_are_named(rewriter: PromptRewriter) -> None:
    for arguments, match in (
        ({"prompts": ["a coin", " "]}, "prompt 1"),
        ({"prompts": ["a coin"], "n": 0}, "at least 1"),
        ({"prompts": ["a coin"], "temperature": 0.0}, "greedy=True"),
    ):
        with pytest.raises(GuerdonError, match=match):
            rewriter.rewrite(**arguments)
    with pytest.raises(GuerdonError, match="at least one"):
        cold_start(rewriter.model, rewriter.tokenizer, [], 1)
    with pytest.raises(GuerdonError, match="multiple of 4 heads"):
        tiny_rewriter(hidden=30)
    with pytest.raises(GuerdonError, match="subject"):
        tiny_rewriter(subjects=())


def test_tokenizers_that_cannot_serve_are_refused() -> None:
    made = tiny_rewriter()
    made.tokenizer.chat_template = None
    with pytest.raises(GuerdonError, match="chat template"):
        PromptRewriter(made.model, made.tokenizer)
    dropping = tiny_rewriter()
    dropping.tokenizer.add_special_tokens({"additional_special_tokens": ["<answer>", "</answer>"]})
    with pytest.raises(GuerdonError, match="plain tokens"):
        PromptRewriter(dropping.model, dropping.tokenizer)


def test_settings_of_the_tiny_rewriter_reach_the_prompt(rewriter: PromptRewriter) -> None:
    (turn,) = rewriter.conversation("a coin")
    assert turn == {"role": "user", "content": f"{tiny_config().instruction}\na coin"}
    asked = PromptRewriter(rewriter.model, rewriter.tokenizer, RewriterConfig(instruction="Say more."))
    assert asked.conversation("a coin")[0]["content"] == "Say more.\na coin"

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from guerdon.core import photographs
from guerdon.core.errors import GuerdonError
from guerdon.policies import embedded
from guerdon.policies.flow import FlowPolicy
from guerdon.policies.rewriter import PromptRewriter
from guerdon.rewards.image.clip import CLIPScore
from guerdon.trainers.base import to_unit

SUBJECTS = [subject.name for subject in photographs.SUBJECTS]


@pytest.fixture(scope="module")
def alignment() -> CLIPScore:
    model, tokenizer = embedded.load_clip()
    return CLIPScore(model, embedded.clip_processor(tokenizer), batch_size=512)


def _named(alignment: CLIPScore, images: torch.Tensor) -> torch.Tensor:
    """The subject [N] whose caption fits each image best."""
    prompts = [f"a photo of {name}" for name in SUBJECTS]
    scores = [alignment(prompts=[prompt] * len(images), completions=images) for prompt in prompts]
    return torch.tensor(scores).argmax(0)


def test_the_weights_fit_in_the_repository() -> None:
    files = [path for path in embedded.ASSETS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} >= {"transformer", "text_encoder", "tokenizer", "clip", "rewriter"}
    assert sum(path.stat().st_size for path in files) <= 12 * 2**20
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_the_base_draws_what_it_is_asked_for(alignment: CLIPScore) -> None:
    base = embedded.load_base()
    assert isinstance(base, StableDiffusion3Pipeline)
    policy = FlowPolicy(base, guidance=1.0, max_sequence_length=1)
    prompts = [f"a photo of {name}" for name in SUBJECTS for _ in range(3)]
    images = policy.generate(prompts, list(range(len(prompts))), num_steps=10, batch_size=36)
    expected = torch.arange(len(SUBJECTS)).repeat_interleave(3)
    # Chance is 1 in 12.
    assert (_named(alignment, images) == expected).float().mean() > 0.6


def test_sharp_words_make_sharper_pictures() -> None:
    policy = FlowPolicy(embedded.load_base(), guidance=1.0, max_sequence_length=1)

    def detail(word: str) -> float:
        prompts = [f"a {word} photo of {name}" for name in SUBJECTS]
        images = policy.generate(prompts, list(range(len(prompts))), num_steps=8, batch_size=12)
        return float((images[..., 1:] - images[..., :-1]).abs().mean())

    assert detail("crisp") > 1.2 * detail("dreamy")


def test_alignment_sees_the_content_and_not_the_detail(alignment: CLIPScore) -> None:
    crops = photographs.sample(120, seed=77, smoothed_share=0.5)
    images = to_unit(crops.images)
    assert (_named(alignment, images) == torch.from_numpy(crops.subjects)).float().mean() > 0.8
    own = torch.tensor(alignment(prompts=[f"a photo of {SUBJECTS[s]}" for s in crops.subjects], completions=images))
    blurred = torch.from_numpy(crops.smoothed)
    assert abs(float(own[blurred].mean() - own[~blurred].mean())) < 0.1


def test_the_rewriter_keeps_the_form_and_mostly_the_subject() -> None:
    rewriter = PromptRewriter.load(embedded.ASSETS / "rewriter")
    rewrites = rewriter.rewrite([f"a photo of {name}" for name in SUBJECTS], n=2, seed=0)
    assert sum(rewrite.valid for rewrite in rewrites) >= 0.9 * len(rewrites)
    kept = [rewrite.text.endswith(photographs.subject_of(rewrite.prompt)) for rewrite in rewrites]
    assert sum(kept) >= 0.8 * len(kept)


def test_a_missing_base_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(GuerdonError, match="no base model in"):
        embedded.load_base(tmp_path)
    with pytest.raises(GuerdonError, match="no alignment model in"):
        embedded.load_clip(tmp_path / "nowhere")

"""Tiny random pipelines of the real diffusers classes, for the tests of policies and trainers."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from guerdon.policies.embedded import PixelAutoencoder

LENGTH = 12
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def tokenizer() -> CLIPTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    made = CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=LENGTH)
    made.chat_template = CHAT
    return made


def clip_config(vocab: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocab, hidden_size=16, intermediate_size=32, projection_dim=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=LENGTH, bos_token_id=vocab - 2, eos_token_id=vocab - 1,
        pad_token_id=vocab - 1,
    )  # fmt: skip


def vae(channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=channels, norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.7, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


def randomised(pipeline):
    """Give every zero-initialised modulation a value, so that time and text do matter, and silence the bar."""
    generator = torch.Generator().manual_seed(1)
    for parameter in pipeline.transformer.parameters():
        if not bool(parameter.any()):
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sd3(*, pixels: bool = False, size: int = 8, layers: int = 2) -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    words = tokenizer()
    channels = 3 if pixels else 4
    transformer = SD3Transformer2DModel(
        sample_size=size, patch_size=2, in_channels=channels, out_channels=channels, num_layers=layers,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16,
        pooled_projection_dim=32, pos_embed_max_size=size,
    )  # fmt: skip
    text = CLIPTextModelWithProjection(clip_config(len(words)))
    return randomised(
        StableDiffusion3Pipeline(
            transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=PixelAutoencoder() if pixels else vae(), text_encoder=text, tokenizer=words, text_encoder_2=text,
            tokenizer_2=words, text_encoder_3=None, tokenizer_3=None,
        )
    )  # fmt: skip


def flux(*, guidance_embeds: bool = True) -> FluxPipeline:
    torch.manual_seed(0)
    words = tokenizer()
    t5 = T5Config(vocab_size=len(words), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=guidance_embeds, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
    return randomised(
        FluxPipeline(
            transformer=transformer, scheduler=scheduler, vae=vae(), tokenizer=words,
            text_encoder=CLIPTextModel(clip_config(len(words))), text_encoder_2=T5EncoderModel(t5), tokenizer_2=words,
        )
    )  # fmt: skip


def z_image() -> ZImagePipeline:
    torch.manual_seed(0)
    words = tokenizer()
    text = Qwen3Config(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 6, 6], axes_lens=[128, 32, 32],
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return randomised(
        ZImagePipeline(
            transformer=transformer, scheduler=scheduler, vae=vae(), text_encoder=Qwen3Model(text), tokenizer=words
        )
    )

"""Folders in the layout of Stable Diffusion: the same blocks and names, narrow, with seeded random weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}


@dataclass(frozen=True)
class Shape:
    """What the versions of Stable Diffusion differ in.

    Attributes:
        widths: Of the U-Net's four levels.
        heads: Attention heads of each level (called ``attention_head_dim`` in its configuration).
        text_width: Of the text condition.
        linear: Whether attention blocks begin and end with a linear layer (2.x) or a 1x1 convolution (1.x).
        vae_widths: Of the autoencoder's four levels.
    """

    widths: tuple[int, int, int, int]
    heads: int | tuple[int, int, int, int]
    text_width: int
    linear: bool
    vae_widths: tuple[int, int, int, int]


NARROW_1 = Shape((64, 64, 64, 64), 8, 48, linear=False, vae_widths=(32, 32, 32, 32))
NARROW_2 = Shape((64, 64, 128, 128), (1, 1, 2, 2), 32, linear=True, vae_widths=(32, 32, 64, 64))
FULL_2 = Shape((320, 640, 1280, 1280), (5, 10, 20, 20), 1024, linear=True, vae_widths=(128, 256, 512, 512))


def build_unet(shape: Shape, **changes: Any) -> Any:
    return UNet2DConditionModel(
        **{
            "sample_size": 64,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            "block_out_channels": shape.widths,
            "layers_per_block": 2,
            "cross_attention_dim": shape.text_width,
            "attention_head_dim": shape.heads,
            "use_linear_projection": shape.linear,
            **changes,
        }
    ).eval()


def build_autoencoder(shape: Shape) -> Any:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=shape.vae_widths,
        layers_per_block=2,
        latent_channels=4,
        sample_size=768,
        scaling_factor=0.18215,
    ).eval()


def write_stable_diffusion(folder: Path, shape: Shape = NARROW_2, *, seed: int = 0, half: bool = True) -> Path:
    """Write ``unet/ vae/ scheduler/ text_encoder/ tokenizer/``, as a base model comes: without a Controller."""
    torch.manual_seed(seed)
    variant = "fp16" if half else None
    for name, network in (("unet", build_unet(shape)), ("vae", build_autoencoder(shape))):
        (network.half() if half else network).save_pretrained(folder / name, variant=variant)
    write_json(folder / "scheduler/scheduler_config.json", SCHEDULER)
    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    write_text_encoder(folder, shape.text_width, half=half)
    return folder


def write_text_encoder(folder: Path, width: int, *, half: bool) -> None:
    """Write a tiny CLIP text encoder and a tokenizer that knows little more than how a text begins and ends."""
    from transformers import CLIPTextConfig, CLIPTextModel

    words = ["!", "a", "a</w>", "<|startoftext|>", "<|endoftext|>"]
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        hidden_act="gelu",
        bos_token_id=3,
        eos_token_id=4,
        pad_token_id=0,
    )
    encoder: Any = CLIPTextModel(config)
    (encoder.half() if half else encoder).save_pretrained(folder / "text_encoder", variant="fp16" if half else None)
    write_json(folder / "tokenizer/vocab.json", {word: index for index, word in enumerate(words)})
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    special = {"bos_token": words[3], "eos_token": words[4], "unk_token": words[4], "pad_token": "!"}
    write_json(folder / "tokenizer/special_tokens_map.json", special)
    write_json(
        folder / "tokenizer/tokenizer_config.json",
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special},
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def give_a_say(controller: Any) -> None:
    """Fill a Controller's zero-initialised layers, so that it changes what the U-Net predicts."""
    nn.init.normal_(controller.controlnet_cond_embedding.weight, std=0.05)
    for block in [*controller.controlnet_down_blocks, controller.controlnet_mid_block]:
        nn.init.normal_(block.weight, std=0.05)

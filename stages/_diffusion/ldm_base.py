"""The base model that some official checkpoints carry beside their Controller: U-Net, autoencoder and text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from diffvqa.stages._diffusion.autoencoder import StableDiffusionAutoencoder
from diffvqa.stages._diffusion.ldm_checkpoint import convert_controller, tensors_below
from diffvqa.stages._diffusion.model import DiffusionModel
from diffvqa.stages._diffusion.schedule import ddpm_schedule
from diffvqa.stages._diffusion.weights import empty_network, require_fitting
from diffvqa.stages._errors import CheckpointError, ModelFolderError

_LEVELS = range(4)
_BLOCKS_PER_LEVEL = 2
_CHANNELS_PER_HEAD = 64
_TOKENS = 77
_SCALING_FACTOR = 0.18215


def convert_whole_model(tensors: Mapping[str, Tensor], where: str) -> DiffusionModel:
    """Return the model of a checkpoint that holds all of it, the null prompt made with its own text encoder.

    What such a file does not say is taken to be Stable Diffusion's: noise is predicted, beta runs from 0.00085 to 0.012
    linear in its square root (compared with the schedule stored, where there is one), latents are scaled by 0.18215.

    Args:
        tensors: From :func:`diffvqa.stages._diffusion.ldm_checkpoint.open_checkpoint`.
        where: The checkpoint, named in messages.

    Raises:
        CheckpointError: A part is not in there.
        ModelFolderError: A part is incomplete or of another shape than Stable Diffusion's, or the package
            ``transformers``, which the text encoder needs, is not installed.
    """
    unet = _convert_unet(tensors, where)
    scheduler = ddpm_schedule(0.00085, 0.012, "scaled_linear")
    stored = tensors.get("alphas_cumprod")
    if stored is not None and (
        stored.shape != scheduler.alphas_cumprod.shape
        or not torch.allclose(stored.float(), scheduler.alphas_cumprod, rtol=1e-3, atol=1e-6)
    ):
        raise CheckpointError(
            f"{where} was trained with another noise schedule than Stable Diffusion's.",
            "Give a base model's folder with --base.",
        )
    return DiffusionModel(
        unet,
        convert_controller(tensors, unet.config, where),
        StableDiffusionAutoencoder(_convert_autoencoder(tensors, where)),
        scheduler,
        _embed_empty_prompt(tensors, where),
    )


def _convert_unet(tensors: Mapping[str, Tensor], where: str) -> Any:
    found = _part(tensors, "out.2.weight", "model.diffusion_model.", "U-Net", where)
    config = _unet_config(found, where)
    converted = convert_ldm_unet_checkpoint(_prefixed(found, "model.diffusion_model."), config)
    return _filled(UNet2DConditionModel, config, converted, where)


def _convert_autoencoder(tensors: Mapping[str, Tensor], where: str) -> Any:
    found = _part(tensors, "post_quant_conv.weight", "first_stage_model.", "autoencoder", where)
    widths = tuple(_shape(found, f"encoder.down.{level}.block.0.conv1.weight", where)[0] for level in _LEVELS)
    config = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * len(_LEVELS),
        "up_block_types": ("UpDecoderBlock2D",) * len(_LEVELS),
        "block_out_channels": widths,
        "layers_per_block": _BLOCKS_PER_LEVEL,
        "latent_channels": _shape(found, "post_quant_conv.weight", where)[0],
        "scaling_factor": _SCALING_FACTOR,
    }
    wanted = {name: tensor for name, tensor in found.items() if not name.startswith("loss.")}  # left over from training
    converted = convert_ldm_vae_checkpoint(_prefixed(wanted, "first_stage_model."), config)
    return _filled(AutoencoderKL, config, converted, where)


def _unet_config(found: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    per_level = _BLOCKS_PER_LEVEL + 1  # the last one goes to the next level
    widths = tuple(
        _shape(found, f"input_blocks.{1 + per_level * level}.0.out_layers.3.weight", where)[0] for level in _LEVELS
    )
    linear = len(_shape(found, "input_blocks.1.1.proj_in.weight", where)) == 2
    return {
        "sample_size": 64,
        "in_channels": _shape(found, "input_blocks.0.0.weight", where)[1],
        "out_channels": _shape(found, "out.2.weight", where)[0],
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "block_out_channels": widths,
        "layers_per_block": _BLOCKS_PER_LEVEL,
        "cross_attention_dim": _shape(found, "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", where)[1],
        # 2.x has heads of 64 channels, 1.x has 8 heads throughout; diffusers calls their number their size.
        "attention_head_dim": tuple(width // _CHANNELS_PER_HEAD for width in widths) if linear else 8,
        "use_linear_projection": linear,
    }


def _embed_empty_prompt(tensors: Mapping[str, Tensor], where: str) -> Tensor:
    """Return the null prompt, (1, 77, width) float32."""
    try:
        from transformers import CLIPTextConfig, CLIPTextModel
    except ImportError as error:
        raise ModelFolderError(
            f"{where} holds a whole model; taking over its text condition needs the package transformers.",
            "Install it with: pip install 'diffvqa[sd]', or give a base model's folder with --base.",
        ) from error
    open_clip = tensors_below(tensors, "positional_embedding", "cond_stage_model.model.")
    if open_clip:  # 2.x: of the layers all but the last; padded with the first word, "!"
        words, width = _shape(open_clip, "token_embedding.weight", where)
        layers, activation, padding = _layers(open_clip, "transformer.resblocks.") - 1, "gelu", 0
    else:  # 1.x: all layers; padded with the word that ends a text, the last one
        mark = "text_model.embeddings.token_embedding.weight"
        clip = _part(tensors, mark, "cond_stage_model.transformer.", "text encoder", where)
        words, width = _shape(clip, mark, where)
        layers, activation, padding = _layers(clip, "text_model.encoder.layers."), "quick_gelu", words - 1
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // _CHANNELS_PER_HEAD),
        max_position_embeddings=_TOKENS,
        hidden_act=activation,
    )
    encoder: Any = CLIPTextModel(config)
    if open_clip:
        kept = {name: tensor for name, tensor in open_clip.items() if f".resblocks.{layers}." not in name}
        converted = convert_open_clip_checkpoint(encoder, _prefixed(kept, "model."), prefix="model.")
    else:
        converted = convert_ldm_clip_checkpoint(_prefixed(clip, "cond_stage_model.transformer."))
    stored = {name.removeprefix("text_model."): tensor.float() for name, tensor in converted.items()}
    expected = {name: name.removeprefix("text_model.") for name in encoder.state_dict()}  # by transformers' version
    fitting = {name: stored[flat] for name, flat in expected.items() if flat in stored}
    require_fitting(encoder, fitting, f"{where}, text encoder")
    encoder.load_state_dict(fitting)
    begin, end = words - 2, words - 1
    with torch.inference_mode():
        embedded: Tensor = encoder.eval()(torch.tensor([[begin, end, *[padding] * (_TOKENS - 2)]])).last_hidden_state
    return embedded


def _filled(network_class: Any, config: dict[str, Any], converted: Mapping[str, Tensor], where: str) -> Any:
    network = empty_network(network_class, config, where)
    require_fitting(network, converted, where)
    network.load_state_dict(converted, assign=True)
    return network.eval()


def _part(tensors: Mapping[str, Tensor], mark: str, preferred: str, kind: str, where: str) -> dict[str, Tensor]:
    found = tensors_below(tensors, mark, preferred)
    if not found:
        raise CheckpointError(
            f"{where} holds no {kind} (no tensor {preferred}{mark}).", "Give a base model's folder with --base."
        )
    return found


def _prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _shape(tensors: Mapping[str, Tensor], name: str, where: str) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"{where} holds no Stable Diffusion: {name} is missing.", "Use --base FOLDER.")
    return tuple(tensors[name].shape)


def _layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})

"""Checkpoints as the original latent diffusion code names them, filled from diffusers' networks block by block."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]


def ldm_controller(controller: Any) -> Tensors:
    """Name a Controller's tensors as in ``control_model``: one first convolution over concat(z_t, z_0)."""
    tensors = _encoder(controller)
    first, second = controller.conv_in.weight, controller.controlnet_cond_embedding.weight
    tensors["input_blocks.0.0.weight"] = torch.cat([first, second], dim=1).detach()
    for index, convolution in enumerate(controller.controlnet_down_blocks):
        tensors |= _layer(f"zero_convs.{index}.0", convolution)
    return tensors | _layer("middle_block_out.0", controller.controlnet_mid_block)


def ldm_unet(unet: Any) -> Tensors:
    tensors = _encoder(unet)
    index = 0
    for block in unet.up_blocks:
        attentions = list(getattr(block, "attentions", []))
        for place, (resnet, attention) in enumerate(zip_longest(block.resnets, attentions)):
            tensors |= _resnet(f"output_blocks.{index}.0", resnet)
            if attention is not None:
                tensors |= _all(f"output_blocks.{index}.1", attention)
            if block.upsamplers and place == len(block.resnets) - 1:
                after = 1 if attention is None else 2
                tensors |= _layer(f"output_blocks.{index}.{after}.conv", block.upsamplers[0].conv)
            index += 1
    return tensors | _layer("out.0", unet.conv_norm_out) | _layer("out.2", unet.conv_out)


def ldm_autoencoder(autoencoder: Any) -> Tensors:
    tensors = _layer("quant_conv", autoencoder.quant_conv) | _layer("post_quant_conv", autoencoder.post_quant_conv)
    for name, half, blocks, resampling in (
        ("encoder", autoencoder.encoder, autoencoder.encoder.down_blocks, "down"),
        ("decoder", autoencoder.decoder, reversed(autoencoder.decoder.up_blocks), "up"),
    ):
        tensors |= _layer(f"{name}.conv_in", half.conv_in) | _layer(f"{name}.conv_out", half.conv_out)
        tensors |= _layer(f"{name}.norm_out", half.conv_norm_out) | _autoencoder_middle(f"{name}.mid", half.mid_block)
        for level, block in enumerate(blocks):
            for place, resnet in enumerate(block.resnets):
                tensors |= _autoencoder_resnet(f"{name}.{resampling}.{level}.block.{place}", resnet)
            for resampler in getattr(block, f"{resampling}samplers") or []:
                tensors |= _layer(f"{name}.{resampling}.{level}.{resampling}sample.conv", resampler.conv)
    return tensors


def ldm_open_clip(encoder: Any) -> Tensors:
    """Name a CLIP text encoder's tensors as OpenCLIP does; a last layer that Stable Diffusion leaves out is added."""
    model = getattr(encoder, "text_model", encoder)
    width = model.embeddings.token_embedding.weight.shape[1]
    tensors = {
        "positional_embedding": model.embeddings.position_embedding.weight,
        "token_embedding.weight": model.embeddings.token_embedding.weight,
        "text_projection": torch.randn(width, width),
        "logit_scale": torch.tensor(1.0),
        **_layer("ln_final", model.final_layer_norm),
    }
    layers = list(model.encoder.layers)
    for index, layer in enumerate([*layers, layers[0]]):
        block, attention = f"transformer.resblocks.{index}", layer.self_attn
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        tensors[f"{block}.attn.in_proj_weight"] = torch.cat([projection.weight for projection in projections])
        tensors[f"{block}.attn.in_proj_bias"] = torch.cat([projection.bias for projection in projections])
        tensors |= _layer(f"{block}.attn.out_proj", attention.out_proj)
        tensors |= _layer(f"{block}.ln_1", layer.layer_norm1) | _layer(f"{block}.ln_2", layer.layer_norm2)
        tensors |= _layer(f"{block}.mlp.c_fc", layer.mlp.fc1) | _layer(f"{block}.mlp.c_proj", layer.mlp.fc2)
    return {name: tensor.detach() for name, tensor in tensors.items()}


def ldm_clip(encoder: Any) -> Tensors:
    """Name a CLIP text encoder's tensors as Stable Diffusion 1.x does."""
    model = getattr(encoder, "text_model", encoder)
    return _all("text_model", model)


def below(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _encoder(network: Any) -> Tensors:
    tensors = _layer("time_embed.0", network.time_embedding.linear_1)
    tensors |= _layer("time_embed.2", network.time_embedding.linear_2)
    tensors |= _layer("input_blocks.0.0", network.conv_in)
    index = 1
    for block in network.down_blocks:
        for resnet, attention in zip_longest(block.resnets, getattr(block, "attentions", [])):
            tensors |= _resnet(f"input_blocks.{index}.0", resnet)
            if attention is not None:
                tensors |= _all(f"input_blocks.{index}.1", attention)
            index += 1
        for downsampler in block.downsamplers or []:
            tensors |= _layer(f"input_blocks.{index}.0.op", downsampler.conv)
            index += 1
    first, second = network.mid_block.resnets
    tensors |= _resnet("middle_block.0", first) | _resnet("middle_block.2", second)
    return tensors | _all("middle_block.1", network.mid_block.attentions[0])


def _resnet(prefix: str, resnet: Any) -> Tensors:
    layers = {
        "in_layers.0": resnet.norm1,
        "in_layers.2": resnet.conv1,
        "emb_layers.1": resnet.time_emb_proj,
        "out_layers.0": resnet.norm2,
        "out_layers.3": resnet.conv2,
        "skip_connection": resnet.conv_shortcut,
    }
    return _layers(prefix, layers)


def _autoencoder_resnet(prefix: str, resnet: Any) -> Tensors:
    names = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "conv_shortcut"}
    return _layers(prefix, {name: getattr(resnet, ours) for name, ours in names.items()})


def _autoencoder_middle(prefix: str, block: Any) -> Tensors:
    attention = block.attentions[0]
    tensors = _layers(
        f"{prefix}.attn_1",
        {"q": attention.to_q, "k": attention.to_k, "v": attention.to_v, "proj_out": attention.to_out[0]},
    )
    for name, tensor in tensors.items():  # linear layers here, 1x1 convolutions there
        tensors[name] = tensor[:, :, None, None] if name.endswith("weight") else tensor
    tensors |= _layer(f"{prefix}.attn_1.norm", attention.group_norm)
    for index, resnet in enumerate(block.resnets):
        tensors |= _autoencoder_resnet(f"{prefix}.block_{index + 1}", resnet)
    return tensors


def _layers(prefix: str, layers: dict[str, nn.Module | None]) -> Tensors:
    tensors: Tensors = {}
    for name, layer in layers.items():
        tensors |= {} if layer is None else _layer(f"{prefix}.{name}", layer)
    return tensors


def _layer(name: str, layer: nn.Module) -> Tensors:
    own: Iterable[tuple[str, Tensor]] = layer.named_parameters(recurse=False)
    return {f"{name}.{kind}": tensor.detach() for kind, tensor in own}


def _all(prefix: str, module: nn.Module) -> Tensors:
    return {f"{prefix}.{name}": tensor.detach() for name, tensor in module.named_parameters()}

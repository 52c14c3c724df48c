"""The same network with random weights: what features are worth without any training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import torch

from diffvqa.stages._diffusion.model import DiffusionModel

_SEED = 0


def with_random_weights(model: DiffusionModel) -> DiffusionModel:
    """Return a model of the same architecture whose U-Net and Controller were never trained.

    Their weights are those that training begins with, drawn from a fixed seed: the Controller's zero convolutions are
    zero. The autoencoder stays, as features of a latent that shows nothing would say nothing of the U-Net.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        unet = type(model.unet).from_config(model.unet.config)
        controller = type(model.controller).from_config(model.controller.config)
    return dataclasses.replace(model, unet=unet.eval(), controller=controller.eval())


def hash_weights(model: DiffusionModel) -> str:
    """Return the SHA-256 over the configurations and weights of a model that lies in no folder."""
    digest = hashlib.sha256()
    for part in (model.unet, model.controller, model.autoencoder.network, model.scheduler):
        digest.update(json.dumps(_settings(part), sort_keys=True, default=str).encode())
        for name, tensor in part.state_dict().items() if isinstance(part, torch.nn.Module) else ():
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
    digest.update(model.null_prompt.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _settings(part: Any) -> dict[str, Any]:
    """Return a part's configuration without what says only where it came from."""
    return {name: value for name, value in part.config.items() if not name.startswith("_")}

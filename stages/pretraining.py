"""Training a small diffusion model on photographs, from nothing: first the U-Net, then its Controller."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffvqa.stages.diffusion.autoencoder import PixelUnshuffleAutoencoder, to_model_range
from diffvqa.stages.diffusion.controller import Controller
from diffvqa.stages.diffusion.model import DiffusionModel
from diffvqa.stages.errors import TrainingDataError

logger = logging.getLogger(__name__)

PHOTO_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
_SCALES = (1.0, 1 / 2, 1 / 3, 1 / 4)
_EMA_DECAY = 0.998


@dataclass(frozen=True)
class PretrainSchedule:
    """How long and how fast to train.

    Attributes:
        unet_steps: Steps on the U-Net.
        controller_steps: Steps on the Controller, the U-Net then frozen.
        batch_size: Crops per step.
        crop_size: Side of a training crop, in pixels.
        learning_rate: Peak rate of AdamW; warms up over 5 % of the steps, then falls as a cosine.
        seed: Seeds the initial weights, the crops and the noise.
    """

    unet_steps: int = 4000
    controller_steps: int = 1500
    batch_size: int = 32
    crop_size: int = 64
    learning_rate: float = 6e-4
    seed: int = 0


def build_nano(seed: int, *, widths: tuple[int, int, int] = (48, 64, 96), block_size: int = 4) -> DiffusionModel:
    """Return the ``nano`` architecture with seeded random weights, the Controller a copy of the U-Net's encoder.

    Args:
        seed: Of the initial weights.
        widths: Channels of the three blocks; multiples of 16.
        block_size: Pixels per side that the lossless autoencoder folds into one latent cell.
    """
    torch.manual_seed(seed)
    autoencoder = PixelUnshuffleAutoencoder(block_size=block_size)
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=autoencoder.latent_channels,
        out_channels=autoencoder.latent_channels,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="linspace",
        clip_sample=False,
        variance_type="fixed_small",
        prediction_type="epsilon",
    )
    controller = Controller.from_unet(unet, conditioning_channels=autoencoder.latent_channels)
    return DiffusionModel(unet, controller, autoencoder, scheduler, torch.zeros(1, 1, 32))


def pretrain(
    model: DiffusionModel,
    photos: list[Path],
    schedule: PretrainSchedule,
    on_step: Callable[[str, int, float], None],
) -> DiffusionModel:
    """Train the U-Net on random crops of photographs, then a Controller for it, and return both.

    Args:
        model: The architecture with its initial weights; its U-Net is trained in place.
        photos: Picture files; each is held in memory at four scales.
        schedule: How long and how fast.
        on_step: Called after each step with the network's name, the step and its loss.

    Raises:
        TrainingDataError: There are no photographs large enough to crop.
    """
    torch.manual_seed(schedule.seed)
    pictures = _load_scaled(photos, schedule.crop_size)
    crops = _random_crops(pictures, schedule)

    def denoise(z_t: Tensor, t: Tensor, _: Tensor) -> Tensor:
        predicted: Tensor = model.unet(z_t, t, model.null_prompt.expand(len(z_t), -1, -1), return_dict=False)[0]
        return predicted

    logger.info("training the U-Net on %d photographs", len(photos))
    losses = _fit(model.unet, denoise, model, crops, schedule, schedule.unet_steps)
    for step, loss in enumerate(losses):
        on_step("unet", step, loss)

    model.unet.requires_grad_(False)
    adapted = DiffusionModel(
        model.unet,
        Controller.from_unet(model.unet, conditioning_channels=model.autoencoder.latent_channels),
        model.autoencoder,
        model.scheduler,
        model.null_prompt,
    )
    logger.info("adapting the Controller")
    degraded = (_degrade(batch, np.random.default_rng([schedule.seed, i])) for i, batch in enumerate(crops))
    losses = _fit(adapted.controller, adapted.predict_noise, adapted, degraded, schedule, schedule.controller_steps)
    for step, loss in enumerate(losses):
        on_step("controller", step, loss)
    return adapted


def _fit(
    network: nn.Module,
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    model: DiffusionModel,
    batches: Iterable[NDArray[np.uint8]],
    schedule: PretrainSchedule,
    steps: int,
) -> Iterator[float]:
    """Minimise MSE(eps_theta(z_t, t, z_0), eps) over ``network``; yield each loss; leave the averaged weights in it."""
    network.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=0.01)
    warm_up = max(1, steps // 20)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * float(np.cos(np.pi * min(1.0, step / steps)))),
    )
    averaging = get_ema_multi_avg_fn(_EMA_DECAY)  # type: ignore[no-untyped-call]
    average = AveragedModel(network, multi_avg_fn=averaging)
    for _, batch in zip(range(steps), batches, strict=False):
        z_0 = model.autoencoder.encode(to_model_range(torch.from_numpy(batch)))
        noise = torch.randn_like(z_0)
        t = torch.randint(0, model.scheduler.config.num_train_timesteps, (len(z_0),))
        loss = F.mse_loss(predict(model.scheduler.add_noise(z_0, noise, t), t, z_0), noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own signature
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        average.update_parameters(network)
        yield loss.item()
    network.load_state_dict(average.module.state_dict())
    network.eval()


def _load_scaled(photos: list[Path], crop_size: int) -> list[NDArray[np.uint8]]:
    pictures = []
    for path in photos:
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        for scale in _SCALES:
            width, height = round(photo.width * scale), round(photo.height * scale)
            if min(width, height) >= crop_size:
                pictures.append(np.asarray(photo.resize((width, height), Image.Resampling.LANCZOS)))
    if not pictures:
        raise TrainingDataError(
            f"None of the {len(photos)} photographs is at least {crop_size} pixels wide and high.",
            "Give a folder with larger pictures.",
        )
    return pictures


def _random_crops(pictures: list[NDArray[np.uint8]], schedule: PretrainSchedule) -> Iterator[NDArray[np.uint8]]:
    """Yield batches of crops, (B, 3, crop, crop) uint8, for ever: any picture, any place, half of them mirrored."""
    rng = np.random.default_rng(schedule.seed)
    size = schedule.crop_size
    while True:
        batch = np.empty((schedule.batch_size, 3, size, size), np.uint8)
        for crop in batch:
            picture = pictures[rng.integers(len(pictures))]
            top, left = (rng.integers(0, extent - size + 1) for extent in picture.shape[:2])
            patch = picture[top : top + size, left : left + size]
            crop[:] = (patch[:, ::-1] if rng.random() < 0.5 else patch).transpose(2, 0, 1)
        yield batch


def _degrade(batch: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, add noise to, or JPEG-compress three crops in four, each by a random amount: degraded in, degraded out."""
    degraded = batch.copy()
    for crop in degraded:
        picture = Image.fromarray(crop.transpose(1, 2, 0))
        match rng.integers(4):
            case 0:
                picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3.0))))
            case 1:
                noisy = np.asarray(picture) + rng.normal(0.0, rng.uniform(3, 40), (*crop.shape[1:], 3))
                picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
            case 2:
                buffer = io.BytesIO()
                picture.save(buffer, "JPEG", quality=int(rng.integers(5, 60)))
                picture = Image.open(buffer)
            case _:
                pass
        crop[:] = np.asarray(picture).transpose(2, 0, 1)
    return degraded

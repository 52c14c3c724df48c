"""The recipe of a small diffusion model: its architecture, and how its U-Net and then its Controller are trained."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Architecture(BaseModel):
    """Shapes of a latent diffusion model over a lossless latent; frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    widths: tuple[int, ...] = Field(
        (48, 96, 160), description="channels of each level, finest first; multiples of norm_groups", min_length=2
    )
    layers: int = Field(1, ge=1, description="residual blocks per level on the way down; one more on the way up")
    attention: tuple[bool, ...] = Field((False, False, True), description="whether each level attends")
    attention_heads: int = Field(4, ge=1, description="heads of each attention")
    cross_attention_dim: int = Field(32, ge=1, description="width of the null prompt's one token")
    norm_groups: int = Field(16, ge=1, description="groups of each group normalisation")
    block_size: int = Field(4, ge=1, description="side of the block of pixels that is folded into one latent cell")

    @model_validator(mode="after")
    def _fits(self) -> Architecture:
        if len(self.attention) != len(self.widths):
            raise ValueError(f"attention has {len(self.attention)} levels, widths has {len(self.widths)}")
        if wrong := [width for width in self.widths if width % self.norm_groups or width % self.attention_heads]:
            raise ValueError(f"width {wrong[0]} is no multiple of norm_groups and of attention_heads")
        return self


class FitRecipe(BaseModel):
    """How one network is trained; frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(4500, ge=1, description="steps of the optimiser")
    batch_size: int = Field(32, ge=1, description="crops per step, over all processes")
    crop_size: int = Field(128, ge=8, description="side of a crop in pixels")
    learning_rate: float = Field(6e-4, gt=0, description="peak rate of AdamW; rises, then falls as a cosine")
    warm_up: float = Field(0.05, ge=0, lt=1, description="share of a cycle over which the rate rises to its peak")
    final_rate: float = Field(0.0, ge=0, le=1, description="share of the peak rate that the cosine falls to")
    cycles: int = Field(1, ge=1, description="how often the rate rises and falls, in equal shares of the steps")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of the weight matrices")
    gradient_norm: float = Field(1.0, gt=0, description="longer gradients are clipped to this length")
    ema: float = Field(0.998, ge=0, lt=1, description="decay per step of the averaged weights, which are kept")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the products; weights are float32")
    gradient_checkpointing: bool = Field(False, description="compute activations twice to hold fewer of them")
    loss_weight: Literal["epsilon", "min_snr", "sqrt_snr", "x0"] = Field(
        "epsilon",
        description="weight of a step's squared error by the signal-to-noise ratio of its t: epsilon 1, "
        "min_snr min(1, snr_cap/SNR), sqrt_snr SNR^-1/2, x0 1/SNR",
    )
    snr_cap: float = Field(5.0, gt=0, description="gamma of min_snr")
    degraded: float = Field(0.25, ge=0, le=1, description="share of the crops that are degraded")
    degradations: tuple[str, ...] = Field(("blur", "noise", "jpeg"), description="with what, one at random each")
    severity: float = Field(0.5, gt=0, le=1, description="of the worst degradation, of which 1 is the strongest known")
    scales: tuple[float, ...] = Field(
        (1.0, 0.5, 0.3333, 0.25), min_length=1, description="a crop is cut at one of these, at random"
    )
    region: int = Field(512, ge=8, description="side in pixels of the square regions that are kept of a picture")
    regions: int = Field(4, ge=1, description="most regions kept of one picture; one no larger than a region gives one")
    video_frames: int = Field(8, ge=1, description="frames taken from each video")
    held_out: int = Field(64, ge=1, description="crops, of as many pictures, that are kept to measure the loss on")
    validate_every: int = Field(250, ge=1, description="steps between measurements of the held-out loss")
    checkpoint_every: int = Field(250, ge=1, description="steps between checkpoints")
    seed: int = Field(0, ge=0, description="of the initial weights, the crops, the degradations and the noise")

    @property
    def crops_at_zero(self) -> int:
        """How many crops of a step have t = 0 by design."""
        return 0

    def rate_at(self, step: int) -> float:
        """Return the share of the peak learning rate at a step, counted from 0.

        In each cycle a linear warm-up, then half a cosine down to ``final_rate`` (SGDR: Loshchilov and Hutter, 2017).
        """
        length = math.ceil(self.steps / self.cycles)
        within = step % length
        rising = max(1, round(self.warm_up * length))
        if within < rising:
            return (within + 1) / rising
        fallen = 0.5 - 0.5 * math.cos(math.pi * (within - rising) / max(1, length - rising))
        return 1 - (1 - self.final_rate) * fallen

    def identity(self) -> dict[str, Any]:
        """Return what the trained network depends on, as JSON values."""
        return self.model_dump(mode="json")

    @field_validator("degradations")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from diffvqa.stages._denoiser_training.degradations import DEGRADATIONS

        if unknown := [name for name in names if name not in DEGRADATIONS]:
            raise ValueError(f"there is no degradation '{unknown[0]}'; known: {', '.join(DEGRADATIONS)}")
        return names

    @model_validator(mode="after")
    def _a_crop_fits(self) -> FitRecipe:
        if self.crop_size > self.region:
            raise ValueError(f"crop_size {self.crop_size} is larger than region {self.region}")
        return self

    @field_validator("scales")
    @classmethod
    def _shrinks(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < scale <= 1 for scale in scales):
            raise ValueError("a scale must be over 0 and at most 1")
        return scales


class AlignRecipe(FitRecipe):
    """How a U-Net is trained on under a teacher, whose features its blocks learn to tell."""

    teacher: str = Field(
        "efficientnet-lite0", min_length=1, description="backbone whose features the U-Net's blocks learn to tell"
    )
    teacher_weight: float = Field(0.5, gt=0, description="weight of the error of what they tell beside the noise's")
    at_zero: float = Field(
        0.5, gt=0, le=1, description="share of the crops with t = 0, where features are read; these are told"
    )

    @property
    def crops_at_zero(self) -> int:
        """How many crops of a step have t = 0 by design: at least one."""
        return max(1, round(self.at_zero * self.batch_size))


class AdaptRecipe(FitRecipe):
    """How a Controller is trained, and how its reconstructions are measured."""

    zero_conv_rate: float = Field(
        1.0, gt=0, description="learning rate of the convolutions that start at zero, as a multiple of the others'"
    )
    reconstructed: int = Field(
        8, ge=1, description="held-out pictures that are reconstructed, as they are and degraded"
    )
    reconstruct_steps: int = Field(20, ge=1, le=1000, description="denoising steps of these reconstructions")
    reconstruct_start: int = Field(999, ge=0, le=999, description="timestep they start from; 999 is pure noise")

    def identity(self) -> dict[str, Any]:
        """Return what the trained Controller depends on: not how it is measured afterwards."""
        return self.model_dump(mode="json", exclude={"reconstructed", "reconstruct_steps", "reconstruct_start"})


class DenoiserRecipe(BaseModel):
    """All settings of a small diffusion model's making."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Architecture = Field(default_factory=Architecture)
    pretrain: FitRecipe = Field(default_factory=FitRecipe)
    align: AlignRecipe = Field(default_factory=AlignRecipe)
    adapt: AdaptRecipe = Field(default_factory=AdaptRecipe)


def shipped_recipe() -> Path:
    """Return the TOML file of the recipe that the shipped ``nano`` was made with."""
    return Path(str(resources.files("diffvqa.stages"))) / "models/nano.toml"

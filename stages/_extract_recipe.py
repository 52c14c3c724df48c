"""The recipe of stage one: every setting that changes the features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

PURE_NOISE_TIMESTEP = 999

ALL_UP_BLOCKS = "all"

DecoderChoice = Literal["auto", "decord", "pyav"]
Precision = Literal["float32", "bfloat16", "float16"]


def _as_text(numbers: object) -> object:
    """Write what TOML reads as one number or a list of them as the setting keeps it."""
    if isinstance(numbers, int) and not isinstance(numbers, bool):
        return str(numbers)
    return ",".join(map(str, numbers)) if isinstance(numbers, list | tuple) else numbers


UpBlocks = Annotated[str, BeforeValidator(_as_text)]


class ExtractRecipe(BaseModel):
    """What is extracted from a video, and how; part of the features' fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        "nano",
        min_length=1,
        description="model folder or name of a shipped one; NAME-random: untrained; A+B: the features of both",
    )
    frames: int = Field(8, ge=1, description="frames per video (N), at the centres of N equal time segments")
    frames_per_second: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="sample at this rate as long as that gives at most N; 0: do not",
    )
    min_frames: int = Field(1, ge=1, description="frames that a video must have; with fewer it is too_short")
    good_frames: float = Field(
        1.0, gt=0, le=1, description="share of the sampled frames that a damaged or truncated file must still hold"
    )
    # Part of the recipe, since "decord" can give other frames than the others do: see docs/video-ingest.md.
    decoder: DecoderChoice = Field("auto", description="auto (decord where it is exact, else pyav), decord or pyav")
    view_size: int = Field(128, ge=16, description="side of a view in pixels (S)")
    crops: int = Field(3, ge=1, description="native-resolution crops per frame (K)")
    grid: int = Field(4, ge=1, description="side of the grid (g) that multiscale maps are averaged to")
    up_blocks: UpBlocks = Field(
        ALL_UP_BLOCKS,
        pattern=r"^(all|\d+(,\d+)*)$",
        description="which of the U-Net's up-blocks multiscale keeps: all, or numbers such as 1,2; 0 is the coarsest",
    )
    middle_block: bool = Field(True, description="keep the U-Net's middle block beside its up-blocks in multiscale")
    residual: bool = Field(
        True, description="keep in multiscale what the reconstructed latent lacks, in units of the last step's noise"
    )
    multiscale_std: bool = Field(True, description="keep each grid cell's standard deviation beside its mean")
    steps: int = Field(1, ge=1, le=1000, description="denoising steps, from start_timestep down to 0")
    start_timestep: int = Field(
        0,
        ge=0,
        le=PURE_NOISE_TIMESTEP,
        description=f"where denoising starts: z_0 noised to there, or pure noise at {PURE_NOISE_TIMESTEP}",
    )
    precision: Precision = Field("float32", description="of the networks' products: float32, bfloat16 or float16")
    seed: int = Field(0, ge=0, description="of crop positions and noise")

    def kept_up_blocks(self, there: int) -> tuple[int, ...]:
        """Return the numbers of the up-blocks to keep, ascending, of a U-Net that has ``there`` of them."""
        if self.up_blocks == ALL_UP_BLOCKS:
            return tuple(range(there))
        return tuple(sorted({int(number) for number in self.up_blocks.split(",")}))

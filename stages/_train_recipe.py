"""The recipe of stage two: every setting that changes what the regressor learns, and nothing that does not."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainRecipe(BaseModel):
    """Settings of the regressor and of its training; frozen, and an unknown key is an error.

    Raises:
        pydantic.ValidationError: A value is out of bounds or a key is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    splits: int = Field(10, description="Number of random train/validation/test splits, one regressor each.", ge=1)
    test_share: float = Field(0.2, description="Share of the content groups that is tested on, once.", gt=0, lt=1)
    validation_share: float = Field(
        0.2, description="Share of the remaining content groups that the best epoch is chosen on.", gt=0, lt=1
    )
    validation_crops: int = Field(
        3, description="Crops of each video that the epoch is chosen on; testing and scoring take all.", ge=1
    )
    epochs: int = Field(5, description="Passes over the training part.", ge=1)
    batch_size: int = Field(8, description="Videos per step; the losses compare them with one another.", ge=2)
    learning_rate: float = Field(2e-3, description="Peak rate of AdamW; rises, then falls as a cosine.", gt=0)
    warm_up: float = Field(0.1, description="Share of the steps over which the rate rises to its peak.", ge=0, lt=1)
    weight_decay: float = Field(0.05, description="Decoupled weight decay of the weight matrices.", ge=0)
    gradient_norm: float = Field(1.0, description="Longer gradients are clipped to this length.", gt=0)
    ema: float = Field(
        0.95, description="Decay per step of the averaged weights that are tested; 0 tests the last step's.", ge=0, lt=1
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Of the products in training; the weights are float32 always."
    )
    plcc_weight: float = Field(1.0, description="Weight of the PLCC loss.", ge=0)
    rank_weight: float = Field(0.3, description="Weight of the pairwise rank loss.", ge=0)
    seed: int = Field(0, description="Seeds the splits, the initial weights, the batches and the dropout.", ge=0)
    pretrain_epochs: int = Field(10, description="Passes over the data sets of --pretrain, if any.", ge=1)
    fine_tune_rate: float = Field(
        0.25, description="Share of the learning rate that fine-tuning after --pretrain peaks at.", gt=0, le=1
    )

    width: int = Field(32, description="Channels of F_DFF, the fused diffusion features of a frame.", ge=1)
    tcab_patch: int = Field(32, description="Side of a frame's patch that becomes one token, in pixels.", ge=1)
    tcab_width: int = Field(32, description="Width of a token in the temporal coherence augmentation.", ge=2)
    tcab_depth: int = Field(1, description="Number of bidirectional Mamba blocks.", ge=1)
    tcab_state: int = Field(4, description="States per channel of the selective scan.", ge=1)
    head_width: int = Field(64, description="Hidden width of the two MLPs of the quality head.", ge=1)
    dropout: float = Field(0.5, description="Share of the head's features dropped in training.", ge=0, lt=1)

    dff: bool = Field(True, description="Fuse the diffusion features with attention; off: a linear map.")
    tdm: bool = Field(True, description="Put each frame's difference from the one before beside it.")
    fff: bool = Field(True, description="Convolve and flatten each frame's maps; off: their mean.")
    tcab: bool = Field(True, description="Read the frames themselves with Mamba.")
    texture: bool = Field(True, description="Read the covariance of the latent's patches, which the paper does not.")
    flat_texture: bool = Field(
        True, description="Also compare, in the kernel part, the texture of what is flat, where noise is seen."
    )
    kernel: bool = Field(
        True, description="Add kernel ridge regression on statistics of the features, which the paper does not have."
    )
    frame_weights: bool = Field(True, description="Weigh the frames; off: all the same.")
    branches: Literal["both", "resize", "crop"] = Field("both", description="Which views are looked at.")

    @model_validator(mode="after")
    def _some_loss(self) -> TrainRecipe:
        if self.plcc_weight == 0 and self.rank_weight == 0:
            raise ValueError("plcc_weight and rank_weight are both 0: nothing would be learned")
        return self


def ablations(recipe: TrainRecipe) -> dict[str, TrainRecipe]:
    """Return the recipe and its ablations by name: each block that it uses switched off, one at a time."""
    variants = {"full": recipe}
    for block in ("dff", "tdm", "fff", "tcab", "texture", "flat_texture", "kernel", "frame_weights"):
        if getattr(recipe, block):
            variants[f"without {block.replace('_', ' ')}"] = recipe.model_copy(update={block: False})
    if recipe.branches == "both":
        variants["resized view alone"] = recipe.model_copy(update={"branches": "resize"})
        variants["crops alone"] = recipe.model_copy(update={"branches": "crop"})
    return variants

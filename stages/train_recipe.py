"""The recipe of stage two: every setting that changes what the regressor learns, and nothing that does not."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TrainRecipe(BaseModel):
    """Settings of the regressor and of its training; frozen, and an unknown key is an error.

    The defaults suit about a hundred videos on two CPU cores.

    Raises:
        pydantic.ValidationError: A value is out of bounds or a key is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    splits: int = Field(10, description="Number of random train/validation/test splits, one regressor each.", ge=1)
    test_share: float = Field(0.2, description="Share of the content groups that is tested on, once.", gt=0, lt=1)
    validation_share: float = Field(
        0.2, description="Share of the remaining content groups that the best epoch is chosen on.", gt=0, lt=1
    )
    epochs: int = Field(10, description="Passes over the training part.", ge=1)
    batch_size: int = Field(8, description="Videos per step; the losses compare them with one another.", ge=2)
    learning_rate: float = Field(
        2e-3,
        description="Peak rate of AdamW; warms up over the first tenth of the steps, then falls as a cosine.",
        gt=0,
    )
    weight_decay: float = Field(0.05, description="Decoupled weight decay of the weight matrices.", ge=0)
    plcc_weight: float = Field(1.0, description="Weight of the PLCC loss.", ge=0)
    rank_weight: float = Field(0.3, description="Weight of the pairwise rank loss.", ge=0)
    seed: int = Field(0, description="Seeds the splits, the initial weights, the batches and the dropout.", ge=0)
    width: int = Field(32, description="Channels of F_DFF, the fused diffusion features of a frame.", ge=1)
    tcab_patch: int = Field(32, description="Side of a frame's patch that becomes one token, in pixels.", ge=1)
    tcab_width: int = Field(32, description="Width of a token in the temporal coherence augmentation.", ge=2)
    tcab_depth: int = Field(1, description="Number of bidirectional Mamba blocks.", ge=1)
    tcab_state: int = Field(4, description="States per channel of the selective scan.", ge=1)
    head_width: int = Field(64, description="Hidden width of the two MLPs of the quality head.", ge=1)
    dropout: float = Field(0.2, description="Share of the head's features dropped in training.", ge=0, lt=1)

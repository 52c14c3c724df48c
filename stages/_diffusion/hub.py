"""Model folders of the Hugging Face hub: from the cache on this machine, fetched once when it is not there."""

from __future__ import annotations

import re
from pathlib import Path

from diffvqa.stages._errors import ModelFolderError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_WEIGHTS = "*/diffusion_pytorch_model{}.safetensors"
_DESCRIPTIONS = ("model_index.json", "*/*config.json", "null_prompt.safetensors", "tokenizer/*", "controller/*")
_FULL = (
    _WEIGHTS.format(""),
    "*/diffusion_pytorch_model-*.safetensors",
    "*/*.index.json",
    "text_encoder/model.safetensors",
)
_HALF = (_WEIGHTS.format(".fp16"), "text_encoder/model.fp16.safetensors")
_NEVER = ("safety_checker/*", "image_encoder/*", "feature_extractor/*", "*.bin", "*.non_ema*", "*.ckpt")


def is_hub_id(name: str) -> bool:
    """Tell whether ``name`` has the form ``organisation/model`` or ``organisation/model@revision``."""
    return _HUB_ID.fullmatch(name) is not None


def hub_folder(name: str) -> Path:
    """Return the folder of a model of the hub; what is on this machine already is used without asking the hub.

    Only the files that a feature extractor needs are fetched; of the weights those in full precision where there are
    any, else the ``fp16`` variant.

    Args:
        name: ``organisation/model``, or ``organisation/model@revision`` for a branch, a tag or a commit.

    Raises:
        ModelFolderError: It is not on this machine and cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    repository, _, revision = name.partition("@")
    try:
        stored = Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    else:
        if _has_weights(stored):
            return stored
    try:
        for wanted in (_FULL, _HALF):
            fetched = Path(
                snapshot_download(
                    repository,
                    revision=revision or None,
                    allow_patterns=[*_DESCRIPTIONS, *wanted],
                    ignore_patterns=list(_NEVER),
                )
            )
            if _has_weights(fetched):
                break
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelFolderError(
            f"The model '{name}' is not on this machine and cannot be fetched: {reason}",
            "Check the name and the network, or give the path of a model folder.",
        ) from error
    return fetched


def _has_weights(folder: Path) -> bool:
    return all(any((folder / part).glob("*.safetensors")) for part in ("unet", "vae"))

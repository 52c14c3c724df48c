"""The null prompt: the embedding of the empty text, the only text condition that features are ever made with."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from diffvqa.cache._atomic import atomic_output
from diffvqa.cache._errors import OutputError
from diffvqa.stages._errors import ModelFolderError

if TYPE_CHECKING:  # a folder is looked into without what would run it
    from torch import Tensor

logger = logging.getLogger(__name__)

NULL_PROMPT_FILE = "null_prompt.safetensors"
_KEY = "null_prompt"


def null_prompt_file(folder: Path) -> Path:
    """Return the file of a model folder's null prompt; made first, once, where the folder has only its text encoder.

    It is written into the model folder, or, where that cannot be written to or belongs to the hub's own cache, into the
    user's cache folder, under a name that follows the text encoder's content.

    Raises:
        ModelFolderError: There is neither the file nor a text encoder and tokenizer to make it with, or the package
            ``transformers`` is not installed.
    """
    beside = folder / NULL_PROMPT_FILE
    if beside.is_file():
        return beside
    for part in ("text_encoder/config.json", "tokenizer"):
        if not (folder / part).exists():
            raise ModelFolderError(
                f"{folder} is no model folder: it has neither {NULL_PROMPT_FILE} nor {part} to make it with.",
                "Give a complete model folder.",
            )
    cached = _cached_file(folder)
    if cached.is_file():
        return cached
    embedding = embed_empty_prompt(folder)
    if not _is_hub_snapshot(folder):
        try:
            write_null_prompt(embedding, beside)
        except OutputError:
            logger.debug("%s cannot be written to; its null prompt goes to %s", folder, cached)
        else:
            return beside
    write_null_prompt(embedding, cached)
    return cached


def read_null_prompt(path: Path) -> Tensor:
    """Return the embedding stored in ``path``.

    Returns:
        (1, tokens, width) float32.

    Raises:
        ModelFolderError: The file is damaged or holds something else.
    """
    import torch
    from safetensors.torch import load_file

    try:
        embedding = load_file(path)[_KEY]
    except (OSError, SafetensorError, KeyError) as error:
        raise ModelFolderError(f"{path} holds no null prompt: {error}.", "Remove it, or fetch it anew.") from error
    if embedding.ndim != 3 or len(embedding) != 1:
        raise ModelFolderError(
            f"{path}: the null prompt has the shape {tuple(embedding.shape)}, not (1, tokens, width).",
            "Remove it, or fetch it anew.",
        )
    return embedding.to(torch.float32, copy=True)


def write_null_prompt(embedding: Tensor, path: Path) -> None:
    """Write the embedding, (1, tokens, width) float, in one step.

    Raises:
        OutputError: The file cannot be written.
    """
    from diffvqa.stages._diffusion.weights import write_tensors

    with atomic_output(path) as temporary:
        write_tensors({_KEY: embedding}, temporary)


def embed_empty_prompt(folder: Path) -> Tensor:
    """Return what the text encoder of a model folder makes of the empty prompt, padded as Stable Diffusion pads it.

    Returns:
        (1, tokens, width) float32; tokens is 77 for Stable Diffusion, width 768 (1.x) or 1024 (2.x).

    Raises:
        ModelFolderError: ``transformers`` is not installed, or the parts cannot be loaded.
    """
    import torch

    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError as error:
        raise ModelFolderError(
            f"{folder} has no {NULL_PROMPT_FILE}, and making it needs the package transformers.",
            "Install it with: pip install 'diffvqa[sd]'",
        ) from error
    encoder_folder = folder / "text_encoder"
    whole = (encoder_folder / "model.safetensors").is_file()
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(
            str(encoder_folder),
            local_files_only=True,
            use_safetensors=True,
            variant=None if whole else "fp16",
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError) as error:
        first_line = str(error).strip().split("\n")[0]
        raise ModelFolderError(
            f"{folder}: text_encoder/ or tokenizer/ cannot be loaded: {first_line}", "Give a complete model folder."
        ) from error
    tokens = tokenizer(
        "", padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        embedding: Tensor = encoder(tokens.input_ids).last_hidden_state
    return embedding


def user_cache_folder() -> Path:
    """Return the folder where this user's programs may keep what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffvqa"


def _cached_file(folder: Path) -> Path:
    digest = hashlib.sha256()
    parts = (folder / "text_encoder", folder / "tokenizer")
    for path in sorted(path for part in parts for path in part.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return user_cache_folder() / "null-prompts" / f"{digest.hexdigest()}.safetensors"


def _is_hub_snapshot(folder: Path) -> bool:
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")

"""``diffvqa models``: list the models that come with the package, and those in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from rich.table import Table

_HASH_SHOWN = 12


def list_models(folder: Path | None = None) -> list[dict[str, Any]]:
    """Return every shipped model, then the model folders in ``folder``, as plain data; nothing is loaded.

    Args:
        folder: A model folder, or a folder that has some directly in it.

    Returns:
        For each its ``name`` (what ``--model`` takes), ``path``, and either ``error`` (why it cannot be used), or
        ``kind``, ``parameters`` (network to number), ``latent_channels``, ``block_size``, ``view_multiple``,
        ``up_blocks`` (their channels), ``has_controller`` and ``weights_hash``.

    Raises:
        ModelFolderError: ``folder`` is or holds no model folder.
    """
    from diffvqa.stages._diffusion.folder_files import shipped_models

    found = shipped_models()
    if folder is not None:
        found |= {str(path): path for path in _model_folders(folder)}
    return [_describe(name, path) for name, path in found.items()]


def command(
    folder: Annotated[
        Path | None,
        typer.Argument(help="List the model folders in here too.", show_default=False, exists=True, file_okay=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """List the models that features can be extracted with."""
    import json

    models = list_models(folder)
    if as_json:
        typer.echo(json.dumps(models, indent=2, ensure_ascii=False))
        return
    from diffvqa.pipeline._console import output_console

    console = output_console()
    console.print(_table([model for model in models if "error" not in model]))
    for model in models:
        if "error" in model:
            typer.echo(f"cannot be used: {model['error']}")
    typer.echo(
        "also: efficientnet-lite0 (a CNN, with diffvqa[cnn]); MODEL-random (untrained); A+B (the features of both)"
    )
    typer.echo("next: diffvqa extract NAME --model MODEL")


def _model_folders(folder: Path) -> list[Path]:
    from diffvqa.stages._errors import ModelFolderError

    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [path for path in candidates if any((path / part).is_dir() for part in ("unet", "transformer"))]
    if not found:
        raise ModelFolderError(f"{folder} is no model folder, and holds none.", "A model folder has a unet/ in it.")
    return found


def _describe(name: str, path: Path) -> dict[str, Any]:
    import dataclasses

    from diffvqa.stages._diffusion.description import describe_model_folder
    from diffvqa.stages._errors import ModelFolderError

    try:
        described = dataclasses.asdict(describe_model_folder(path))
    except ModelFolderError as error:
        described = {"error": str(error)}
    return {"name": name, "path": str(path), **described}


def _table(models: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    headings = ("model", "kind", "parameters", "latent", "up-blocks", "Controller", "hash")
    table = Table(*headings, title="models", title_justify="left")
    for model in models:
        cells = f"S/{model['block_size']}"
        table.add_row(
            model["name"],
            model["kind"],
            ", ".join(f"{name} {_in_words(number)}" for name, number in model["parameters"].items() if number),
            f"{model['latent_channels']} x {cells} x {cells}",
            ", ".join(str(width) for width in model["up_blocks"]),
            "yes" if model["has_controller"] else "no: a base for diffvqa adapt",
            (model["weights_hash"] or "")[:_HASH_SHOWN],
        )
    return table


def _in_words(number: int) -> str:
    return f"{number / 1e6:.0f} M" if number >= 1e7 else f"{number / 1e6:.2f} M"

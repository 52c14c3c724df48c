"""``diffvqa cache import``: make a cache again from an HDF5 export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from diffvqa.pipeline import _options as options


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Of 'diffvqa export --format h5'.", show_default=False)],
    cache: Annotated[
        str,
        typer.Option(
            "--cache", metavar="PATH|URL", help="The cache to make, or to add the videos to.", show_default=False
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace features of another recipe.")] = False,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Make a feature cache from an HDF5 export, every array checked against its digest.

    Videos that are in the cache already stay as they are, so an interrupted import goes on where it stopped.
    """
    settings = options.settings_from(config, assignments, {}, show=show_config)
    from diffvqa.cache._import_h5 import import_h5
    from diffvqa.pipeline._console import in_words, progress, tell

    begun = time.monotonic()
    with progress(f"import {file.name}") as bar:
        imported = import_h5(
            file, cache, shard_videos=settings.runtime.shard_videos, overwrite=overwrite, on_progress=bar.set
        )
    tell(
        f"{imported.videos} videos and {imported.failures} failures imported, {imported.present} were there, "
        f"{in_words(time.monotonic() - begun)}"
    )
    tell(f"features: {cache}")

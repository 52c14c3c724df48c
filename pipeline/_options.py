"""Command-line options that several verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from diffvqa.pipeline._config import Settings

Config = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings.", show_default=False, dir_okay=False)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Change one setting; may be repeated.", show_default=False),
]
ShowConfig = Annotated[bool, typer.Option("--show-config", help="Show the resolved settings and stop.")]
Runs = Annotated[Path | None, typer.Option("--runs", help="Folder of all outputs (default: runs).", show_default=False)]
Cache = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="PATH|URL",
        help="Where the features are, s3://... included (default: runs/NAME/features).",
        show_default=False,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with status 1 if any video fails.")]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N (default: auto).", show_default=False)
]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Decoding processes (default: one per core).", show_default=False)
]

Engine = Annotated[
    str | None,
    typer.Option("--engine", help="local (this machine) or ray (a Ray cluster) (default: local).", show_default=False),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Of the Ray cluster; auto: the one this machine is part of (default: begin one here).",
        show_default=False,
    ),
]


def _show_traceback(context: typer.Context, wanted: bool) -> bool:
    if wanted:
        context.find_root().obj.debug = True
    return wanted


Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the whole traceback of an error.", callback=_show_traceback, is_eager=True),
]


def _hush(wanted: bool) -> bool:
    if wanted:
        from diffvqa.pipeline._console import hush

        hush()
    return wanted


Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show warnings and errors alone.", callback=_hush, is_eager=True),
]
Json = Annotated[bool, typer.Option("--json", help="Show the summary as JSON in place of text.")]


def go_on_with(context: typer.Context, hint: str) -> None:
    """Say what the user should do to go on, should the command be interrupted."""
    context.find_root().obj.go_on = hint


def place(device: str | None, engine: str | None, address: str | None, runs: Path | None) -> dict[str, Any]:
    """Return the named options of a verb that can be done elsewhere, for :func:`settings_from`."""
    return {
        "runtime.device": device,
        "runtime.engine": engine,
        "runtime.ray_address": address,
        "runtime.runs": runs,
    }


def settings_from(
    config: Path | None, assignments: Sequence[str] | None, options: dict[str, Any], *, show: bool
) -> Settings:
    """Resolve the settings of a command and, if asked to, show them and stop.

    Args:
        config: Of ``--config``.
        assignments: Of ``--set``; they come after the named options.
        options: Dotted key to value of the named options; None where one was not given.
        show: Of ``--show-config``.

    Raises:
        ConfigError: Something in them is wrong.
    """
    from diffvqa.pipeline._config import parse_assignment, resolve_settings

    settings = resolve_settings(config, {**options, **dict(map(parse_assignment, assignments or ()))})
    if show:
        typer.echo(settings.to_toml(), nl=False)
        raise typer.Exit
    return settings

"""The ``diffvqa`` command: one verb per module, one clear line per error."""

from __future__ import annotations

import gc
import traceback
from dataclasses import dataclass
from typing import Annotated

import typer

from diffvqa.cache._errors import DiffVQAError
from diffvqa.pipeline._verbs import VerbGroup

_INTERRUPTED = 130
_ALLOCATIONS_BETWEEN_COLLECTIONS = 10_000

app = typer.Typer(
    name="diffvqa",
    cls=VerbGroup,
    help="No-reference video quality assessment with diffusion features.",
    epilog="Start with: diffvqa demo",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class CommandState:
    """What the end of the program must know of its command line.

    Attributes:
        debug: Show tracebacks.
        go_on: What to do after an interruption.
    """

    debug: bool = False
    go_on: str = "Run the same command again to go on."


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"diffvqa {version('diffvqa')}")
        raise typer.Exit


@app.callback()
def _diffvqa(
    version: Annotated[  # noqa: ARG001  # handled by its callback
        bool, typer.Option("--version", help="Show the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """No-reference video quality assessment with diffusion features."""
    from diffvqa.pipeline._console import configure_logging

    configure_logging()


def run() -> int:
    """Run the command line of this process, which is to end then, and return its exit status."""
    # Torch and diffusers make 700,000 objects when they are imported, and none of them is garbage. To look for it every
    # 700 objects, and once more at the end, takes as long as half of the imports.
    gc.set_threshold(_ALLOCATIONS_BETWEEN_COLLECTIONS)
    status = main()
    gc.freeze()
    return status


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 the work failed, 2 asked for wrongly, 130 interrupted.

    Args:
        arguments: Without the program's name; those of the process when None.
    """
    state = CommandState()
    try:
        status = app(arguments, standalone_mode=False, obj=state)
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except DiffVQAError as error:
        _trace(state)
        return _fail(str(error), 2)
    except typer.TyperException as error:
        context: typer.Context | None = getattr(error, "ctx", None)
        hint = f" See '{context.command_path} --help'." if context else ""
        return _fail(f"{error.format_message().rstrip('.')}.{hint}", 2)
    except Exception as error:  # noqa: BLE001  # the last resort: a fault of the program itself
        _trace(state)
        hint = "" if state.debug else " Run it again with --debug for the traceback, and please report it."
        return _fail(f"internal error: {type(error).__name__}: {error}.{hint}", 1)
    if status == _INTERRUPTED:  # typer turns Ctrl-C into this status
        return _fail(f"interrupted. {state.go_on}", _INTERRUPTED)
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    one_line = " ".join(message.split())
    typer.echo(f"diffvqa: {one_line}", err=True)
    return status


def _trace(state: CommandState) -> None:
    if state.debug:
        traceback.print_exc()

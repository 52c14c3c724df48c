"""The ``diffvqa`` command: one verb per module, one clear line per error."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Annotated

import typer

from diffvqa.cache._errors import DiffVQAError
from diffvqa.pipeline import _adapt as adapt
from diffvqa.pipeline import _cache as cache
from diffvqa.pipeline import _demo as demo
from diffvqa.pipeline import _doctor as doctor
from diffvqa.pipeline import _evaluate as evaluate
from diffvqa.pipeline import _export as export
from diffvqa.pipeline import _extract as extract
from diffvqa.pipeline import _import_controller as import_controller
from diffvqa.pipeline import _list_datasets as list_datasets
from diffvqa.pipeline import _list_models as list_models
from diffvqa.pipeline import _metrics as metrics
from diffvqa.pipeline import _plan as plan
from diffvqa.pipeline import _prepare as prepare
from diffvqa.pipeline import _pretrain as pretrain
from diffvqa.pipeline import _reconstruct as reconstruct
from diffvqa.pipeline import _score as score
from diffvqa.pipeline import _sweep as sweep
from diffvqa.pipeline import _train as train
from diffvqa.pipeline._report import verb as report

_INTERRUPTED = 130

app = typer.Typer(
    name="diffvqa",
    help="No-reference video quality assessment with diffusion features.",
    epilog="Start with: diffvqa demo",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("datasets")(list_datasets.command)
app.command("models")(list_models.command)
app.command("prepare")(prepare.command)
app.command("plan")(plan.command)
app.command("extract")(extract.command)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("sweep")(sweep.command)
app.command("score")(score.command)
app.command("report")(report.command)
app.command("export")(export.command)
app.command("metrics")(metrics.command)
app.command("demo")(demo.command)
app.command("doctor")(doctor.command)
app.command("pretrain")(pretrain.command)
app.command("adapt")(adapt.command)
app.command("reconstruct")(reconstruct.command)
app.command("import-controller")(import_controller.command)
app.add_typer(cache.app, name="cache", help="Look at a feature cache, check it, or join several.")


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

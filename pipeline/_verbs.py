"""The verbs of ``diffvqa``: their names and summaries are here, so that only the verb that runs is imported."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class Verb:
    """What can be said of a verb without importing it.

    Attributes:
        module: Within ``diffvqa.pipeline``; has a function ``command``, or a typer application ``app`` of several.
        summary: What ``diffvqa --help`` says of it: the first line of the command's documentation.
    """

    module: str
    summary: str


VERBS = {
    "datasets": Verb("_list_datasets", "List the data sets that `diffvqa prepare` knows, and what it expects where."),
    "models": Verb("_list_models", "List the models that features can be extracted with."),
    "prepare": Verb("_prepare", "List a data set's videos and scores in a manifest: runs/NAME/manifest.csv."),
    "plan": Verb(
        "_plan", "Say what an extraction will take: shards, bytes, operations, and hours on 1, 8 and 64 devices."
    ),
    "extract": Verb("_extract", "Run the diffusion model once over every video of a data set and keep its features."),
    "train": Verb("_train", "Train the regressor on data sets' features, over all splits."),
    "evaluate": Verb("_evaluate", "Evaluate trained models on data sets: cross-data-set tests, and a grid of them."),
    "sweep": Verb("_sweep", "Search the training recipe for better settings, on validation parts alone."),
    "score": Verb("_score", "Score videos with a model trained before; its recipe is used, whatever the settings say."),
    "report": Verb("_report.verb", "Write everything about a data set and its model into one HTML file."),
    "export": Verb("_export", "Write a data set's features, ids and labels in a format of other programs."),
    "metrics": Verb(
        "_metrics",
        "Compare the predictions of a table with its true scores: SRCC, KRCC, PLCC, RMSE, with confidence intervals.",
    ),
    "demo": Verb("_demo", "Prepare, extract, train, score and export the demo data set."),
    "doctor": Verb(
        "_doctor",
        "Say what is installed and usable here, and what would mend what is not; exit with status 1 if something must.",
    ),
    "pretrain": Verb(
        "_pretrain", "Train a small diffusion model on photographs and videos, as the shipped 'nano' was made."
    ),
    "align": Verb(
        "_align", "Train a model's U-Net further, so that its blocks also tell what a CNN sees in the pictures."
    ),
    "adapt": Verb(
        "_adapt", "Teach a model's Controller to reconstruct the pictures it is shown, degraded ones as degraded."
    ),
    "reconstruct": Verb("_reconstruct", "Show frames, what the model reconstructs of them, and where the two differ."),
    "import-controller": Verb(
        "_import_controller", "Make a model folder from an official checkpoint of DiffVQA or DiffBIR."
    ),
    "cache": Verb("_cache", "Look at a feature cache, check it, or join several."),
}


class VerbGroup(TyperGroup):
    """The command ``diffvqa``: help and completion show what is known of its verbs, calling one imports it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name=name, help=verb.summary) for name, verb in VERBS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name of the verb called, the verb itself and what follows it."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load_verb(name), rest


def load_verb(name: str) -> TyperCommand | TyperGroup:
    """Import a verb and return it with its options."""
    module = importlib.import_module(f"diffvqa.pipeline.{VERBS[name].module}")
    app: typer.Typer | None = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(name)(module.command)
    command: Any = typer.main.get_command(app)
    command.name = name
    return command  # type: ignore[no-any-return]  # typer's own class of commands is private

"""``diffvqa datasets``: list the recipes, and for each data set what is expected where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffvqa.pipeline import _options as options

if TYPE_CHECKING:
    from rich.table import Table

    from diffvqa.pipeline.datasets import Recipe


def list_datasets() -> list[dict[str, Any]]:
    """Return every recipe as plain data, the published data sets first.

    Returns:
        For each its ``name`` and ``summary``; for a published data set also ``scale`` (lowest and highest score),
        ``direction``, ``counts`` (number of labels to release), ``videos`` (what they are called), ``label_files``,
        ``split`` and ``contents``.
    """
    from diffvqa.pipeline.datasets import RECIPES

    return [_describe(recipe) for recipe in RECIPES.values()]


def command(
    name: Annotated[str | None, typer.Argument(help="Show this one alone, in full.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """List the data sets that `diffvqa prepare` knows, and what it expects where."""
    import json

    from diffvqa.pipeline.datasets import RECIPES, find_recipe

    recipes = list(RECIPES.values()) if name is None else [find_recipe(name)]
    if as_json:
        typer.echo(json.dumps([_describe(recipe) for recipe in recipes], indent=2, ensure_ascii=False))
        return
    from diffvqa.pipeline._console import output_console

    output_console().print(_overview(recipes) if name is None else _details(recipes[0]))
    if name is None:
        typer.echo("one in full: diffvqa datasets NAME")
    typer.echo(f"next: diffvqa prepare {name or 'NAME'} --videos FOLDER [--labels FILE]")


def _describe(recipe: Recipe) -> dict[str, Any]:
    described: dict[str, Any] = {"name": recipe.name, "summary": recipe.summary}
    dataset = recipe.dataset
    if dataset is not None:
        described |= {
            "scale": list(dataset.scale),
            "direction": "higher is better",
            "counts": {str(count): release for count, release in dataset.counts.items()},
            "videos": dataset.naming,
            "label_files": [
                {"names": list(file.names), "origin": file.origin, "video": file.video, "score": file.score}
                | ({"part": file.part} if file.part else {})
                for file in dataset.useful_files()
            ],
            "split": dataset.split,
            "contents": dataset.contents,
        }
    return described


def _overview(recipes: list[Recipe]) -> Table:
    from rich.table import Table

    table = Table("name", "labels", "scale", "label files", "split", title="data sets", title_justify="left")
    for recipe in recipes:
        dataset = recipe.dataset
        if dataset is None:
            table.add_row(recipe.name, "", "", "", recipe.summary)
            continue
        lowest, highest = dataset.scale
        files = ", ".join(dict.fromkeys(file.names[0] for file in dataset.useful_files()))
        counts = " / ".join(str(count) for count in dataset.counts)
        table.add_row(recipe.name, counts, f"{lowest:g} to {highest:g}", files, dataset.split)
    return table


def _details(recipe: Recipe) -> Table:
    from rich.table import Table

    table = Table(title=recipe.summary, title_justify="left", show_header=False)
    dataset = recipe.dataset
    if dataset is None:
        table.add_row("name", recipe.name)
        return table
    lowest, highest = dataset.scale
    table.add_row("--videos", f"any folder with them: {dataset.naming}")
    for file in dataset.useful_files():
        part = f", {file.part}" if file.part else ""
        table.add_row("--labels", f"{' or '.join(file.names)} ({file.origin}{part}: {file.video}, {file.score})")
    table.add_row("", "found by these names in the folder of the videos, in its folders, and beside it")
    table.add_row("scores", f"MOS from {lowest:g} to {highest:g}, higher is better")
    for count, release in dataset.counts.items():
        table.add_row("labels", f"{count}: {release}")
    table.add_row("split", dataset.split)
    table.add_row("contents", dataset.contents)
    return table

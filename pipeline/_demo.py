"""``diffvqa demo``: the whole job on the demo data set, from pictures to scores, with a table at the end."""

from __future__ import annotations

import time

from diffvqa.pipeline import _options as options

DEMO = "demo"
_SCORED_CONTENT = "bikes"


def command(
    runs: options.Runs = None,
    workers: options.Workers = None,
    config: options.Config = None,
    assignments: options.Set = None,
    show_config: options.ShowConfig = False,
    quiet: options.Quiet = False,  # noqa: ARG001  # handled by its callback
    debug: options.Debug = False,  # noqa: ARG001  # handled by its callback
) -> None:
    """Prepare, extract, train, score and export the demo data set."""
    chosen = {"runtime.runs": runs, "runtime.workers": workers}
    settings = options.settings_from(config, assignments, chosen, show=show_config)
    from rich.table import Table

    from diffvqa.pipeline._console import in_words, tell
    from diffvqa.pipeline._export import export
    from diffvqa.pipeline._extract import extract
    from diffvqa.pipeline._prepare import prepare
    from diffvqa.pipeline._runs import DatasetRun
    from diffvqa.pipeline._score import score
    from diffvqa.pipeline._score_output import score_heading, score_line
    from diffvqa.pipeline._train import metrics_table, train

    run = DatasetRun(settings.runtime.runs, DEMO)
    stages = Table(title="stages", title_justify="left")
    for heading in ("stage", "what", "time", "where"):
        stages.add_column(heading, overflow="fold")

    clock = _Stopwatch()

    def add(stage: str, what: str, where: object) -> None:
        stages.add_row(stage, what, in_words(clock.lap()), str(where))

    prepared = prepare(DEMO, settings)
    groups = len({row.group for row in prepared.manifest.rows})
    add("prepare", f"{len(prepared.manifest.rows)} videos of {groups} contents", prepared.path)
    extracted = extract(DEMO, settings)
    counts = f"{extracted.extracted} videos, {extracted.done_before} done before, {len(extracted.failures)} failed"
    add("extract", counts, run.features)
    trained = train([DEMO], settings)
    add("train", f"{len(trained.result.splits)} splits of {trained.videos} videos", trained.model)
    content = run.folder / "videos" / _SCORED_CONTENT
    scored = score([str(content)], settings, model=DEMO, out=run.folder / "scores.csv")
    add("score", f"{len(scored.videos)} versions of '{_SCORED_CONTENT}'", scored.out)
    exported = export(DEMO, settings)
    add("export", f"{exported.videos} videos, {exported.size / 1e6:.0f} MB", exported.path)
    stages.add_section()
    stages.add_row("all", "", in_words(clock.total), str(run.folder))

    tell(score_heading(), *map(score_line, scored.videos))
    for table in (metrics_table(trained.result, DEMO, trained.labels[DEMO]), stages):
        tell(table)


class _Stopwatch:
    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        last, self._last = self._last, time.monotonic()
        return self._last - last

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

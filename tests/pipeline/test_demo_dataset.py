"""The recipe ``demo``: a small part of it, made for real."""

from __future__ import annotations

import itertools
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import decord
import pytest
from filelock import FileLock
from PIL import Image

from diffvqa.cache._errors import OutputError
from diffvqa.pipeline._errors import DatasetError, FfmpegError
from diffvqa.pipeline.datasets import PreparedDataset, PrepareRequest, Progress, find_recipe
from diffvqa.pipeline.datasets._demo import prepare_demo
from diffvqa.pipeline.datasets._demo_plan import CONTENTS, DEMO_PLAN, VERSIONS, Content, DemoPlan, Version
from diffvqa.pipeline.datasets._demo_sources import Excerpt, PackageFile, Pan, Window

CAR = next(content for content in CONTENTS if content.name == "carphone")
PAN = Pan(PackageFile("skimage", "data/astronaut.png"), 128, 96, "24", Window(0, 0, 256), Window(100, 60, 192), 10)
SMALL_PLAN = DemoPlan((Content("car", replace(CAR.source, frames=10)), Content("pan", PAN)), VERSIONS)
TINY_PLAN = DemoPlan((Content("pan", PAN),), VERSIONS[:2])


def make(folder: Path, plan: DemoPlan, workers: int = 2) -> PreparedDataset:
    return prepare_demo(PrepareRequest("demo", folder, workers=workers), lambda _: None, plan)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in (folder / "videos").rglob("*.*")
        if path.is_file()
    }


def times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in (folder / "videos").rglob("*.*")}


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def small_demo(demo_folder: Path) -> PreparedDataset:
    return make(demo_folder, SMALL_PLAN)


@pytest.fixture(scope="module")
def scores(small_demo: PreparedDataset) -> dict[str, float]:
    return {row.video_id: row.score for row in small_demo.manifest.rows if row.score is not None}


def test_every_content_comes_in_every_version(small_demo: PreparedDataset, demo_folder: Path) -> None:
    rows = small_demo.manifest.rows
    assert [row.video_id for row in rows] == [
        f"{content}/{version.name}.mp4" for content in ("car", "pan") for version in VERSIONS
    ]
    assert all(row.path == demo_folder / "videos" / row.video_id for row in rows)
    assert all(row.group == row.video_id.split("/")[0] for row in rows)
    assert str(small_demo.manifest.label) == "VMAF (full-reference stand-in for MOS, not human opinion)"
    assert small_demo.report.matched == len(rows)


def test_all_versions_have_the_size_and_frames_of_their_content(small_demo: PreparedDataset) -> None:
    sources = {content.name: content.source for content in SMALL_PLAN.contents}
    for row in small_demo.manifest.rows:
        reader, source = decord.VideoReader(str(row.path)), sources[row.group]
        assert len(reader) == source.frames == 10
        assert reader[0].shape == (source.height, source.width, 3)
        assert reader.get_avg_fps() == pytest.approx(float(Fraction(source.rate)))


@pytest.mark.parametrize("content", ["car", "pan"])
def test_scores_fall_with_each_step_of_quality(scores: dict[str, float], content: str) -> None:
    steps = [scores[f"{content}/{name}.mp4"] for name in ("pristine", "h264-crf28", "h264-crf36", "h264-crf44")]
    assert all(better > worse + 2 for better, worse in itertools.pairwise(steps))


@pytest.mark.parametrize("content", ["car", "pan"])
def test_the_pristine_version_scores_highest(scores: dict[str, float], content: str) -> None:
    of_content = {video_id: score for video_id, score in scores.items() if video_id.startswith(content)}
    assert len(of_content) == len(VERSIONS)
    assert max(of_content, key=lambda video_id: of_content[video_id]) == f"{content}/pristine.mp4"
    assert all(0 <= score <= 100 for score in of_content.values())


def test_frozen_frames_repeat_the_one_before(small_demo: PreparedDataset) -> None:
    pristine, frozen = (
        decord.VideoReader(str(row.path)).get_batch(range(10)).asnumpy().astype(float)
        for row in small_demo.manifest.rows
        if row.video_id in {"pan/pristine.mp4", "pan/freeze-5.mp4"}
    )
    for frame, shown in enumerate([0, 0, 0, 3, 4, 5, 5, 5, 8, 9]):
        nearest = min(range(10), key=lambda other: abs(pristine[other] - frozen[frame]).mean())
        assert nearest == shown


def test_a_second_run_rewrites_nothing(small_demo: PreparedDataset, demo_folder: Path) -> None:
    before = times(demo_folder)
    steps: list[Progress] = []
    again = prepare_demo(PrepareRequest("demo", demo_folder), steps.append, SMALL_PLAN)
    assert again == small_demo
    assert times(demo_folder) == before
    assert [step.done for step in steps] == list(range(1, 2 + 18 + 1))
    assert {step.total for step in steps} == {20}


def test_a_run_from_scratch_gives_the_same_bytes_and_scores(
    small_demo: PreparedDataset, demo_folder: Path, tmp_path: Path
) -> None:
    plan = replace(SMALL_PLAN, contents=SMALL_PLAN.contents[1:])
    anew = make(tmp_path, plan, workers=1)
    made_before = files(demo_folder)
    assert files(tmp_path) == {name: content for name, content in made_before.items() if name.startswith("videos/pan/")}
    assert [row.score for row in anew.manifest.rows] == [row.score for row in small_demo.manifest.rows[9:]]


@pytest.mark.usefixtures("small_demo")
def test_a_killed_run_heals(demo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(demo_folder, tmp_path / "killed")
    videos = tmp_path / "killed" / "videos"
    (videos / "pan" / ".tmp-123-abcd.mp4").write_bytes(b"half a clip")
    (videos / "pan" / "blur-2.mp4").unlink()
    (videos / "pan" / "h264-crf28.vmaf.json").unlink()
    (videos / "car" / "pristine.vmaf.json").write_text('{"vmaf": 9')
    kept = times(tmp_path / "killed")["videos/pan/h264-crf28.mp4"]
    make(tmp_path / "killed", SMALL_PLAN)
    assert files(tmp_path / "killed") == files(demo_folder)
    assert times(tmp_path / "killed")["videos/pan/h264-crf28.mp4"] == kept


def test_what_another_plan_made_is_made_anew(tmp_path: Path) -> None:
    make(tmp_path, TINY_PLAN)
    before = files(tmp_path)
    coarser = replace(VERSIONS[1], encoder=("-c:v", "libx264", "-preset", "veryfast", "-crf", "40"))
    make(tmp_path, replace(TINY_PLAN, versions=(VERSIONS[0], coarser)))
    changed = {name for name, content in files(tmp_path).items() if content != before[name]}
    assert changed == {"videos/pan/h264-crf28.mp4", "videos/pan/h264-crf28.vmaf.json"}


def test_a_failing_ffmpeg_is_quoted_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    broken = Version("broken", VERSIONS[1].encoder, "nosuchfilter")
    with pytest.raises(
        FfmpegError, match=r"broken\.mp4 cannot be made: ffmpeg failed: .*nosuchfilter.*Filter not found"
    ):
        make(tmp_path, replace(TINY_PLAN, versions=(VERSIONS[0], broken)))
    assert "videos/pan/broken.mp4" not in files(tmp_path)
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_version_that_loses_frames_is_reported(tmp_path: Path) -> None:
    shorter = Version("shorter", VERSIONS[1].encoder, "trim=end_frame=7")
    with pytest.raises(FfmpegError, match=r"shorter\.mp4 has 7 frames in place of 10"):
        make(tmp_path, replace(TINY_PLAN, versions=(VERSIONS[0], shorter)))


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        (PackageFile("no_such_package", "a.png"), "there is no package 'no_such_package'"),
        (
            PackageFile("skimage", "data/no_such_picture.png"),
            r"no_such_picture\.png is missing in the package 'skimage'",
        ),
    ],
)
def test_missing_pictures_are_reported_before_any_work(tmp_path: Path, file: PackageFile, complaint: str) -> None:
    plan = DemoPlan((*TINY_PLAN.contents, Content("gone", replace(PAN, file=file))), VERSIONS[:1])
    with pytest.raises(DatasetError, match=complaint) as caught:
        make(tmp_path, plan)
    assert caught.value.hint == "Install them with `pip install 'diffvqa[demo]'`."
    assert files(tmp_path) == {}


def test_a_photograph_that_is_too_small_is_reported(tmp_path: Path) -> None:
    plan = DemoPlan((Content("pan", replace(PAN, end=Window(300, 0, 256))),), VERSIONS[:1])
    with pytest.raises(DatasetError, match=r"astronaut\.png is 512x512, too small"):
        make(tmp_path, plan)


def test_a_missing_ffmpeg_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(DatasetError, match=r"There is no ffmpeg.*diffvqa\[demo\]"):
        make(tmp_path, TINY_PLAN)


def test_a_folder_that_is_being_prepared_is_left_alone(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".prepare.lock"), pytest.raises(DatasetError, match="Another process is preparing"):
        make(tmp_path, TINY_PLAN)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/runs cannot be written to"):
        make(tmp_path / "file" / "runs", TINY_PLAN)


def test_the_whole_plan_fits_its_pictures() -> None:
    assert find_recipe("demo").prepare is prepare_demo
    assert len(DEMO_PLAN.clips) == len({clip.video_id for clip in DEMO_PLAN.clips}) == 99
    for content in DEMO_PLAN.contents:
        source = content.source
        path = source.file.locate()
        assert source.width % 2 == source.height % 2 == 0
        assert source.frames % 5 == 0, "the pattern of frozen frames must fit in"
        assert 2 <= source.frames / Fraction(source.rate) <= 4
        if isinstance(source, Excerpt):
            reader = decord.VideoReader(str(path))
            assert reader[0].shape == (source.height, source.width, 3)
            assert source.first + source.frames <= len(reader)
        else:
            with Image.open(path) as photo:
                for left, top, right, lower in (source.box(0), source.box(source.frames - 1)):
                    assert 0 <= left < right <= photo.width
                    assert 0 <= top < lower <= photo.height

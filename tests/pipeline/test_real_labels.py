"""The real label files, where they are at hand: counts, ranges and contents as published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from label_material import groups, prepare, scores, touch

from diffvqa.pipeline.datasets._label_table import read_label_table

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
LABELS = SHARED / "labels"

pytestmark = pytest.mark.skipif(not LABELS.is_dir(), reason="the real label files are not here")

Rename = Callable[[str], str]


def as_it_is(name: str) -> str:
    return name


def bare(name: str) -> str:
    return Path(name).name


def with_mp4(name: str) -> str:
    return f"{name}.mp4"


def raw_as_mp4(name: str) -> str:
    return name.removesuffix(".yuv") + ".mp4"


def first_release(name: str) -> str:
    return f"{Path(name).stem.split('_')[0]}_original_centercrop_960x540_8s.mp4"


def raw_upload(name: str) -> str:
    return name.partition("_crf")[0] + ".mkv"


def plain_flickr(name: str) -> str:
    return name.partition("_")[0] + ".mp4"


CASES = [
    ("konvid-1k", "konvid-1k/KoNViD_1k_mos.csv", "flickr_id", with_mp4, 1200, 1.22, 4.64, 1200),
    ("konvid-1k", "konvid-1k/KoNViD_1k_mos.csv", "flickr_id", first_release, 1200, 1.22, 4.64, 1200),
    ("konvid-1k", "konvid-1k/KoNViD_1k_attributes.csv", "file_name", as_it_is, 1200, 1.22, 4.64, 1200),
    ("konvid-1k", "konvid-1k/KoNViD_1k_attributes.csv", "file_name", plain_flickr, 1200, 1.22, 4.64, 1200),
    ("konvid-1k", "fast-vqa/KoNViD/labels.txt", "path", first_release, 1200, 1.22, 4.64, 1200),
    ("konvid-1k", "videval/KONVID_1K_metadata.csv", "flickr_id", with_mp4, 1200, 1.22, 4.64, 1200),
    ("live-vqc", "live-vqc/data.mat", "video_list", as_it_is, 585, 6.22368, 94.2865, 585),
    ("live-vqc", "fast-vqa/LIVE_VQC/labels.txt", "path", bare, 585, 6.22368, 94.2865, 585),
    ("live-vqc", "videval/LIVE_VQC_metadata.csv", "File", as_it_is, 585, 6.22368, 94.2865, 585),
    ("youtube-ugc", "videval/YOUTUBE_UGC_metadata.csv", "vid", with_mp4, 1380, 1.242, 4.698, 1380),
    ("youtube-ugc", "fast-vqa/YouTubeUGC/labels.txt", "path", raw_upload, 1147, 1.242, 4.677, 1147),
    ("lsvq-train", "fast-vqa/LSVQ/train_labels.txt", "path", as_it_is, 28056, 2.4483, 90.5172, 28056),
    ("lsvq-test", "fast-vqa/LSVQ/labels_test.txt", "path", as_it_is, 7186, 8.4667, 91.0333, 7186),
    ("lsvq-test", "lsvq/LSVQ_whole_test.csv", "name", with_mp4, 7220, 8.4667, 91.0333, 7220),
    ("lsvq-test-1080p", "fast-vqa/LSVQ/labels_1080p.txt", "path", as_it_is, 3573, 17.7222, 91.4194, 3573),
    ("cvd2014", "mdtvsfa/CVD2014info.mat", "video_names", as_it_is, 234, -6.5, 93.38, 5),
    ("cvd2014", "fast-vqa/CVD2014/labels.txt", "path", bare, 234, -6.5, 93.38, 5),
    ("live-qualcomm", "mdtvsfa/LIVE-Qualcomminfo.mat", "video_names", raw_as_mp4, 208, 16.5621, 73.6428, 54),
    ("live-qualcomm", "fast-vqa/LIVE_Qualcomm/labels.txt", "path", raw_as_mp4, 208, 16.5621, 73.6428, 54),
    (
        "live-qualcomm",
        "live-qualcomm/qualcommSubjectiveData.mat",
        "qualcommVideoData.vidNames",
        raw_as_mp4,
        208,
        16.5621,
        73.6428,
        54,
    ),
]


@pytest.mark.parametrize(("recipe", "file", "column", "rename", "count", "lowest", "highest", "contents"), CASES)
def test_real_labels_give_the_published_counts_and_ranges(
    tmp_path: Path,
    recipe: str,
    file: str,
    column: str,
    rename: Rename,
    count: int,
    lowest: float,
    highest: float,
    contents: int,
) -> None:
    names = read_label_table(LABELS / file).columns[column]
    prepared = prepare(recipe, touch(tmp_path, *map(rename, names)), LABELS / file)
    found = [score for score in scores(prepared).values() if score is not None]
    report = prepared.report
    assert len(found) == report.matched == count
    assert (min(found), max(found)) == pytest.approx((lowest, highest), abs=1e-4)
    assert len(set(groups(prepared).values())) == contents
    unmatched = report.labels_without_video + report.videos_without_label
    assert (unmatched, report.duplicates, report.without_score) == ((), (), ())
    assert any(note.startswith(f"{count} labels, as in:") for note in report.notes)


def test_one_data_set_has_the_same_scores_in_all_its_label_files(tmp_path: Path) -> None:
    for recipe, files, rename in (
        ("cvd2014", ("mdtvsfa/CVD2014info.mat", "fast-vqa/CVD2014/labels.txt"), bare),
        ("konvid-1k", ("konvid-1k/KoNViD_1k_mos.csv", "fast-vqa/KoNViD/labels.txt"), bare),
    ):
        names = read_label_table(LABELS / files[1]).columns["path"]
        videos = touch(tmp_path / recipe, *map(rename, names))
        first, second = (scores(prepare(recipe, videos, LABELS / file)) for file in files)
        # One file rounds KoNViD's scores to four digits more than the other.
        assert {name: pytest.approx(score, abs=1e-6) for name, score in first.items()} == second


def test_the_ref_ids_of_the_real_files_number_the_videos_one_by_one() -> None:
    for file in ("CVD2014info.mat", "LIVE-Qualcomminfo.mat"):
        table = read_label_table(LABELS / "mdtvsfa" / file)
        assert len(set(table.columns["ref_ids"])) == len(table.columns["video_names"])


def test_the_real_photographs_are_one_row_each() -> None:
    prepared = prepare("biq2021", SHARED / "photos", SHARED / "photos" / "labels.csv")
    assert len(prepared.manifest.rows) == prepared.report.matched == 4000
    assert all(row.score is not None and 0 <= row.score <= 1 for row in prepared.manifest.rows)
    assert prepared.manifest.rows[0].path.is_file()

"""The recipes of published data sets: every release, every label file, every trap, on miniatures made in code."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_material import (
    KONVID,
    groups,
    prepare,
    scores,
    splits,
    touch,
    write,
    write_fast_vqa,
    write_mat_5,
    write_mat_73,
)

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._manifest import Label
from diffvqa.pipeline.datasets import RECIPES
from diffvqa.pipeline.datasets._konvid_1k import DATASET as KONVID_1K
from diffvqa.pipeline.datasets._lsvq import WHOLE as LSVQ
from diffvqa.pipeline.datasets._published import PublishedDataset
from diffvqa.stages._splits import make_splits
from diffvqa.stages._train_recipe import TrainRecipe

RELEASES = {
    "plain": "{}.mp4",
    "original": "{}_original_centercrop_960x540_8s.mp4",
    "cut": "KoNViD_1k_videos/{}_cut_centercrop_960x540_8s.mp4",
}


def konvid_labels(folder: Path, kind: str) -> Path:
    names, values = list(KONVID), list(KONVID.values())
    match kind:
        case "official":
            rows = "".join(f'"{name}","{score:.10f}"\n' for name, score in KONVID.items())
            return write(folder / "KoNViD_1k_mos.csv", f'"flickr_id","mos"\n{rows}')
        case "attributes":
            rows = "".join(f"{n},1,{n}_original_centercrop_960x540_8s.mp4,{s},4.5\n" for n, s in KONVID.items())
            return write(folder / "KoNViD_1k_attributes.csv", f"flickr_id,download_id,file_name,MOS,ti\n{rows}")
        case "MDTVSFA":
            video_names = [f"{name}_original_centercrop_960x540_8s.mp4" for name in names]
            return write_mat_73(folder / "KoNViD-1kinfo.mat", {"scores": values}, {"video_names": video_names})
        case "MDTVSFA of version 5":
            return write_mat_5(folder / "KoNViD-1kinfo.mat", scores=values, video_names=names)
        case "FAST-VQA":
            return write_fast_vqa(
                folder / "labels.txt", {f"KoNViD_1k_videos/{name}.mp4": score for name, score in KONVID.items()}
            )
        case _:
            rows = "".join(f"{name},{score},960\n" for name, score in KONVID.items())
            return write(folder / "KONVID_1K_metadata.csv", f"flickr_id,mos,width\n{rows}")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", ["official", "attributes", "FAST-VQA", "VIDEVAL"])
def test_konvid_in_every_release_with_every_text_file(tmp_path: Path, release: str, kind: str) -> None:
    videos = touch(tmp_path / "videos", *(RELEASES[release].format(name) for name in KONVID))
    prepared = prepare("konvid-1k", videos, konvid_labels(tmp_path, kind))
    assert scores(prepared) == pytest.approx(KONVID)
    assert groups(prepared) == {name: name for name in KONVID}
    assert all(row.path.is_file() for row in prepared.manifest.rows)
    assert prepared.manifest.label == Label("MOS", "", 1, 5)
    assert (prepared.report.matched, prepared.report.labels_without_video) == (3, ())


@pytest.mark.parametrize("kind", ["MDTVSFA", "MDTVSFA of version 5"])
def test_konvid_with_matlab_files_of_both_versions(tmp_path: Path, kind: str) -> None:
    videos = touch(tmp_path / "videos", *(f"{name}.mp4" for name in KONVID))
    assert scores(prepare("konvid-1k", videos, konvid_labels(tmp_path, kind))) == KONVID


def test_several_files_for_one_label_are_an_error_that_lists_them(tmp_path: Path) -> None:
    both = ("3339962845.mp4", "3339962845_original_centercrop_960x540_8s.mp4")
    videos = touch(tmp_path / "videos", *both)
    with pytest.raises(DatasetError, match=f"'3339962845' fits several videos: {both[0]}, {both[1]}"):
        prepare("konvid-1k", videos, konvid_labels(tmp_path, "official"))


def test_a_label_with_the_whole_name_says_which_file_it_means(tmp_path: Path) -> None:
    names = [RELEASES[release].format(name) for name in KONVID for release in ("plain", "original")]
    prepared = prepare("konvid-1k", touch(tmp_path / "videos", *names), konvid_labels(tmp_path, "attributes"))
    assert {row.path.name for row in prepared.manifest.rows} == {RELEASES["original"].format(name) for name in KONVID}
    assert len(prepared.report.videos_without_label) == 3


def test_folders_in_a_label_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    labels = write_fast_vqa(tmp_path / "labels.txt", {"Video/A001.mp4": 50.0})
    videos = touch(tmp_path / "videos", "old/A001.mp4", "set/Video/A001.mp4")
    assert prepare("live-vqc", videos, labels).manifest.rows[0].path == videos / "set/Video/A001.mp4"
    touch(videos, "copy/Video/A001.mp4")
    with pytest.raises(DatasetError, match=r"fits several videos: copy/Video/A001\.mp4, old/A001\.mp4, set/Video"):
        prepare("live-vqc", videos, labels)


@given(st.lists(st.integers(10**6, 10**10).map(str), min_size=3, unique=True), st.integers(0, 2**30))
def test_a_video_stands_on_the_same_side_in_every_release(flickr_ids: list[str], seed: int) -> None:
    recipe = TrainRecipe(splits=2, seed=seed)
    made = set()
    for name in RELEASES.values():
        ids = [KONVID_1K.identify(PurePosixPath(name.format(flickr_id))) for flickr_id in flickr_ids]
        made.add(make_splits({video_id: KONVID_1K.group(video_id) for video_id in ids}, recipe))
    assert len(made) == 1


def test_live_vqc_from_its_matlab_file_and_from_labels_with_a_folder(tmp_path: Path) -> None:
    expected: dict[str, float | None] = {"A001": 80.232, "A002": 6.22368, "B010": 94.2865}
    videos = touch(tmp_path / "set" / "Video", "A001.mp4", "A002.mp4", "B010.MP4").parent
    matlab = write_mat_5(
        tmp_path / "data.mat",
        video_list=["A001.mp4", "A002.mp4", "B010.mp4"],
        mos=[80.232, 6.22368, 94.2865],
        index=[1.0, 2.0],
    )
    text = write_fast_vqa(
        tmp_path / "labels.txt", {"Video/A001.mp4": 80.232, "Video/A002.mp4": 6.22368, "Video/B010.mp4": 94.2865}
    )
    for labels in (matlab, text):
        assert scores(prepare("live-vqc", videos, labels)) == expected


CVD_NAMES = [
    "Test1/City/Test01_City_D01.avi",
    "Test2/Talking_head/Test02_Talking_Head_D02.avi",
    "Test6/City/Test06_City_D16.avi",
]


@pytest.mark.parametrize(("divisor", "note"), [(1, ""), (100, "multiplied again: the label file had them divided")])
def test_cvd2014_divided_by_100_and_not(tmp_path: Path, divisor: int, note: str) -> None:
    videos = touch(tmp_path / "videos", *(Path(name).name for name in CVD_NAMES))
    published = [-6.5, 93.38, 24.86]
    labels = write_mat_73(
        tmp_path / "CVD2014info.mat",
        {"scores": [score / divisor for score in published], "ref_ids": [1, 2, 3]},
        {"video_names": CVD_NAMES},
    )
    prepared = prepare("cvd2014", videos, labels)
    assert list(scores(prepared).values()) == pytest.approx(published)
    assert prepared.manifest.label.note == note
    # The ref_ids of the real file number the videos one by one: the scenes come from the names.
    assert groups(prepared) == {
        "Test01_City_D01": "city",
        "Test02_Talking_Head_D02": "talking_head",
        "Test06_City_D16": "city",
    }


def test_cvd2014_official_csv_has_semicolons_decimal_commas_and_blank_rows(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", *CVD_NAMES)
    labels = write(
        tmp_path / "Realignment_MOS.csv",
        "Content;File_name;Realignment MOS\nCity;Test01_City_D01;67,29\n;;\nCity;;\nTalking_head;"
        "Test02_Talking_Head_D02;-6,5\nCity;Test06_City_D16;25\n",
    )
    assert scores(prepare("cvd2014", videos, labels)) == {
        "Test01_City_D01": 67.29,
        "Test02_Talking_Head_D02": -6.5,
        "Test06_City_D16": 25.0,
    }


QUALCOMM = {
    "0912_CheerLeader1_Nokia1080_20130306_17_46_21_Pro": 41.5,
    "0912_Cheerleader1_GS5_20150912_153429": 51.1,
    "0911panGarden_Gs5_20150911_153348": 30.9,
}


def qualcomm_structures() -> dict[str, dict[str, object]]:
    return {
        "qualcommVideoData": {"vidNames": [f"{name}.yuv" for name in QUALCOMM], "distortionNames": ["Color", "Focus"]},
        "qualcommSubjectiveData": {"unBiasedMOS": list(QUALCOMM.values()), "biasedMOS": [1.0, 2.0, 3.0]},
    }


def test_live_qualcomm_scores_lie_in_structures_and_scenes_in_names(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", *(f"Color/{name}.mp4" for name in QUALCOMM))
    prepared = prepare(
        "live-qualcomm", videos, write_mat_5(tmp_path / "qualcommSubjectiveData.mat", **qualcomm_structures())
    )
    assert scores(prepared) == QUALCOMM
    assert list(groups(prepared).values()) == ["0912_cheerleader1", "0912_cheerleader1", "0911pangarden"]


def test_live_qualcomm_raw_videos_come_with_advice(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", *(f"{name}.yuv" for name in QUALCOMM))
    labels = write_fast_vqa(tmp_path / "labels.txt", {f"Color/{name}.yuv": score for name, score in QUALCOMM.items()})
    with pytest.raises(DatasetError, match=r"holds no video.* ffmpeg -f rawvideo .* 1920x1080"):
        prepare("live-qualcomm", videos, labels)


@pytest.mark.parametrize("ending", [".mkv", "_crf_10_ss_00_t_20.0.mp4", "_orig.mp4", ".MP4"])
def test_youtube_ugc_in_every_release(tmp_path: Path, ending: str) -> None:
    expected: dict[str, float | None] = {"Sports_2160P-4e9f": 4.405, "Animation_480P-7a31": 3.487}
    videos = touch(tmp_path / "videos", *(f"{name}{ending}" for name in expected))
    encoded = {f"{name}_crf_10_ss_00_t_20.0.mp4": float(score or 0) for name, score in expected.items()}
    rows = "".join(f"{name},Sports,{score},NaN\n" for name, score in expected.items())
    official = write(tmp_path / "original_videos_MOS_for_YouTube_UGC_dataset.csv", f"vid,category,MOS full,x\n{rows}")
    for labels in (write_fast_vqa(tmp_path / "labels.txt", encoded), official):
        assert scores(prepare("youtube-ugc", videos, labels)) == expected


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1323, "1323 labels, as in: VIDEVAL, without 57 grey videos"),
        (1147, "1147 labels, as in: FAST-VQA"),
        (1322, "1322 labels, a number that no known release of YouTube-UGC has; known are: 1380 (every"),
    ],
)
def test_the_count_is_compared_with_the_known_releases(tmp_path: Path, count: int, said: str) -> None:
    names = [f"Vlog_720P-{number:04x}" for number in range(count)]
    rows = "".join(f"{name},3.5\n" for name in names)
    labels = write(tmp_path / "YOUTUBE_UGC_metadata.csv", f"vid,MOSFull\n{rows}")
    prepared = prepare("youtube-ugc", touch(tmp_path / "videos", f"{names[0]}.mkv"), labels)
    assert any(note.startswith(said) for note in prepared.report.notes)
    assert len(prepared.report.labels_without_video) == count - 1


def test_lsvq_videos_are_known_by_folder_and_name(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", "yfcc-batch1/747.mp4", "deep/yfcc-batch10/747.mp4", "ia-batch12/xmas.flv.mp4")
    labels = write(
        tmp_path / "LSVQ_whole_test.csv",
        'name,p1,mos,is_test,is_valid\nyfcc-batch1/747,"[15, 527]",67.75,True,True\n'
        "yfcc-batch10/747,x,50,True,True\nia-batch12/xmas.flv,x,40.5,True,False\nyfcc-batch2/747,x,30,True,True\n",
    )
    prepared = prepare("lsvq-test", videos, labels)
    assert [(row.video_id, row.path.is_file()) for row in prepared.manifest.rows] == [
        ("yfcc-batch1/747", True),
        ("yfcc-batch10/747", True),
        ("ia-batch12/xmas", True),
        ("yfcc-batch2/747", False),
    ]
    assert prepared.report.labels_without_video == ("yfcc-batch2/747",)


def test_lsvq_from_one_of_its_folders(tmp_path: Path) -> None:
    videos = touch(tmp_path / "yfcc-batch1", "747.mp4")
    labels = write_fast_vqa(tmp_path / "labels_test.txt", {"yfcc-batch1/747.mp4": 67.75, "yfcc-batch2/747.mp4": 20.0})
    assert prepare("lsvq-test", videos, labels).report.matched == 1


@given(st.text("ab.", min_size=1, max_size=6).filter(lambda name: name.strip(".")), st.sampled_from(["mp4", "mov"]))
def test_an_lsvq_name_means_the_same_with_and_without_its_extension(name: str, pretended: str) -> None:
    for stem in (f"ia-batch1/{name}", f"ia-batch1/{name}.{pretended}"):
        assert LSVQ.identify(PurePosixPath(stem)) == LSVQ.identify(PurePosixPath(f"/data/set/{stem}.mp4"))


def lsvq_files(folder: Path) -> Path:
    write_fast_vqa(folder / "train_labels.txt", {"yfcc-batch1/1.mp4": 10.0, "yfcc-batch1/2.mp4": 20.0})
    write_fast_vqa(folder / "labels_test.txt", {"yfcc-batch1/3.mp4": 30.0})
    write_fast_vqa(folder / "labels_1080p.txt", {"yfcc-batch1/4.mp4": 40.0})
    return folder


def test_lsvq_as_a_whole_has_two_official_splits(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", *(f"yfcc-batch1/{number}.mp4" for number in range(1, 5)))
    prepared = prepare("lsvq", videos, lsvq_files(tmp_path / "labels"))
    assert prepared.manifest.official_splits() == {
        "test": {"yfcc-batch1/1": "train", "yfcc-batch1/2": "train", "yfcc-batch1/3": "test"},
        "test-1080p": {"yfcc-batch1/1": "train", "yfcc-batch1/2": "train", "yfcc-batch1/4": "test"},
    }
    made = make_splits(groups(prepared), TrainRecipe(), prepared.manifest.official_splits())
    assert [(split.name, split.test) for split in made] == [
        ("test", ("yfcc-batch1/3",)),
        ("test-1080p", ("yfcc-batch1/4",)),
    ]


def test_lsvq_parts_come_from_the_official_file_by_its_column(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", *(f"yfcc-batch1/{number}.mp4" for number in range(1, 4)))
    labels = write(
        tmp_path / "labels_train_test.csv",
        "name,mos,is_test\nyfcc-batch1/1,10,False\nyfcc-batch1/2,20,True\nyfcc-batch1/3,30,false\n",
    )
    assert scores(prepare("lsvq-train", videos, labels)) == {"yfcc-batch1/1": 10.0, "yfcc-batch1/3": 30.0}
    test = prepare("lsvq-test", videos, labels)
    assert (scores(test), splits(test)) == ({"yfcc-batch1/2": 20.0}, {"yfcc-batch1/2": ""})
    whole = prepare("lsvq", videos, labels)
    assert splits(whole)["yfcc-batch1/2"] == "test=test"
    assert "no label file of the part test-1080p of the official split" in whole.report.notes


def test_labels_of_another_part_are_refused(tmp_path: Path) -> None:
    folder = lsvq_files(tmp_path)
    with pytest.raises(DatasetError, match=r"train_labels\.txt holds no labels for LSVQ \(test\)"):
        prepare("lsvq-test", touch(tmp_path / "videos", "yfcc-batch1/1.mp4"), folder / "train_labels.txt")


def test_a_file_whose_part_only_its_name_would_tell_is_refused(tmp_path: Path) -> None:
    (lsvq_files(tmp_path) / "train_labels.txt").rename(tmp_path / "mine.txt")
    videos = touch(tmp_path / "videos", "yfcc-batch1/1.mp4")
    with pytest.raises(DatasetError, match=r"mine\.txt may hold any part of LSVQ.*train_labels\.txt"):
        prepare("lsvq", videos, tmp_path / "mine.txt")
    assert prepare("lsvq-train", videos, tmp_path / "mine.txt").report.matched == 1


def test_a_split_column_with_another_value_is_pointed_out(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels_train_test.csv", "name,mos,is_test\nyfcc-batch1/1,10,maybe\n")
    with pytest.raises(DatasetError, match="line 2, column 'is_test': 'maybe' names no part"):
        prepare("lsvq", touch(tmp_path / "videos", "yfcc-batch1/1.mp4"), labels)


def test_maxwell_scores_are_the_last_column_and_its_split_is_official(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", *(f"{number:04d}.mp4" for number in range(6)))
    write(tmp_path / "train_labels.txt", "0001.mp4, 1.1, 2.2, 3.3\n0002.mp4, 1, 2, 3\n0003.mp4, 1, 2, 4.5\n")
    write(tmp_path / "val_labels.txt", "0000.mp4, 1.114285714, 1.057142857, 1.028571429\n0005.mp4, 1, 2, 2.5\n")
    prepared = prepare("maxwell", videos)
    assert scores(prepared) == {"0001": 3.3, "0002": 3.0, "0003": 4.5, "0000": 1.028571429, "0005": 2.5}
    (split,) = make_splits(groups(prepared), TrainRecipe(), prepared.manifest.official_splits())
    assert split.test == ("0000", "0005")
    assert sorted(split.train + split.validation) == ["0001", "0002", "0003"]
    assert prepared.report.videos_without_label == ("0004.mp4",)


def test_live_yt_gaming_names_lack_their_extension(tmp_path: Path) -> None:
    labels = write_mat_5(tmp_path / "LIVEYTGaming.mat", video_list=["PUBG_005", "GTAV_016"], MOS=[44.5, 71.25])
    prepared = prepare("live-yt-gaming", touch(tmp_path / "videos", "PUBG_005.mp4", "GTAV_016.mp4"), labels)
    assert scores(prepared) == {"PUBG_005": 44.5, "GTAV_016": 71.25}


def test_photographs_are_videos_of_one_frame(tmp_path: Path) -> None:
    pictures = touch(tmp_path / "set", "Images/ss01 (10).jpg", "Images/ss02_7.JPG", "Images/ss03_9.png", "notes.mp4")
    write(pictures / "Train (Images and MOS).csv", "Image Name,MOS,Standard Deviation\nss01 (10).jpg,0.81,0.1\n")
    prepared = prepare("biq2021", pictures)
    assert (scores(prepared), splits(prepared)) == ({"ss01_10": 0.81}, {"ss01_10": "train"})
    assert prepared.report.videos_without_label == ("Images/ss02_7.JPG", "Images/ss03_9.png")
    assert "no label file of the part test of the official split" in prepared.report.notes
    write(pictures / "Test (Images and MOS).csv", "ss02 (7).jpg,0.5\nss03 (9).jpg,0.25\n")
    both = prepare("biq2021", pictures)
    assert splits(both) == {"ss01_10": "train", "ss02_7": "test", "ss03_9": "test"}
    labels = write(tmp_path / "labels.csv", "image_name,mos\nss01_10.jpg,0.8\nss02 (7).jpg,0.5\nss03_9.jpg,0.25\n")
    subset = prepare("biq2021", pictures, labels)
    assert scores(subset) == {"ss01_10": 0.8, "ss02_7": 0.5, "ss03_9": 0.25}
    assert subset.manifest.official_splits() == {}
    assert subset.manifest.rows[0].path == pictures / "Images/ss01 (10).jpg"


def test_koniq_split_comes_from_its_column(tmp_path: Path) -> None:
    pictures = touch(tmp_path / "1024x768", "1.jpg", "2.jpg", "3.jpg")
    write(
        tmp_path / "koniq10k_distributions_sets.csv",
        "image_name,c1,MOS,SD,set\n1.jpg,0,62.5,1,training\n2.jpg,0,71,1,validation\n3.jpg,0,3.9,1,test\n",
    )
    prepared = prepare("koniq-10k", pictures)
    assert prepared.manifest.official_splits() == {"official": {"1": "train", "2": "validation", "3": "test"}}
    z_scores = write(
        tmp_path / "koniq10k_scores_and_distributions.csv", "image_name,MOS,SD,MOS_zscore\n1.jpg,3.2,1,62.5\n"
    )
    assert scores(prepare("koniq-10k", pictures, z_scores)) == {"1": 62.5}


def test_scores_off_the_scale_or_missing_are_reported_and_not_used(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", *(f"{name}.mp4" for name in "123456"))
    labels = write(tmp_path / "KoNViD_1k_mos.csv", "flickr_id,mos\n1,3\n2,-1\n3,NaN\n4,5\n5,1\n6,2\n")
    prepared = prepare("konvid-1k", videos, labels)
    assert scores(prepared) == {"1": 3.0, "2": None, "3": None, "4": 5.0, "5": 1.0, "6": 2.0}
    assert prepared.report.without_score == ("2", "3")


def test_scores_of_another_scale_are_refused(tmp_path: Path) -> None:
    labels = write(tmp_path / "KoNViD_1k_mos.csv", "flickr_id,mos\n1,0.2\n2,0.9\n3,1\n")
    with pytest.raises(DatasetError, match=r"2 of 3 scores .* off the scale of KoNViD-1k, 1 to 5, such as 0\.2"):
        prepare("konvid-1k", touch(tmp_path / "videos", "1.mp4"), labels)


def test_minus_one_is_unknown_in_files_without_a_header_even_where_it_lies_on_the_scale(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", *CVD_NAMES)
    labels = write_fast_vqa(tmp_path / "labels.txt", dict(zip(CVD_NAMES, [50.0, -1.0, -1.5], strict=True)))
    assert list(scores(prepare("cvd2014", videos, labels)).values()) == [50.0, None, -1.5]


@pytest.mark.parametrize(("divisor", "doubted"), [(1, False), (100, True)])
def test_scores_that_span_little_of_the_scale_are_doubted(tmp_path: Path, divisor: int, doubted: bool) -> None:
    rows = "".join(f"A{number:03d}.mp4,{(10 + 2 * number) / divisor}\n" for number in range(40))
    labels = write(tmp_path / "LIVE_VQC_metadata.csv", f"File,MOS\n{rows}")
    notes = prepare("live-vqc", touch(tmp_path / "videos", "A000.mp4"), labels).report.notes
    assert any("perhaps they are on another scale" in note for note in notes) == doubted


def test_labels_that_come_twice(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", "1.mp4", "2.mp4")
    labels = write(tmp_path / "KoNViD_1k_mos.csv", "flickr_id,mos\n1,3\n2,4\n1,3\n")
    assert prepare("konvid-1k", videos, labels).report.duplicates == ("1",)
    write(labels, "flickr_id,mos\n1,3\n2,4\n1,3.5\n")
    with pytest.raises(DatasetError, match=r"line 4: '1' is labelled 3\.5, but 3\.0 at .*line 2"):
        prepare("konvid-1k", videos, labels)


def test_what_does_not_match_is_reported_in_both_directions(tmp_path: Path) -> None:
    videos = touch(tmp_path / "videos", "3339962845.mp4", "other.mp4")
    report = prepare("konvid-1k", videos, konvid_labels(tmp_path, "official")).report
    assert report.matched == 1
    assert report.labels_without_video == ("8171831850", "8536919744")
    assert report.videos_without_label == ("other.mp4",)


def test_videos_of_another_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"None of the 3 labels .* belong to different data sets"):
        prepare("konvid-1k", touch(tmp_path / "videos", "A001.mp4"), konvid_labels(tmp_path, "official"))


@pytest.mark.parametrize("dataset", [recipe.dataset for recipe in RECIPES.values() if recipe.dataset])
def test_every_recipe_is_told_in_full(dataset: PublishedDataset) -> None:
    assert dataset.counts
    assert dataset.files
    assert dataset.useful_files()
    assert dataset.naming
    assert dataset.scale[0] < dataset.scale[1]
    assert all(file.names for file in dataset.files)

"""KoNViD-1k: 1,200 videos from Flickr, crowd-sourced (Hosu et al., QoMEX 2017)."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from diffvqa.pipeline.datasets._published import FAST_VQA, LabelFile, PublishedDataset, without_suffix

_RELEASES = re.compile(r"(\d+)(?:_(?:original|cut)_centercrop_960x540_8s)?(?:\.0)?")


def _identify(path: PurePosixPath) -> str:
    name = without_suffix(path)
    release = _RELEASES.fullmatch(name)
    return release.group(1) if release else name


DATASET = PublishedDataset(
    name="konvid-1k",
    title="KoNViD-1k",
    scale=(1, 5),
    counts={1200: "every release"},
    files=(
        LabelFile(("KoNViD_1k_mos.csv",), video="flickr_id", score="mos"),
        LabelFile(("KoNViD_1k_attributes.csv",), video="file_name", score="MOS"),
        LabelFile(("KoNViD-1kinfo.mat", "KONVID_1K_info.mat"), "video_names", "scores", origin="MDTVSFA"),
        LabelFile(("KONVID_1K_metadata.csv",), video="flickr_id", score="mos", origin="VIDEVAL"),
        FAST_VQA,
    ),
    naming="3339962845.mp4, or 3339962845_original_centercrop_960x540_8s.mp4 (also _cut_)",
    identify=_identify,
)

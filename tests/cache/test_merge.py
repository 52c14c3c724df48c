from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cache_material import arrays_of, data_files, digests, failed, fill, header, mark_files, usable

from diffvqa.cache._errors import CacheCorruptError, CacheMissingError, FingerprintMismatchError
from diffvqa.cache._merge import merge
from diffvqa.cache._reader import FeatureCache
from diffvqa.cache._shards import ShardEntry, unique_part
from diffvqa.cache._verify import verify
from diffvqa.cache._writer import CacheWriter


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of every shard by the shard's own part of its name, and its path in it."""
    return {
        f"{unique_part(path.relative_to(directory).parts[1])}/{'/'.join(path.relative_to(directory).parts[2:])}":
        path.read_bytes()
        for path in (directory / "shards").rglob("*")
        if path.is_file()
    }  # fmt: skip


def test_shards_are_copied_and_never_rewritten(tmp_path: Path) -> None:
    fill(tmp_path / "a", usable("a1"), usable("a2", frames=1), usable("a3"))
    fill(tmp_path / "b", usable("b1"), failed("bad"))
    summary = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "joined")
    assert (summary.copied, summary.there_before, summary.videos, summary.repeated) == (3, 0, 4, ())
    joined = FeatureCache(tmp_path / "joined")
    assert joined.ids() == ("a1", "a2", "a3", "b1")
    assert [row.video_id for row in joined.failures()] == ["bad"]
    assert contents(tmp_path / "joined") == contents(tmp_path / "a") | contents(tmp_path / "b")
    assert digests(tmp_path / "joined") == digests(tmp_path / "a") | digests(tmp_path / "b")
    assert verify(tmp_path / "joined").damages == ()
    np.testing.assert_array_equal(joined["a2"]["resize/latent"], arrays_of("a2", 1)["resize/latent"])


def test_merging_again_copies_only_what_is_new(tmp_path: Path) -> None:
    fill(tmp_path / "a", usable("a1"))
    fill(tmp_path / "joined", usable("own"))
    assert merge([tmp_path / "a"], tmp_path / "joined").copied == 1
    fill(tmp_path / "a", usable("a2"))
    summary = merge([tmp_path / "a"], tmp_path / "joined")
    assert (summary.copied, summary.there_before) == (1, 1)
    assert FeatureCache(tmp_path / "joined").ids() == ("own", "a1", "a2")


def test_what_one_source_has_is_not_lost_to_a_failure_in_another(tmp_path: Path) -> None:
    video = tmp_path / "both.mp4"
    video.write_bytes(b"the same file")
    good = usable("both", frames=2, path=video)
    broken = ShardEntry(failed("both").row.model_copy(update={"source": good.row.source}), None)
    fill(tmp_path / "a", good, failed("only b has it", reason="missing"))
    fill(tmp_path / "b", broken, usable("only b has it", path=video))
    for sources in (["a", "b"], ["b", "a"]):
        joined = tmp_path / "".join(sources)
        merge([tmp_path / source for source in sources], joined)
        assert set(FeatureCache(joined).ids()) == {"both", "only b has it"}
        assert FeatureCache(joined).failures() == ()


def test_of_a_video_that_several_have_the_last_counts(tmp_path: Path) -> None:
    fill(tmp_path / "a", usable("v", frames=1))
    fill(tmp_path / "b", usable("v", frames=3), usable("w"))
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "joined").repeated == ("v",)
    assert FeatureCache(tmp_path / "joined")["v"]["resize/latent"].shape[0] == 3


def test_other_features_are_refused_before_anything_is_copied(tmp_path: Path) -> None:
    fill(tmp_path / "a", usable("v"))
    with CacheWriter(tmp_path / "b", header(seed=5), shard_videos=1):
        pass
    with pytest.raises(FingerprintMismatchError, match=r"seed is 5 there, \(absent\) was asked for"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
    with pytest.raises(FingerprintMismatchError):
        merge([tmp_path / "a"], tmp_path / "b")
    with pytest.raises(CacheMissingError):
        merge([tmp_path / "nowhere"], tmp_path / "joined")


def test_a_damaged_source_is_not_copied(tmp_path: Path) -> None:
    fill(tmp_path / "a", usable("v"), shard_videos=1)
    (file,) = data_files(tmp_path / "a", "resize/latent")
    file.write_bytes(b"\0" + file.read_bytes()[1:])
    with pytest.raises(CacheCorruptError, match="cache verify"):
        merge([tmp_path / "a"], tmp_path / "joined")
    assert list((tmp_path / "joined" / "shards").iterdir()) == []
    assert mark_files(tmp_path / "joined") == []

"""An S3 server that fails, is slow, and drops connections before and after it has done what it was asked for."""

from __future__ import annotations

import uuid
from pathlib import Path

from cache_material import digests, fill, header, usable
from unreliable_s3 import SHARES, unreliable_server

from diffvqa.cache._shards import ShardWriter
from diffvqa.cache._verify import verify
from diffvqa.cache._writer import CacheWriter

VIDEOS = tuple(f"v{number}" for number in range(12))
SHARD_VIDEOS = 2


def test_a_run_finishes_with_the_same_digests(tmp_path: Path) -> None:
    """Shards are written, and then published, as a worker and its driver do."""
    url = f"s3://bucket/{uuid.uuid4().hex}"
    with unreliable_server() as server:
        server.is_reliable = False
        with CacheWriter(url, header(), shard_videos=SHARD_VIDEOS) as writer:
            shards = [VIDEOS[begin : begin + SHARD_VIDEOS] for begin in range(0, len(VIDEOS), SHARD_VIDEOS)]
            worker = ShardWriter(writer.storage, writer.header, writer.run)
            for number, videos in enumerate(shards):
                writer.publish_staged(worker.stage([usable(video) for video in videos], number))
        fill(tmp_path / "whole", *map(usable, VIDEOS), shard_videos=SHARD_VIDEOS)
        server.is_reliable = True
        assert digests(url) == digests(tmp_path / "whole")
        assert verify(url).damages == ()
    assert set(server.troubles) == set(SHARES)
    assert min(server.troubles.values()) >= 2

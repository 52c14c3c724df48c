"""An S3 server that fails, is slow, and drops connections before and after it has done what it was asked for."""

from __future__ import annotations

import random
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs
from cache_material import digests, fill, header, usable
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from diffvqa.cache._shards import ShardWriter
from diffvqa.cache._verify import verify
from diffvqa.cache._writer import CacheWriter

VIDEOS = tuple(f"v{number}" for number in range(24))
SHARD_VIDEOS = 2


class Unreliable:
    """Puts trouble between clients and an application."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._random = random.Random(4)
        self._guard = threading.Lock()
        self.troubles = Counter[str]()
        self.is_reliable = True

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._guard:
            chosen = "" if self.is_reliable else self._random.choices(*zip(*SHARES.items(), strict=True))[0]
            self.troubles[chosen] += 1
        if chosen == "error":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if chosen == "dropped before":
            return self._drop(environ)
        if chosen == "slow":
            time.sleep(0.3)
        if chosen == "dropped after":
            list(self._application(environ, lambda *_: None))
            return self._drop(environ)
        return self._application(environ, start_response)

    @staticmethod
    def _drop(environ: dict[str, Any]) -> Iterable[bytes]:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError


SHARES = {"": 80, "error": 6, "slow": 4, "dropped before": 5, "dropped after": 5}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Unreliable]:
    application = Unreliable(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    server.log = lambda *_, **__: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    boto3.client("s3").create_bucket(Bucket="bucket")
    application.is_reliable = False
    yield application
    server.shutdown()
    thread.join()
    server.server_close()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_run_finishes_with_the_same_digests(server: Unreliable, tmp_path: Path) -> None:
    """Shards are written, and then published, as a worker and its driver do."""
    url = f"s3://bucket/{uuid.uuid4().hex}"
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

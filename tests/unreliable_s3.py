"""An S3 server that fails, is slow, and drops connections before and after it has done what it was asked for."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class Unreliable:
    """Puts trouble between clients and an application."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._random = random.Random(4)
        self._guard = threading.Lock()
        self.troubles = Counter[str]()
        self.is_reliable = True
        self.broken = ""  # what is asked for under a path with this in it is an error, always

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._guard:
            chosen = "" if self.is_reliable else self._random.choices(*zip(*SHARES.items(), strict=True))[0]
            self.troubles[chosen] += 1
        if chosen == "error" or (self.broken and self.broken in environ["PATH_INFO"]):
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


@contextmanager
def unreliable_server() -> Iterator[Unreliable]:
    """Give a server with the bucket ``bucket``, that the environment says is to be used; reliable to begin with."""
    application = Unreliable(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    server.log = lambda *_, **__: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield application
    server.shutdown()
    thread.join()
    server.server_close()
    s3fs.S3FileSystem.clear_instance_cache()


def put(bucket: str, name: str, content: bytes) -> None:
    """Put an object there."""
    boto3.client("s3").put_object(Bucket=bucket, Key=name, Body=content)

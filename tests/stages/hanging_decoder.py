"""A decoder that never answers and is quick to start; importable by name, as worker processes need it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffvqa.stages._decoding import DecodedVideo, VideoSource


def decode(source: VideoSource, _: object) -> DecodedVideo:
    """Leave a mark in the source's file, then hang."""
    file = os.open(source.path, os.O_WRONLY | os.O_APPEND)
    os.write(file, b".")
    time.sleep(3600)
    raise AssertionError

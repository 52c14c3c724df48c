"""Videos that lie at a URL: fetched to this machine for as long as they are decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from diffvqa.cache._errors import CacheUnreachableError
from diffvqa.cache._schema import SourceStamp
from diffvqa.cache._scratch import scratch_folder
from diffvqa.cache._source_files import fetch
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource, in_one_line
from diffvqa.stages._failures import FailureReason

Result = DecodedVideo | FailedVideo


def decode_fetched(source: VideoSource, decode: Callable[[VideoSource], Result]) -> Result:
    """Fetch a video, have it decoded, and remove it again.

    Args:
        source: At a URL.
        decode: Decodes a video of this machine.

    Returns:
        What came of it, with the stamp of what was fetched; a video that cannot be fetched is ``missing`` or, after the
        retries that its protocol's library makes, ``unreachable``.

    Raises:
        OutputError: There is no room for it here.
    """
    url = str(source.location)
    with scratch_folder("video") as folder:
        path = folder / f"video{PurePosixPath(urlsplit(url).path).suffix}"
        try:
            found, content = fetch(url, path)
        except FileNotFoundError:
            return FailedVideo(source, FailureReason.MISSING, "no such file", SourceStamp.absent(url))
        except CacheUnreachableError as error:
            return FailedVideo(source, FailureReason.UNREACHABLE, in_one_line(error.what), SourceStamp.absent(url))
        stamp = SourceStamp.listed(url, found).model_copy(update={"sha256": content})
        result = decode(replace(source, location=Path(path)))
        return replace(result, source=source, stamp=stamp)

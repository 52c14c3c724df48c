"""The program of a decode worker: reads videos to decode from standard input, and answers each.

It is started anew whenever a video has to be given up, so it begins with next to nothing imported; what decoding
needs comes with the first video.
"""

from __future__ import annotations

import gc
import os
import pickle
import queue
import signal
import struct
import sys
import threading
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource
    from diffvqa.stages._sampling import Sampling

    Decode = Callable[[VideoSource, Sampling], DecodedVideo]

_LENGTH = struct.Struct("=Q")
_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR = 0, 1, 2
_LONGEST_WORDS = 4000


def send(stream: IO[bytes], message: bytes) -> None:
    """Write a message that :func:`receive` takes from the other end of a pipe."""
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """Wait for the next message.

    Raises:
        EOFError: The other side is gone.
    """
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    return _read(stream, length)


def _read(stream: IO[bytes], length: int) -> bytes:
    parts = []
    while length > 0:
        part = stream.read(length)
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def words_on(standard_error: int) -> str:
    """Return the beginning of what a worker's native code wrote to the file that is its standard error."""
    return os.pread(standard_error, _LONGEST_WORDS, 0).decode(errors="replace")


def main() -> None:
    """Answer each video with its views or its failure, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    sys.tracebacklimit = 1  # an error's own line and place are what fits into a row
    requests = open(_STANDARD_INPUT, "rb", buffering=0)  # noqa: SIM115  # a buffer's lock would outlast an error
    answers = os.fdopen(os.dup(_STANDARD_OUTPUT), "wb")
    os.dup2(_STANDARD_ERROR, _STANDARD_OUTPUT)  # nothing that prints may come between the answers
    import_path, memory, task = pickle.loads(receive(requests))  # noqa: S301  # from our parent
    sys.path[:] = import_path
    _limit_memory(memory)
    videos: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive_until_the_end, args=(requests, videos), daemon=True).start()
    decode, sampling = pickle.loads(task)  # noqa: S301  # likewise
    while True:
        source = pickle.loads(videos.get())  # noqa: S301  # likewise
        os.ftruncate(_STANDARD_ERROR, 0)
        os.lseek(_STANDARD_ERROR, 0, os.SEEK_SET)
        send(answers, pickle.dumps(_decode_or_fail(source, sampling, decode), protocol=5))
        # PyAV's files and streams refer to one another, and hold native memory that the collector cannot see.
        gc.collect()
        if not gc.get_freeze_count():
            gc.freeze()  # what the first video had imported stays, and need not be looked through again


def _receive_until_the_end(requests: IO[bytes], videos: queue.SimpleQueue[bytes]) -> None:
    """Pass videos on; leave when the parent is gone, however it ended, even in the middle of a video."""
    try:
        while True:
            videos.put(receive(requests))
    except EOFError:
        os._exit(1)


def _limit_memory(memory: int | None) -> None:
    """Make the system refuse more memory than the limit, where it can."""
    if memory is None or not sys.platform.startswith("linux"):
        return
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _decode_or_fail(source: VideoSource, sampling: Sampling, decode: Decode) -> DecodedVideo | FailedVideo:
    from diffvqa.stages._decoding import FailedVideo, in_one_line
    from diffvqa.stages._failures import FailureReason, VideoUnusableError

    try:
        return decode(source, sampling)
    except VideoUnusableError as error:
        reason, message = error.reason, error.detail
    except MemoryError as error:
        reason, message = FailureReason.OUT_OF_MEMORY, f"more memory is needed than a decoder may have\n{error}"
    return FailedVideo(source, reason, in_one_line(f"{message}\n{words_on(_STANDARD_ERROR)}"))


if __name__ == "__main__":
    main()

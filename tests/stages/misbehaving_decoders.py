"""Decoders that do what real ones sometimes do; importable by name, as worker processes need them."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

from diffvqa.stages._decoding import DecodedVideo, VideoSource, decode_video
from diffvqa.stages._failures import FailureReason, VideoUnusableError
from diffvqa.stages._sampling import Sampling


def decode(source: VideoSource, sampling: Sampling) -> DecodedVideo:
    """Do what the video's id says."""
    match source.video_id.split("-")[0]:
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "memory":
            raise MemoryError
        case "hog":
            np.ones(2**31, np.uint8)
        case "native_hog":
            os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
            os.abort()
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "bug":
            raise ZeroDivisionError
        case "mark":
            source.path.touch()
        case "print":
            print("nothing may come between the answers", flush=True)  # noqa: T201
        case "unreadable":
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"[h264 @ 0x55aa] words of the decoder\n")
            raise VideoUnusableError(FailureReason.UNREADABLE, "[01:02:03] /home/x/src/a.cc:12: Check failed")
        case _:
            pass
    frames = np.full((1, sampling.view_size, sampling.view_size, 3), 7, np.uint8)
    return DecodedVideo(
        source=source,
        resize=frames,
        crop=frames[:, None],
        frame_indices=np.array([0]),
        timestamps=np.array([float(os.getpid())]),
        crop_positions=np.zeros((1, 2), np.int64),
        height=1,
        width=1,
        decoder="fake",
    )


def decode_and_tell(source: VideoSource, sampling: Sampling) -> DecodedVideo:
    """Decode as usual, then fail with the names of the packages that were imported for it."""
    decode_video(source, sampling)
    imported = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
    raise VideoUnusableError(FailureReason.UNREADABLE, " ".join(sorted(imported)))

"""One decode worker as its parent sees it: started when needed, under limits, killed and replaced at will."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from diffvqa.stages import _decode_worker as decode_worker
from diffvqa.stages._decode_worker import receive, send, words_on
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource, in_one_line
from diffvqa.stages._failures import FailureReason
from diffvqa.stages._sampling import Sampling

if TYPE_CHECKING:
    from diffvqa.stages._decode_worker import Decode
    from diffvqa.stages._extract_recipe import ExtractRecipe

_OUT_OF_MEMORY_WORDS = ("bad_alloc", "Cannot allocate memory", "MemoryError")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_MIB = 2**20
_LONGEST_END_S = 1.0


class DecodeProcess:
    """A worker process, started with the first video and again after it was killed; used by one thread at a time.

    Args:
        recipe: What to sample and cut.
        decode: What the worker does. Must be importable by name.
        timeout: Seconds that one video may take, the start of the process included.
        memory: MiB of memory that the process may have; None for no limit.
    """

    def __init__(self, recipe: ExtractRecipe, decode: Decode, *, timeout: float, memory: int | None) -> None:
        self._task = pickle.dumps((decode, Sampling.of(recipe)))
        self._timeout = timeout
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] | None = None
        self._guard = threading.Lock()
        self._closed = False

    def decode(self, source: VideoSource) -> DecodedVideo | FailedVideo:
        """Decode one video in the process; whatever the process does, this returns soon after the time limit."""
        overdue = threading.Event()
        timer = threading.Timer(self._timeout, self._give_up, args=(overdue,))
        timer.start()
        try:
            answer = self._ask(source, overdue)
        except (EOFError, OSError):
            return self._failed(source, overdue)
        finally:
            timer.cancel()
            timer.join()
        if overdue.is_set():  # it answered just when it was given up
            self.stop()
        return answer

    def close(self) -> None:
        """Kill the process, if there is one, and start no other; may be called while another thread decodes."""
        with self._guard:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def stop(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        with self._guard:
            if self._process is None:
                return
            self._process.kill()
            for file in (self._process.stdin, self._process.stdout, self._words):
                if file is not None:
                    with suppress(OSError):  # what was not yet sent need not arrive any more
                        file.close()
            self._process.wait()
            self._process = None

    def _ask(self, source: VideoSource, overdue: threading.Event) -> DecodedVideo | FailedVideo:
        process = self._started(overdue)
        assert process.stdin is not None  # noqa: S101  # both are pipes
        assert process.stdout is not None  # noqa: S101
        send(process.stdin, pickle.dumps(source))
        answer: DecodedVideo | FailedVideo = pickle.loads(receive(process.stdout))  # noqa: S301
        return answer

    def _give_up(self, overdue: threading.Event) -> None:
        with self._guard:
            overdue.set()
            if self._process is not None:
                self._process.kill()

    def _started(self, overdue: threading.Event) -> subprocess.Popen[bytes]:
        with self._guard:
            # What is begun after the time is up would be ended by nobody.
            if self._closed or overdue.is_set():
                raise EOFError
            if self._process is None:
                self._words = tempfile.TemporaryFile()  # noqa: SIM115  # closed when the process is stopped
                self._process = subprocess.Popen(
                    [sys.executable, "-P", decode_worker.__file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._words,
                    env={**os.environ, **_ONE_THREAD},
                )
                memory = None if self._memory is None else self._memory * _MIB
                assert self._process.stdin is not None  # noqa: S101  # it is a pipe
                send(self._process.stdin, pickle.dumps((tuple(sys.path), memory, self._task)))
            return self._process

    def _failed(self, source: VideoSource, overdue: threading.Event) -> FailedVideo:
        exit_code, words = self._end()
        self.stop()
        if overdue.is_set():
            return FailedVideo(source, FailureReason.TIMEOUT, f"not decoded within {self._timeout:g} s")
        # Only the system kills a worker that is not overdue: it does so when memory runs out.
        if exit_code == -signal.SIGKILL or any(sign in words for sign in _OUT_OF_MEMORY_WORDS):
            detail = in_one_line(f"the decoder ran out of memory ({_in_words(exit_code)})\n{words}")
            return FailedVideo(source, FailureReason.OUT_OF_MEMORY, detail)
        detail = in_one_line(f"the decoder ended its process ({_in_words(exit_code)})\n{words}")
        return FailedVideo(source, FailureReason.CRASHED, detail)

    def _end(self) -> tuple[int | None, str]:
        """Wait for a process that is ending, and return its exit code and what it wrote to standard error."""
        if self._process is None or self._words is None:
            return None, ""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_LONGEST_END_S)
        return self._process.poll(), words_on(self._words.fileno())


def _in_words(exit_code: int | None) -> str:
    if exit_code is None:
        return "it does not answer any more"
    return signal.Signals(-exit_code).name if exit_code < 0 else f"exit status {exit_code}"

"""Disposable decode workers: spawned processes, each under a time limit, killed and replaced when they overstep it.

A decoder can hang in native code, deaf to SIGTERM, or take its process down; neither may reach the process that owns
the model and the writer.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import BinaryIO

from diffvqa.stages.decoding import DecodedVideo, FailedVideo, VideoSource, decode_video, in_one_line
from diffvqa.stages.extract_recipe import ExtractRecipe
from diffvqa.stages.failures import FailureReason, VideoUnusableError

Decode = Callable[[VideoSource, ExtractRecipe], DecodedVideo]

_IN_FLIGHT_PER_WORKER = 2


class DecodePool:
    """Decodes videos in other processes; use it as a context manager.

    Args:
        recipe: What to sample and cut.
        workers: Processes.
        timeout: Seconds that one video may take, the start of a process included.
        decode: What a worker does; replaced in tests by decoders that misbehave. Must be importable by name.
    """

    def __init__(self, recipe: ExtractRecipe, *, workers: int, timeout: float, decode: Decode = decode_video) -> None:
        self._recipe = recipe
        self._workers = workers
        self._timeout = timeout
        self._decode = decode

    def __enter__(self) -> DecodePool:
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        self._processes = [_DecodeProcess(self._recipe, self._decode) for _ in range(self._workers)]
        self._idle: queue.SimpleQueue[_DecodeProcess] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        return self

    def run(self, sources: Iterable[VideoSource]) -> Iterator[DecodedVideo | FailedVideo]:
        """Yield every video decoded or failed, in the order given, decoding ahead a bounded number of them."""
        ahead: deque[Future[DecodedVideo | FailedVideo]] = deque()
        for source in sources:
            ahead.append(self._threads.submit(self._decode_one, source))
            if len(ahead) >= self._workers * _IN_FLIGHT_PER_WORKER:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _decode_one(self, source: VideoSource) -> DecodedVideo | FailedVideo:
        process = self._idle.get()
        try:
            return process.decode(source, self._timeout)
        finally:
            self._idle.put(process)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.close()
        self._threads.shutdown(wait=True)
        for process in self._processes:
            process.stop()


class _DecodeProcess:
    """One worker process, started when first needed and again after it was killed; used by one thread at a time."""

    def __init__(self, recipe: ExtractRecipe, decode: Decode) -> None:
        self._recipe = recipe
        self._decode = decode
        self._process: SpawnProcess | None = None
        self._guard = threading.Lock()
        self._closed = False

    def decode(self, source: VideoSource, timeout: float) -> DecodedVideo | FailedVideo:
        """Decode one video in the process; whatever the process does, this returns within about ``timeout`` seconds."""
        try:
            connection = self._connected()
            connection.send(source)
            if connection.poll(timeout):
                answer: DecodedVideo | FailedVideo = connection.recv()
                return answer
        except (EOFError, OSError):
            exit_code = self.stop()
            return FailedVideo(source, FailureReason.CRASHED, f"the decoder ended its process ({_in_words(exit_code)})")
        self.stop()
        return FailedVideo(source, FailureReason.TIMEOUT, f"not decoded within {timeout:g} s")

    def close(self) -> None:
        """Kill the process, if there is one, and start no other; may be called while another thread decodes."""
        with self._guard:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _connected(self) -> Connection:
        with self._guard:
            if self._closed:
                raise EOFError
            if self._process is None:
                context = multiprocessing.get_context("spawn")
                self._connection, theirs = context.Pipe()
                self._process = context.Process(
                    target=_serve, args=(theirs, self._recipe, self._decode), name="diffvqa-decode", daemon=True
                )
                self._process.start()
                theirs.close()
            return self._connection

    def stop(self) -> int | None:
        """Kill the process, if there is one, and return its exit code when it is gone."""
        with self._guard:
            if self._process is None:
                return None
            self._process.kill()
            self._process.join()
            exit_code = self._process.exitcode
            self._process.close()
            self._connection.close()
            self._process = None
            return exit_code


def _in_words(exit_code: int | None) -> str:
    if exit_code is None:
        return "it had not started"
    return signal.Signals(-exit_code).name if exit_code < 0 else f"exit status {exit_code}"


def _serve(connection: Connection, recipe: ExtractRecipe, decode: Decode) -> None:
    """Answer each video sent with its views or its failure, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with tempfile.TemporaryFile() as words:
        os.dup2(words.fileno(), 2)  # native decoders write why they failed to standard error
        while True:
            try:
                source = connection.recv()
            except EOFError:
                return
            words.truncate(0)
            words.seek(0)
            connection.send(_decode_or_fail(source, recipe, decode, words))


def _end_with_parent() -> None:
    """Leave when the parent dies, however it died, even in the middle of a video."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _decode_or_fail(
    source: VideoSource, recipe: ExtractRecipe, decode: Decode, words: BinaryIO
) -> DecodedVideo | FailedVideo:
    try:
        return decode(source, recipe)
    except VideoUnusableError as error:
        reason, message = error.reason, error.detail
    except MemoryError:
        reason, message = FailureReason.OUT_OF_MEMORY, "not enough memory for one frame"
    words.seek(0)
    native = words.read(4000).decode(errors="replace")
    return FailedVideo(source, reason, in_one_line(f"{message}\n{native}"))

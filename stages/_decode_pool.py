"""Disposable decode workers: processes of their own, each under a limit of time and memory, killed and replaced.

A decoder can hang in native code, deaf to SIGTERM, ask for all the memory there is, or take its process down; none of
it may reach the process that owns the model and the writer.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from diffvqa.cache._source_files import is_url
from diffvqa.stages._decode_process import DecodeProcess
from diffvqa.stages._decoding import DecodedVideo, FailedVideo, VideoSource, decode_video
from diffvqa.stages._failures import FailureReason

if TYPE_CHECKING:
    from diffvqa.stages._decode_worker import Decode
    from diffvqa.stages._extract_recipe import ExtractRecipe

_IN_FLIGHT_PER_WORKER = 2


class DecodePool:
    """Decodes videos in other processes; use it as a context manager.

    Videos at URLs are fetched by this process, at most ``workers`` of them at a time, before their limits begin.

    Args:
        recipe: What to sample and cut.
        workers: Processes.
        timeout: Seconds that one video may take, the start of a process included.
        memory: MiB of memory that a process may have; None for no limit. Kept by the system, on Linux.
        attempts: How often a video may end its process before it counts as ``crashed``.
        decode: What a worker does; replaced in tests by decoders that misbehave. Must be importable by name.
    """

    def __init__(
        self,
        recipe: ExtractRecipe,
        *,
        workers: int,
        timeout: float,
        memory: int | None = None,
        attempts: int = 1,
        decode: Decode = decode_video,
    ) -> None:
        self._workers = workers
        self._attempts = attempts
        self._processes = [DecodeProcess(recipe, decode, timeout=timeout, memory=memory) for _ in range(workers)]

    def __enter__(self) -> DecodePool:
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        self._idle: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
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
        if not is_url(source.location):
            return self._decode_file(source)
        from diffvqa.stages._fetching import decode_fetched

        return decode_fetched(source, self._decode_file)

    def _decode_file(self, source: VideoSource) -> DecodedVideo | FailedVideo:
        process = self._idle.get()
        try:
            for attempt in range(1, self._attempts + 1):
                result = process.decode(source)
                if not isinstance(result, FailedVideo) or result.reason is not FailureReason.CRASHED:
                    return result
                if attempt > 1:
                    result = replace(result, detail=f"{result.detail} ({attempt} times)")
            return result
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

"""Preparing the next batch while the present one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

_AHEAD = 2


def prefetched(
    prepare: Callable[[Item], Prepared], items: Iterable[Item], *, ahead: int = _AHEAD
) -> Generator[Prepared, None, None]:
    """Yield ``prepare(item)`` for each item, in order; another thread works up to ``ahead`` items in advance.

    Args:
        prepare: Copies and reads, mostly, so that it leaves the interpreter to the caller.
        items: Taken from the calling thread.
        ahead: Prepared results that may wait, at least 1: what bounds the memory.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        waiting: deque[Future[Prepared]] = deque()
        try:
            for item in items:
                waiting.append(thread.submit(prepare, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

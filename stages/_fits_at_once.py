"""Several fits side by side in threads of this process, each on its share of torch's threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event
from typing import TypeVar

import torch

from diffvqa.stages._fitting import FitUnwantedError
from diffvqa.stages._torch_threads import torch_threads

Item = TypeVar("Item")
Result = TypeVar("Result")


def fit_at_once(
    fit: Callable[[Item, Callable[[], bool]], Result], items: Sequence[Item], device: torch.device, threads: int = 0
) -> list[Result]:
    """Return ``fit(item, is_wanted)`` of each item, in order.

    A step of a light regressor is many small operations, which two threads do hardly faster than one: so on a CPU the
    threads are first given to as many fits as there are, and only what is left over to each fit's operations. The share
    depends on the number of items and threads alone, so that the rounding does too. On a GPU they run one by one.

    Args:
        fit: Computes with torch; must leave the process's random generators alone, and should end when ``is_wanted``
            says no: then another fit has failed, or the program was interrupted.
        items: What to fit to.
        device: Where is computed.
        threads: Of the CPU, for all fits together; as many as torch computes with when 0.

    Raises:
        Exception: Whatever a fit raised first.
    """
    threads = threads or torch.get_num_threads()
    at_once = min(threads, len(items)) if device.type == "cpu" else 1
    with torch_threads(threads // max(1, at_once)):
        if at_once <= 1:
            return [fit(item, lambda: True) for item in items]
        unwanted = Event()
        with ThreadPoolExecutor(at_once, thread_name_prefix="fit") as pool:
            running = [pool.submit(fit, item, lambda: not unwanted.is_set()) for item in items]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                if not all(future.done() for future in running):
                    unwanted.set()
                    pool.shutdown(wait=True, cancel_futures=True)
        _raise_first(error for future in running if not future.cancelled() and (error := future.exception()))
        return [future.result() for future in running]


def _raise_first(errors: Iterator[BaseException]) -> None:
    """Raise the error that made the other fits unwanted, if there is one."""
    every = list(errors)
    if every:
        raise next((error for error in every if not isinstance(error, FitUnwantedError)), every[0])

"""One run at a time fills a cache; this says which, and lets its workers ask whether it still is theirs.

A run is a numbered file in ``writers/``. The highest number is the run that may publish: whoever takes over makes the
next one, and from then on workers of the one before find that theirs is over. On this machine's disks a lock that ends
with its process says whether a run is alive. In an object store its file says until when it is, and is written again
and again while it is; there a number is taken by a conditional PUT, so no two runs ever get the same.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from diffvqa.cache._errors import CacheBusyError, DiffVQAError
from diffvqa.cache._lock import held_exclusively
from diffvqa.cache._processes import process_exists
from diffvqa.cache._storage import LocalStorage, Storage

WRITERS_FOLDER = "writers"
LEASE_SECONDS = 60.0
_LOCK_FILE = ".lock"
_SUFFIX = ".json"


@dataclass(frozen=True)
class Run:
    """The right to publish in a cache; plain values, so that it can be sent to workers.

    Attributes:
        number: Orders the runs of a cache; what a later run wrote counts before what an earlier one did.
        token: Known to this run alone.
        machine: Where it runs.
        process: Its process id there.
        expires: Until when it counts as alive without a sign of life, seconds since the epoch, UTC.
    """

    number: int
    token: str
    machine: str
    process: int
    expires: float


@contextmanager
def begin_run(storage: Storage, *, at_least: Callable[[], int], lease: float = LEASE_SECONDS) -> Iterator[Run]:
    """Be the run that fills the cache in ``storage`` for the length of the block.

    Args:
        storage: Of the cache.
        at_least: Asked for the lowest number that the run may have, when no other run can publish any more.
        lease: Seconds after which a run in an object store that gives no sign of life counts as dead.

    Raises:
        CacheBusyError: Another run is alive; the message says where.
        OutputError: The storage cannot be written to.
        CacheUnreachableError: The storage cannot be read.
    """
    with ExitStack() as held:
        before = _latest(storage)
        if isinstance(storage, LocalStorage):
            held.enter_context(held_exclusively(storage.root / _LOCK_FILE, _busy(storage, before)))
            before = _latest(storage)
        elif before is not None and _is_alive(before):
            raise _busy(storage, before)
        run = Run(
            number=max(at_least(), before.number + 1 if before else 0),
            token=secrets.token_hex(8),
            machine=_this_machine(),
            process=os.getpid(),
            expires=time.time() + lease,
        )
        # Not asked whether it was new: a PUT that is sent again, since its answer got lost, is refused.
        storage.create(_file(run.number), _content(run))
        if _latest(storage) != run:
            raise _busy(storage, _latest(storage))
        held.callback(_forget, storage, run)
        if not isinstance(storage, LocalStorage):
            held.enter_context(_signs_of_life(storage, run, lease))
        for older in storage.entries(WRITERS_FOLDER):
            if older.name < _file(run.number):
                storage.delete(older.name)
        yield run


def require_current(storage: Storage, run: Run) -> None:
    """Check that ``run`` still is the one that may publish.

    Raises:
        CacheBusyError: It ended, or another one took over.
    """
    latest = _latest(storage)
    if latest is None or (latest.number, latest.token) != (run.number, run.token):
        raise CacheBusyError(
            f"{storage.describe()} is being written by another run meanwhile; nothing more is published here.",
            "Wait for it to end, then run this again.",
        )


def _latest(storage: Storage) -> Run | None:
    for listed in reversed(storage.entries(WRITERS_FOLDER)):
        number = listed.base.removesuffix(_SUFFIX)
        if not number.isdecimal():  # a run was killed while it wrote its file
            continue
        with suppress(FileNotFoundError):  # its run ended just now
            return _parsed(int(number), storage.read(listed.name))
    return None


def _parsed(number: int, content: bytes) -> Run:
    try:
        return Run(**json.loads(content))
    except (ValueError, TypeError):
        return Run(number=number, token="", machine="", process=0, expires=0.0)


def _is_alive(run: Run) -> bool:
    ended_here = run.machine == _this_machine() and not process_exists(run.process)
    return time.time() < run.expires and not ended_here


def _this_machine() -> str:
    """Name this machine, this boot of it and this space of process ids: elsewhere a process id says nothing."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(parts)


@contextmanager
def _signs_of_life(storage: Storage, run: Run, lease: float) -> Iterator[None]:
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(lease / 4):
            # One that cannot be given is no fault: the next may be, and before publishing the run is asked for anew.
            with suppress(DiffVQAError):
                require_current(storage, run)
                alive = Run(**{**asdict(run), "expires": time.time() + lease})
                storage.write(_file(run.number), _content(alive))

    thread = threading.Thread(target=renew, name="cache-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _forget(storage: Storage, run: Run) -> None:
    with suppress(DiffVQAError):
        require_current(storage, run)
        storage.delete(_file(run.number))


def _busy(storage: Storage, run: Run | None) -> CacheBusyError:
    what = f"{storage.describe()} is being written by another process"
    if run is None or not run.token:
        return CacheBusyError(f"{what}.", "Wait for it to end, then run this again.")
    where = f" ({run.process} on {run.machine.split('/')[0]})"
    if isinstance(storage, LocalStorage):
        return CacheBusyError(f"{what}{where}.", "Wait for it to end, then run this again.")
    until = datetime.fromtimestamp(run.expires, UTC).strftime("%H:%M:%S UTC")
    return CacheBusyError(
        f"{what}{where}.", f"Wait for it to end; if it died, the cache is free at {until}. Then run this again."
    )


def _file(number: int) -> str:
    return f"{WRITERS_FOLDER}/{number:06d}{_SUFFIX}"


def _content(run: Run) -> bytes:
    return json.dumps(asdict(run)).encode()

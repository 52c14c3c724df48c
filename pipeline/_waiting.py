"""How the threads of this process wait for one another."""

from __future__ import annotations

import os


def wait_without_spinning() -> None:
    """Let threads sleep, not spin, while they wait for the others of a parallel operation; what the user set stays.

    By default OpenMP's threads spin for some milliseconds. Beside decode processes there are more threads than cores:
    those that spin then keep the one that is waited for off its core, and a network call takes many times as long.
    To be called before torch is imported, which reads it then.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

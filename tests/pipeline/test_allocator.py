from __future__ import annotations

import subprocess
import sys

import pytest

_PAGES_ASKED_FOR = """
import resource, sys
import numpy as np
from diffvqa.pipeline._allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for step in range(30):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [np.ones(2_000_000) for _ in range(3)]
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_the_last_step(how: str) -> int:
    command = [sys.executable, "-c", _PAGES_ASKED_FOR, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone can be told")
def test_freed_memory_is_used_again() -> None:
    assert pages_of_the_last_step("keep") < 100 < pages_of_the_last_step("as it is")

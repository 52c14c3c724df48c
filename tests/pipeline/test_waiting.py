from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK_FOR_WHAT_IS_NOT_THERE = """
import os, sys
from diffvqa.pipeline._cli import main
assert main(sys.argv[1:]) == 2
print(os.environ["OMP_WAIT_POLICY"])
"""


@pytest.mark.parametrize(("chosen", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
@pytest.mark.parametrize("verb", ["extract", "score"])
def test_threads_do_not_spin_beside_decoders_unless_told(
    tmp_path: Path, verb: str, chosen: str | None, expected: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": chosen} if chosen else {}
    command = [sys.executable, "-c", ASK_FOR_WHAT_IS_NOT_THERE, verb, "absent", "--runs", str(tmp_path)]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == expected

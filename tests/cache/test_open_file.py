from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import psutil
import pytest

from diffvqa.cache._open_file import OpenFile


@pytest.mark.parametrize("with_preadv", [True, False])
def test_any_part_is_read_and_no_more_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_preadv: bool
) -> None:
    if not with_preadv:
        monkeypatch.delattr(os, "preadv")
    content = np.arange(200, dtype=np.uint8)
    content.tofile(tmp_path / "file")
    file = OpenFile(tmp_path / "file")
    for start, length, there in ((0, 200, 200), (150, 50, 50), (3, 7, 7), (190, 20, 10), (200, 5, 0), (900, 5, 0)):
        buffer = np.zeros(length, np.uint8)
        assert file.read_into(start, buffer) == there
        np.testing.assert_array_equal(buffer[:there], content[start : start + there])


def test_it_is_closed_with_the_last_reference(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    file = OpenFile(path)
    assert str(path) in [one.path for one in psutil.Process().open_files()]
    del file
    assert str(path) not in [one.path for one in psutil.Process().open_files()]

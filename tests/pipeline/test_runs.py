from __future__ import annotations

from pathlib import Path

import pytest

from diffvqa.pipeline._errors import DatasetError
from diffvqa.pipeline._runs import DatasetRun, trained_models


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "-x"])
def test_names_that_could_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(DatasetError, match="cannot be a data set's name"):
        DatasetRun(Path("runs"), name)


def test_a_data_set_that_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no data set 'demo' in .*\. Run 'diffvqa prepare' first"):
        DatasetRun(tmp_path, "demo").require_prepared()
    for name in ("konvid", "live"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.csv").touch()
    with pytest.raises(DatasetError, match=r"Did you mean 'konvid'\?"):
        DatasetRun(tmp_path, "konvit").require_prepared()
    with pytest.raises(DatasetError, match="Prepared are: konvid, live"):
        DatasetRun(tmp_path, "xyz").require_prepared()
    assert DatasetRun(tmp_path, "live").require_prepared().features == tmp_path / "live/features"


def test_trained_models_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "b/model").mkdir(parents=True)
    (tmp_path / "b/model/model.json").touch()
    (tmp_path / "a/model").mkdir(parents=True)
    assert [run.name for run in trained_models(tmp_path)] == ["b"]

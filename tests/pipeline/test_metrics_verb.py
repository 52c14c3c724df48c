from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from diffvqa.pipeline._cli import main

SHARED = Path(__file__).parents[3] / "shared/data/metrics"
PUBLISHED = {
    "konvid_1k_predictions.csv": (240, 0.8720, 0.6881, 0.8668, 0.3211),
    "live_vqc_predictions.csv": (117, 0.8468, 0.6649, 0.8876, 7.987),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    true = rng.uniform(1, 5, 60)
    rows = [
        f"{value!r},{value + noise!r}" for value, noise in zip(true.tolist(), rng.normal(size=60).tolist(), strict=True)
    ]
    path = tmp_path / "table.csv"
    path.write_text("MOS,y\n" + "\n".join(rows) + "\n")
    return path


def metrics(path: Path, *arguments: str) -> int:
    return main(["metrics", str(path), "--true", "MOS", "--predicted", "y", *arguments])


def test_the_figures_are_those_of_the_library_and_lie_in_their_intervals(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metrics(table, "--json", "--resamples", "300") == 0
    found = json.loads(capsys.readouterr().out)
    true, predicted = np.loadtxt(table, delimiter=",", skiprows=1).T
    assert found["srcc"] == pytest.approx(stats.spearmanr(true, predicted).statistic)
    assert found["krcc"] == pytest.approx(stats.kendalltau(true, predicted).statistic)
    assert found["plcc"] == pytest.approx(stats.pearsonr(true, predicted).statistic)
    assert found["n"] == 60
    for name, (low, high) in found["intervals"].items():
        assert low < found[name] < high
    reference = stats.bootstrap((true, predicted), lambda a, b: stats.pearsonr(a, b).statistic, paired=True,
                                vectorized=False, n_resamples=2000, method="percentile", random_state=1)  # fmt: skip
    assert found["intervals"]["plcc"] == pytest.approx(list(reference.confidence_interval), abs=0.04)


def test_a_reader_sees_names_figures_and_intervals(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics(table, "--resamples", "50", "--level", "0.9") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("SRCC         0.")
    assert "90% bootstrap intervals, 50 resamples" in out
    assert metrics(table, "--resamples", "0") == 0
    assert "[" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "0 video(s) are too few"),
        ("1,2\n", "1 video(s) are too few"),
        ("1,2\n1,3\n", "the true scores are constant"),
        ("1,2\n2,nan\n", "the predictions are not all finite"),
    ],
)
def test_what_defines_no_figure_gives_null_and_a_reason(
    tmp_path: Path, rows: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"MOS,y\n{rows}")
    assert metrics(path, "--json", "--resamples", "20") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert (found["srcc"], found["reason"]) == (None, reason)
    assert metrics(path, "--resamples", "20") == 0
    assert f"note: {reason}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mos,y\n1,2\n", "has no column 'MOS'. It has: mos, y."),
        ("MOS,y\n1,2\nx,3\n", "line 3, column 'MOS': 'x' is no number"),
        ("MOS,y\n1\n", "line 2: 1 cells, but the header has 2"),
        ("", "is empty"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_its_line(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    assert metrics(path) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published predictions are not here")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_are_reproduced_to_four_decimals(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--true", "MOS", "--predicted", "y_test_pred", "--json", "--resamples", "0"]
    assert main(["metrics", str(SHARED / name), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    n, srcc, krcc, plcc, rmse = PUBLISHED[name]
    assert found["n"] == n
    for figure, published in (("srcc", srcc), ("krcc", krcc), ("plcc_fitted", plcc)):
        assert math.isclose(round(found[figure], 4), published, abs_tol=1e-9)
    assert round(found["rmse_fitted"], 3 if rmse > 1 else 4) == rmse

"""``diffvqa report``: one file that holds everything, asks no network for anything, and lets no name break out."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_material import HOSTILE, write_reported
from stage_two_material import make_material, write_dataset

from diffvqa.pipeline._cli import main
from diffvqa.pipeline._report.monotonicity import severity_steps
from diffvqa.pipeline._report.svg import Axis, Chart
from diffvqa.stages._metrics import correlation_metrics, fitted_curve, fitted_predictions


class Page(HTMLParser):
    """What is on a page: elements with their attributes, text by section, and the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self._section, self._cell = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self._section = str(dict(attrs)["id"])
        if tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        self._cell = tag in ("td", "th") or (self._cell and tag not in ("tr", "section"))
        if tag in ("td", "th"):
            self.rows[self._section][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        self.sections[self._section] = self.sections.get(self._section, "") + data
        if self._cell:
            self.rows[self._section][-1][-1] += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_reported(folder)
    assert main(["report", "shown", "--runs", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def text(runs: Path) -> str:
    return (runs / "shown/report.html").read_text()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_every_section_is_there(page: Page) -> None:
    expected = ["summary", "prediction", "splits", "monotonicity", "ablation", "cross", "curves", "residuals"]
    assert [name for name in page.sections if name] == [*expected, "videos", "failures", "provenance"]


def test_the_figures_are_those_of_the_training(runs: Path, page: Page) -> None:
    metrics = json.loads((runs / "shown/model/metrics.json").read_text())["shown"]
    *splits, median = page.rows["splits"][1:]
    assert [row[0] for row in splits] == ["split-0", "split-1"]
    assert [row[3] for row in splits] == [f"{split['test']['srcc']:.3f}" for split in metrics["splits"]]
    assert median[3] == f"{metrics['median']['srcc']:.3f}"
    with (runs / "shown/model/predictions.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    held_out = {row["video_id"] for row in predictions}
    assert page.rows["prediction"][1][0] == str(len(held_out))
    dots = [attributes for tag, attributes in page.elements if attributes.get("class") == "point" and tag == "circle"]
    told = {str(dot["data-tip"]).split("\n")[0] for dot in dots}
    assert held_out <= told


def test_the_scatter_says_the_mean_of_the_splits_that_tested_on_a_video(runs: Path, text: str) -> None:
    with (runs / "shown/model/predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["video_id"].startswith("<")]
    for video_id in {row["video_id"] for row in rows}:
        mine = [row for row in rows if row["video_id"] == video_id]
        predicted = sum(float(row["predicted"]) for row in mine) / len(mine)
        assert f'data-tip="{video_id}\npredicted {predicted:.2f}, true {float(mine[0]["true"]):.2f}"' in text


def test_extreme_videos_are_shown_with_frames_and_timelines(page: Page, text: str) -> None:
    cards = re.findall(r'<article class="card">.*?</article>', text, flags=re.S)
    assert len(cards) == 3 * 4
    assert all(card.count("data:image/jpeg;base64,") == 2 for card in cards)
    assert all(card.count("quality ") == 2 for card in cards)
    predicted = [float(value) for value in re.findall(r"predicted <strong>([-\d.]+)</strong>", text)]
    residual = [abs(float(value)) for value in re.findall(r"\(([-+][\d.]+)\);", text)]
    assert predicted[:4] == sorted(predicted[:4], reverse=True)
    assert predicted[4:8] == sorted(predicted[4:8])
    assert residual[8:] == sorted(residual[8:], reverse=True)
    assert min(predicted[:4]) >= max(predicted[4:8])
    assert "0.00 s" in page.sections["videos"]


def test_failures_are_told_by_reason(page: Page) -> None:
    assert [row[1:] for row in page.rows["failures"][1:]] == [["missing", f"{HOSTILE} is"]] * 2
    assert page.rows["failures"][1][0] == "<script>gone</script>.mp4"


def test_ablation_other_data_sets_and_provenance_are_told(page: Page) -> None:
    assert [row[0] for row in page.rows["ablation"][1:]] == ["full", HOSTILE]
    assert page.rows["cross"][1][:3] == ["shown", HOSTILE, "held-out"]
    assert "[train]" in page.sections["provenance"]
    assert "digest = " in page.sections["provenance"]


def test_nothing_is_fetched_and_no_name_becomes_an_element(page: Page, text: str) -> None:
    addresses = [
        str(value)
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data")
    ]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert HOSTILE not in text
    assert any(HOSTILE in str(attributes.get("data-tip")) for _, attributes in page.elements)


def test_a_data_set_without_a_model_has_a_report_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path, "plain", make_material(3, frames=2))
    assert main(["report", "plain", "--runs", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["held_out"] == 0
    page = Page((tmp_path / "plain/report.html").read_text())
    assert [name for name in page.sections if name] == ["summary", "failures", "provenance"]
    assert "diffvqa train plain" in page.sections["summary"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/manifest.csv").write_text("video_id,path\na,a.mp4\n")
    assert main(["report", "bare", "--runs", str(tmp_path), "--out", str(tmp_path / "x.html")]) == 0
    assert "diffvqa extract bare" in (tmp_path / "x.html").read_text()


def test_what_does_not_belong_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path, "plain", make_material(3, frames=2))
    assert main(["report", "plain", "--runs", str(tmp_path), "--model", str(runs / "shown/model")]) == 2
    assert "was not trained on 'plain' but on shown" in capsys.readouterr().err
    (tmp_path / "wrong.json").write_text("[{}]")
    assert main(["report", "shown", "--runs", str(runs), "--evaluation", str(tmp_path / "wrong.json")]) == 2
    assert "holds no evaluation" in capsys.readouterr().err


def test_steps_of_severity_are_told_in_order() -> None:
    scores = {
        "a/pristine.mp4": (90.0, 80.0),
        "a/blur-10.mp4": (40.0, 60.0),
        "a/blur-2.mp4": (70.0, 70.0),
        "b/pristine.mp4": (90.0, 82.0),
        "b/blur-2.mp4": (70.0, 84.0),
        "b/blur-10.mp4": (30.0, 20.0),
        "c/h264-crf28.mp4": (30.0, 20.0),
        "c/other.mp4": (30.0, 20.0),
    }
    first, second = severity_steps(scores)
    assert (first.milder, first.worse, first.contents, first.falling) == ("pristine", "blur-2", 2, 1)
    assert (first.score_before, first.score_after, first.label_after, first.holds) == (81.0, 77.0, 70.0, True)
    assert (second.milder, second.worse, second.score_after, second.falling) == ("blur-2", "blur-10", 40.0, 2)
    (rising,) = severity_steps({"a/pristine.mp4": (9.0, 1.0), "a/noise-1.mp4": (5.0, 2.0)})
    assert not rising.holds


def test_the_drawn_curve_is_the_fit_that_the_figures_are_of() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 100, 80)
    true = 1 + 4 / (1 + np.exp(-(predicted - 50) / 12)) + rng.normal(0, 0.2, 80)
    curve = fitted_curve(true, predicted, predicted)
    assert curve is not None
    assert curve.values == pytest.approx(fitted_predictions(true, predicted), abs=1e-6)
    assert (curve.low <= curve.values + 1e-9).mean() > 0.95
    assert (curve.values <= curve.high + 1e-9).mean() > 0.95
    truth = 1 + 4 / (1 + np.exp(-(predicted - 50) / 12))
    assert ((curve.low <= truth) & (truth <= curve.high)).mean() > 0.7
    assert np.sqrt(np.mean((curve.values - true) ** 2)) == pytest.approx(
        correlation_metrics(true, predicted).rmse_fitted
    )
    assert fitted_curve([1.0, 2.0], [1.0, 2.0], predicted) is None
    assert fitted_curve([1.0] * 9, list(range(9)), predicted) is None


def test_axes_have_round_ticks_and_hold_their_values() -> None:
    axis = Axis.around("x", [0.137, 9.71, float("nan")])
    assert axis.low < 0.137
    assert axis.high > 9.71
    assert axis.ticks() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert Axis.around("x", [5.0, 5.0]).ticks()
    assert Axis.around("x", []).ticks()


def test_a_line_is_broken_where_a_value_is_missing() -> None:
    chart = Chart("t", Axis("x", 0, 3), Axis("y", 0, 1))
    chart.line([0, 1, 2, 3], [0.1, 0.2, float("nan"), 0.3])
    assert chart.svg().count("M") == 2

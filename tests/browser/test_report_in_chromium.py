"""The report in a real Chromium: nothing fails, everything is drawn, values are told, and names stay text.

Run by ``make test-browser``; it needs ``chromium`` and its driver.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from report_material import HOSTILE, write_reported

from diffvqa.pipeline._cli import main

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

pytestmark = pytest.mark.browser

_QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
)


def _find(*names: str) -> str:
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    pytest.fail(f"there is no {' or '.join(names)}: apt-get install chromium chromium-driver")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    write_reported(runs)
    assert main(["report", "shown", "--runs", str(runs)]) == 0
    return runs / "shown/report.html"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(report: Path, downloads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = _find("chromium", "chromium-browser", "google-chrome")
    for argument in (*_QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = Chrome(options, Service(_find("chromedriver")))
    driver.get(report.as_uri())
    yield driver
    driver.quit()


def script(browser: Chrome, program: str) -> object:
    return browser.execute_script(program)


def select(browser: Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements("css selector", selector)


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(100):
        if what():
            return
        time.sleep(0.1)
    pytest.fail("it did not come")


def test_nothing_fails_and_nothing_is_fetched(browser: Chrome) -> None:
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]
    fetched = script(browser, "return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert isinstance(fetched, list)
    assert all(name.startswith("data:") for name in fetched)
    assert script(browser, "return [...document.images].every((one) => one.complete && one.naturalWidth > 0)")


def test_every_chart_is_drawn_inside_its_frame(browser: Chrome) -> None:
    charts = select(browser, "svg")
    assert len(charts) >= 1 + 2 + 3 + 12
    outside = script(
        browser,
        """return [...document.querySelectorAll("svg")].filter((svg) => {
          const frame = svg.getBoundingClientRect();
          const marks = [...svg.querySelectorAll("circle, path, rect, polygon")].map((m) => m.getBoundingClientRect());
          return frame.width < 100 || marks.length === 0 || marks.some((mark) =>
            mark.left < frame.left - 1 || mark.right > frame.right + 1 ||
            mark.top < frame.top - 1 || mark.bottom > frame.bottom + 1);
        }).map((svg) => svg.dataset.name)""",
    )
    assert outside == []
    assert script(browser, "return document.documentElement.scrollWidth <= innerWidth")


def test_a_value_is_told_when_it_is_hovered(browser: Chrome) -> None:
    from selenium.webdriver import ActionChains

    tip, dot = select(browser, "#tip")[0], select(browser, "#prediction circle")[-1]
    assert not tip.is_displayed()
    script(browser, "document.querySelector('#prediction').scrollIntoView()")
    ActionChains(browser).move_to_element(dot).perform()
    assert tip.is_displayed()
    assert "predicted " in tip.text
    ActionChains(browser).move_to_element(select(browser, "#splits h2")[0]).perform()
    assert not tip.is_displayed()


def test_hostile_names_stay_text(browser: Chrome) -> None:
    title = "shown – DiffVQA report"  # noqa: RUF001
    assert browser.title == title
    assert script(browser, "return document.querySelectorAll('[onerror], img[src=x], svg script').length") == 0
    assert script(browser, "return document.scripts.length") == 1
    assert HOSTILE in select(browser, "#failures")[0].text
    script(
        browser,
        """const dots = [...document.querySelectorAll("#prediction circle")];
        const dot = dots.find((one) => one.dataset.tip.includes("onerror"));
        dot.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: 9, clientY: 9 }));""",
    )
    assert HOSTILE in select(browser, "#tip")[0].text
    assert browser.title == title


def test_a_chart_is_saved_as_it_looks(browser: Chrome, downloads: Path) -> None:
    colour = script(browser, "return getComputedStyle(document.querySelector('#prediction circle')).fill")
    for kind, begins in (("svg", b"<svg"), ("png", b"\x89PNG")):
        button = select(browser, f"#prediction button[data-save={kind}]")[0]
        script(browser, "document.querySelector('#prediction').scrollIntoView()")
        button.click()
        path = downloads / f"predicted-and-true-scores.{kind}"
        wait_for(lambda path=path: path.exists() and path.stat().st_size > 0)  # type: ignore[misc]
        assert path.read_bytes().startswith(begins)
    assert f"fill:{colour}" in (downloads / "predicted-and-true-scores.svg").read_text()


def test_it_prints_in_black_on_white_without_buttons(browser: Chrome) -> None:
    import base64

    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": dark})
    try:
        assert not any(button.is_displayed() for button in select(browser, "button"))
        assert script(browser, "return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    printed = base64.b64decode(browser.print_page())
    assert printed.startswith(b"%PDF")
    assert len(printed) > 20_000

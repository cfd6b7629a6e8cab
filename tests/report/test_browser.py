"""The page in headless Chromium: what people see, with eyes, keyboard or a screen reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from report.conftest import Place, Report

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
WIDTHS = {"desk": 1280, "phone": 390}

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:playwright"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(place: Place, finished: Path, in_progress: Path, report: Report) -> dict[str, Path]:
    return {
        "finished": report(finished),
        "in progress": report(in_progress),
        "compared": report(finished, in_progress, "--names", "<b>one</b>", "other"),
    }


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Callable[..., Any]]:
    """Return what opens a report; whatever the browser complains of fails the test."""
    complaints: list[str] = []

    def open_page(name: str = "finished", *, width: int = 1280, theme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=theme, offline=True
        )
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(f"file://{pages[name] / 'report.html'}")
        return page

    yield open_page
    assert complaints == []


@pytest.mark.parametrize("name", ["finished", "in progress", "compared"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=list(WIDTHS))
def test_every_chart_shows_and_nothing_is_wider_than_the_screen(
    opened: Callable[..., Any], name: str, width: int
) -> None:
    page = opened(name, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for details in page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = [drawing.bounding_box() for drawing in page.query_selector_all("svg")]
    assert len(boxes) >= 4
    for box in boxes:
        assert box["width"] > 250
        assert box["height"] > 50
        assert box["x"] + box["width"] <= width
    drawn = page.evaluate(
        "[...document.querySelectorAll('svg')].map(svg => svg.querySelectorAll('path').length)"
    )
    assert min(drawn) > 3


@pytest.mark.parametrize("name", ["finished", "in progress", "compared"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(opened: Callable[..., Any], name: str, theme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    page = opened(name, theme=theme, width=WIDTHS["phone"])
    for details in page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    checked = {rule["id"] for rule in found.response["passes"]}
    assert checked >= {"color-contrast", "scrollable-region-focusable", "svg-img-alt", "list"}


def test_the_theme_of_the_reader_decides_all_colours(opened: Callable[..., Any]) -> None:
    seen = {}
    for theme in ("light", "dark"):
        page = opened(theme=theme)
        fill = "element => getComputedStyle(element).fill"
        seen[theme] = [
            page.evaluate("getComputedStyle(document.body).backgroundColor"),
            page.evaluate(f"({fill})(document.querySelector('svg text'))"),
            page.evaluate(f"({fill})(document.querySelector('svg path'))"),
        ]
    light, dark = seen.values()
    assert all(one != other for one, other in zip(light, dark, strict=True))


def test_everything_is_reached_by_keyboard(opened: Callable[..., Any]) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    expected = page.evaluate(
        "document.querySelectorAll('a, summary, .scroll').length"
        " - document.querySelectorAll('details .scroll').length"
    )
    reached = 1
    while page.keyboard.press("Tab") or page.evaluate("document.activeElement !== document.body"):
        reached += 1
        assert reached <= expected
    assert reached == expected
    page.focus("summary")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('details').open")


def test_no_name_becomes_an_element(opened: Callable[..., Any]) -> None:
    page = opened("compared")
    assert page.query_selector("b") is None
    assert "<b>one</b>" in page.inner_text("h1")

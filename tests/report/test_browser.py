"""The page in a real browser: Chromium, without a screen.

Skipped where there is none, unless DAMORL_REQUIRE_BROWSER is set (Debian: apt install chromium chromium-driver).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from damorl.report.page import write_report
from tests.browsing import open_browser

selenium = pytest.importorskip("selenium")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CONTRAST = Path(__file__).with_name("contrast.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome


@pytest.fixture(scope="module")
def address(two_by_two: list[Path], tmp_path_factory: pytest.TempPathFactory, run_writer: Any) -> str:
    """A report on two methods and two data sets, and on a third method that has an unfinished run on one of them."""
    folder = tmp_path_factory.mktemp("page")
    lone = run_writer(folder, "mopo-hopper", "mopo", "hopper-medium", {0: 90.0}, 40_000)
    write_report([*two_by_two, lone], folder / "report.html", "Two by two")
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, just opened on a desktop that prefers light."""
    set_media(browser, "light")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(address)
    yield browser
    assert browser.get_log("browser") == []


def set_media(browser: Any, scheme: str) -> None:
    still = {"name": "prefers-reduced-motion", "value": "reduce"}  # a page that still scrolls cannot be clicked
    features = [{"name": "prefers-color-scheme", "value": scheme}, still]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def column(page: Any, table: Any, name: str) -> tuple[Any, list[str]]:
    """The head of a column and what its cells show, from the top."""
    heads = table.find_elements(By.CSS_SELECTOR, "thead th")
    index = next(i for i, head in enumerate(heads) if head.find_element(By.TAG_NAME, "button").text == name)
    cells = [
        row.find_elements(By.CSS_SELECTOR, "th, td")[index] for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
    ]
    return heads[index], [cell.text.splitlines()[0] for cell in cells]


def test_it_renders_and_asks_the_network_for_nothing(page, address):
    assert page.title == "Two by two"
    assert [item.text for item in page.find_elements(By.CSS_SELECTOR, "h2")] == [
        *("Read with care", "Scores", "What is missing", "Over all data sets", "Learning curves", "Offline selection"),
        *("Data sets", "Every seed", "Runs"),
    ]
    figures = page.find_elements(By.CSS_SELECTOR, "figure > svg")
    assert len(figures) == 14
    assert all(figure.size["width"] > 250 and figure.size["height"] > 150 for figure in figures)
    assert page.execute_script("return document.images[0].naturalWidth") == 40
    sent = [
        entry["message"] for entry in page.get_log("performance") if "Network.requestWillBeSent" in entry["message"]
    ]
    assert sent
    assert all(f'"url":"{address}' in message or '"url":"data:' in message for message in sent)


def test_the_policy_of_the_page_forbids_what_it_does_not_need(page):
    blocked = page.execute_async_script(
        "const done = arguments[0]; addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective));"
        "const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; setTimeout(() => done(null), 3000);"
    )
    assert blocked == "img-src"
    assert any("Content Security Policy" in entry["message"] for entry in page.get_log("browser"))


def test_a_click_sorts_and_another_turns_round(page):
    table = page.find_elements(By.CSS_SELECTOR, "#scores table")[1]
    head, scores = column(page, table, "Score")
    assert scores == ["60.5", "30.5", "95.5", "60.5", "30.5"]
    assert head.get_attribute("aria-sort") is None
    head.find_element(By.TAG_NAME, "button").click()
    head, scores = column(page, table, "Score")
    assert (head.get_attribute("aria-sort"), scores) == ("descending", ["95.5", "60.5", "60.5", "30.5", "30.5"])
    head.find_element(By.TAG_NAME, "button").click()
    head, scores = column(page, table, "Score")
    assert (head.get_attribute("aria-sort"), scores) == ("ascending", ["30.5", "30.5", "60.5", "60.5", "95.5"])
    name, _ = column(page, table, "Method")
    name.find_element(By.TAG_NAME, "button").click()
    assert column(page, table, "Method")[1] == ["bc", "bc", "damo", "damo", "mopo"]
    assert head.get_attribute("aria-sort") is None


def test_the_keyboard_sorts_as_well_and_missing_values_stay_last(page):
    table = page.find_elements(By.CSS_SELECTOR, "#scores table")[0]
    button = column(page, table, "mopo")[0].find_element(By.TAG_NAME, "button")
    page.execute_script("arguments[0].focus()", button)
    for key, order in ((Keys.ENTER, "descending"), (Keys.SPACE, "ascending")):
        page.switch_to.active_element.send_keys(key)
        head, cells = column(page, table, "mopo")
        assert (head.get_attribute("aria-sort"), cells) == (order, ["95.5", "not run"])
    assert page.switch_to.active_element == button
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_stands_out_from_its_background(page, scheme):
    set_media(page, scheme)
    found = page.execute_script(CONTRAST)
    assert found["texts"] > 300
    assert found["lines"] > 50
    assert found["faint"] == []
    assert (found["page"] < 0.2) == (scheme == "dark")


def test_the_reader_may_choose_the_colours(page):
    background = lambda: page.execute_script("return getComputedStyle(document.body).backgroundColor")
    button, seen = page.find_element(By.ID, "theme"), [background()]
    set_media(page, "dark")
    for label in ("light", "dark", "auto"):
        button.click()
        assert button.text == f"Theme: {label}"
        seen.append(background())
    light, chosen_light, chosen_dark, auto = seen
    assert light == chosen_light != chosen_dark == auto


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_page_is_wider_than_its_screen(page, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    inner, scrolled = page.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
    assert inner == scrolled == width
    boxes = page.find_elements(By.CSS_SELECTOR, ".scroll")
    assert all(box.get_attribute("tabindex") == "0" and box.accessible_name for box in boxes)
    if width == 360:
        assert page.execute_script("return arguments[0].scrollWidth > arguments[0].clientWidth", boxes[1])
        size = page.execute_script("return document.querySelector('figure text').getBoundingClientRect().height")
        assert size >= 9


def test_figures_and_buttons_have_names(page):
    figures = page.find_elements(By.CSS_SELECTOR, "figure > svg")
    assert {figure.aria_role for figure in figures} <= {"image", "img"}
    assert figures[1].accessible_name == "Normalised score"
    words = page.execute_script("return arguments[0].querySelector('desc').textContent", figures[1])
    assert words.startswith("damo ends at 65, band 60 to 70 after 12,000 updates; bc ends at 35")
    assert all(item.accessible_name for item in [*figures, *page.find_elements(By.CSS_SELECTOR, "img, nav, #theme")])
    assert page.execute_script("return [...document.querySelectorAll('th button')].every((b) => b.textContent.trim())")

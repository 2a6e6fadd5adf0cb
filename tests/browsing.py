"""A real browser without a screen, for the tests that look at pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@contextmanager
def open_browser(profile: Path) -> Iterator[Any]:
    """A fresh headless Chromium that keeps its console and its network log; its profile goes to the empty folder given.

    Without one the test is skipped, or fails if DAMORL_REQUIRE_BROWSER is set (Debian: apt install chromium
    chromium-driver).
    """
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    driver, binary = shutil.which("chromedriver"), next(filter(None, map(shutil.which, BROWSERS)), None)
    if driver is None or binary is None:
        missing = "no chromedriver or no Chromium found (Debian: apt install chromium chromium-driver)"
        pytest.fail(missing) if os.environ.get("DAMORL_REQUIRE_BROWSER") else pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()

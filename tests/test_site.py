"""The documentation site: links of its sources, the pages made from code, and the built pages in a real browser.

What looks at built pages is skipped where build/site is missing, unless DAMORL_REQUIRE_BROWSER is set (`make docs`).
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.browsing import open_browser

ROOT = Path(__file__).resolve().parents[1]
SITE, BUILT = ROOT / "docs/site", ROOT / "build/site"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/algorithms/*.md"), *ROOT.glob("docs/tutorials/*.md")]
)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
LOOKED_AT = (
    "index",
    "tutorials/own-log",
    "leaderboard",
    "theory",
    "generated/settings/damo",
    "generated/commands",
    "generated/api/algos",
)


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The fragments that the hosting site and MyST give a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_the_sources_leads_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_every_page_has_its_place_in_the_site() -> None:
    docs = ROOT / "docs"
    trees = "".join((docs / name).read_text(encoding="utf-8") for name in ("index.md", "reference.md"))
    entries = re.findall(r"```\{toctree\}\n(?::[^\n]*\n)+\n(.*?)```", trees, re.DOTALL)
    listed = set("".join(entries).split())
    own = {page.relative_to(docs).with_suffix("").as_posix() for page in PAGES if page.is_relative_to(docs)}
    assert {name for name in own - listed if not name.startswith("algorithms/")} == {"index"}
    assert {name for name in listed - own if not name.startswith("generated/")} == set()


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package that makes pages from code; the test is skipped without Sphinx."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(SITE))
    return importlib.import_module("pages")


def test_docstrings_become_what_docutils_reads(pages: Any) -> None:
    lines = [
        "Least of f* at `x_0`, with rho_ and |a|; `[*B, obs_dim]`s.",
        "",
        "    y = f*(x)",
        "",
        "      z",
        "",
        "- one `a b`",
        "  more",
        "- two",
    ]
    assert pages.docstrings.to_rst(lines) == [
        *(r"Least of f\* at :py:obj:`x_0`, with rho\_ and \|a\|; ``[*B, obs_dim]``\ s.", ""),
        *(".. code-block:: none", "", "   y = f*(x)", "", "     z", ""),
        *("- one ``a b``", "  more", "", "- two", ""),
    ]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("max_pi E_{rho_M^pi}[f*(Phi / w)]", "max<π> E<ρ<M>^π^>[f^*^(Φ / w)]"),  # noqa: RUF001
        ("Q'_j(s', a~') -> (y - mu0)^2 <= max_std", "Q′<j>(s′, ã′) → (y - μ<0>)^2^ ≤ max_std"),  # noqa: RUF001
        ("the model's r^(s, a), x >= own_weight * pi_b", "the model's r̂(s, a), x ≥ own_weight * π<b>"),
    ],
)
def test_equations_are_set(pages: Any, typed: str, shown: str) -> None:
    marks = {"subscript": "<{}>", "superscript": "^{}^"}

    def text(nodes: Any) -> str:
        return "".join(marks[node.tagname].format(text(node)) if node.children else node.astext() for node in nodes)

    assert unicodedata.normalize("NFC", text(pages.equations.typeset(typed))) == unicodedata.normalize("NFC", shown)


@pytest.mark.parametrize("other", ["damorl train damo --gamma 0.9", "a = 1\n" * 9 + "gamma", '{"gamma": 1}', "columns"])
def test_what_is_no_equation_is_left(pages: Any, other: str) -> None:
    assert not pages.equations.is_equation(other)


def test_settings_have_the_values_that_training_reads(pages: Any) -> None:
    from damorl.experiment.config import defaults

    found = pages.settings.overrides_of("damo")["divergence_weight"]
    for (preset, value, _), datasets in found.items():
        for dataset in datasets or ["another"]:
            assert defaults("damo", preset, dataset)[1].divergence_weight == value
    assert [names for (preset, value, _), names in found.items() if (preset, value) == ("paper", 0.5)] == [
        ["halfcheetah-medium"]
    ]
    symbols = pages.settings.symbols((ROOT / "docs/algorithms/damo.md").read_text(encoding="utf-8"))
    assert (symbols["divergence_weight"], symbols["data_alignment"]) == ("alpha", "er, ir")


def test_every_setting_is_on_the_page_of_its_algorithm(pages: Any) -> None:
    from damorl.algos import ALGORITHMS
    from damorl.experiment.config import LoopConfig, dotted

    made = dict(pages.settings.pages(ROOT / "docs"))
    for name, algorithm in ALGORITHMS.items():
        shown = re.findall(r"^\.\. confval:: (\S+)$", made[f"settings/{name}.rst"], re.MULTILINE)
        fields = [
            key for config in (algorithm.config_type(), LoopConfig()) for key, _ in dotted(dataclasses.asdict(config))
        ]
        assert sorted(shown) == sorted(fields)


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SITE))
    check = importlib.import_module("check_links")
    (tmp_path / "index.html").write_text(
        '<p id="here"><a href="#here"></a>\n<a href="other.html#gone"></a><img src="no.png">'
    )
    (tmp_path / "other.html").write_text('<a href="https://example.org/x"></a><a href="index.html#here"></a>')
    assert list(check.broken(tmp_path)) == [
        "index.html:2: other.html#gone: no such place in that page",
        "index.html:2: no.png: no such file",
    ]


@pytest.fixture(scope="module")
def built() -> Path:
    """The site, as `make docs` has built it."""
    if not (BUILT / "index.html").exists():
        pytest.fail("no built site: run make docs") if os.environ.get("DAMORL_REQUIRE_BROWSER") else pytest.skip(
            "run make docs"
        )
    return BUILT


@pytest.fixture(scope="module")
def browser(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_a_page_fits_its_screen_and_complains_of_nothing(browser: Any, built: Path, name: str, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((built / f"{name}.html").as_uri())
    assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert (
        browser.execute_script(
            "return [...document.images].filter((i) => !i.alt || !i.complete || !i.naturalWidth).map((i) => i.src)"
        )
        == []
    )
    assert browser.get_log("browser") == []


COLUMN = "return [...document.querySelector('article table').tBodies[0].rows].map((row) => row.cells[%d].textContent)"


def test_a_table_of_results_is_sorted_by_a_click_and_by_a_key(browser: Any, built: Path) -> None:
    """By the first number of a cell, the largest first; what is missing stays last."""
    browser.get((built / "leaderboard.html").as_uri())
    cells = lambda column: browser.execute_script(COLUMN % column)
    numbers = lambda column: [float(text.split()[0]) for text in cells(column) if text.strip() not in ("", "missing")]
    heading = "document.querySelector('article table th:nth-child(2)')"
    assert browser.execute_script(f"return {heading}.tabIndex") == 0
    browser.execute_script(f"{heading}.click()")
    assert numbers(1) == sorted(numbers(1), reverse=True)
    browser.execute_script(f"{heading}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}}))")
    assert browser.execute_script(f"return {heading}.getAttribute('aria-sort')") == "ascending"
    assert numbers(1) == sorted(numbers(1))
    rows = cells(1)
    assert "missing" not in rows or set(rows[rows.index("missing") :]) == {"missing"}
    browser.execute_script("document.querySelector('article table th').click()")
    assert cells(0) == sorted(cells(0), key=str.lower)


def test_dark_and_light_differ(browser: Any, built: Path) -> None:
    seen = []
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        browser.get((built / "index.html").as_uri())
        seen.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert seen[0] != seen[1]

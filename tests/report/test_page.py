"""The report as files: what they hold, that they are whole, safe and the same every time."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from damorl.cli.report import report_verb
from damorl.errors import UserError
from damorl.report.compare import compare
from damorl.report.curves import Curve
from damorl.report.figures import SERIES, VARIABLES, for_page, inline_svg
from damorl.report.page import write_report
from damorl.report.series import result_band, thinned
from damorl.report.stores import read_runs
from damorl.report.tables import grid_table, score_table
from damorl.report.text import latex, latex_text, markdown_table

VOID = {"meta", "link", "img", "br", "path", "use", "rect", "circle", "wbr"}


class Outline(HTMLParser):
    """Open tags must be closed in order; ids and addresses are kept."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.keep(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.keep(attrs)

    def keep(self, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("href", "src", "xlink:href", "srcset")]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(two_by_two, tmp_path_factory):
    """The folder of one report, and what was returned for it."""
    folder = tmp_path_factory.mktemp("report") / "new"
    return folder, write_report(two_by_two, folder / "r.html", "My runs", seed=7)


@pytest.fixture(scope="module")
def page(report):
    return (report[0] / "r.html").read_text(encoding="utf-8")


def test_the_report_is_one_page_with_its_tables_beside_it(report, page):
    assert sorted(os.listdir(report[0])) == ["r.html", "r.json", "r.md", "r.tex"]
    outline = Outline(page)
    assert page.startswith("<!doctype html>")
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert all(address.startswith(("#", "data:")) for address in outline.addresses)
    fragments = {address[1:] for address in outline.addresses if address.startswith("#")}
    assert fragments <= set(outline.ids)
    assert not re.search(r"https?://|@import|@font-face", page)
    assert "<h1>My runs</h1>" in page
    assert page.count("<svg viewBox") == 2 * 6 + 2  # six panels per data set, the profile, and one card's returns


def test_another_process_makes_the_same_bytes_without_jax(make_run, tmp_path):
    run_dir = make_run("a", levels={0: 1.0, 1: 2.0})
    write_report([run_dir], tmp_path / "a.html", "T")
    script = (
        "import sys, pathlib; from damorl.report.page import write_report; "
        "write_report([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]), 'T'); "
        "assert not {'jax', 'gymnasium', 'matplotlib.pyplot'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script, str(run_dir), str(tmp_path / "b.html")], check=True)
    for suffix in (".html", ".md", ".tex", ".json"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_the_numbers_are_all_in_the_json(report):
    folder, content = report
    assert json.loads((folder / "r.json").read_text(encoding="utf-8")) == content
    assert content["bootstrap"] == {"seed": 7, "confidence": 0.95, "reps": 50_000, "pair_reps": 2_000}
    entry = content["scores"][0]
    assert (entry["method"], entry["data_set"], entry["state"]) == ("damo", "hopper-medium", "finished")
    assert entry["last_10_mean"] == {"value": 60.5, "interval": [55.5, 65.5]}
    assert entry["std"] == 5.0
    assert [seed["last_10_mean"] for seed in entry["seeds"]] == [55.5, 60.5, 65.5]
    assert content["aggregate"]["methods"]["bc"]["scores"] == [[25.5, 25.5], [30.5, 30.5], [35.5, 35.5]]
    assert content["aggregate"]["methods"]["bc"]["optimality_gap"]["value"] == 69.5
    assert content["aggregate"]["probability_of_improvement"][0]["value"] == 1.0
    score_curve = next(curve for curve in content["curves"] if curve["metric"] == "eval/score")
    assert score_curve["mean"][-1] == 65.0
    assert content["runs"][0]["provenance"]["command"][-1] == "my data.hdf5"


def test_the_page_shows_where_every_number_comes_from(page, two_by_two):
    assert "damorl train damo --dataset &#39;my data.hdf5&#39;" in page
    assert "0123456789abcdef0123456789abcdef01234567" in page
    assert "damorl 0.1.0, jax 0.10.2" in page
    assert "13" * 32 in page
    assert "250.0 ± 30.0 (10.0 to 900.0)" in page
    picture = base64.b64encode((two_by_two[0] / "dataset.png").read_bytes()).decode()
    assert f"data:image/png;base64,{picture}" in page
    assert "12 episodes between 0.0 and 900.0" in page
    assert re.search(r"fitted Q 0\.75,\s+value in the model unknown", page)
    assert 'data-number="101.3">101.3<small><span>its choice</span> </small></td>' in page
    assert "not</span>" not in page
    assert "<span>not to be quoted</span>" in page


def test_names_cannot_break_out_of_the_page_or_the_tables(make_run, tmp_path):
    bad = '<script>alert(1)</script>|_$x$ "{}\\'
    run_dir = make_run("a", algo=bad, data=bad, levels={0: 1.0, 1: 2.0}, kind=bad)
    other = make_run("b", algo=bad, data=bad, levels={0: 3.0, 1: 4.0}, kind="<b>")
    write_report([run_dir, other], tmp_path / "r.html", title=bad)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert "<b>" not in page
    assert Outline(page).open == []
    table = (tmp_path / "r.md").read_text(encoding="utf-8").split("## Scores in full")[1]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines() if line.startswith("|")}
    assert widths == {5, 8, 11}  # bars of the tables of pairs, of aggregates, and of results and seeds
    assert latex_text(bad).count("\\_") == 1


def test_markdown_and_latex_hold_the_same_scores(two_by_two, make_run):
    extra = make_run("extra", algo="mopo", data="hopper-medium", total=90_000)
    comparison = compare(read_runs([*two_by_two, extra]))
    lines = markdown_table(grid_table(comparison)).splitlines()
    assert lines[0] == "| Data set | damo | bc | mopo |"
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert lines[2] == "| hopper-medium | 60.5 ± 5.0 (3 seeds) | 30.5 ± 5.0 (3 seeds) | 55.5 (1 seed, unfinished) |"
    assert lines[3].endswith("| not run |")
    rows = [line for line in latex(comparison).splitlines() if line.startswith(("hopper", "walker"))]
    assert rows[0] == (r"hopper-medium & $60.5 \pm 5.0$ (3) & $30.5 \pm 5.0$ (3) & $55.5$ (1)\,\textit{unfinished} \\")
    assert rows[1] == r"walker2d-medium & $60.5 \pm 5.0$ (3) & $30.5 \pm 5.0$ (3) & not run \\"
    assert latex(comparison).count("& --") == 1  # mopo has no aggregate


def test_a_lone_seed_is_printed_without_deviation_and_interval(make_run):
    (cells,) = score_table(compare(read_runs([make_run("a")]))).rows
    assert [cell.text for cell in cells[2:6]] == ["55.5", "-", "too few seeds", "1"]


def test_whiskers_lie_within_their_column(two_by_two):
    for row in score_table(compare(read_runs(two_by_two))).rows:
        low, value, high = next(cell.whisker for cell in row if cell.whisker)
        assert 0 <= low < value < high <= 100


def test_a_run_without_anything_but_a_config_has_a_page(make_run, tmp_path):
    run_dir = make_run("a")
    for name in ("metrics.jsonl", "provenance.json"):
        (run_dir / name).unlink()
    write_report([run_dir], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Nothing was recorded yet." in page
    assert "missing" in page


def test_what_cannot_be_written_or_read_is_one_sentence(make_run, tmp_path):
    run_dir = make_run("a")
    with pytest.raises(UserError, match=r"ends in \.html, found '\.json'"):
        write_report([run_dir], tmp_path / "r.json")
    with pytest.raises(UserError, match="at least one run directory"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(UserError, match=r"config\.json"):
        write_report([tmp_path / "nowhere"], tmp_path / "r.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report([run_dir], tmp_path / "file" / "r.html")


def test_the_verb_prints_scores_and_where_the_page_is(make_run, tmp_path, capsys):
    words = [str(make_run("a", levels={0: 50.0, 1: 60.0})), "--out", str(tmp_path / "r.html"), "--title", "T"]
    assert report_verb(words) == 0
    printed = capsys.readouterr().out
    assert "hopper-medium  damo  60.5 [55.5, 65.5] (2 seeds)" in printed
    assert f"report: {tmp_path / 'r.html'}" in printed
    assert report_verb([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"][0]["num_seeds"] == 2


def test_figures_use_the_pages_colours_and_own_ids():
    def draw(axes):
        axes.set_xlabel("$x$")
        axes.axhline(0.5, color=SERIES[3])

    svg = inline_svg("f1", draw, 'A "name"', "<words>")
    assert ">$x$</text>" in svg
    assert "var(--series-3)" in svg
    assert not re.search(r"#[0-9a-f]{6}", svg)
    assert 'aria-label="A &quot;name&quot;"' in svg
    assert '<desc id="f1-words">&lt;words&gt;</desc>' in svg
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert all(name.startswith("f1-") for name in ids)
    used = re.findall(r'(?:href="#|url\(#)([^")]*)', svg)
    assert set(used) <= set(ids)
    assert "<style" not in svg  # it would be the whole page's
    assert "font-family" not in svg
    assert {f"--{name}" for name in VARIABLES.values()} <= set(re.findall(r"--[\w-]+(?=:)", stylesheet()))


def stylesheet():
    return (Path(for_page.__code__.co_filename).parent / "templates" / "page.css").read_text(encoding="utf-8")


def test_long_curves_are_averaged_in_bins_that_end_at_the_last_step():
    data = Curve(np.arange(1, 8), np.array([[1.0, 3.0, np.nan, 5.0, 7.0, 9.0, 11.0]]))
    thin = thinned(data, 2)
    assert thin.steps.tolist() == [2, 4, 6, 7]
    assert thin.values.tolist() == [[2.0, 5.0, 8.0, 11.0]]
    assert thinned(data, 1).steps.tolist() == data.steps.tolist()


def test_the_band_is_the_mean_of_the_seeds_and_its_bootstrap(make_run):
    (result,) = compare(read_runs([make_run("a", levels={0: 0.0, 1: 10.0})])).results
    band = result_band(result, "eval/score")
    assert band is not None
    assert band.mean.tolist() == [4.0 + k for k in range(12)]
    assert band.low.tolist() == [-1.0 + k for k in range(12)]
    assert band.high.tolist() == [9.0 + k for k in range(12)]
    assert result_band(result, "nothing") is None

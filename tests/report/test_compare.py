"""Run directories become methods, results, aggregates and cautions; the numbers are recomputed by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from damorl.errors import UserError
from damorl.record.store import append_metrics, read_json, write_json
from damorl.report.collect import Status, read_run, seed_score
from damorl.report.compare import cautions, compare, replication
from damorl.report.methods import flatten
from damorl.report.statistics import Estimate
from damorl.report.stores import read_runs


def change_config(run_dir: Path, key: str, value: object) -> None:
    config = read_json(run_dir / "config.json")
    *way, last = key.split(".")
    inner = config
    for name in way:
        inner = inner[name]
    inner[last] = value
    write_json(run_dir / "config.json", config)


def labels(found):
    return [method.label for method in compare(read_runs(found)).methods]


def test_a_seed_is_scored_by_the_mean_of_its_last_ten_evaluations(make_run):
    score = seed_score(read_run(make_run("a", levels={3: 50.0})), 3, "eval/score")
    assert (score.status, score.updates, score.evaluations) == (Status.FINISHED, 12_000, 10)
    assert score.last_10_mean == np.mean([50 + k - 2 for k in range(3, 13)]) == 55.5
    assert score.last == score.best == 60.0


def test_a_run_that_was_cut_short_is_unfinished_and_scored_by_what_it_has(make_run):
    run = read_run(make_run("a", total=100_000))
    score = seed_score(run, 0, "eval/score")
    assert (score.status, score.last_10_mean) == (Status.UNFINISHED, 55.5)
    assert seed_score(run, 1, "eval/score").status is Status.MISSING
    result = compare([run]).results[0]
    assert (result.state, result.finished, result.missing) == ("unfinished", False, 0)


def test_a_result_is_of_the_finished_seeds_and_says_what_is_missing(make_run):
    run_dir = make_run("a", levels={0: 50.0, 1: 70.0})
    change_config(run_dir, "seeds", [0, 1, 2])
    comparison = compare([read_run(run_dir)])
    result = comparison.results[0]
    assert comparison.estimates[0] == Estimate(65.5, (55.5, 75.5))
    assert result.std == pytest.approx(np.sqrt(200))
    assert (result.state, result.missing, result.average("last")) == ("1 missing", 1, 70.0)
    assert any("1 of 3 seeds are missing" in sentence for sentence in cautions(comparison))


def test_an_unfinished_seed_does_not_enter_the_mean_of_finished_ones(make_run):
    run_dirs = [make_run("a", levels={0: 50.0}), make_run("b", levels={1: 0.0})]
    metrics = (run_dirs[1] / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dirs[1] / "metrics.jsonl").write_text("".join(metrics[:-1]))
    comparison = compare(read_runs(run_dirs))
    assert comparison.estimates == (Estimate(55.5, None),)
    assert comparison.results[0].state == "1 missing"


def test_runs_of_one_method_are_pooled_and_a_seed_counts_once(make_run, tmp_path):
    run_dirs = [make_run("a", levels={0: 50.0, 1: 60.0}), make_run("b", levels={1: 0.0, 2: 70.0})]
    comparison = compare(read_runs([*run_dirs, run_dirs[0]]))  # the same directory twice is one run
    assert len(comparison.runs) == 2
    (result,) = comparison.results
    assert [score.last_10_mean for score in result.counted] == [55.5, 65.5, 75.5]
    assert [score.status for _, score in result.seeds].count(Status.DUPLICATE) == 1
    assert any("more than once" in sentence for sentence in cautions(comparison))


def test_what_is_repeated_is_told_and_seeds_in_one_model_are_a_caution(make_run):
    run_dirs = [make_run("a", levels={0: 50.0, 1: 60.0, 2: 70.0}), make_run("b", algo="bc", levels={0: 1.0, 1: 2.0})]
    assert "model" not in replication(compare(read_runs(run_dirs)))
    write_json(run_dirs[0] / "models.json", {"sha256": {"0": "aa", "1": "bb", "2": "cc"}})
    comparison = compare(read_runs(run_dirs))
    assert "its own model. The data set is the same for all seeds" in replication(comparison)
    assert not [sentence for sentence in cautions(comparison) if "share" in sentence]
    write_json(run_dirs[0] / "models.json", {"sha256": {"0": "aa", "1": "aa", "2": "cc"}})
    (told,) = [sentence for sentence in cautions(compare(read_runs(run_dirs))) if "share" in sentence]
    assert told.startswith("damo on hopper-medium: 3 seeds share 2 fitted models: the interval leaves out")


def test_one_algorithm_is_one_method_however_its_settings_change_between_data_sets(make_run):
    found = [make_run("a", data="hopper-medium", width=1), make_run("b", data="walker2d-medium", width=2)]
    assert labels(found) == ["damo"]
    assert any("not run with the same settings" in sentence for sentence in cautions(compare(read_runs(found))))


def test_variants_on_one_data_set_are_named_by_the_fewest_settings_that_tell_them_apart(make_run):
    found = [
        make_run("a", width=1, rate=0.1, kind="x"),
        make_run("b", width=2, rate=0.2, kind="x"),
        make_run("c", width=2, rate=0.3, kind="x"),
        make_run("d", data="walker2d-medium", width=7, rate=0.2, kind="y"),
    ]
    assert labels(found) == ["damo (rate=0.1)", "damo (rate=0.2)", "damo (rate=0.3)"]
    results = compare(read_runs(found)).results
    assert [result.method.label for result in results if result.data.name == "walker2d-medium"] == ["damo (rate=0.2)"]


def test_another_budget_is_another_method_and_a_caution(make_run):
    found = [make_run("a"), make_run("b", total=6000)]
    assert labels(found) == ["damo (total_updates=12,000)", "damo (total_updates=6,000)"]
    (sentence, *_) = cautions(compare(read_runs(found)))
    assert sentence.startswith("On hopper-medium the runs differ in their budgets of updates (6,000 and 12,000)")


def test_the_same_caution_about_several_data_sets_is_told_once(make_run):
    found = [
        make_run(f"{name}-{total}", data=name, algo=algo, total=total)
        for name in ("hopper-medium", "walker2d-medium")
        for algo, total in (("damo", 12000), ("mopo", 6000))
    ]
    told = cautions(compare(read_runs(found)))
    (sentence,) = [each for each in told if "differ in" in each]
    assert sentence.startswith("On every data set the runs differ in their budgets of updates (6,000 and 12,000)")
    told = cautions(compare(read_runs([*found, make_run("more", data="hopper-random")])))
    (sentence,) = [each for each in told if "differ in" in each]
    assert sentence.startswith("On hopper-medium, walker2d-medium the runs")


def test_a_data_set_of_the_same_name_with_another_hash_stands_apart(make_run):
    found = [make_run("a"), make_run("b", algo="bc")]
    change_config(found[1], "data.sha256", "ab" * 32)
    comparison = compare(read_runs(found))
    assert [data.label for data in comparison.data] == ["hopper-medium [13131313]", "hopper-medium [abababab]"]
    assert comparison.aggregate is None
    assert "hopper-medium was 2 different files" in cautions(comparison)[0]


def test_other_reference_returns_are_a_caution(make_run):
    found = [make_run("a"), make_run("b", algo="bc")]
    for run_dir, highest in zip(found, (3000.0, 4000.0), strict=True):
        change_config(run_dir, "data.reference_min", 0.0)
        change_config(run_dir, "data.reference_max", highest)
    assert any("different scales" in sentence for sentence in cautions(compare(read_runs(found))))


def test_changed_checkouts_and_mixed_versions_are_cautions(make_run):
    found = [make_run("a"), make_run("b", algo="bc")]
    provenance = read_json(found[1] / "provenance.json")
    provenance["git"] = {"revision": "f" * 40, "dirty": True}
    provenance["versions"]["jax"] = "0.11.0"
    write_json(found[1] / "provenance.json", provenance)
    text = " ".join(cautions(compare(read_runs(found))))
    assert "1 of 2 runs were made from a changed checkout" in text
    assert "2 different revisions" in text
    assert "different versions of jax (0.10.2, 0.11.0)" in text


def test_equal_runs_need_no_caution(make_run):
    found = [make_run("a", levels={0: 1.0, 1: 2.0}), make_run("b", algo="bc", levels={0: 3.0, 1: 4.0})]
    assert cautions(compare(read_runs(found))) == []


def test_the_aggregate_is_over_the_largest_full_block(make_run):
    levels = {0: 10.0, 1: 20.0}
    found = [
        make_run(
            f"{algo}-{data}",
            algo=algo,
            data=data,
            levels={k: level + 40 * (algo == "damo") for k, level in levels.items()},
        )
        for algo, data in [
            *(("damo", "hopper-m"), ("damo", "walker2d-medium"), ("damo", "ant-m")),
            *(("bc", "hopper-m"), ("bc", "walker2d-medium"), ("mopo", "hopper-m")),
        ]
    ]
    comparison = compare(read_runs(found))
    assert comparison.aggregate is not None
    assert [method.label for method in comparison.aggregate.methods] == ["damo", "bc"]
    assert [data.label for data in comparison.aggregate.data] == ["hopper-m", "walker2d-medium"]
    iqms = {method.label: found["iqm"] for method, found in comparison.aggregate.estimates.items()}
    assert iqms["damo"].value == 60.5  # of 55.5 and 65.5, twice
    assert iqms["bc"].value == 20.5
    (pair,) = comparison.aggregate.pairs
    assert (pair.first.label, pair.second.label, pair.probability.value) == ("damo", "bc", 1.0)
    assert comparison.aggregate.profiles[comparison.aggregate.methods[0]].values[-1] == 0.0


def test_seeds_that_a_data_set_lacks_are_missing_in_the_matrix_and_a_caution(make_run):
    found = [make_run("a", levels={0: 1.0, 1: 2.0}), make_run("b", data="walker2d-medium", levels={0: 3.0})]
    comparison = compare(read_runs(found))
    assert comparison.aggregate is not None
    (scores,) = comparison.aggregate.scores.values()
    assert np.isnan(scores).tolist() == [[False, False], [False, True]]
    assert all(found.interval is None for found in next(iter(comparison.aggregate.estimates.values())).values())
    assert any("lack seeds" in sentence for sentence in cautions(comparison))


def test_unfinished_runs_enter_no_aggregate(make_run):
    found = [make_run("a"), make_run("b", algo="bc"), make_run("c", algo="mopo", total=50_000)]
    comparison = compare(read_runs(found))
    assert comparison.aggregate is not None
    assert [method.label for method in comparison.aggregate.methods] == ["damo", "bc"]


def test_without_reference_returns_all_runs_of_a_data_set_are_scored_by_return(make_run):
    found = [make_run("a"), make_run("b", algo="bc")]
    rows = [json.loads(line) for line in (found[1] / "metrics.jsonl").read_text().splitlines()]
    (found[1] / "metrics.jsonl").unlink()
    append_metrics(found[1], [{key: value for key, value in row.items() if key != "eval/score"} for row in rows])
    comparison = compare(read_runs(found))
    assert comparison.data[0].unit == "return"
    assert [estimate.value for estimate in comparison.estimates if estimate] == [30 * 55.5, 30 * 55.5]
    assert comparison.aggregate is None  # returns of different tasks have no common scale


def test_a_run_without_a_simulator_is_not_scored(make_run):
    run_dir = make_run("a")
    (run_dir / "metrics.jsonl").unlink()
    append_metrics(run_dir, [{"step": 12_000, "seed": 0, "critic/q_mean": 1.0}])
    comparison = compare([read_run(run_dir)])
    assert comparison.estimates == (None,)
    assert comparison.results[0].state == "not scored"
    assert comparison.results[0].missing == 0


@pytest.mark.parametrize("name", ["provenance.json", "metrics.jsonl"])
def test_what_is_not_there_yet_is_no_error(make_run, name):
    run_dir = make_run("a")
    (run_dir / name).unlink()
    assert compare([read_run(run_dir)]).results[0].state == ("missing" if name == "metrics.jsonl" else "finished")


def test_what_is_no_run_directory_is_one_sentence(make_run, tmp_path):
    with pytest.raises(UserError, match=r"config\.json.*run directory"):
        read_run(tmp_path)
    run_dir = make_run("a")
    change_config(run_dir, "loop.total_updates", None)
    with pytest.raises(UserError, match=r"key 'loop\.total_updates'"):
        read_run(run_dir)
    shutil.copy(__file__, run_dir / "selection.json")
    with pytest.raises(UserError, match=r"total_updates|selection\.json"):
        read_run(run_dir)


def test_settings_are_flattened_as_one_would_type_them():
    settings = flatten({"a": {"b": [64, 64], "c": 0.0003}, "d": True, "e": None, "f": 300000, "g": "floor"})
    assert settings == {"a.b": "[64, 64]", "a.c": "0.0003", "d": "true", "e": "null", "f": "300,000", "g": "floor"}

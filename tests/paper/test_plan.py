"""Which runs are planned, and what is printed of those that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from damorl.algos import ALGORITHMS
from damorl.cli import main
from damorl.errors import UserError
from damorl.paper import plan
from damorl.paper.experiments import EXPERIMENTS, different, list_experiments, make_experiment, train_command
from damorl.paper.plan import FULL, HOPPER, Request
from damorl.paper.scores import paper_name, table_rows, text_table
from damorl.record.store import append_metrics, read_json, write_json
from damorl.theory.printed import printed_table


def names(runs: list[plan.Planned]) -> set[str]:
    return {run.config.name() for run in runs}


def test_the_full_run_is_one_run():
    request = Request("quick")
    planned = {name: names(experiment.plan(request)) for name, experiment in EXPERIMENTS.items()}
    (full,) = (run.config.name() for run in plan.ablations(request) if run.label == FULL)
    for name in ("table1", "fig3", "fig4", "fig5", "table2", "fig1"):
        assert full in planned[name]
    assert planned["fig3"] == planned["fig4"]
    together = planned["table1"] | planned["fig3"] | planned["fig5"]
    assert len(together) == 9  # four more weights, two ablations, the inconsistent and the free actor, and DAMO itself
    assert planned["fig2"] == set()


def test_variants_change_what_they_say_and_nothing_else():
    (consistent, inconsistent) = (run.config.algo_config for run in plan.table1(Request("quick")))
    assert (consistent.actor_objective, inconsistent.actor_objective) == ("consistent", "sac")
    settings = {run.label: run.config.algo_config for run in plan.ablations(Request("quick"))}
    assert not settings["w/o er"].data_alignment
    assert settings["w/o er"].behaviour_alignment
    assert not settings["w/o ir"].behaviour_alignment
    weights = [run.config.algo_config.divergence_weight for run in plan.fig5(Request("quick"))]
    assert weights == [0.5, 1.0, 3.0, 5.0, 8.0, 3.0, 3.0]
    assert plan.fig5(Request("quick"))[-1].config.algo_config.actor_divergence_weight is None


def test_scales_seeds_and_updates():
    full = plan.table1(Request("full"))
    assert [run.config.dataset.split("-")[0] for run in full] == ["halfcheetah"] * 2 + ["hopper"] * 2 + ["walker2d"] * 2
    assert full[0].config.preset == "paper"
    assert full[0].config.seeds == (0, 1, 2, 3)
    assert plan.fig5(Request("full"))[-1].config.dataset == "halfcheetah-medium-expert"
    (run,) = plan.fig1(Request("quick", seeds=(7,), algos=("damo",), updates=300_000))
    assert run.config.seeds == (7,)
    assert (run.config.loop.total_updates, run.config.algo_config.actor_lr_decay) == (300_000, 300_000)
    bc = plan.table2(Request("quick", algos=("bc",), updates=300_000))[0]
    assert bc.config.loop.total_updates == 300_000


def test_the_command_of_a_run_says_what_differs_from_its_preset():
    planned = {run.label: run.config for run in plan.fig5(Request("quick", seeds=(3, 4), updates=200_000))}
    start = "damorl train damo --dataset hopper-medium-expert --preset quick --seeds 3 4 --total-updates 200000"
    clock = "--refresh-interval 1000 --eval-interval 1000 --keep last --rollout-occupancy 0.0"
    printed = "--kl-target None --trust fixed --divergence-weight 3.0 --data-alignment True --log-ratio-floor 0.0"
    both = f"{start} {clock} {printed} --behaviour-alignment True --actor-objective consistent"
    assert train_command(planned[FULL]) == f"{both} --log-ratio joint --actor-lr-decay 200000"
    free = "--actor-divergence-weight None --log-ratio joint --actor-lr-decay 200000"
    assert train_command(planned["actor weight = critic's"]) == f"{both} {free}"
    (bc,) = plan.table2(Request("quick", algos=("bc",)))
    assert train_command(bc.config) == "damorl train bc --dataset hopper-medium-expert --preset quick --seeds 0 1"


def test_table2_plans_every_registered_algorithm(monkeypatch: pytest.MonkeyPatch):
    assert {run.label for run in plan.table2(Request("quick"))} == set(ALGORITHMS)
    assert len(plan.table2(Request("full"))) == 12 * len(ALGORITHMS)
    with pytest.raises(UserError, match="unknown algorithm 'mope'"):
        plan.table2(Request("quick", algos=("mope",)))


def write_finished(path: Path, config: Any, scores: list[float]) -> None:
    path.mkdir(parents=True)
    data = {"name": config.dataset, "sha256": "ab" * 32, "reference_min": 0.0}
    write_json(path / "config.json", config.as_dict() | {"data": data})
    write_json(path / "result.json", {})
    write_json(path / "provenance.json", {"dataset_sha256": "ab" * 32, "git": None, "device_kind": "cpu"})
    step = config.loop.total_updates
    rows = [{"step": step, "seed": s, "eval/score": x} for s, x in zip(config.seeds, scores, strict=True)]
    append_metrics(path, rows)


def test_table2_marks_what_is_missing(tmp_path: Path):
    request = Request("quick", datasets=(HOPPER,))
    planned = plan.table2(request)
    (damo,) = (run for run in planned if run.label == "damo")
    write_finished(tmp_path / damo.config.name(), damo.config, [10.0, 30.0])
    rows = {row.method: row for row in table_rows(planned, tmp_path)}
    assert rows["DAMO"].scores == {"0": 10.0, "1": 30.0}
    assert rows["DAMO"].as_dict()["mean"] == pytest.approx(20.0)
    assert rows["DAMO"].printed == 112.3
    assert rows["bc"].run is None
    assert rows["bc"].printed is None
    assert set(printed_table(2)["methods"]) < set(rows)
    text = {line[28:48].strip(): line for line in text_table(list(rows.values())).splitlines()}
    assert "20.0 [10.0, 30.0]" in text["DAMO"]
    assert text["DAMO"].endswith("112.3")
    assert "no run" in text["bc"]
    assert all("in this version" in text[m] for m, row in rows.items() if row.algo is None)


def test_table2_is_made_of_what_there_is_and_lists_given_runs(tmp_path: Path):
    (bc,) = plan.table2(Request("quick", algos=("bc",)))
    write_finished(tmp_path / "elsewhere" / "mine", bc.config, [5.0, 7.0])
    given = (tmp_path / "elsewhere" / "mine",)
    content = make_experiment("table2", Request("quick"), tmp_path / "out", train=False, quiet=True, given=given)
    stored = read_json(content["json"])
    assert stored["measured"]["rows"][-1]["method"] == "bc (given)"
    assert stored["measured"]["rows"][-1]["mean"] == pytest.approx(6.0)
    assert not any(run["finished"] for run in stored["runs"])
    assert stored["printed_in_the_paper"]["rows"][HOPPER][-1] == 112.3
    assert content["picture"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("algo", "expected"),
    [
        ("mopo", "MOPO"),
        ("algaedice", "Algae-DICE"),
        ("trajectory-transformer", "TT"),
        ("odice", "O-DICE"),
        ("bc", "bc"),
    ],
)
def test_paper_names(algo: str, expected: str):
    assert paper_name(algo) == expected


def test_the_list_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (damo,) = plan.fig1(Request("smoke", algos=("damo",)))
    write_finished(tmp_path / damo.config.name(), damo.config, [1.0])
    rows = {row["name"]: row for row in list_experiments(Request("smoke"), tmp_path)}
    assert (rows["fig3"]["runs"], rows["fig3"]["finished"]) == (3, 1)
    assert len(different(plan.fig5(Request("smoke")))) == rows["fig5"]["runs"] == 6
    assert main(["paper", "--scale", "smoke", "--out", str(tmp_path)]) == 0
    assert "table2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["fig9"], "unknown experiment 'fig9'"),
        (["fig3", "--scale", "slow"], "unknown scale 'slow'"),
        (["fig3", "--no-train"], "needs finished runs"),
        (["fig4", "--datasets", "hopper-medium", "walker2d-medium"], "shows one data set"),
    ],
)
def test_mistakes_are_one_sentence(argv: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["paper", *argv, "--out", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_fig2_twice_gives_the_same_bytes(tmp_path: Path):
    pictures, numbers = [], []
    for out in (tmp_path / "a", tmp_path / "b"):
        content = make_experiment("fig2", Request("smoke", seeds=(0,)), out, quiet=True)
        pictures.append(content["picture"].read_bytes())
        numbers.append(content["json"].read_bytes())
    assert pictures[0] == pictures[1]
    assert numbers[0] == numbers[1]

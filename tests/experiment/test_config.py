"""Presets are executed from one table, and the paper's are the paper's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from damorl.algos import ALGORITHMS
from damorl.errors import UserError
from damorl.experiment.config import (
    PRESETS,
    LoopConfig,
    RunConfig,
    defaults,
    load_overrides,
    read_table,
    replace,
    run_config_from_dict,
    table_parts,
)

# Typed from Table 4 of arXiv 2502.00850, apart from the overrides file: divergence weight, rollout length, actor rate.
PAPER_TABLE_4 = {
    "halfcheetah-random": (0.1, 5, 1e-4),
    "hopper-random": (2.0, 5, 1e-5),
    "walker2d-random": (2.0, 5, 1e-4),
    "halfcheetah-medium": (0.5, 5, 1e-4),
    "hopper-medium": (2.0, 5, 1e-5),
    "walker2d-medium": (2.0, 1, 5e-5),
    "halfcheetah-medium-replay": (0.1, 5, 1e-4),
    "hopper-medium-replay": (3.0, 5, 1e-4),
    "walker2d-medium-replay": (1.5, 5, 1e-4),
    "halfcheetah-medium-expert": (2.5, 5, 1e-4),
    "hopper-medium-expert": (3.0, 5, 1e-5),
    "walker2d-medium-expert": (1.5, 3, 1e-4),
}


@pytest.mark.parametrize("dataset", PAPER_TABLE_4)
@pytest.mark.parametrize("spelling", ["{}", "/data/{}-v2.hdf5"])
def test_paper_preset_is_tables_3_and_4(dataset: str, spelling: str) -> None:
    name = spelling.format(dataset.replace("-", "_") if "/" in spelling else dataset)
    loop, config = defaults("damo", "paper", name)
    assert (config.divergence_weight, config.rollout_length, config.actor_lr) == PAPER_TABLE_4[dataset]
    assert loop.total_updates == 3_000_000
    assert (config.dynamics.num_members, config.dynamics.num_elites, config.dynamics.holdout) == (7, 5, 1000)
    assert config.dynamics.hidden == (200, 200, 200, 200)
    assert (config.gamma, config.critic_lr, config.batch_size, config.real_ratio) == (0.99, 3e-4, 256, 0.05)
    assert (config.hidden, config.rollout_starts, config.actor_divergence_weight) == ((256, 256), 50_000, 1.0)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("algo", sorted(ALGORITHMS))
def test_every_preset_resolves(algo: str, preset: str) -> None:
    loop, config = defaults(algo, preset, "hopper-medium-expert")
    RunConfig(algo, "hopper-medium-expert", None, preset, (0,), loop, config)


@pytest.mark.parametrize("preset", ["quick", "standard"])
@pytest.mark.parametrize("algo", sorted(name for name in ALGORITHMS if ALGORITHMS[name].planner is None))
def test_ten_evaluations_are_about_half_a_run_and_its_cosine_ends_with_it(algo: str, preset: str) -> None:
    loop, config = defaults(algo, preset, "hopper-medium")
    if algo != "bc":  # it has learnt by the first
        assert 16 <= loop.total_updates / loop.eval_interval <= 21
    assert loop.total_updates % loop.eval_interval == 0
    assert getattr(config, "actor_lr_decay", None) in (None, loop.total_updates)


def test_standard_begins_as_quick_and_its_own_values_win() -> None:
    (_, quick), (loop, standard) = (defaults("mopo", preset, "hopper-medium") for preset in ("quick", "standard"))
    assert standard.reference_share == quick.reference_share == 0.1
    assert (loop.total_updates, standard.actor_lr_decay) == (40_000, 40_000)


def test_every_value_of_the_table_is_used_and_has_a_source() -> None:
    table = read_table("overrides.toml")
    for preset, algos in table.items():
        for algo, datasets in algos.items():
            for dataset, entries in datasets.items():
                algos_meant = [name for name in sorted(ALGORITHMS) if algo in table_parts(name)]
                for name, entry in entries.items():
                    assert entry["source"], (preset, algo, dataset, name)
                    found = load_overrides(algos_meant[0], preset, dataset if dataset != "any" else "hopper-random")
                    assert name in found


def test_every_tuned_value_is_used_and_has_a_source() -> None:
    for algo, datasets in read_table("tuned.toml").items():
        for dataset, entries in datasets.items():
            assert entries["source"], (algo, dataset)
            for preset in PRESETS:
                found = load_overrides(algo, preset, dataset)
                for name in entries.keys() - {"source"}:
                    assert name in found
                    replace(ALGORITHMS[algo].config_type(), {name: found[name][0]})


def test_replace_reaches_nested_fields_and_refuses_unknown_ones() -> None:
    config = ALGORITHMS["damo"].config_type()
    changed: Any = replace(config, {"dynamics.hidden": [8, 8], "gamma": 0.9})
    assert changed.dynamics.hidden == (8, 8)
    assert changed.gamma == 0.9
    assert config.gamma == 0.99
    with pytest.raises(UserError, match="gama"):
        replace(config, {"gama": 0.9})


@pytest.mark.parametrize(
    ("field", "value"),
    [("batch_size", 0), ("rollout_length", -1), ("critic_lr", -1.0), ("divergence_weight", float("nan"))],
)
def test_impossible_numbers_are_refused_by_name(field: str, value: float) -> None:
    config = dataclasses.replace(ALGORITHMS["damo"].config_type(), **{field: value})
    with pytest.raises(UserError, match=field):
        RunConfig("damo", "x", None, "paper", (0,), LoopConfig(), config)


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,)])
def test_impossible_seeds_are_refused(seeds: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="seeds"):
        RunConfig("bc", "x", None, "paper", seeds, LoopConfig(), ALGORITHMS["bc"].config_type())


def test_intervals_are_whole_numbers_of_refreshes() -> None:
    with pytest.raises(UserError, match="eval_interval"):
        LoopConfig(total_updates=3000, eval_interval=1500)


def test_the_digest_changes_with_every_setting() -> None:
    make = lambda **kw: RunConfig(
        "bc", "x", None, "paper", (0,), LoopConfig(), ALGORITHMS["bc"].config_type(**kw)
    ).digest()
    assert make() == make()
    assert make() != make(batch_size=257)


def test_a_recorded_run_is_read_where_a_setting_that_is_gone_was_off_and_refused_where_it_was_on() -> None:
    loop, settings = defaults("damo", "smoke", "hopper-medium")
    config = RunConfig("damo", "hopper-medium", None, "smoke", (0,), loop, settings)
    stored = config.as_dict()
    stored["algo_config"]["critic_warmup"] = None
    assert run_config_from_dict(stored) == config
    stored["algo_config"]["critic_warmup"] = 1000
    with pytest.raises(UserError, match="unknown setting 'critic_warmup' of damo"):
        run_config_from_dict(stored)

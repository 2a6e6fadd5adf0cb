"""The grid file: what it means, and that every mistake is told before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from damorl.errors import UserError
from damorl.experiment.config import resolve, run_config_from_dict
from damorl.sweeps.grid import MAX_RUNS, count_runs, expand, make_grid, read_grid

GRID: dict[str, Any] = {"algorithms": ["damo", "mopo"], "datasets": ["hopper-medium"], "preset": "smoke"}


def refusal(**changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        expand(make_grid({**GRID, **changes}, "g.toml"), "g.toml")
    return str(caught.value)


def test_a_grid_is_the_product_of_its_lists() -> None:
    grid = make_grid(
        GRID
        | {
            "datasets": ["hopper-medium", "walker2d-medium"],
            "seeds": [3, 1],
            "settings": {"gamma": 0.9, "dynamics": {"max_batches": 7}},
            "cross": {"real_ratio": [0.1, 0.5]},
            "algorithm": {"damo": {"settings": {"gamma": 0.8}, "cross": {"divergence_weight": [1, 2.5, 3.0]}}},
        },
        "g.toml",
    )
    configs = expand(grid)
    assert len(configs) == 2 * (2 * 3) + 2 * 2
    assert count_runs(grid) == 2 * len(configs)  # two seeds each
    damo = [config for config in configs if config.algo == "damo" and config.dataset == "hopper-medium"]
    assert [(c.algo_config.real_ratio, c.algo_config.divergence_weight) for c in damo] == [
        (ratio, weight) for ratio in (0.1, 0.5) for weight in (1.0, 2.5, 3.0)
    ]
    assert {config.algo_config.gamma for config in damo} == {0.8}
    assert {config.algo_config.gamma for config in configs if config.algo == "mopo"} == {0.9}
    assert {config.algo_config.dynamics.max_batches for config in configs} == {7}
    assert {config.seeds for config in configs} == {(3, 1)}


def test_variants_are_settings_that_go_together() -> None:
    own = {"damo": {"variants": [{}, {"log_ratio": "joint", "dynamics": {"max_batches": 7}}]}}
    grid = make_grid(GRID | {"cross": {"gamma": [0.9, 0.99]}, "variants": [{"real_ratio": 0.1}], "algorithm": own}, "g")
    found = [
        (c.algo, c.algo_config.real_ratio, c.algo_config.gamma, getattr(c.algo_config, "log_ratio", None))
        for c in expand(grid)
    ]
    assert found == [
        *[("damo", 0.05, gamma, kind) for kind in ("joint", "joint") for gamma in (0.9, 0.99)],
        *[("mopo", 0.1, gamma, None) for gamma in (0.9, 0.99)],
    ]
    assert [c.algo_config.dynamics.max_batches for c in expand(grid)][:4] == [50, 50, 7, 7]
    assert count_runs(grid) == 6


def test_a_grid_without_lists_is_one_run_of_the_preset() -> None:
    (config,) = expand(make_grid({"algorithms": ["bc"], "datasets": ["hopper-medium"]}, "g.toml"))
    assert config == resolve("bc", "hopper-medium", "quick", (0,), {})


def test_dotted_names_and_tables_mean_the_same(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    lines = ['algorithms = ["mopo"]', 'datasets = ["hopper-medium"]']
    path.write_text("\n".join([*lines, "[settings]", '"dynamics.max_batches" = 7']))
    dotted = expand(read_grid(path)[0])
    path.write_text("\n".join([*lines, "[settings.dynamics]", "max_batches = 7"]))
    assert expand(read_grid(path)[0]) == dotted


def test_a_whole_number_is_the_same_setting_as_the_float() -> None:
    whole, fraction = ({"settings": {"gamma": value}} for value in (1, 1.0))
    assert expand(make_grid(GRID | whole, "g")) == expand(make_grid(GRID | fraction, "g"))


def test_none_is_written_as_a_word() -> None:
    crossed = {"algorithms": ["damo"], "cross": {"log_ratio_floor": ["none", 0]}}
    configs = expand(make_grid(GRID | crossed, "g.toml"))
    assert [config.algo_config.log_ratio_floor for config in configs] == [None, 0.0]


def test_own_data_come_with_what_reads_them() -> None:
    entry = {"name": "log.csv", "task": "pendulum", "columns": {"rewards": "r"}, "action_bounds": [-2, 2]}
    (config,) = expand(make_grid({"algorithms": ["bc"], "datasets": [entry]}, "g.toml"))
    assert (config.dataset, config.task) == ("log.csv", "pendulum")
    assert (config.columns, config.action_bounds) == ({"rewards": "r"}, (-2.0, 2.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algoritms": []}, "g.toml: unknown key 'algoritms': did you mean 'algorithms'?"),
        ({"algorithms": []}, "g.toml: algorithms: expected a list with at least one entry, found []"),
        ({"algorithms": "damo"}, "found 'damo'"),
        ({"algorithms": ["damo", "damoo"]}, "unknown algorithm 'damoo'"),
        ({"algorithms": ["damo", "damo"]}, "algorithms: expected each entry once"),
        ({"datasets": []}, "datasets: expected a list with at least one entry"),
        ({"datasets": [{"task": "hopper"}]}, "expected a name or path as 'name'"),
        ({"datasets": [{"name": "x.csv", "taks": "hopper"}]}, "datasets: unknown key 'taks': did you mean 'task'?"),
        ({"datasets": [{"name": "x.csv", "action_bounds": [1]}]}, "action_bounds: expected two numbers"),
        ({"preset": "quik"}, "preset: expected one of"),
        ({"seeds": []}, "seeds: expected a list"),
        ({"seeds": [0, 0]}, "seeds: expected each entry once, found 0 twice"),
        ({"seeds": [-1]}, "seeds: expected whole numbers of at least 0, found -1"),
        ({"seeds": [True]}, "seeds: expected whole numbers"),
        ({"settings": 3}, "settings: expected a table, found 3"),
        ({"settings": {"gama": 0.9}}, "damo on hopper-medium: unknown setting 'gama' of damo: did you mean 'gamma'?"),
        ({"settings": {"divergence_weight": 1.0}}, "mopo on hopper-medium: unknown setting 'divergence_weight'"),
        ({"settings": {"gamma": "high"}}, "gamma must be float, found 'high'"),
        ({"settings": {"gamma": True}}, "gamma must be float, found True"),
        ({"settings": {"gamma": -1.0}}, "gamma must be a finite number of at least 0"),
        ({"settings": {"gamma.x": 1.0}}, "unknown setting 'gamma.x'"),
        ({"settings": {"dynamics": {"max_batches": 2.5}}}, "max_batches must be int | None, found 2.5"),
        ({"cross": {"gamma": []}}, "cross.gamma: expected a list with at least one value, found []"),
        ({"cross": {"gamma": 0.9}}, "write gamma = [...], or move it to settings"),
        ({"cross": {"gamma": [0.9, 0.9]}}, "cross.gamma: expected each entry once"),
        ({"cross": {"gamma": [1, 1.0]}}, "two runs are one: damo on hopper-medium with gamma=1.0"),
        ({"variants": []}, "g.toml: variants: expected a list with at least one entry"),
        ({"variants": [{}, {}]}, "variants: expected each entry once"),
        ({"variants": [3]}, "variants: expected a table, found 3"),
        ({"algorithm": {"damo": {"variants": {}}}}, "g.toml: algorithm.damo: variants: expected a list"),
        ({"algorithm": {"bc": {}}}, "algorithm.bc: expected one of the grid's algorithms (damo, mopo), found 'bc'"),
        ({"algorithm": {"damo": {"seting": {}}}}, "algorithm.damo: unknown key 'seting': did you mean 'settings'?"),
        ({"algorithm": {"damo": {"cross": {"tau": []}}}}, "algorithm.damo.cross.tau: expected a list"),
    ],
)
def test_every_mistake_is_named(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(**changes)


def test_ten_million_runs_are_refused_without_making_them() -> None:
    values = [0.9 + i * 1e-6 for i in range(2200)]
    said = refusal(cross={"gamma": values, "tau": values})
    assert f"expected at most {MAX_RUNS:,} runs, found {2 * 2200**2:,}" in said


def test_what_is_no_toml_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    path.write_text("algorithms = [")
    with pytest.raises(UserError, match="expected a grid in TOML"):
        read_grid(path)
    with pytest.raises(UserError, match="No such file"):
        read_grid(tmp_path / "none.toml")


def test_a_stored_run_config_is_the_same_run() -> None:
    import json

    for config in expand(make_grid(GRID | {"settings": {"hidden": [8, 8]}}, "g.toml")):
        stored = json.loads(json.dumps(config.as_dict())) | {"data": {"name": "x"}}
        assert run_config_from_dict(stored) == config

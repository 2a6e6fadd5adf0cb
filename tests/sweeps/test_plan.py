"""The store: which runs of a grid are done, known, begun, or left."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from damorl.errors import UserError
from damorl.experiment.config import RunConfig, resolve
from damorl.record import store
from damorl.sweeps.plan import (
    Job,
    cells,
    fits_first,
    known_cells,
    make_plan,
    merge,
    setting_key,
    store_grid,
    stored_grids,
)

BASE = resolve("bc", "hopper-medium", "smoke", (0, 1, 2), {})


def make_run(out: Path, config: RunConfig, finished: bool) -> Path:
    run_dir = out / config.name()
    run_dir.mkdir(parents=True)
    store.write_json(run_dir / store.CONFIG, config.as_dict() | {"data": {"name": "hopper-medium"}})
    if finished:
        store.write_json(run_dir / store.RESULT, {})
    return run_dir


def seeds(*numbers: int) -> RunConfig:
    return dataclasses.replace(BASE, seeds=numbers)


def left(out: Path, size: int | None = 1, **more: object) -> list[tuple[int, ...]]:
    return [job.config.seeds for job in make_plan([BASE], out, seeds_per_process=size, **more).jobs]  # type: ignore[arg-type]


def test_a_fresh_sweep_has_everything_left(tmp_path: Path) -> None:
    assert left(tmp_path) == [(0,), (1,), (2,)]
    assert left(tmp_path, None) == [(0, 1, 2)]
    assert left(tmp_path, 2) == [(0, 1), (2,)]


def test_what_is_finished_is_skipped_whatever_seeds_it_holds(tmp_path: Path) -> None:
    make_run(tmp_path, seeds(0, 2), finished=True)
    plan = make_plan([BASE], tmp_path)
    assert [job.config.seeds for job in plan.jobs] == [(1,)]
    assert plan.done == {(setting_key(BASE), 0), (setting_key(BASE), 2)}
    assert (plan.total, plan.left) == (3, 1)


def test_what_was_begun_goes_on_as_it_is(tmp_path: Path) -> None:
    make_run(tmp_path, seeds(1, 2), finished=False)
    assert left(tmp_path) == [(1, 2), (0,)]


def test_runs_of_other_settings_and_foreign_folders_do_not_count(tmp_path: Path) -> None:
    make_run(tmp_path, dataclasses.replace(BASE, algo_config=dataclasses.replace(BASE.algo_config, hidden=(9,))), True)
    (tmp_path / "notes").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / store.CONFIG).write_text("{")
    renamed = make_run(tmp_path, seeds(0), finished=True)
    renamed.rename(tmp_path / "renamed")
    assert left(tmp_path) == [(0,), (1,), (2,)]


def test_a_key_is_of_the_settings_and_not_of_the_seeds() -> None:
    other = resolve("bc", "hopper-medium", "smoke", (0,), {"total_updates": 400})
    assert setting_key(seeds(5)) == setting_key(BASE) != setting_key(other)


def record(directory: Path, config: RunConfig, sha: str) -> None:
    stored = {"format": "damorl-run-1", "config": config.as_dict(), "data": {"name": "hopper-medium", "sha256": sha}}
    store.write_json(directory / f"{config.name()}.json", stored)


def test_a_record_counts_as_done_if_its_data_are_the_same(tmp_path: Path) -> None:
    record(tmp_path, seeds(1), "aa")
    known = known_cells(tmp_path)
    assert left(tmp_path / "out", known=known) == [(0,), (2,)]
    assert left(tmp_path / "out", known=known, data_hashes={"hopper-medium": "aa"}) == [(0,), (2,)]
    assert left(tmp_path / "out", known=known, data_hashes={"hopper-medium": "bb"}) == [(0,), (1,), (2,)]


def test_a_record_of_an_older_version_counts_if_what_it_lacks_is_at_its_default(tmp_path: Path) -> None:
    record(tmp_path, seeds(1), "aa")
    path = tmp_path / f"{seeds(1).name()}.json"
    content = json.loads(path.read_text())
    del content["config"]["loop"]["keep_policy_every"]  # smoke has 1, the default is 10
    path.write_text(json.dumps(content))
    assert cells(seeds(1))[0] not in known_cells(tmp_path)
    content["config"]["loop"]["keep_policy_every"] = BASE.loop.keep_policy_every
    del content["config"]["columns"]
    path.write_text(json.dumps(content))
    assert cells(seeds(1))[0] in known_cells(tmp_path)


def test_the_first_to_need_a_fit_comes_first() -> None:
    config = lambda algo, seed: Job(resolve(algo, "hopper-medium", "quick", (seed,), {}))
    jobs = [config("mopo", 0), config("damo", 0), config("bc", 0), config("mopo", 1)]
    assert jobs[0].fits == jobs[1].fits != jobs[3].fits  # one fit for all algorithms of a seed
    assert jobs[2].fits == frozenset()
    assert fits_first(jobs) == [jobs[0], jobs[3], jobs[1], jobs[2]]


def test_a_changed_grid_adds_and_drops_nothing(tmp_path: Path) -> None:
    first, second = {"algorithms": ["bc"]}, {"algorithms": ["mopo"]}
    assert store_grid(tmp_path, first) == [first]
    assert store_grid(tmp_path, second) == [first, second]
    assert store_grid(tmp_path, first) == stored_grids(tmp_path) == [first, second]
    assert [config.seeds for config in merge([seeds(0, 1), seeds(1, 4)])] == [(0, 1, 4)]


def test_a_damaged_sweep_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(UserError, match="expected the grids of a sweep"):
        stored_grids(tmp_path)


def test_what_was_asked_for_is_written_with_all_seeds(tmp_path: Path) -> None:
    store_grid(tmp_path, {"algorithms": ["bc"]}, [BASE])
    store_grid(tmp_path, {"algorithms": ["bc"]}, [seeds(0, 1, 2, 3)])  # the same grid, another version's settings
    content = store.read_json(tmp_path / "sweep.json")
    assert content["grids"] == [{"algorithms": ["bc"]}]
    assert content["settings"] == json.loads(json.dumps([seeds(0, 1, 2, 3).as_dict()]))

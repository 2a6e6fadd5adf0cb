"""The command that a run is recorded with makes that very run."""

from __future__ import annotations

from typing import Any

import pytest

from damorl import api
from damorl.cli.train import train_verb
from damorl.experiment.command import train_command
from damorl.experiment.config import RunConfig, resolve


class Told(Exception):
    """Carries the config that the command line came to."""


def run_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    def tell(config: RunConfig, *_: Any, **__: Any) -> None:
        raise Told(config)

    monkeypatch.setattr(api, "run", tell)
    with pytest.raises(Told) as caught:
        train_verb(words)
    return caught.value.args[0]


@pytest.mark.parametrize(
    ("algo", "changes"),
    [
        ("bc", {}),
        ("damo", {"divergence_weight": 0.25, "data_alignment": False, "hidden": [8, 9], "log_ratio_floor": None}),
        ("damo", {"dynamics.max_batches": 7, "total_updates": 400, "actor_objective": "sac", "actor_lr_decay": 300}),
        ("mopo", {"penalty": "disagreement", "dynamics.hidden": [5], "actor_lr": 1e-5}),
        ("trajectory-transformer", {"search.horizon": 3}),
    ],
)
def test_the_command_comes_to_the_same_config(
    algo: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve(algo, "hopper-medium", "smoke", (3, 1), changes)
    assert run_of(train_command(config)[2:], monkeypatch) == config


def test_own_data_are_in_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    base = resolve("bc", "log.csv", "smoke", (0,), {}, "pendulum")
    config = RunConfig(
        *(base.algo, base.dataset, base.task, base.preset, base.seeds, base.loop, base.algo_config),
        {"observations": ["angle", "speed"], "rewards": "r"},
        (-2.0, 2.0),
    )
    assert run_of(train_command(config)[2:], monkeypatch) == config


def test_what_is_not_changed_is_not_said() -> None:
    words = train_command(resolve("bc", "hopper-medium", "quick", (0,), {"total_updates": 50_000}))
    assert words == ["damorl", "train", "bc", "--dataset", "hopper-medium", "--preset", "quick", "--seeds", "0"]

"""Films of policies: real renders of random ones, from one start, by the command line and from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import damorl
from damorl.behaviour.host_policy import act
from damorl.behaviour.policies import load_policies
from damorl.cli import main
from damorl.errors import UserError
from damorl.experiment import film as filming
from damorl.experiment.film import SIDE, behaviour_of, film
from damorl.experiment.policy import load_policy
from damorl.record import store
from damorl.world.evaluate import evaluate
from damorl.world.tasks import TASKS, normalised_score

MakeRun = Callable[[Path, str], Path]


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> Path:
    run_dir = make_run(tmp_path_factory.mktemp("runs") / "bc-mine", "hopper")
    config = store.read_json(run_dir / store.CONFIG)
    config["data"] |= {"name": "hopper-medium-replay"}
    store.write_json(run_dir / store.CONFIG, config)
    return run_dir


def test_policies_are_filmed_side_by_side(backend: str, hopper: Path, tmp_path: Path) -> None:
    path = tmp_path / "film.webp"
    made = damorl.film([hopper, hopper], path, seed=3, steps=20, behaviour=True, names=["who made it", "a", "b" * 200])
    assert path.stat().st_size == made.num_bytes <= filming.MAX_BYTES
    assert [row["name"] for row in made.panels] == ["who made it", "a", "b" * 200]
    task = TASKS["hopper"]
    alone = evaluate(task, load_policy(hopper), 1, 3)
    for row in made.panels[1:]:
        assert (row["return"], row["length"]) == (alone.returns[0], alone.lengths[0])
        assert row["score"] == normalised_score(task, row["return"])
    with Image.open(path) as found:
        assert (found.size, getattr(found, "n_frames", 1)) == (made.size, made.num_frames)
        first = np.asarray(found.convert("RGB"), np.float64)
    panels = [first[:SIDE, place * (SIDE + 4) :][:, :SIDE] for place in range(3)]
    assert np.abs(panels[0] - panels[1]).mean() < 4.0  # the same start; WebP is not exact
    assert np.abs(panels[1] - panels[2]).mean() < 4.0
    content = path.read_bytes()
    damorl.film([hopper, hopper], path, seed=3, steps=20, behaviour=True, names=["who made it", "a", "b" * 200])
    assert path.read_bytes() == content


def test_the_command_line_films(backend: str, hopper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "film.gif"
    assert main(["film", str(hopper), "--policy-seed", "4", "--steps", "10", "--out", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["path"], told["num_bytes"], told["fps"]) == (str(path), path.stat().st_size, 25.0)
    assert told["panels"][0]["return"] == evaluate(TASKS["hopper"], load_policy(hopper, 4), 1, 0).returns[0]
    assert main(["film", str(hopper), "--steps", "5", "--out", str(path)]) == 0
    assert f"film: {path} (0." in capsys.readouterr().out


def test_the_behaviour_is_the_one_of_the_data(hopper: Path) -> None:
    policy, task = load_policy(hopper), TASKS["hopper"]
    named = lambda name: behaviour_of(task, with_data(policy, name), 3)
    obs = np.zeros((1, task.obs_dim), np.float32)
    assert named("hopper-medium-replay").name == named("hopper-medium").name == "behaviour (medium)"
    assert named("hopper-medium-expert").name == "behaviour (expert)"
    expert = load_policies("hopper").expert
    shown = np.stack([named("hopper-medium-expert").start()(obs) for _ in range(2)])
    assert np.array_equal(shown[0], shown[1])  # a new episode, the same draws
    assert not np.array_equal(shown[0], act(expert, obs, None))  # sampled, as the data were
    uniform = named("hopper-random").start()
    drawn = np.concatenate([uniform(obs) for _ in range(400)])
    assert drawn.shape == (400, 3)
    assert np.abs(drawn).max() <= 1.0
    assert np.allclose(drawn.var(axis=0), 1 / 3, atol=0.06)
    with pytest.raises(UserError, match="found 'mine'; leave --behaviour out"):
        named("mine")


def with_data(policy: damorl.Policy, name: str) -> damorl.Policy:
    from dataclasses import replace

    return replace(policy, metadata={**policy.metadata, "dataset": {"name": name}})


def test_mistakes_are_told(hopper: Path, tmp_path: Path, make_run: MakeRun) -> None:
    other = make_run(tmp_path / "walker", "walker2d")
    with pytest.raises(UserError, match="of one task, found hopper and walker2d"):
        film([hopper, other])
    with pytest.raises(UserError, match="at most 6 panels, found 7"):
        film([hopper] * 7)
    with pytest.raises(UserError, match="a name for each of the 2 panels, found 1"):
        film([hopper, hopper], names=["one"])
    with pytest.raises(UserError, match="steps of at least 1, found 0"):
        film(hopper, steps=0)
    with pytest.raises(UserError, match="seed of at least 0, found -1"):
        film(hopper, seed=-1)
    with pytest.raises(UserError, match="at least one policy"):
        film([])
    with pytest.raises(UserError, match=r"ends in \.webp or \.gif"):
        film(hopper, tmp_path / "film.avi")

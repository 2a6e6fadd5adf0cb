"""`damorl.evaluate` beyond the task as it is: changed physics, a user's environments, a user's function."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import TransformReward
from scipy import stats

import damorl
from damorl.cli import main
from damorl.errors import UserError
from damorl.experiment.export import export_policy
from damorl.record import store
from damorl.world.evaluate import Evaluator, evaluate
from damorl.world.physics import World, change_of
from damorl.world.tasks import TASKS

SEEDS = (0, 4)
MakeRun = Callable[[Path, str], Path]


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "bc-hopper", "hopper")


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "bc-pendulum", "pendulum")


# --- changed physics ---


def test_the_unchanged_world_and_a_factor_of_one_are_the_plain_scores(hopper: Path) -> None:
    plain = damorl.evaluate(hopper, 4)
    rows = damorl.evaluate(hopper, 4, vary={"friction": [1.0], "mass": [1.0], "action_noise": [0.0]})
    assert [row["world"] for row in rows[::2]] == ["unchanged", "friction x 1", "mass x 1", "action noise 0"]
    for number, row in enumerate(rows):
        assert plain[number % 2].items() <= row.items()
        assert row["change"] == 0.0
        assert row["change_interval"] == [0.0, 0.0]


def test_a_changed_world_is_the_changed_simulator_with_the_same_starts(hopper: Path) -> None:
    rows = damorl.evaluate(hopper, 5, vary={"mass": [2.0], "observation_noise": [0.2]}, eval_seed=9)
    policy, task = damorl.load_policy(hopper, 4), TASKS["hopper"]
    evaluator = Evaluator(task, change=change_of(task, World("mass", 2.0)))
    heavy, light = evaluator.run(policy, 5, 9).returns, evaluate(task, policy, 5, 9).returns
    evaluator.close()
    row = next(row for row in rows if (row["factor"], row["seed"]) == ("mass", 4))
    assert (row["return_mean"], row["change"]) == (heavy.mean(), (heavy - light).mean())
    interval = stats.ttest_1samp(heavy - light, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(row["change_interval"], interval)
    np.testing.assert_allclose(row["return_interval"], stats.ttest_1samp(heavy, 0.0).confidence_interval(0.95))
    low, high = ((end + 20.272305) / 32.54572305 for end in row["return_interval"])
    np.testing.assert_allclose(row["score_interval"], [low, high])
    noisy = damorl.evaluate(hopper, 5, noise=0.2, eval_seed=9)
    assert [row["return_mean"] for row in rows[-2:]] == [row["return_mean"] for row in noisy]
    assert rows[-1]["noise"] == 0.2


def test_an_exported_file_in_changed_worlds(hopper: Path, tmp_path: Path) -> None:
    path = export_policy(hopper, seed=4, out=tmp_path / "p.onnx", distribution=True).path
    rows = damorl.evaluate(path, 1, vary={"gravity": [0.7]})
    assert [(row["seed"], row["world"]) for row in rows] == [(4, "unchanged"), (4, "gravity x 0.7")]
    assert [row["return_interval"] for row in rows] == [None, None]  # one episode tells no spread
    own = damorl.evaluate(hopper, 1, stochastic=True)[1]
    (sampled,) = damorl.evaluate(path, 1, stochastic=True)
    assert sampled == {key: pytest.approx(value, rel=1e-3) for key, value in own.items()}


def test_the_command_line_prints_a_table_and_draws(
    hopper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(hopper), "--episodes", "2", "--vary", "friction=0.8,1.2", "action_noise=0.2"]
    picture = tmp_path / "vary.png"
    assert main([*words, "--picture", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "seed 0, 2 episodes in each world"
    assert [line[:22].rstrip() for line in lines[4:8]] == [
        "unchanged", "friction x 0.8", "friction x 1.2", "action noise 0.2"
    ]  # fmt: skip
    assert "Student's t over the episodes of one policy" in "\n".join(lines)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["eval", str(hopper), "--episodes", "1", "--vary", "mass=2", "--picture", str(picture)]) == 0
    assert "mass x 2" in capsys.readouterr().out  # one episode has no interval
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 8
    assert rows == store.plain(damorl.evaluate(hopper, 2, vary={"friction": [0.8, 1.2], "action_noise": [0.2]}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vary", "friction"], "--vary: expected a factor and its values, as friction=0.8,1.2, found 'friction'"),
        (["--vary", "mass=1.1", "mass=1.2"], "--vary: expected each factor once, found mass twice"),
        (["--vary", "colour=2"], "cannot vary 'colour': expected one of friction, mass"),
        (["--picture", "a.png"], "--picture a.png: expected --vary with it"),
        (["--vary", "mass=2", "--picture", "a.pdf"], "expected a name that ends in .png"),
    ],
)
def test_a_wrong_word_is_one_sentence(
    words: list[str], message: str, hopper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(hopper), *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


# --- a user's environments ---


def test_gymnasium_s_own_environment_gives_the_task_s_scores(pendulum: Path) -> None:
    """In its own units of -2 to 2; an id, an environment, a function and a vector environment alike."""
    known = damorl.evaluate(pendulum, 3)
    envs = {
        "id": "Pendulum-v1",
        "env": gymnasium.make("Pendulum-v1"),
        "function": lambda: gymnasium.make("Pendulum-v1"),
        "vector": lambda: gymnasium.make_vec("Pendulum-v1", 2, vectorization_mode="sync"),
    }
    rows = damorl.evaluate(pendulum, 3, env=envs)
    assert [(row["env"], row["seed"]) for row in rows] == [(name, seed) for name in envs for seed in SEEDS]
    for number, row in enumerate(rows):
        assert row["return_mean"] == pytest.approx(known[number % 2]["return_mean"], rel=1e-3)
        assert (row["length_mean"], row["terminated"], row["episodes"]) == (200.0, 0, 3)


def test_several_environments_in_a_list_have_names(pendulum: Path) -> None:
    env = TransformReward(gymnasium.make("Pendulum-v1"), lambda reward: -1.0)
    rows = damorl.evaluate(pendulum, 1, env=[env, "Pendulum-v1"], stochastic=True, noise=0.1)
    assert [row["env"] for row in rows[::2]] == ["Pendulum-v1", "Pendulum-v1 #2"]
    assert rows[0]["return_mean"] == -200.0
    assert rows == damorl.evaluate(pendulum, 1, env=[env, "Pendulum-v1"], stochastic=True, noise=0.1)
    env.reset()  # what is given is left open
    (first, _) = damorl.evaluate(pendulum, 1, env="Pendulum-v1")
    assert first["return_mean"] != rows[2]["return_mean"]


def test_a_wrong_environment_is_one_sentence(pendulum: Path, hopper: Path) -> None:
    with pytest.raises(UserError, match=r"^Pendulum-v1: expected observations of shape \(11,\)"):
        damorl.evaluate(hopper, 1, env="Pendulum-v1")
    with pytest.raises(UserError, match=r"^Nothing-v0: cannot make the environment"):
        damorl.evaluate(pendulum, 1, env="Nothing-v0")
    with pytest.raises(UserError, match=r"^mine: cannot make the environment \(ZeroDivisionError"):
        damorl.evaluate(pendulum, 1, env={"mine": lambda: 1 / 0})
    with pytest.raises(UserError, match=r"episode 1 \(reset seed 1000000\), step 20: expected the episode to end"):
        damorl.evaluate(pendulum, 1, env="Pendulum-v1", max_steps=20)
    with pytest.raises(UserError, match="expected one of task, vary, env and evaluator, found env and evaluator"):
        damorl.evaluate(pendulum, env="Pendulum-v1", evaluator=lambda policy: {})
    with pytest.raises(UserError, match="unknown argument enviroment: expected one of env, evaluator, max_steps, vary"):
        damorl.evaluate(pendulum, enviroment="Pendulum-v1")  # pyright: ignore[reportCallIssue]


# --- a user's function ---


def test_a_function_gets_the_policy_and_its_numbers_come_back(pendulum: Path, tmp_path: Path) -> None:
    def measure(policy: damorl.Policy) -> dict[str, float]:
        action, _ = policy.predict(np.ones((5, policy.obs_dim)))
        return {"effort": np.abs(action).mean(), "seed_told": policy.metadata["seed"]}

    rows = damorl.evaluate(pendulum, evaluator=measure)
    assert [(row["seed"], row["seed_told"]) for row in rows] == [(seed, float(seed)) for seed in SEEDS]
    assert 0.0 < rows[0]["effort"] < 2.0
    path = export_policy(pendulum, seed=4, out=tmp_path / "p.onnx").path
    (exported,) = damorl.evaluate(path, evaluator=measure)
    assert exported == pytest.approx(rows[1], rel=1e-5)


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (lambda policy: 1 / 0, r"seed 0: the evaluator fails \(ZeroDivisionError"),
        (lambda policy: 3.0, "expected the evaluator to return numbers by name, found float"),
        (lambda policy: {"good": "very"}, "found 'good': 'very'"),
        (lambda policy: {"good": np.nan}, "found 'good': nan"),
        (lambda policy: {"seed": 1.0}, r"each name \(other than seed\), found 'seed': 1.0"),
    ],
)
def test_a_function_that_gives_no_numbers_is_refused(pendulum: Path, evaluator: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        damorl.evaluate(pendulum, evaluator=evaluator)

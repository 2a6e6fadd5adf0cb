"""The learned model as an environment: Gymnasium's own checks, equal episodes, and the units of the data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import damorl
from damorl.algos import ALGORITHMS
from damorl.cli import main
from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment.config import defaults, run_config_from_dict
from damorl.experiment.fitted import FittedModel, find_model, fit_to, model_of_run, read_model
from damorl.experiment.inputs import make_problem, to_device
from damorl.experiment.model_env import ModelEnv, ModelVectorEnv, make_world
from damorl.experiment.units import find_units
from damorl.parts.dynamics import Dynamics, first_members, predict_all
from damorl.record import checkpoint, store
from tests.experiment.conftest import SEEDS, TINY


@pytest.fixture(scope="module")
def fitted(hopper_toy: Path) -> FittedModel:
    return fit_to(damorl.load_dataset(hopper_toy), TINY, quiet=True)


def single(model: FittedModel, **options: Any) -> ModelEnv:
    return ModelEnv(*make_world(model, disagreement=True, **options))


def play(env: ModelEnv, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, rewards and ends of so many steps from `reset(seed)` on; ended episodes are followed by the next."""
    rng, (obs, _) = np.random.default_rng(seed), env.reset(seed=seed)
    states, rewards, ends = [obs], [], []
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(rng.uniform(-1.0, 1.0, 3).astype(np.float32))
        states.append(obs)
        rewards.append(reward)
        ends.append((terminated, truncated))
        if terminated or truncated:
            states.append(env.reset()[0])
    return np.stack(states), np.array(rewards), np.array(ends)


def test_gymnasium_finds_nothing_to_say(fitted: FittedModel) -> None:
    env = single(fitted)
    env.spec = EnvSpec("damorl/Model-v0", entry_point=lambda **_: env)  # with one, determinism is checked, too
    check_env(env)
    rows = fitted.dataset.transitions
    np.testing.assert_array_equal(env.observation_space.low, np.minimum(rows.obs, rows.next_obs).min(axis=0))  # type: ignore[attr-defined]
    assert env.world.max_episode_steps == 1000
    obs, info = env.reset(seed=1)
    assert (np.asarray(rows.obs)[::50] == obs).all(axis=1).any()  # the state that an episode began in
    _, _, _, _, info = env.step(np.zeros(3, np.float32))
    assert info["disagreement"] > 0.0
    assert info["elite"] in (0, 1)


def test_the_same_seed_is_the_same_episode_and_the_next_one_is_another(fitted: FittedModel) -> None:
    first, again = (play(single(fitted, max_episode_steps=5), seed=7, steps=12) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    states, _, ends = first
    assert ends[:, 1].sum() >= 2
    assert (states[0] != states[6]).any()
    assert (play(single(fitted, max_episode_steps=5), seed=8, steps=2)[0][0] != states[0]).any()


def test_a_vector_environment_is_single_ones_side_by_side(fitted: FittedModel) -> None:
    """Also over the ends of episodes: a step that is ignored, then the next episode."""
    world, rules = make_world(fitted, max_episode_steps=4, disagreement=True)
    together, alone = ModelVectorEnv(world, rules, 3), [ModelEnv(world, rules) for _ in range(3)]
    assert together.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    rng, (obs, _) = np.random.default_rng(0), together.reset(seed=11)
    for index, env in enumerate(alone):
        np.testing.assert_array_equal(obs[index], env.reset(seed=11 + index)[0])
    over = np.zeros(3, bool)
    for _ in range(10):
        actions = rng.uniform(-1.0, 1.0, (3, 3)).astype(np.float32)
        obs, reward, terminated, truncated, info = together.step(actions)
        assert together.observation_space.contains(obs)
        np.testing.assert_array_equal(info["_disagreement"], ~over)
        for index, env in enumerate(alone):
            if over[index]:
                expected, facts = env.reset(), {"elite": info["elite"][index], "disagreement": 0.0}
                expected = (expected[0], 0.0, False, False)
            else:
                *expected, facts = env.step(actions[index])
            found = (obs[index], reward[index], terminated[index], truncated[index])
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
            assert info["elite"][index] == facts["elite"]
            np.testing.assert_allclose(info["disagreement"][index], facts["disagreement"], rtol=1e-3)
        over = terminated | truncated
    assert together.lanes is not None
    episodes = np.asarray(together.lanes.episode)
    assert episodes.min() >= 1
    together.reset()
    np.testing.assert_array_equal(together.lanes.episode, episodes + 1)


def test_a_step_in_a_run_with_units_of_its_own_is_in_the_units_of_the_data(run_dir: Path, hopper_toy: Path) -> None:
    """By hand: state into the run's units, the mean of the elite there, and back."""
    stored = store.read_json(run_dir / store.CONFIG)
    config, model = run_config_from_dict(stored), model_of_run(run_dir, seed=5)
    units = find_units(config.loop, model.data)
    assert units is not None
    assert float(units.reward_factor) != 1.0
    found = checkpoint.newest(run_dir / "checkpoint", print)
    assert found is not None
    inside = first_members(read_model(*found[:2], 1, model.settings, model.dataset), model.settings.num_elites)
    env = ModelVectorEnv(*make_world(model, noise=False, keep_in_range=False, starts="data"), 4)
    obs, _ = env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (4, 3)).astype(np.float32)
    reached, reward, _, _, info = env.step(actions)
    mean = jax.jit(predict_all)(inside, (obs - units.obs_mean) / units.obs_scale, actions).mean
    own = np.asarray(mean)[info["elite"], np.arange(4)]
    np.testing.assert_allclose(reached, own[:, :-1] * units.obs_scale + units.obs_mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reward, own[:, -1] / units.reward_factor, rtol=1e-4)


def predictions(model: FittedModel) -> np.ndarray:
    rows = model.data.rows
    return np.asarray(jax.jit(predict_all)(model.elites, rows.obs[:20], rows.action[:20]).mean)


def test_a_run_has_the_model_that_its_data_seed_and_settings_have(run_dir: Path, tmp_path: Path) -> None:
    models = {seed: model_of_run(run_dir, seed) for seed in (3, 5)}
    fits = {seed: fit_to(model.dataset, model.settings, seed) for seed, model in models.items()}
    for seed in models:
        np.testing.assert_allclose(predictions(models[seed]), predictions(fits[seed]), rtol=1e-4, atol=1e-5)
    assert np.abs(predictions(fits[3]) - predictions(fits[5])).max() > 1e-3
    assert model_of_run(run_dir).seed == 3
    copied = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint"))
    np.testing.assert_array_equal(predictions(model_of_run(copied, 5)), predictions(fits[5]))


def test_without_a_checkpoint_a_model_that_moved_is_gone(run_dir: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint"))
    config = store.read_json(copied / store.CONFIG)
    (copied / store.CONFIG).write_text(json.dumps(config | {"algo": "rambo", "algo_config": {}}))
    with pytest.raises(UserError, match="expected a checkpoint, for rambo changes its model"):
        model_of_run(copied)


def test_a_run_without_a_model_and_other_mistakes_are_told(run_dir: Path, tmp_path: Path, hopper_toy: Path) -> None:
    config = store.read_json(run_dir / store.CONFIG)
    (tmp_path / store.CONFIG).write_text(json.dumps(config | {"algo": "bc", "algo_config": {}}))
    with pytest.raises(UserError, match="expected a run of an algorithm with a dynamics model, found bc"):
        damorl.model_env(tmp_path)
    with pytest.raises(UserError, match="expected a run directory or a data set, found a directory without config"):
        find_model(run_dir.parent)
    with pytest.raises(UserError, match="expected no dynamics settings for a run"):
        damorl.model_env(run_dir, dynamics=TINY)
    with pytest.raises(UserError, match="expected one of the seeds"):
        damorl.model_env(run_dir, seed=4)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"starts": "middle"}, r"expected starts to be one of \('initial', 'data'\), found 'middle'"),
        ({"elites": "step"}, "expected options among starts, elite, .*, found 'elites'"),
        ({"num_envs": 0}, "expected num_envs to be at least 1, found 0"),
        ({"max_episode_steps": 0}, "expected max_episode_steps to be at least 1"),
    ]
    for options, message in wrong:
        with pytest.raises(UserError, match=message):
            damorl.model_env(hopper_toy, **options)


def test_who_steps_at_the_wrong_time_or_with_another_shape_is_told(fitted: FittedModel) -> None:
    env = single(fitted, max_episode_steps=1)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(3))
    env.reset(seed=0)
    with pytest.raises(UserError, match=r"expected actions of shape \(3,\), found \(2,\)"):
        env.step(np.zeros(2))
    assert env.step(np.zeros(3))[3]
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(3))
    with pytest.raises(ResetNeeded):
        ModelVectorEnv(env.world, env.rules, 2).step(np.zeros((2, 3)))


def test_without_a_task_only_the_longest_episode_limits(hopper_toy: Path) -> None:
    dataset: Dataset = damorl.load_dataset(hopper_toy, "none")
    env = damorl.model_env(dataset, dynamics=TINY, quiet=True)
    assert isinstance(env, ModelEnv)
    assert env.world.max_episode_steps == 50
    assert isinstance(damorl.model_env(dataset, 2, dynamics=TINY, quiet=True), ModelVectorEnv)


WITH_MODEL = sorted(name for name in ALGORITHMS if hasattr(ALGORITHMS[name].config_type(), "dynamics"))


@pytest.mark.parametrize("algo", WITH_MODEL)
def test_the_state_of_every_algorithm_with_a_model_keeps_it_where_it_is_looked_for(algo: str, hopper_toy: Path) -> None:
    dataset = damorl.load_dataset(hopper_toy)
    settings, data = defaults(algo, "smoke", "hopper-toy")[1], to_device(dataset)
    init = lambda: ALGORITHMS[algo].init(jax.random.key(0), settings, make_problem(dataset), data)
    assert isinstance(jax.eval_shape(init).model, Dynamics)


@pytest.mark.slow
def test_a_run_that_was_trained_has_the_model_of_its_seed(hopper_toy: Path, tmp_path: Path) -> None:
    words = ["--preset", "smoke", "--seeds", "3", "5", "--standardise-observations", "True", "--reward-factor", "auto"]
    clock = {"total-updates": 5, "refresh-interval": 5, "eval-interval": 5, "checkpoint-interval": 5}
    words += [word for name, value in clock.items() for word in (f"--{name}", str(value))]
    assert main(["train", "damo", "--dataset", str(hopper_toy), *words, "--out", str(tmp_path), "--json"]) == 0
    (run_dir,) = tmp_path.iterdir()
    for seed in SEEDS:
        model = model_of_run(run_dir, seed)
        fit = fit_to(model.dataset, model.settings, seed)
        np.testing.assert_allclose(predictions(model), predictions(fit), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_sac_of_stable_baselines_trains_in_it(fitted: FittedModel) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = single(fitted, max_episode_steps=20)
    agent = sb3.SAC("MlpPolicy", env, learning_starts=50, batch_size=32, seed=0, device="cpu")
    agent.learn(200)
    action, _ = agent.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(action)
    assert agent.num_timesteps == 200

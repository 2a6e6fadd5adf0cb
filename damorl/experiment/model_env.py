"""The learned model as a Gymnasium environment: one episode at a time, or many in one compiled step.

States and rewards are in the data's units, actions in [-1, 1] as everywhere in the library. What happens in an episode
is `parts/model_episodes.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args, overload

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment.fitted import FittedModel, find_model
from damorl.parts.data_range import find_range
from damorl.parts.dynamics import DynamicsConfig
from damorl.parts.model_episodes import Lane, Outcome, Rules, World, lane_keys, reset_lanes, step_lanes
from damorl.types import Array
from damorl.world.tasks import never_ended

Starts = Literal["initial", "data"]
Draw = Literal["step", "episode"]
MAX_SEED = 2**32


class Options(TypedDict, total=False):
    """How episodes go."""

    starts: Starts
    """Where they begin: `initial` states of the data's episodes (the default), or any state of the `data`."""
    elite: Draw
    """Whether an elite is drawn for every `step` (the default) or once per `episode`."""
    noise: bool
    """Whether steps sample the Gaussian that the elite predicts (the default), or follow its mean."""
    keep_in_range: bool
    """Whether states are kept in the range of the data's (the default): far outside of it errors feed themselves."""
    disagreement: bool
    """Whether `info` tells how far the elites lie apart (`dynamics.disagreement`); off by default."""
    max_episode_steps: int | None
    """Steps after which an episode is truncated. None, the default: the task's limit; without a task the length of
    the data's longest episode."""


@overload
def model_env(
    source: str | Path | Dataset,
    num_envs: None = None,
    seed: int | None = None,
    setting: int | None = None,
    dynamics: DynamicsConfig | None = None,
    quiet: bool = False,
    **options: Unpack[Options],
) -> ModelEnv: ...
@overload
def model_env(
    source: str | Path | Dataset,
    num_envs: int,
    seed: int | None = None,
    setting: int | None = None,
    dynamics: DynamicsConfig | None = None,
    quiet: bool = False,
    **options: Unpack[Options],
) -> ModelVectorEnv: ...
def model_env(
    source: str | Path | Dataset,
    num_envs: int | None = None,
    seed: int | None = None,
    setting: int | None = None,
    dynamics: DynamicsConfig | None = None,
    quiet: bool = False,
    **options: Unpack[Options],
) -> ModelEnv | ModelVectorEnv:
    """The learned model of a run, or one fitted to a data set, as a `gymnasium.Env`; with `num_envs` as a
    `gymnasium.vector.VectorEnv` of so many.

    `source` is a run directory, a `Dataset`, or the name or path of one. Of a run it is the model that the run
    trained in, of one `seed` and one `setting` of a population (the first ones by default). To a data set a model is
    fitted with the settings `dynamics` (by default those of the preset `quick`) and kept in the cache of fits; `seed`
    is that of the fit, not of the episodes, which `reset(seed=...)` takes. Without `quiet` a bar shows the fit.

    Episodes end where the task's termination function says so, or where a prediction is not finite; without a known
    task only there. UserError for unusable input.
    """
    world_options = check_options(num_envs, dict(options))
    model = find_model(source, seed, setting, dynamics, quiet=quiet)
    world, rules = make_world(model, **world_options)
    return ModelEnv(world, rules) if num_envs is None else ModelVectorEnv(world, rules, num_envs)


def check_options(num_envs: int | None, options: dict[str, Any]) -> dict[str, Any]:
    """`options`; UserError unless they are those of `Options`, before anything is fitted."""
    for name, choices in {"starts": get_args(Starts), "elite": get_args(Draw)}.items():
        if options.get(name, choices[0]) not in choices:
            raise UserError(f"model_env: expected {name} to be one of {choices}, found {options[name]!r}; choose one")
    if unknown := sorted(options.keys() - Options.__annotations__.keys()):
        known = ", ".join(Options.__annotations__)
        raise UserError(f"model_env: expected options among {known}, found {unknown[0]!r}; correct its name")
    for name, value in {"num_envs": num_envs, "max_episode_steps": options.get("max_episode_steps")}.items():
        if value is not None and value < 1:
            raise UserError(f"model_env: expected {name} to be at least 1, found {value}; give a positive whole number")
    return options


def make_world(
    model: FittedModel, starts: Starts = "initial", max_episode_steps: int | None = None, **rules: Any
) -> tuple[World, Rules]:
    """What episodes in `model` are played in, and how; see `Options`."""
    dataset, rows = model.dataset, model.data.rows
    task = dataset.task
    longest = int(np.bincount(dataset.episode).max())
    limit = max_episode_steps or (longest if task is None else task.max_episode_steps)
    begin = model.data.initial_obs if starts == "initial" else rows.obs
    termination = never_ended if task is None else task.termination
    world = World(model.elites, begin, find_range(rows.obs, rows.next_obs), jnp.int32(limit))
    return world, Rules(termination, **rules)


def spaces(world: World, rules: Rules) -> tuple[Box, Box]:
    """The spaces of states and actions; states have bounds if they are kept in the data's range."""
    action_dim = world.elites.inputs.mean.shape[0] - world.starts.shape[1]
    low, high = (np.asarray(end) for end in world.seen)
    if not rules.keep_in_range:
        low, high = np.full_like(low, -np.inf), np.full_like(high, np.inf)
    return Box(low, high, dtype=np.float32), Box(-1.0, 1.0, (action_dim,), np.float32)


class ModelEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """Episodes in a learned model, one after the other; made by `damorl.model_env`.

    The episode after `reset(seed=s)` depends on s and the actions alone; each further `reset()` begins the next one of
    the same sequence. `info` has `elite`, the number of the elite that made the step, and, if asked for,
    `disagreement`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(self, world: World, rules: Rules) -> None:
        self.world, self.rules = world, rules
        self.observation_space, self.action_space = spaces(world, rules)
        self.lanes: Lane | None = None
        self.over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; `options` are not used."""
        super().reset(seed=seed)
        lanes = begin(self.world, self.lanes, seed, 1, self.np_random)
        self.lanes, self.over = lanes, False
        return np.asarray(lanes.obs)[0], {"elite": int(lanes.elite[0])}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step. Gymnasium's `ResetNeeded` after the end of an episode."""
        if self.lanes is None or self.over:
            raise ResetNeeded("the episode is over, or none has begun: call reset() before step()")
        actions = to_device(action, self.action_space)[None]
        lanes, outcome = step_lanes(self.rules, self.world, self.lanes, jnp.zeros(1, bool), actions)
        terminated, truncated = bool(outcome.terminated[0]), bool(outcome.truncated[0])
        self.lanes, self.over = lanes, terminated or truncated
        info: dict[str, Any] = {"elite": int(lanes.elite[0])}
        if self.rules.disagreement:
            info["disagreement"] = float(outcome.disagreement[0])
        return np.asarray(lanes.obs)[0], float(outcome.reward[0]), terminated, truncated, info


class ModelVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many episodes in a learned model at once, in one compiled step; made by `damorl.model_env`.

    After `reset(seed=s)` the i-th environment is a `ModelEnv` after `reset(seed=s + i)`. The autoreset mode is
    Gymnasium's `NEXT_STEP`: the step after an episode's end ignores that environment's action and returns the first
    state of its next episode, reward 0 and no flag. `info` is that of `ModelEnv` as arrays, with a mask `_NAME` beside
    each.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, world: World, rules: Rules, num_envs: int) -> None:
        self.world, self.rules, self.num_envs = world, rules, num_envs
        self.single_observation_space, self.single_action_space = spaces(world, rules)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.lanes: Lane | None = None
        self.over = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in every environment; `options` are not used."""
        super().reset(seed=seed)
        lanes = begin(self.world, self.lanes, seed, self.num_envs, self.np_random)
        self.lanes, self.over = lanes, np.zeros(self.num_envs, bool)
        return np.asarray(lanes.obs), self._info(lanes, None)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """A step, or the beginning of the next episode, in every environment."""
        if self.lanes is None:
            raise ResetNeeded("no episode has begun: call reset() before step()")
        given, over = to_device(actions, self.action_space), jnp.asarray(self.over)
        lanes, outcome = step_lanes(self.rules, self.world, self.lanes, over, given)
        reward = np.asarray(outcome.reward, np.float64)
        terminated, truncated = np.asarray(outcome.terminated), np.asarray(outcome.truncated)
        info = self._info(lanes, outcome)
        self.lanes, self.over = lanes, terminated | truncated
        return np.asarray(lanes.obs), reward, terminated, truncated, info

    def _info(self, lanes: Lane, outcome: Outcome | None) -> dict[str, Any]:
        info: dict[str, Any] = {"elite": np.asarray(lanes.elite), "_elite": np.ones(self.num_envs, bool)}
        if outcome is not None and self.rules.disagreement:
            info |= {"disagreement": np.asarray(outcome.disagreement), "_disagreement": ~self.over}
        return info


def to_device(action: np.ndarray, space: gymnasium.Space[Any]) -> Array:
    """Actions as float32. UserError for another shape than the space's."""
    found = np.asarray(action, np.float32)
    if found.shape != space.shape:
        raise UserError(
            f"model_env: expected actions of shape {space.shape}, found {found.shape}; give one number each"
        )
    return jnp.asarray(found)


def begin(world: World, lanes: Lane | None, seed: int | None, count: int, rng: np.random.Generator) -> Lane:
    """`count` lanes from `seed` on, or at their next episodes; lanes that never had a seed draw one from `rng`."""
    if seed is None and lanes is not None:
        return reset_lanes(world, lanes.key, lanes.episode + 1)
    seed = int(rng.integers(MAX_SEED)) if seed is None else seed
    return reset_lanes(world, lane_keys(seed, count), jnp.zeros(count, jnp.int32))

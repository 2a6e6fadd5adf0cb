"""A trained policy as an object on NumPy arrays, from a run directory, an exported file, or the zoo."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from damorl.behaviour.host_policy import NumpyPolicy, gaussian
from damorl.errors import UserError
from damorl.experiment import zoo
from damorl.experiment.exported import open_exported
from damorl.experiment.policy_card import SUFFIXES, about
from damorl.experiment.policy_graph import make_graph, read_standardiser
from damorl.experiment.result import load_layers
from damorl.record import store
from damorl.record.members import find_member
from damorl.world.units import Bounds, from_unit, to_unit

Act = Callable[[np.ndarray], np.ndarray]
Scaling = tuple[np.ndarray, np.ndarray] | None
"""Mean and scale of the observations, `[obs_dim]` each; None where the network takes them as they are."""
Gaussian = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Policy:
    """A policy that is a function of the observation; `load_policy` makes it. Calls are plain NumPy for a run, and
    onnxruntime or JAX for an exported file.

    `policy(obs)` is the deterministic action in [-1, 1], the unit of the library's data sets. `policy.predict(obs)` is
    in the environment's own units, what `env.step` takes.
    """

    name: str
    """The path that it was loaded from."""
    mode: Act = dataclasses.field(repr=False)
    """`[*B, obs_dim] -> [*B, action_dim]` in [-1, 1], without checks."""
    gaussian: Gaussian | None = dataclasses.field(repr=False)
    """Mean and log standard deviation before the tanh, `[*B, action_dim]` each. None: an export without them."""
    obs_dim: int
    action_low: np.ndarray
    """The environment's lowest action, float32 `[action_dim]`."""
    action_high: np.ndarray
    """Its highest."""
    metadata: Mapping[str, Any] = dataclasses.field(repr=False)
    """`run`, `algorithm`, `dataset` (name, sha256, num_transitions), `task`, `obs_names`, `seed`, `step` (None while
    the run is not finished), `score` (None if never scored) and `observations` (moments of the data's); of an exported
    file its whole card."""
    rng: np.random.Generator = dataclasses.field(default_factory=lambda: np.random.default_rng(0), repr=False)
    """Where `predict` draws from if it is given no generator."""

    @property
    def action_dim(self) -> int:
        """Numbers per action."""
        return self.action_low.size

    @property
    def obs_names(self) -> tuple[str, ...]:
        """What each feature is called; empty where the task does not tell."""
        return tuple(self.metadata.get("obs_names", ()))

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The deterministic action in [-1, 1], `[*B, obs_dim] -> [*B, action_dim]`. UserError for other shapes."""
        return self.mode(self.checked(obs))

    def distribution(self, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and log standard deviation of the Gaussian before the tanh, `[*B, action_dim]` each.

        UserError for an exported file without them, and for observations of another shape.
        """
        if self.gaussian is None:
            raise UserError(
                f"{self.name}: expected a policy with its distribution, found the deterministic action alone; export "
                "it again with --distribution, or load the run directory"
            )
        return self.gaussian(self.checked(obs))

    def predict(
        self,
        obs: np.ndarray,
        state: None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, None]:
        """The action in the environment's units, float32 `[*B, action_dim]` within the bounds, and None.

        The arguments are those of stable-baselines3's `predict`; `state` and `episode_start` mean nothing here. Without
        `deterministic` the action is `tanh(mean + exp(log_std) * noise)`, scaled to the bounds, with standard normal
        float32 noise of the action's shape from `rng` (by default the policy's own, which begins with seed 0).
        UserError as in `distribution`.
        """
        if deterministic:
            return self.act(obs), None
        shape = (*np.shape(obs)[:-1], self.action_dim)
        return self.act(obs, (self.rng if rng is None else rng).standard_normal(shape, np.float32)), None

    def act(self, obs: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """What `predict` gives: the mode, or the sample for standard normal `noise` `[*B, action_dim]`."""
        if noise is None:
            return self.in_bounds(self(obs))
        mean, log_std = self.distribution(obs)
        return self.in_bounds(np.tanh(mean + np.exp(log_std) * noise))

    def in_bounds(self, action: np.ndarray) -> np.ndarray:
        """Actions in [-1, 1] brought to the environment's bounds; rounding never leaves them."""
        bounds = Bounds(self.action_low.astype(np.float64), self.action_high.astype(np.float64))
        return np.clip(from_unit(bounds, action).astype(np.float32), self.action_low, self.action_high)

    def checked(self, obs: np.ndarray) -> np.ndarray:
        """The observations in float32; UserError if they are not `[*B, obs_dim]`."""
        rows = np.asarray(obs, np.float32)
        if rows.shape[-1:] != (self.obs_dim,):
            raise UserError(
                f"{self.name}: expected observations of {self.obs_dim} features, found shape {rows.shape}; "
                "give it those of its own task"
            )
        return rows


def load_policy(
    path: Path | str, seed: int | None = None, step: int | None = None, setting: int | None = None
) -> Policy:
    """The policy of a run directory, of a file that `damorl export` wrote, or of the zoo, `zoo:NAME`.

    Of a run: `seed` is the first one by default, `step` one of `list_policies` (the last one by default), `setting` one
    of those of a population, by its number in result.json. UserError if there is no such policy, if the algorithm
    plans, for a damaged file, and for a file or the zoo together with `seed`, `step` or `setting`: that is one policy.
    """
    path = Path(path)
    if not holds_one(path):
        return policy_of_run(path, seed, step, setting)
    given = {"seed": seed, "step": step, "setting": setting}
    if found := {name: value for name, value in given.items() if value is not None}:
        raise UserError(
            f"{path}: expected no {', '.join(given)} for an exported policy, which is one policy, found "
            f"{', '.join(f'{name} {value}' for name, value in found.items())}; give them with its run directory"
        )
    return policy_of_zoo(path) if zoo.is_zoo(path) else policy_of_file(path)


def holds_one(path: Path) -> bool:
    """Whether the path is one policy, an exported file's or the zoo's, and not a run directory."""
    return path.is_file() or path.suffix in SUFFIXES.values() or zoo.is_zoo(path)


def policy_of_run(run_dir: Path, seed: int | None, step: int | None, setting: int | None) -> Policy:
    """See `load_policy`."""
    layers = load_layers(run_dir, seed, step, setting)
    config = store.read_json(run_dir / store.CONFIG)
    graph, member = make_graph(layers, config, run_dir), find_member(config, seed, setting, run_dir)
    card = about(run_dir, member, step)
    return policy_of_layers(str(run_dir), layers, graph.standardiser, (graph.low, graph.high), card)


def policy_of_zoo(path: Path) -> Policy:
    """See `load_policy`."""
    layers, card = zoo.read_entry(zoo.name_of(path))
    low, high = (np.asarray(card[f"action_{side}"], np.float32) for side in ("low", "high"))
    scaling = read_standardiser(card["policy"], card["obs_dim"], path)
    return policy_of_layers(str(path), layers, scaling, (low, high), card)


def policy_of_layers(
    name: str,
    layers: NumpyPolicy,
    scaling: Scaling,
    bounds: tuple[np.ndarray, np.ndarray],
    metadata: Mapping[str, Any],
) -> Policy:
    """A policy in NumPy; `scaling` comes before its first layer, `bounds` are the environment's lowest and highest
    action, `[action_dim]` each."""

    def own(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return gaussian(layers, obs if scaling is None else (obs - scaling[0]) / scaling[1])

    return Policy(
        name=name,
        mode=lambda obs: np.tanh(own(obs)[0]),
        gaussian=own,
        obs_dim=layers[0][0].shape[0],
        action_low=bounds[0],
        action_high=bounds[1],
        metadata=metadata,
    )


def policy_of_file(path: Path) -> Policy:
    """See `load_policy`."""
    call, card = open_exported(path)
    low, high = (np.asarray(card[f"action_{side}"], np.float32) for side in ("low", "high"))
    bounds = Bounds(low.astype(np.float64), high.astype(np.float64))

    def own(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, log_std = call(obs, ("mean", "log_std"))
        return mean, log_std

    return Policy(
        name=str(path),
        mode=lambda obs: to_unit(bounds, call(obs, ("action",))[0]).astype(np.float32),
        gaussian=own if "log_std" in card.get("outputs", ()) else None,
        obs_dim=card["obs_dim"],
        action_low=low,
        action_high=high,
        metadata=card,
    )

"""Scoring policies outside the library's tasks: in environments of the user's, or by the user's function."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from damorl.errors import UserError
from damorl.experiment.policy import Policy, holds_one, load_policy
from damorl.experiment.scoring import Scoring, marks_of
from damorl.record import store
from damorl.record.members import members_of
from damorl.world.evaluate import ACTION_STREAM, Episodes, measurement
from damorl.world.play import Place, make_place, play
from damorl.world.task import describe


def score_in(path: Path, env: Any, how: Scoring, max_steps: int) -> list[dict[str, Any]]:
    """Each policy in each environment: see `damorl.evaluate`. A row has its marks, `env` (a name), how it was scored,
    mean and standard deviation of the returns, mean length, and `terminated`, the episodes that did not end by time.
    """
    policies = list(find_policies(path, how))
    rows = []
    for name, given in named(env).items():
        with opened(name, given) as environment:
            for marks, policy in policies:
                place = make_place(name, environment, policy.obs_dim, policy.action_low, policy.action_high, max_steps)
                told = {"env": name, "episodes": how.episodes, "noise": how.noise, "stochastic": how.stochastic}
                rows.append(marks | told | describe_played(play_policy(place, policy, how)))
    return rows


def score_by(path: Path, evaluator: Callable[[Policy], Mapping[str, float]], how: Scoring) -> list[dict[str, Any]]:
    """What a function says of each policy, beside the policy's marks. UserError if it fails or returns anything but
    finite numbers by name."""
    if how.noise or how.stochastic:
        raise UserError(
            "evaluate: expected neither noise nor stochastic with an evaluator, which plays as it likes; leave them out"
        )
    rows = []
    for marks, policy in find_policies(path, how):
        name = f"{policy.name}, seed {marks['seed']}"
        try:
            found = evaluator(policy)
        except UserError:
            raise
        except Exception as reason:  # it is the user's code
            raise UserError(f"{name}: the evaluator fails ({describe(reason)}); correct it") from reason
        rows.append(marks | checked_numbers(name, found, marks))
    return rows


def checked_numbers(name: str, found: Any, marks: Mapping[str, Any]) -> dict[str, float]:
    """The evaluator's numbers; UserError for anything else."""
    if not isinstance(found, Mapping) or not found:
        raise UserError(
            f"{name}: expected the evaluator to return numbers by name, found {type(found).__name__}; return a dict"
        )
    for key, value in found.items():
        try:
            sound = isinstance(key, str) and key not in marks and math.isfinite(value)
        except (TypeError, ValueError):
            sound = False
        if not sound:
            raise UserError(
                f"{name}: expected the evaluator to return a finite number for each name (other than "
                f"{', '.join(marks)}), found {key!r}: {value!r}; correct it"
            )
    return {key: float(value) for key, value in found.items()}


def find_policies(path: Path, how: Scoring) -> Iterator[tuple[dict[str, Any], Policy]]:
    """The policies of a run with their marks, or the one of an exported file."""
    if holds_one(path):
        policy = load_policy(path, step=how.step)
        yield {"seed": policy.metadata["seed"]}, policy
        return
    for member in members_of(store.read_json(path / store.CONFIG)):
        yield marks_of(member), load_policy(path, member.seed, how.step, member.setting)


def named(env: Any) -> dict[str, Any]:
    """The environments by name: of a mapping its keys, else their own, numbered where two have the same."""
    if isinstance(env, Mapping):
        return {str(name): given for name, given in env.items()}
    found: dict[str, Any] = {}
    for given in env if isinstance(env, Sequence) and not isinstance(env, str) else [env]:
        stem = own_name(given)
        number = sum(name == stem or name.startswith(f"{stem} #") for name in found)
        found[f"{stem} #{number + 1}" if number else stem] = given
    return found


def own_name(given: Any) -> str:
    """An id, else the name of a function or class."""
    if isinstance(given, str):
        return given
    spec = getattr(given, "spec", None)
    inner = getattr(given, "unwrapped", given)
    return getattr(spec, "id", None) or getattr(given, "__name__", None) or type(inner).__name__


@contextmanager
def opened(name: str, given: Any) -> Iterator[Any]:
    """The environment: itself, made by its id, or by calling a function. What is made here is closed here."""
    if not isinstance(given, str) and not callable(given):
        yield given
        return
    import gymnasium

    try:
        environment: Any = gymnasium.make(given) if isinstance(given, str) else given()
    except Exception as reason:  # Gymnasium's own errors, and whatever the user's code raises
        raise UserError(f"{name}: cannot make the environment ({describe(reason)}); correct it") from reason
    try:
        yield environment
    finally:
        with suppress(Exception):  # what is no environment is refused elsewhere
            environment.close()


def play_policy(place: Place, policy: Policy, how: Scoring) -> Episodes:
    """The episodes of one policy."""
    rng = np.random.default_rng((how.eval_seed, ACTION_STREAM))
    std = policy.metadata["observations"].get("obs_std")
    seeds = range(how.eval_seed, how.eval_seed + place.num_envs)
    measure = measurement(how.noise, None if std is None else np.asarray(std), policy.obs_dim, seeds)

    def act(obs: np.ndarray) -> np.ndarray:
        action, _ = policy.predict(measure(obs), deterministic=not how.stochastic, rng=rng)
        if not np.isfinite(action).all():
            raise UserError(
                f"{policy.name}: expected finite actions, found NaN or infinity; its training has diverged, evaluate "
                "an earlier checkpoint"
            )
        return action

    return play(place, act, how.episodes, how.eval_seed)


def describe_played(played: Episodes) -> dict[str, Any]:
    """Mean and deviation over episodes."""
    return {
        "return_mean": float(played.returns.mean()),
        "return_std": float(played.returns.std()),
        "length_mean": float(played.lengths.mean()),
        "terminated": int(played.terminated.sum()),
    }

"""Choosing among the policies of a run without the simulator: fitted Q evaluation and the value in a learned model.

Both estimate the same discounted value from the data's initial states, so they can be compared; where there was a
simulator, its scores stand beside them and tell how far to trust either. (Scores are undiscounted: even the exact
discounted value does not rank quite like them.) The dynamics model is fitted anew, once per
data set, and not taken from the run: a policy is flattered by the model that it was trained in, and policies of
different runs must be judged by the same one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from damorl.algos.base import OfflineData, Problem
from damorl.behaviour.host_policy import NumpyPolicy, to_arrays
from damorl.core.nets import MLP, Dense
from damorl.data.datasets import Dataset
from damorl.errors import UserError
from damorl.experiment.inputs import make_problem, to_device
from damorl.experiment.progress import bar
from damorl.experiment.ranking import choose, rank_correlation
from damorl.experiment.result import list_policies, load_layers, require_network
from damorl.experiment.sources import load_run_dataset
from damorl.parts import dynamics, dynamics_fit
from damorl.parts.fqe import Act, FQEConfig, FQEResult, act_mode, evaluate_policies
from damorl.parts.model_value import Episode, ModelValue, fit_bounds, model_values
from damorl.record import store
from damorl.record.checkpoint import digest
from damorl.record.members import Member, members_of

SELECTION = "selection.json"
FQE_STARTS = 4096  # initial states that FQE averages over at most
NEGLIGIBLE = 1e-4  # share of the discounted weight that may lie beyond the default horizon
DEFAULT_GAMMA = 0.99  # for algorithms without a discount
MODEL_STREAM, FQE_STREAM, ROLLOUT_STREAM = 10**9, 10**9 + 1, 10**9 + 2  # training folds in its epochs


@dataclass(frozen=True)
class SelectConfig:
    """Settings of a selection. The sizes suit a laptop: some minutes for twenty policies."""

    fqe: FQEConfig = field(default_factory=FQEConfig)
    """Its gamma is replaced by `gamma`."""
    dynamics: dynamics.DynamicsConfig = field(
        default_factory=lambda: dynamics.DynamicsConfig(
            hidden=(100, 100, 100), max_batches=3000, epoch_batches=500, patience=100
        )
    )
    gamma: float | None = None
    """Discount of both estimates. None: the run's own, 0.99 if its algorithm has none."""
    horizon: int | None = None
    """Steps of an imagined episode. None: the task's time limit or the data's longest episode, or fewer if what lies
    beyond weighs less than 0.01 %."""
    known_share: float = 0.99
    """An imagined episode ends where the elites disagree more than on this share of the data; 1: nowhere."""
    rollout_noise: bool = True
    """Whether imagined steps sample the Gaussian that the model predicts, or follow its mean."""
    starts: int = 50
    """Imagined episodes per policy and elite, from as many of the data's initial states."""
    last_steps: int | None = None
    """How many of the kept steps to judge, the latest ones. None: all."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes below one, and a share that is none."""
        if not 0.0 < self.known_share <= 1.0:
            raise UserError(
                f"known_share must be above 0 and at most 1, found {self.known_share}: give for example 0.99"
            )
        for name in ("horizon", "starts", "last_steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"{name} must be at least 1, found {value}: give a positive whole number")


@dataclass(frozen=True)
class Run:
    """A run directory with policies to choose from."""

    run_dir: Path
    config: Mapping[str, Any]
    settings: SelectConfig
    """With this run's discount."""
    kept: tuple[tuple[int, Member], ...]
    """Step and member of every policy."""

    @property
    def data_key(self) -> tuple[str, str | None]:
        """Hash and task of its data."""
        return self.config["data"]["sha256"], self.config["data"]["task"]


class Evidence(NamedTuple):
    """A data set and the model fitted to it: what all runs on it are judged by."""

    dataset: Dataset
    data: OfflineData
    problem: Problem
    model: dynamics.Dynamics
    holdout_error: float


def select(
    run_dirs: Sequence[Path | str],
    settings: SelectConfig | None = None,
    dataset: Path | str | None = None,
    force: bool = False,
    quiet: bool = True,
    make: bool = True,
) -> list[dict[str, Any]]:
    """Estimate the value of every kept policy of every run, and write each run's `selection.json`.

    Returns their contents in the order of `run_dirs`, each with its `run_dir`. A run that was judged before with the
    same settings is not judged again unless `force`. `dataset` says where the data is if not where it was in training.
    A built-in data set that is not on this machine is made first if `make`.
    Raises UserError for a run without policies, and for data that is missing or not what the run was trained on.
    """
    runs = [read_run(Path(run_dir), settings or SelectConfig()) for run_dir in run_dirs]

    def judge_group(group: Sequence[Run]) -> list[dict[str, Any]]:
        evidence = gather(group[0], dataset, quiet, make)
        return [judge(run, evidence, quiet) for run in group]

    return judged_once(runs, {} if force else {run.run_dir: read_selection(run) for run in runs}, judge_group)


def judged_once(
    runs: Sequence[Run],
    known: Mapping[Path, dict[str, Any] | None],
    judge_group: Callable[[Sequence[Run]], Sequence[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """What is `known` of each run and, of those of which nothing is, what `judge_group` finds: it takes all such runs
    on one data set. In the order of `runs`, each with its `run_dir`."""
    found = {run.run_dir: known.get(run.run_dir) for run in runs}
    pending = {run.run_dir: run for run in runs if found[run.run_dir] is None}.values()
    for data_key in dict.fromkeys(run.data_key for run in pending):
        group = [run for run in pending if run.data_key == data_key]
        found |= zip((run.run_dir for run in group), judge_group(group), strict=True)
    return [{"run_dir": str(run.run_dir), **(found[run.run_dir] or {})} for run in runs]


def read_run(run_dir: Path, settings: SelectConfig) -> Run:
    """Which policies a run kept. UserError if none, or if they plan."""
    require_network(run_dir)
    config = store.read_json(run_dir / store.CONFIG)
    steps = list(list_policies(run_dir))[-(settings.last_steps or 0) :]
    if not steps:
        raise UserError(
            f"{run_dir}: expected kept policies to choose from, found none: finish the run first (--resume)"
        )
    kept = tuple((step, member) for step in steps for member in members_of(config))
    return Run(run_dir, config, with_discount(settings, config), kept)


def with_discount(settings: SelectConfig, config: Mapping[str, Any]) -> SelectConfig:
    """The settings with the discount that both estimates of this run take."""
    gamma = config["algo_config"].get("gamma", DEFAULT_GAMMA) if settings.gamma is None else settings.gamma
    return dataclasses.replace(settings, gamma=gamma, fqe=dataclasses.replace(settings.fqe, gamma=gamma))


def read_selection(run: Run) -> dict[str, Any] | None:
    """The finished selection of the same policies with the same settings, if there is one."""
    try:
        found = store.read_json(run.run_dir / SELECTION)
        same = found["settings"] == store.plain(dataclasses.asdict(run.settings))
        kept = [
            {name: policy[name] for name in ("step", "seed", "setting") if name in policy}
            for policy in found["policies"]
            if "policy" in policy  # earlier versions did not tell policies apart
        ]
    except (UserError, KeyError, TypeError):
        return None
    return found if same and kept == [{"step": step} | member.marks for step, member in run.kept] else None


def gather(run: Run, source: Dataset | Path | str | None, quiet: bool, make: bool = True) -> Evidence:
    """The run's data, loaded if they are not given, and a model fitted to them."""
    if not isinstance(source, Dataset):
        source = load_run_dataset(run.run_dir, run.config, source, make, quiet)
    dataset = source
    settings = run.settings
    data = to_device(dataset)
    key = jax.random.fold_in(jax.random.key(settings.seed), MODEL_STREAM)
    with bar("dynamics", settings.dynamics.max_batches, "batch", quiet) as advance:
        members, figures = dynamics_fit.fit_members(
            key, settings.dynamics, data.rows, lambda done, _: advance(done), data.episode
        )
    model = dynamics.first_members(members, settings.dynamics.num_elites)
    return Evidence(dataset, data, make_problem(dataset), model, figures["holdout_error"])


def judge(run: Run, evidence: Evidence, quiet: bool) -> dict[str, Any]:
    """Both estimates of every kept policy beside its score; written to `selection.json`."""
    layers = load_kept(run)
    actors = stack_actors(layers)
    horizon = run.settings.horizon or default_horizon(evidence.dataset, run.settings.fqe.gamma)
    fqe = fitted_values(run, evidence, actors, quiet)
    model = imagined_values(run, evidence, actors, horizon, quiet)
    metric, scores = real_scores(run)
    policies = [
        row | {"score": scores.get((step, member.seed, member.setting)), "policy": layers_digest(own)}
        for row, (step, member), own in zip(policy_rows(run, fqe, model), run.kept, layers, strict=True)
    ]
    dataset = evidence.dataset
    selection = {
        "run": run.run_dir.resolve().name,
        "dataset": run.config["data"]["name"],
        "dataset_sha256": dataset.sha256,
        "metric": metric,
        "policies": policies,
        "chosen": choose(policies),
        "rank_correlation": rank_correlation(policies),
        "horizon": horizon,
        "holdout_error": evidence.holdout_error,
        "fqe_curve": fqe.curve.T,
        "settings": dataclasses.asdict(run.settings),
        "provenance": store.provenance(store.own_command(), dataset.sha256, jax.devices()[0].device_kind),
    }
    store.write_json(run.run_dir / SELECTION, selection, seal=True)
    return store.plain(selection)


def load_kept(run: Run) -> list[NumpyPolicy]:
    """The layers of every kept policy."""
    return [load_layers(run.run_dir, member.seed, step, member.setting) for step, member in run.kept]


def layers_digest(layers: NumpyPolicy) -> str:
    """What tells policies apart: a run may keep the same one at many steps."""
    return digest(to_arrays(layers), {})[:16]


def policy_rows(run: Run, fqe: FQEResult | None, model: ModelValue | None) -> list[dict[str, Any]]:
    """Every kept policy with its estimates; None for one that diverged or was not made."""
    columns = {"fqe": getattr(fqe, "value", None)}
    columns |= {"model_value": getattr(model, "mean", None), "model_std": getattr(model, "std", None)}
    estimates = lambda i: {name: None if column is None else store.known(column[i]) for name, column in columns.items()}
    return [member.marks | {"step": step} | estimates(i) for i, (step, member) in enumerate(run.kept)]


def stack_actors(actors: list[Any]) -> MLP:
    """The layers of several policies on the device, with a leading policy axis."""
    trees = [tuple(Dense(kernel, bias) for kernel, bias in layers) for layers in actors]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def default_horizon(dataset: Dataset, gamma: float) -> int:
    """The time limit, or where next to nothing is left of the weight."""
    longest = int(np.max(dataset.episode_lengths(), initial=0)) or dataset.num_transitions
    limit = longest if dataset.task is None else dataset.task.max_episode_steps
    return limit if gamma == 0.0 else min(limit, math.ceil(math.log(NEGLIGIBLE) / math.log(gamma)))


def draw_starts(initial_obs: Any, count: int, seed: int) -> Any:
    """`count` initial states in random order, repeated only if there are fewer: `[E, d] -> [count, d]`."""
    order = np.random.default_rng(seed).permutation(len(initial_obs))
    return initial_obs[np.resize(order, count)]


def fitted_values(run: Run, evidence: Evidence, actors: MLP, quiet: bool, act: Act = act_mode) -> FQEResult:
    """Fitted Q evaluation of all policies at once."""
    settings, initial_obs = run.settings, evidence.data.initial_obs
    key = jax.random.fold_in(jax.random.key(settings.seed), FQE_STREAM)
    starts = draw_starts(initial_obs, min(len(initial_obs), FQE_STARTS), settings.seed)
    with bar(f"fitted Q, {len(run.kept)} policies", settings.fqe.num_updates, "update", quiet) as advance:
        return evaluate_policies(key, settings.fqe, actors, evidence.data.rows, starts, act, on_block=advance)


def imagined_values(
    run: Run, evidence: Evidence, actors: MLP, horizon: int, quiet: bool, act: Act = act_mode
) -> ModelValue:
    """The value of all policies in the model at once."""
    settings, elites = run.settings, run.settings.dynamics.num_elites
    key = jax.random.fold_in(jax.random.key(settings.seed), ROLLOUT_STREAM)
    starts = draw_starts(evidence.data.initial_obs, -(-settings.starts // elites) * elites, settings.seed)
    episode = Episode(evidence.problem.termination, settings.fqe.gamma, horizon, act, settings.rollout_noise)
    bounds = fit_bounds(evidence.data.rows, evidence.model, settings.known_share)
    with bar(f"model rollouts, {len(run.kept)} policies", horizon, "step", quiet) as advance:
        return model_values(key, evidence.model, actors, starts, bounds, episode, advance)


def real_scores(run: Run) -> tuple[str | None, dict[tuple[int, int, int | None], float]]:
    """Which measure the simulator gave, and its value by step, seed and setting; None and nothing without any."""
    path = run.run_dir / store.METRICS
    rows = [row for row in store.read_metrics(run.run_dir) if "eval/return_mean" in row] if path.exists() else []
    if not rows:
        return None, {}
    metric = "eval/score" if "eval/score" in rows[0] else "eval/return_mean"
    return metric, {(row["step"], row["seed"], row.get("setting")): row[metric] for row in rows}

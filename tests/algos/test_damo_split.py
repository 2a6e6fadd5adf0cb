"""DAMO with the policy's part of the log-ratio written down: the whole run, and what each new term does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import damo
from damorl.data.datasets import Dataset, load_dataset
from damorl.errors import UserError
from damorl.experiment import inputs
from damorl.experiment import train as loop
from damorl.experiment.config import RunConfig, defaults
from damorl.experiment.config import replace as change
from damorl.experiment.progress import Progress
from damorl.parts import classifier
from damorl.parts.actor import policy
from damorl.parts.maximin import maximin_gradients
from damorl.parts.reference import kl
from damorl.record import checkpoint

SPLIT = {
    "log_ratio": "split",
    "cloning_updates": 20,
    "reference_share": 0.5,
    "kl_target": 0.1,
    "policy_weight": 0.2,
    "temperature_lr": 1e-2,
}


@pytest.fixture(scope="module")
def toy(hopper_toy: Path) -> Dataset:
    return load_dataset(hopper_toy)


class Ran(NamedTuple):
    prepared: Any
    state: Any
    """After two epochs."""
    metrics: Any
    """Of the second."""
    compiled: int
    """How often."""


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def run(toy: Dataset) -> Run:
    """`run(seeds, **changes)`: each is compiled and trained once, for all tests that ask for it."""
    trained: dict[str, Ran] = {}

    def once(*seeds: int, **changes: Any) -> Ran:
        name = f"{seeds} {sorted(changes.items())}"
        if name not in trained:
            trained[name] = train(toy, seeds, changes)
        return trained[name]

    return once


def train(toy: Dataset, seeds: tuple[int, ...], changes: dict[str, Any]) -> Ran:
    run_loop, settings = defaults("damo", "smoke", "hopper-toy")
    run_loop = dataclasses.replace(run_loop, total_updates=100, refresh_interval=5)
    config = RunConfig("damo", "hopper-toy", None, "smoke", seeds, run_loop, change(settings, SPLIT | changes))
    problem, data, keys = inputs.make_problem(toy), inputs.to_device(toy), loop.seed_keys(seeds)
    prepared = loop.prepare_states(
        config, problem, data, loop.init_state(config, problem, data), Progress(config, quiet=True)
    )
    kept = jax.tree.map(np.asarray, prepared)  # the epoch's input is donated
    epoch = loop.make_epoch(config, problem)
    state, _, _ = epoch(prepared, data, keys, 0)
    state, _, metrics = epoch(state, data, keys, 1)
    return Ran(kept, state, metrics, epoch._cache_size())  # type: ignore[attr-defined]


IMAGINED = {"actor_objective": "imagined", "actor_starts": 10, "rollout_noise": False}
VALIDATED = IMAGINED | {"keep": "validated", "trust": "validated", "validation_steps": 20, "validation_starts": 5}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"behaviour_alignment": False},
        {"actor_objective": "sac"},
        # VALIDATED has all of it, and test_damo_imagined.py its update alone
        pytest.param(IMAGINED, marks=pytest.mark.slow),
        VALIDATED,
    ],
)
def test_it_runs_compiles_once_and_keeps_its_reference(run: Run, changes: dict[str, Any]) -> None:
    prepared, state, metrics, compiled = run(5, **changes)
    assert compiled == 1
    assert all(np.isfinite(values).all() for values in jax.tree.leaves(metrics))
    assert {"actor/kl", "actor/kl_weight"} <= metrics.keys()
    for clone, actor, now in zip(
        jax.tree.leaves(prepared.reference),
        jax.tree.leaves(prepared.actor.params),
        jax.tree.leaves(state.reference),
        strict=True,
    ):
        np.testing.assert_array_equal(clone, actor)
        np.testing.assert_array_equal(clone, now)


@pytest.mark.parametrize("changes", [{}, VALIDATED])
def test_seeds_together_equal_seeds_alone(run: Run, changes: dict[str, Any]) -> None:
    together, alone = run(3, 5, **changes).state, run(5, **changes).state
    for part in ("actor", "kept", "kl_target"):
        named = checkpoint.named_leaves([getattr(together, part)])
        for name, leaf in checkpoint.named_leaves([getattr(alone, part)]).items():
            np.testing.assert_allclose(named[name][1], leaf[0], rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_policy_at_its_reference_pays_nothing_and_its_weight_falls(run: Run) -> None:
    metrics = run(5, actor_lr=0.0).metrics
    np.testing.assert_allclose(metrics["actor/kl"], 0.0, atol=1e-5)
    weights = np.asarray(metrics["actor/kl_weight"])[0]
    assert np.all(np.diff(weights) < 0.0)  # the target allows more than that


def test_without_a_target_the_weight_stays(run: Run) -> None:
    metrics = run(5, kl_target=None).metrics
    np.testing.assert_allclose(metrics["actor/kl_weight"], SPLIT["policy_weight"], rtol=1e-6)


def test_a_split_without_a_clone_is_refused() -> None:
    with pytest.raises(UserError, match="log_ratio 'split' measures the policy against a clone"):
        damo.Config(log_ratio="split")


def test_the_weight_of_the_policy_s_part_is_the_other_s_unless_given() -> None:
    config = damo.Config(log_ratio="split", cloning_updates=1, divergence_weight=2.0)
    assert config.split_weight == 2.0
    assert replace(config, policy_weight=0.5).split_weight == 0.5


@pytest.mark.parametrize(("sees", "offset"), [("transition", True), ("pair", True), ("state", False)])
def test_the_known_part_is_the_offset_of_a_classifier_that_sees_actions(
    config, state, batch, monkeypatch, sees: classifier.Sees, offset: bool
) -> None:
    given: list[Any] = []
    genuine = classifier.classifier_loss
    monkeypatch.setattr(classifier, "classifier_loss", lambda *args: (given.append(args[-1]), genuine(*args))[1])
    split = replace(config, log_ratio="split", cloning_updates=1, classifier_sees=sees)
    state = state._replace(reference=jax.tree.map(lambda leaf: leaf + 0.1, state.actor.params))
    tx = damo.make_optimisers(split)
    damo.update_classifier(split, state, batch, batch, jax.random.key(0), tx)
    assert (given[0] is not None) == offset
    if offset:
        half = config.batch_size // 2
        pre_tanh = jnp.arctanh(batch.action[:half])
        ours, theirs = (
            policy(params, batch.obs[:half]).log_prob_pre_tanh(pre_tanh)
            for params in (state.actor.params, state.reference)
        )
        clip = config.logit_clip
        np.testing.assert_allclose(given[0][:half], jnp.clip(ours - theirs, -clip, clip), rtol=1e-3, atol=1e-3)


def test_the_soft_value_charges_for_the_divergence_in_the_place_of_the_entropy(
    config, state, batch, initial_obs
) -> None:
    """Moving the reference away from the policy lowers the Bellman target of the critic."""
    split = replace(config, log_ratio="split", cloning_updates=1)
    near, far = (
        state._replace(reference=jax.tree.map(lambda leaf, by=by: leaf + by, state.actor.params)) for by in (0.0, 0.3)
    )
    costs = [
        maximin_gradients(split, damo.networks(each), batch, initial_obs, jnp.zeros(()), jax.random.key(1)).cost
        for each in (near, far)
    ]
    np.testing.assert_allclose(costs[0], 0.0, atol=1e-5)
    expected = kl(policy(far.actor.params, batch.next_obs), policy(far.reference, batch.next_obs))
    np.testing.assert_allclose(costs[1], expected, rtol=1e-5)

"""The figures are measured, not made up: operations are counted right, the turns are fair, the yardstick is DAMO."""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import damo
from damorl.bench import clock, stages
from damorl.parts import classifier
from damorl.parts.dynamics import DynamicsConfig, predict
from damorl.parts.maximin import maximin_gradients
from damorl.parts.refined_reward import refined_reward
from damorl.record.store import plain

SMALL = damo.Config(
    hidden=(16, 16),
    classifier_hidden=(16, 16),
    batch_size=32,
    initial_batch_size=32,
    rollout_starts=50,
    dynamics=DynamicsConfig(hidden=(16, 16)),
)
TINY = stages.Workload(
    SMALL, num_rows=300, num_seeds=(2,), updates=3, fit_batches=3, matrix_sizes=(32, 8), eval_episodes=1
)


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, Any], stages.Seeds]:
    """The figures of a tiny workload, and the seeds they were taken of: compiling is slow, so all tests share this."""
    made: list[stages.Seeds] = []
    with pytest.MonkeyPatch.context() as patch:
        real = stages.Seeds
        patch.setattr(stages, "Seeds", lambda *arguments: made.append(real(*arguments)) or made[-1])
        return stages.run_bench(0.05, quiet=True, workload=TINY), made[0]


@pytest.fixture(scope="module")
def figures(measured: tuple[dict[str, Any], stages.Seeds]) -> dict[str, Any]:
    return measured[0]


def test_the_figures_fit_together(figures: dict[str, Any]) -> None:
    assert set(figures["matrix_gflops"]) == {"32", "8"}
    (row,) = figures["updates"]
    gflops = figures["update_gflop"] * 2 * row["per_second"]
    assert row["num_seeds"] == 2
    assert row["gflops"] == pytest.approx(gflops)
    assert row["share_of_matrix_rate"] == pytest.approx(gflops / max(figures["matrix_gflops"].values()))
    for name in ("rollout_transitions_per_second", "dynamics_batches_per_second", "compile_seconds"):
        assert figures[name] > 0
    assert figures["evaluation_steps_per_second"] > 0  # the tests' environment has the simulator
    assert figures["peak_memory"]["host"] > 50e6  # Python with jax in it
    assert figures["versions"]["jax"] == jax.__version__
    assert figures["device_kind"] == jax.devices()[0].device_kind
    assert figures["usable_cpus"] >= 1
    json.dumps(plain(figures), allow_nan=False)


def test_the_memory_of_seeds_covers_their_state(measured: tuple[dict[str, Any], stages.Seeds]) -> None:
    figures, seeds = measured
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(seeds.state))
    assert state_bytes < figures["updates"][0]["memory_bytes"] < 20 * state_bytes


def test_the_table_shows_the_figures(figures: dict[str, Any]) -> None:
    table = stages.format_bench(figures)
    assert "2 seeds together" in table
    assert f"{figures['updates'][0]['per_second']:,.1f} per second and seed" in table
    assert f"{figures['dynamics_batches_per_second']:,.1f} batches per second" in table
    assert "no simulator" not in table
    assert "no simulator" in stages.format_bench(figures | {"evaluation_steps_per_second": None})


def test_progress_is_told_on_standard_error_only(
    measured: tuple[dict[str, Any], stages.Seeds],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(stages, "Seeds", lambda *arguments: measured[1])
    monkeypatch.setattr(stages, "evaluation_rate", lambda episodes: None)
    monkeypatch.setattr(stages, "fit_rate", lambda workload, data, seconds: 1.0)
    stages.run_bench(0.0, quiet=True, workload=TINY)
    assert capsys.readouterr() == ("", "")
    stages.run_bench(0.0, quiet=False, workload=TINY)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "compiling an epoch for 2 seeds\n" in captured.err


def test_without_simulator_there_is_no_evaluation_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", None)  # what makes Python say that there is no such module
    assert stages.evaluation_rate(1) is None


def test_operations_of_an_update_are_those_of_its_matrix_products() -> None:
    """By hand for full size: the weights of each network, times rows, times 2, times the passes over them."""
    classifier_weights = 25 * 256 + 256 * 256 + 256
    actor_weights = 11 * 256 + 256 * 256 + 256 * 6
    critic_weights = 14 * 256 + 256 * 256 + 256
    by_hand = 2 * 256 * (4 * classifier_weights + 6 * actor_weights + 2 * (6 + 2) * critic_weights)
    config = damo.Config()
    assert stages.analytic_flops(config) == by_hand
    counted = stages.update_flops(config, stages.synthetic_data(100))
    assert counted == pytest.approx(by_hand, rel=0.03)  # XLA also counts what is not a product


def test_without_data_alignment_there_is_no_classifier_to_count() -> None:
    config = stages.replace(SMALL, data_alignment=False)
    data = stages.synthetic_data(100)
    assert stages.update_flops(config, data) < stages.update_flops(SMALL, data)
    assert stages.analytic_flops(config) < stages.analytic_flops(SMALL)


def test_jobs_take_turns_and_medians_ignore_one_slow_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], []
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def job(name: str, seconds: list[float]) -> Any:
        def run() -> None:
            order.append(name)
            now[0] += seconds[order.count(name) - 1]

        return run

    medians = clock.interleave({"a": job("a", [1.0, 50.0, 1.0]), "b": job("b", [2.0, 2.0, 2.0])}, 0.1)
    assert "".join(order) == "ababab"
    assert medians == {"a": 1.0, "b": 2.0}


def test_the_matrix_job_counts_the_products_it_makes() -> None:
    run, flops = clock.matrix_job(8, 0.0)
    assert flops == 2 * 8**3
    run()


def test_synthetic_rows_are_alive_for_the_termination_rule() -> None:
    rows = stages.synthetic_data(1000).rows
    assert rows.obs.shape == (1000, stages.OBS_DIM)
    assert float(jnp.mean(stages.hopper_ended(rows.obs, rows.action, rows.next_obs))) == 0.0
    assert float(jnp.max(jnp.abs(rows.action))) <= 1.0


def test_the_timed_updates_are_real_training(measured: tuple[dict[str, Any], stages.Seeds]) -> None:
    _, seeds = measured
    before = np.asarray(seeds.state.actor.params[0].kernel)
    seeds.run(seeds.updates)
    after = np.asarray(seeds.state.actor.params[0].kernel)
    assert np.all(np.any(before != after, axis=(1, 2)))
    assert not np.allclose(after[0], after[1])  # each seed draws its own batches
    assert np.all(np.asarray(seeds.state.buffer.size) > SMALL.rollout_starts)  # it is not one row over and over


# The PyTorch implementation that damorl is timed against computes the same losses and gradients.


@pytest.fixture(scope="module")
def sides() -> tuple[Any, ...]:
    """torch, the data, one seed's state, and the PyTorch agent with the same weights."""
    torch = pytest.importorskip("torch")
    from benchmarks.compare_torch import torch_agent

    data = stages.synthetic_data(300)
    state = stages.fresh_state(SMALL, data)
    state = state._replace(  # away from their starting values: the target from the critic, the temperature from 1
        temperature=state.temperature._replace(params=jnp.log(jnp.float32(0.2))),
        target_critic=jax.tree.map(lambda leaf: 1.1 * leaf, state.target_critic),
    )
    return torch, data, state, torch_agent(SMALL, data, state)


def to_torch(torch: Any, rows: Any) -> Any:
    from benchmarks.torch_damo import Batch

    return Batch(*(torch.from_numpy(np.array(column)) for column in rows))


def compare(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Gradients of one network, leaf by leaf; torch stores its matrices as `[out, in]`."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        theirs = theirs.T if theirs.ndim == 2 else theirs
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-4 * np.abs(theirs).max())


def test_torch_classifier_loss(sides: tuple[Any, ...]) -> None:
    torch, data, state, agent = sides
    real, synthetic = (jax.tree.map(lambda leaf, s=s: leaf[s : s + 16], data.rows) for s in (0, 100))
    x_real, x_synthetic = (state.classifier_inputs.apply(classifier.features(rows)) for rows in (real, synthetic))
    params, key = state.classifier.params, jax.random.key(0)
    loss, _ = classifier.classifier_loss(params, x_real, x_synthetic, key, "none", 0.0)
    found = agent.classifier_loss(to_torch(torch, real), to_torch(torch, synthetic))
    assert found.item() == pytest.approx(float(loss), rel=1e-5)


def test_torch_critic_and_actor_gradients(sides: tuple[Any, ...]) -> None:
    torch, data, state, agent = sides
    batch = jax.tree.map(lambda leaf: leaf[:32], data.rows)
    batch = batch._replace(terminal=batch.terminal.at[:3].set(1.0))
    initial_obs, key = data.rows.obs[40:72], jax.random.key(5)
    judge = state.classifier.params, state.classifier_inputs, state.terminal_rate
    reward, absorbing = refined_reward(SMALL, *judge, batch)
    refined = batch._replace(reward=reward)
    grads = maximin_gradients(SMALL, damo.networks(state), refined, initial_obs, absorbing, key)

    noise = torch.from_numpy(np.array(jax.random.normal(key, (64, stages.ACTION_DIM))))
    initial = torch.from_numpy(np.array(initial_obs))
    critic_loss, actor_loss, log_prob = agent.losses(to_torch(torch, batch), initial, noise[:32], noise[32:])
    np.testing.assert_allclose(log_prob.detach().numpy(), np.asarray(grads.cost), atol=1e-4)
    agent.critic_optimiser.zero_grad()
    agent.actor_optimiser.zero_grad()
    critic_loss.backward()
    actor_loss.backward()
    for index, net in enumerate((agent.critic.q1, agent.critic.q2)):
        expected = [np.asarray(leaf)[index] for layer in grads.critic for leaf in layer]
        compare([p.grad.numpy() for p in net.parameters()], expected)
    expected = [np.asarray(leaf) for layer in grads.actor for leaf in layer]
    compare([p.grad.numpy() for p in agent.actor.parameters()], expected)


def test_torch_dynamics(sides: tuple[Any, ...]) -> None:
    torch, data, state, agent = sides
    obs, action = data.rows.obs[:8], data.rows.action[:8]
    elites = SMALL.dynamics.num_elites
    ours = predict(state.model, jnp.tile(obs, (elites, 1, 1)), jnp.tile(action, (elites, 1, 1)))
    mean, std = agent.dynamics(torch.from_numpy(np.array(obs)), torch.from_numpy(np.array(action)))
    np.testing.assert_allclose(mean[:elites].numpy(), np.asarray(ours.mean), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(std[:elites].numpy(), np.asarray(ours.std), rtol=1e-4, atol=1e-4)


def test_torch_update_moves_every_network(sides: tuple[Any, ...]) -> None:
    _, _, _, agent = sides
    assert agent.rollout() == agent.buffer.size > SMALL.rollout_starts
    nets = (agent.actor, agent.critic.q1, agent.critic.q2, agent.target_critic, agent.classifier)
    first = lambda net: next(iter(net.parameters())).detach().clone()
    before = [first(net) for net in nets]
    agent.update()
    assert all(bool((first(net) != old).any()) for net, old in zip(nets, before, strict=True))

"""Algorithms side by side: each is really trained, and its operations are counted as often as they are done."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import damo
from damorl.bench import algorithms, clock, stages
from damorl.cli import main
from damorl.errors import UserError
from damorl.record.store import plain

NAMES = ("bc", "rambo", "sac")  # without a refresh; with model updates in it; with rollouts alone
TINY = stages.Workload(num_rows=300, updates=3, matrix_sizes=(32, 8))


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, Any], list[stages.Seeds]]:
    """The figures of the smoke preset, and what was trained for them."""
    made: list[stages.Seeds] = []
    with pytest.MonkeyPatch.context() as patch:
        real = stages.Seeds
        patch.setattr(algorithms, "Seeds", lambda *arguments: made.append(real(*arguments)) or made[-1])
        return algorithms.run_algorithms_bench(NAMES, 0.02, quiet=True, preset="smoke", sizes=TINY), made


def test_the_figures_fit_together(measured: tuple[dict[str, Any], list[stages.Seeds]]) -> None:
    figures, trained = measured
    assert [row["algo"] for row in figures["algorithms"]] == list(NAMES)
    for row, seeds in zip(figures["algorithms"], trained, strict=True):
        rate = row["gflop"] * row["updates_per_second"]
        assert row["share_of_matrix_rate"] == pytest.approx(rate / max(figures["matrix_gflops"].values()))
        assert row["refresh_interval"] == 50
        epoch = 50 / row["updates_per_second"] + row["refresh_seconds"]
        assert row["updates_per_second_with_refresh"] == pytest.approx(50 / epoch)
        assert row["memory_bytes"] > sum(leaf.nbytes for leaf in jax.tree.leaves(seeds.state))
    json.dumps(plain(figures), allow_nan=False)


def test_what_is_timed_is_training_on_a_filled_buffer(measured: tuple[dict[str, Any], list[stages.Seeds]]) -> None:
    _, (bc, rambo, sac) = measured
    for seeds, actor in ((bc, lambda s: s.actor), (rambo, lambda s: s.agent.actor), (sac, lambda s: s.agent.actor)):
        before = [np.asarray(leaf) for leaf in jax.tree.leaves(actor(seeds.state).params)]
        seeds.run(seeds.updates)
        after = [np.asarray(leaf) for leaf in jax.tree.leaves(actor(seeds.state).params)]
        assert all(np.isfinite(leaf).all() for leaf in after)
        assert any((old != new).any() for old, new in zip(before, after, strict=True))
    for seeds in (rambo, sac):
        assert int(seeds.state.buffer.size[0]) > 50  # starts that lived for more than a step
    model = np.asarray(rambo.state.model.params.layers[0].kernel)
    rambo.run(rambo.refresh)
    assert (model != np.asarray(rambo.state.model.params.layers[0].kernel)).any()


def test_the_table_has_a_row_for_each(measured: tuple[dict[str, Any], list[stages.Seeds]]) -> None:
    figures, _ = measured
    lines = algorithms.format_algorithms_bench(figures).splitlines()
    rows = {line.split()[0]: line for line in lines if line.split()[:1] and line.split()[0] in NAMES}
    assert set(rows) == set(NAMES)
    for row in figures["algorithms"]:
        assert f"{row['updates_per_second']:,.1f}" in rows[row["algo"]]
        assert f"{row['memory_bytes'] / 2**20:,.0f}" in rows[row["algo"]]
    unknown = [row | {"memory_bytes": None} for row in figures["algorithms"]]
    assert " -" in algorithms.format_algorithms_bench(figures | {"algorithms": unknown})


def test_the_data_are_whole_episodes_of_the_synthetic_rows() -> None:
    data, rows = algorithms.whole_data(250), stages.synthetic_data(250).rows
    for found, given in zip(data.rows, rows, strict=True):
        np.testing.assert_array_equal(found, given)
    np.testing.assert_array_equal(data.initial_obs, rows.obs[::100])


def test_an_unknown_algorithm_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(UserError, match="unknown algorithm 'mop'"):
        algorithms.run_algorithms_bench(["mop"], quiet=True, sizes=TINY)


def test_the_shell_asks_for_all_or_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    figures = {"algorithms": []}
    monkeypatch.setattr(algorithms, "run_algorithms_bench", lambda *given: asked.append(given) or figures)
    assert main(["bench", "--algo", "all", "--json", "--seconds", "1"]) == 0
    assert main(["bench", "--algo", "rambo", "--preset", "quick", "--json"]) == 0
    assert asked == [((), 1.0, True, "paper"), (("rambo",), 3.0, True, "quick")]
    assert '"algorithms": []' in capsys.readouterr().out


def test_products_are_counted_as_often_as_loops_run_them() -> None:
    def looped(x: Any) -> Any:
        y, _ = jax.lax.scan(lambda y, _: (jnp.tanh(y @ x), None), x, None, length=5)
        return jax.lax.cond(y[0, 0] > 0, lambda z: z @ x @ x, lambda z: z, y)

    assert clock.product_flops(looped, jnp.ones((4, 4))) == 2 * 4**3 * (5 + 2)
    batched = jax.vmap(lambda a, b: jax.jit(jnp.dot)(a, b))
    assert clock.product_flops(batched, jnp.ones((7, 3)), jnp.ones((7, 3, 2))) == 2 * 7 * 3 * 2


def test_products_of_damo_are_those_counted_by_hand() -> None:
    config, data = damo.Config(), stages.synthetic_data(100)
    state = jax.eval_shape(lambda: stages.fresh_state(config, data))
    found = clock.product_flops(lambda s, k: damo.update(config, stages.PROBLEM, s, data, k), state, jax.random.key(0))
    assert found == pytest.approx(stages.analytic_flops(config), rel=0.03)


def test_a_loop_inside_an_update_is_counted_in_full() -> None:
    """XLA's own count takes the body of a loop once."""
    data, config = stages.synthetic_data(100), algorithms.defaults("bc", "smoke", "")[1]
    bc = algorithms.find_algorithm("bc")
    once = stages.update_flops(config, data, bc)

    def ten_times(config: Any, problem: Any, state: Any, data: Any, key: Any) -> Any:
        return jax.lax.scan(lambda s, k: bc.update(config, problem, s, data, k), state, jax.random.split(key, 10))

    ten = stages.replace(bc, update=ten_times)
    assert stages.update_flops(config, data, ten) > 7.0 * once

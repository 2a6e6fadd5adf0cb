"""The gradients of one forward pass against the two losses of Eq. 2, written out one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from damorl.algos import damo
from damorl.core.nets import apply_mlp
from damorl.parts import maximin
from damorl.types import Transition

KEY = jax.random.key(7)
stop = jax.lax.stop_gradient


class Scene(NamedTuple):
    """What both losses depend on besides the networks that learn."""

    config: damo.Config
    state: damo.State
    batch: Transition
    initial_obs: jax.Array
    absorbing: float = 0.0
    live_share: float = 0.0
    """Of the target's Q(s', a')."""

    @property
    def noise(self) -> tuple[jax.Array, jax.Array]:
        """The draws behind the sampled actions: at next states first, then at initial ones."""
        draws = jax.random.normal(KEY, (len(self.batch.reward) + len(self.initial_obs), self.batch.action.shape[1]))
        return draws[: len(self.batch.reward)], draws[len(self.batch.reward) :]

    def found(self) -> maximin.Gradients:
        """The code under test."""
        return compiled(self.config)(
            damo.networks(self.state), self.batch, self.initial_obs, jnp.float32(self.absorbing), KEY
        )


@cache
def compiled(config: damo.Config) -> Callable[..., maximin.Gradients]:
    return jax.jit(partial(maximin.maximin_gradients, config))


@pytest.fixture(scope="module")
def scene(config, state, batch, initial_obs) -> Scene:
    return Scene(config, state, batch, initial_obs)


# --- the slow way -----------------------------------------------------------------------------------------------


def f_star(name: str, y):
    """The loss of the critic."""
    if name == "cubic_symmetric":
        return 2.0 / 3.0 * jnp.abs(y) ** 1.5
    return jnp.where(y > -2.0, y + y**2 / 4.0, -1.0)


def f_star_of_ratios(name: str, y):
    """What the actor ascends: f* over density ratios x >= 0 only."""
    return 2.0 / 3.0 * jnp.maximum(y, 0.0) ** 1.5 if name == "cubic_symmetric" else f_star(name, y)


def act(actor, obs, noise):
    """A squashed Gaussian action and its log density, by the textbook."""
    mean, log_std = jnp.split(apply_mlp(actor, obs), 2, axis=1)
    log_std = jnp.clip(log_std, -5.0, 2.0)
    u = mean + jnp.exp(log_std) * noise
    log_prob = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2.0 * jnp.pi) + 2.0 * jnp.log(jnp.cosh(u))
    return jnp.tanh(u), jnp.sum(log_prob, axis=1)


def q_of(critic, member: int, obs, action):
    alone = jax.tree.map(lambda leaf: leaf[member], critic)
    return apply_mlp(alone, jnp.concatenate([obs, action], axis=1))[:, 0]


def bellman(scene: Scene, next_value):
    after = jnp.where(scene.batch.terminal == 1.0, scene.absorbing, next_value)
    target = scene.batch.reward + scene.config.gamma * after
    return jnp.where(target > 0.0, target, 0.0) if scene.config.terminal_handling == "floor" else target


def frozen_value(scene: Scene, action, log_prob):
    """The lower of the target critics at s', with the entropy bonus."""
    lower = jnp.minimum(*(q_of(scene.state.target_critic, k, scene.batch.next_obs, action) for k in range(2)))
    return lower - temperature(scene) * log_prob


def temperature(scene: Scene):
    return jnp.exp(scene.state.temperature.params)


def critic_objective(critic, actor, scene: Scene):
    """What the critic minimises, summed over the twins."""
    batch, config, (next_noise, initial_noise) = scene.batch, scene.config, scene.noise
    action, log_prob = map(stop, act(actor, batch.next_obs, next_noise))
    initial_action, _ = map(stop, act(actor, scene.initial_obs, initial_noise))
    frozen, total = stop(frozen_value(scene, action, log_prob)), 0.0
    for k in range(2):
        live = q_of(critic, k, batch.next_obs, action) - temperature(scene) * log_prob
        residual = bellman(scene, scene.live_share * live + (1.0 - scene.live_share) * frozen)
        residual -= q_of(critic, k, batch.obs, batch.action)
        weight = config.divergence_weight
        total += weight * jnp.mean(f_star(config.divergence, residual / weight))
        total += (1.0 - config.gamma) * jnp.mean(q_of(critic, k, scene.initial_obs, initial_action))
    return total


def actor_objective(actor, critic, scene: Scene):
    """What the actor maximises, a mean over the twins; its way into the target leads through the target critics."""
    batch, config, (next_noise, initial_noise) = scene.batch, scene.config, scene.noise
    action, log_prob = act(actor, batch.next_obs, next_noise)
    initial_action, _ = act(actor, scene.initial_obs, initial_noise)
    frozen, critic = frozen_value(scene, action, log_prob), stop(critic)
    weight, total = config.actor_divergence_weight or config.divergence_weight, 0.0
    for k in range(2):
        live = q_of(critic, k, batch.next_obs, action) - temperature(scene) * log_prob
        residual = bellman(scene, stop(scene.live_share * live + (1.0 - scene.live_share) * frozen))
        residual += config.gamma * (1.0 - batch.terminal) * (frozen - stop(frozen))  # the floor cuts no gradient
        residual -= q_of(critic, k, batch.obs, batch.action)
        total += 0.5 * weight * jnp.mean(f_star_of_ratios(config.divergence, residual / weight))
        total += 0.5 * (1.0 - config.gamma) * jnp.mean(q_of(critic, k, scene.initial_obs, initial_action))
    return total


def slow_gradients(scene: Scene):
    """Of the critic's and the actor's objectives, and the log densities of the next actions."""

    def figures(critic, actor):
        _, log_prob = act(actor, scene.batch.next_obs, scene.noise[0])
        critic_slope = jax.grad(critic_objective)(critic, actor, scene)
        return critic_slope, jax.grad(actor_objective)(actor, critic, scene), log_prob

    return jax.jit(figures)(scene.state.critic.params, scene.state.actor.params)


@partial(jax.jit, static_argnames="member")
def twin_value(critic, obs, action, member: int = 0):
    return q_of(critic, member, obs, action)


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def assert_same(found, expected) -> None:
    assert np.linalg.norm(flat(expected)) > 1e-3
    np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-3, atol=2e-5)


ABSORBING = {"terminal_handling": "absorbing", "actor_divergence_weight": None}
CASES = {
    "semi, floor": ({}, {}),
    "semi, absorbing, the actor's weight not fixed": (ABSORBING, {"absorbing": -2.5}),
    "mixed, floor": ({"critic_gradient": "mixed"}, {"live_share": 0.05}),
    "full, none, chi-square": (
        {"critic_gradient": "full", "terminal_handling": "none", "divergence": "chi_square"},
        {"live_share": 1.0},
    ),
}


@pytest.mark.parametrize(("changes", "extra"), CASES.values(), ids=CASES)
def test_one_pass_gives_both_gradients(scene, changes, extra):
    scene = scene._replace(config=replace(scene.config, **changes), **extra)
    found, (critic, actor, log_prob) = scene.found(), slow_gradients(scene)
    assert_same(found.critic, critic)
    assert_same(found.actor, jax.tree.map(lambda leaf: -np.asarray(leaf), actor))  # an optimiser descends
    np.testing.assert_allclose(found.cost, log_prob, rtol=1e-4, atol=1e-5)


def test_the_batch_meets_both_signs_and_the_floor(scene):
    """Else the comparisons above would prove little."""
    value = jax.jit(lambda actor: frozen_value(scene, *act(actor, scene.batch.next_obs, scene.noise[0])))
    value = value(scene.state.actor.params)
    target = np.asarray(scene.batch.reward + scene.config.gamma * (1.0 - scene.batch.terminal) * value)
    residual = target - np.asarray(twin_value(scene.state.critic.params, scene.batch.obs, scene.batch.action))
    for values in (target, residual):
        assert min(np.sum(values > 0.1), np.sum(values < -0.1)) >= 2


# --- signs ------------------------------------------------------------------------------------------------------


def descend(params, grads, step: float):
    return jax.tree.map(lambda p, g: np.asarray(p) - np.float32(step) * np.asarray(g), params, grads)


@pytest.fixture(scope="module")
def ending(scene) -> Scene:
    """Two equal critics, and every row ends its episode: the reward alone is the target, for both twins."""
    equal = jax.tree.map(lambda leaf: np.stack([leaf[0], leaf[0]]), jax.tree.map(np.asarray, scene.state.critic.params))
    return scene._replace(
        config=replace(scene.config, **ABSORBING),
        state=scene.state._replace(critic=scene.state.critic._replace(params=equal)),
        batch=scene.batch._replace(terminal=jnp.ones_like(scene.batch.terminal)),
    )


def test_initial_values_are_pushed_down_by_one_minus_gamma_each(ending):
    """Residuals 0 everywhere: all that is left of the critic's loss is the first term of Eq. 2."""
    params = ending.state.critic.params
    fitted = ending.batch._replace(reward=twin_value(params, ending.batch.obs, ending.batch.action))
    grads = ending._replace(batch=fitted).found().critic
    np.testing.assert_allclose(grads[-1].bias[:, 0], 1.0 - ending.config.gamma, atol=2e-3)  # d mean Q / d bias = 1
    action, _ = jax.jit(lambda actor: act(actor, ending.initial_obs, ending.noise[1]))(ending.state.actor.params)
    for k in range(2):
        before, after = (twin_value(p, ending.initial_obs, action, k) for p in (params, descend(params, grads, 0.1)))
        assert np.mean(np.asarray(after) - np.asarray(before)) < 0.0


def test_rows_with_a_high_residual_are_raised_by_the_ratio_they_stand_for(ending):
    params, config = ending.state.critic.params, ending.config
    high = ending.batch._replace(reward=jnp.full_like(ending.batch.reward, 50.0))
    grads = ending._replace(batch=high).found().critic
    q = np.asarray(twin_value(params, high.obs, high.action))
    ratio = np.mean(np.sqrt((50.0 - q) / config.divergence_weight))  # f*'(Phi / w) of 2/3 |y|^1.5
    np.testing.assert_allclose(grads[-1].bias[:, 0], 1.0 - config.gamma - ratio, rtol=1e-4)
    assert np.all(np.asarray(twin_value(descend(params, grads, 0.01), high.obs, high.action)) > q)


def test_a_step_of_the_actor_raises_its_objective(scene):
    """By the step times the squared norm of its gradient, to first order."""
    scene = scene._replace(batch=scene.batch._replace(reward=jnp.abs(scene.batch.reward) + 20.0))  # far above the floor
    params, grads, step = scene.state.actor.params, scene.found().actor, 1e-2
    objective = jax.jit(lambda actor: actor_objective(actor, scene.state.critic.params, scene))
    gain = float(objective(descend(params, grads, step)) - objective(params))
    assert gain > 0.0
    assert gain == pytest.approx(step * np.sum(flat(grads) ** 2), rel=0.2)


# --- the other critics and actors -------------------------------------------------------------------------------


def one_sided_slopes(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the residual's loss through Q(s, a) alone and through Q(s', a') alone, the other side frozen."""
    batch, config, target = scene.batch, scene.config, scene.state.target_critic

    @jax.jit
    def frozen(actor):
        action, log_prob = act(actor, batch.next_obs, scene.noise[0])
        now = jnp.minimum(*(q_of(target, k, batch.obs, batch.action) for k in range(2)))
        return action, log_prob, frozen_value(scene, action, log_prob), now

    action, log_prob, frozen_later, frozen_now = frozen(scene.state.actor.params)

    def loss(now, later):
        return config.divergence_weight * jnp.mean(
            f_star(config.divergence, (bellman(scene, later) - now) / config.divergence_weight)
        )

    def forward(critic):
        return sum(loss(q_of(critic, k, batch.obs, batch.action), frozen_later) for k in range(2))

    def backward(critic):
        live = (q_of(critic, k, batch.next_obs, action) - temperature(scene) * log_prob for k in range(2))
        return sum(loss(frozen_now, value) for value in live)

    slopes = jax.jit(lambda critic: (jax.grad(forward)(critic), jax.grad(backward)(critic)))
    forward_slope, backward_slope = slopes(scene.state.critic.params)
    return flat(forward_slope), flat(backward_slope)


def test_orthogonal_adds_the_backward_part_that_leaves_the_forward_one_alone(scene):
    total = scene._replace(config=replace(scene.config, critic_gradient="orthogonal")).found()
    semi = scene.found()
    np.testing.assert_allclose(flat(total.actor), flat(semi.actor), rtol=1e-5, atol=1e-7)
    added = flat(total.critic) - flat(semi.critic)
    forward, backward = one_sided_slopes(scene)
    unit = forward / np.linalg.norm(forward)
    assert abs(backward @ unit) > 0.05 * np.linalg.norm(backward)  # there was something to project out
    assert abs(added @ unit) < 1e-4 * np.linalg.norm(added)
    np.testing.assert_allclose(added, backward - (backward @ unit) * unit, rtol=1e-3, atol=2e-5)


def test_without_behaviour_alignment_the_gradients_are_sacs(scene):
    """Soft actor-critic (arXiv 1812.05905, Eq. 5 and 7) with twins, on whatever reward the batch carries."""
    batch, state = scene.batch, scene.state
    config = replace(scene.config, behaviour_alignment=False)
    found = jax.jit(partial(maximin.gradients, config))(
        damo.networks(state), batch, scene.initial_obs, jnp.zeros(()), KEY
    )
    next_noise, noise = (jax.random.normal(key, batch.action.shape) for key in jax.random.split(KEY))

    def critic_loss(critic):
        target = bellman(scene, frozen_value(scene, *act(state.actor.params, batch.next_obs, next_noise)))
        return sum(jnp.mean((q_of(critic, k, batch.obs, batch.action) - target) ** 2) for k in range(2))

    def actor_loss(actor):
        action, log_prob = act(actor, batch.obs, noise)
        lower = jnp.minimum(*(q_of(state.critic.params, k, batch.obs, action) for k in range(2)))
        return jnp.mean(temperature(scene) * log_prob - lower)

    slopes = jax.jit(lambda c, a: (jax.grad(critic_loss)(c), jax.grad(actor_loss)(a), act(a, batch.obs, noise)[1]))
    critic, actor, log_prob = slopes(state.critic.params, state.actor.params)
    assert_same(found.critic, critic)
    assert_same(found.actor, actor)
    np.testing.assert_allclose(found.cost, log_prob, rtol=1e-4, atol=1e-5)


def without_noise(state: damo.State) -> damo.State:
    """The same policy means, almost no deviation, almost no temperature."""
    *hidden, last = state.actor.params
    bias = jnp.concatenate([last.bias[:2], jnp.full(2, -4.9)])
    last = last._replace(kernel=last.kernel * jnp.array([1.0, 1.0, 0.0, 0.0]), bias=bias)
    return state._replace(
        actor=state.actor._replace(params=(*hidden, last)),
        temperature=state.temperature._replace(params=jnp.float32(-20.0)),
    )


def test_the_inconsistent_actor_is_sacs_on_the_same_critic(scene):
    """Without noise and temperature, SAC's actor gradient is the slope of -min Q at the policy's mean."""
    scene = scene._replace(state=without_noise(scene.state))
    consistent = scene.found()
    found = scene._replace(config=replace(scene.config, actor_objective="sac")).found()
    assert_same(found.critic, consistent.critic)

    def loss(actor):
        action = jnp.tanh(apply_mlp(actor, scene.batch.obs)[:, :2])
        return -jnp.mean(jnp.minimum(*(q_of(scene.state.critic.params, k, scene.batch.obs, action) for k in range(2))))

    expected = flat(jax.jit(jax.grad(loss))(scene.state.actor.params))
    assert np.linalg.norm(flat(found.actor) - expected) < 0.05 * np.linalg.norm(expected)
    assert np.linalg.norm(flat(consistent.actor) - expected) > 0.5 * np.linalg.norm(expected)


def test_the_inconsistent_actor_draws_noise_of_its_own(scene):
    """Equal states before and after: shared noise would make both actions, and so both densities, equal."""
    scene = scene._replace(batch=scene.batch._replace(next_obs=scene.batch.obs))
    actor_side = scene._replace(config=replace(scene.config, actor_objective="sac")).found().cost
    assert np.all(np.abs(np.asarray(actor_side) - np.asarray(scene.found().cost)) > 1e-4)

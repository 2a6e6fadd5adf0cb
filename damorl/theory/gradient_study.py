"""Which critic gradient is right: each of the four iterated on problems whose exact answer is known, and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from damorl.bars import Bar
from damorl.core.divergence import DIVERGENCES, Divergence
from damorl.core.nets import apply_mlp, init_mlp
from damorl.theory.exact_inner import first_q, minimise_inner
from damorl.theory.families import Occupancies, Problem, occupancies, random_problems
from damorl.theory.generators import GENERATORS
from damorl.theory.gradients import (
    CRITIC_GRADIENTS,
    CriticGradient,
    Descent,
    Inner,
    QTable,
    critic_gradient,
    descend,
    dual_loss,
    gradient_descent,
    inner_problem,
    scaled_residual,
)
from damorl.theory.mdp import MDP, Array
from damorl.types import Params

OptimiserName = Literal["descent", "adam"]
SETTLED = 1e-4
"""A critic has settled when no entry of its expected gradient is larger; the push of a lost inflow is 10 to 1000 times
that."""


class Setup(NamedTuple):
    """What every critic of a table shares."""

    problem: Problem
    inner: Inner
    """Batch `[B]`, in JAX."""
    q_table: QTable
    params: Params
    """Where each critic starts, without the batch axis."""


class Row(NamedTuple):
    """One line of the table: means over problems, `largest_q` the maximum."""

    divergence: str
    gradient: str
    optimiser: str
    settled: float
    """Share of problems whose critic stopped (`SETTLED`)."""
    growth: float
    """Largest change of any Q over the last quarter of the run."""
    bias: float
    """`E_{rho_M}[Q - Q*]`, in units of reward."""
    largest_q: float
    """Largest |Q|."""
    gap: float
    """`J(Q) - J(Q*)` of Eq. 2, never below 0."""
    mass: float
    """Total of the recovered occupancy `rho_M * ratio`: 1 if it is one."""
    ratio_error: float
    """`E_{rho_M} |ratio - ratio*|`, against the exact solution of Eq. 2."""
    true_ratio_error: float
    """`E_{rho_M} |ratio - rho_T / rho_M|`, against the truth."""


def tabular_setup(seed: int, count: int, gamma: float, weight: float) -> Setup:
    """Random dense problems with a model far from the truth; Q is a table that starts at 0."""
    problem = random_problems(np.random.default_rng(seed), "dense", "far", (4, 3), count)
    mdp = problem.mdp._replace(gamma=np.full(count, gamma))
    problem = problem._replace(mdp=mdp, weight=np.full(count, weight))
    return Setup(problem, inner_problem(problem), lambda q: q, jnp.zeros(problem.policy.shape[1:]))


def line_problem(cells: int, gamma: float, weight: float) -> Problem:
    """A walk on the line [0, 1], cut into `cells`: left, stay or right by about 0.1, reward near 0.8.

    The model believes in a wind to the right. Policy and behaviour lean to the right, the policy more.
    """
    place = (np.arange(cells) + 0.5) / cells
    aim = np.clip(place[:, None] + np.array([-0.1, 0.0, 0.1]), 0.0, 1.0)
    spread = lambda centre: np.exp(-0.5 * ((place - centre[..., None]) / 0.05) ** 2) + 1e-6
    normal = lambda x: x / np.sum(x, axis=-1, keepdims=True)
    reward = np.broadcast_to(np.exp(-0.5 * ((place - 0.8) / 0.1) ** 2)[:, None, None], (cells, 3, cells))
    initial = normal(np.exp(-0.5 * ((place - 0.2) / 0.1) ** 2) + 1e-6)
    policy, behaviour = (np.tile(row, (1, cells, 1)) for row in ([0.1, 0.2, 0.7], [0.3, 0.3, 0.4]))
    mdp = MDP(normal(spread(aim))[None], reward[None], initial[None], np.array([gamma]))
    return Problem(mdp, normal(spread(np.clip(aim + 0.05, 0.0, 1.0)))[None], policy, behaviour, np.array([weight]))


def random_features(seed: int, cells: int, width: int) -> Array:
    """`[S, A, 3 width]`: random Fourier features of the place, a block for each action."""
    rng, place = np.random.default_rng(seed), (np.arange(cells) + 0.5) / cells
    waves = np.cos(rng.normal(0.0, 6.0, width) * place[:, None] + rng.uniform(0.0, 2.0 * np.pi, width))
    return np.einsum("sf,ab->sabf", np.sqrt(2.0 / width) * waves, np.eye(3)).reshape(cells, 3, -1)


def linear_setup(seed: int, problem: Problem, width: int) -> Setup:
    """Q linear in random features, from 0."""
    features = jnp.asarray(random_features(seed, problem.policy.shape[1], width))
    return Setup(problem, inner_problem(problem), lambda w: features @ w, jnp.zeros(features.shape[-1]))


def network_setup(seed: int, problem: Problem, hidden: Sequence[int]) -> Setup:
    """Q a network of place and action, as large as `hidden` says, in float64."""
    cells = problem.policy.shape[1]
    place = jnp.broadcast_to(2.0 * jnp.asarray((np.arange(cells) + 0.5) / cells)[:, None, None] - 1.0, (cells, 3, 1))
    inputs = jnp.concatenate([place, jnp.broadcast_to(jnp.eye(3), (cells, 3, 3))], axis=-1)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), init_mlp(jax.random.key(seed), (4, *hidden, 1)))
    return Setup(problem, inner_problem(problem), lambda p: apply_mlp(p, inputs)[..., 0], params)


def sampled_actions(inner: Inner) -> Inner:
    """Eq. 2 as a sampled update sees it: f* of one drawn a' each, not of their mean. States become pairs (s, a)."""
    pairs = inner.policy.shape[-2] * inner.policy.shape[-1]
    lead = inner.policy.shape[:-2]
    mass = inner.mass[..., None] * inner.policy[..., None, None, :, :]
    gain = jnp.broadcast_to(inner.gain[..., None], mass.shape)
    square = lambda x: x.reshape(*lead, pairs, 1, pairs)
    start = inner.start.reshape(*lead, pairs, 1)
    return Inner(square(mass), square(gain), start, jnp.ones_like(start), inner.gamma, inner.weight)


def exact_q(problem: Problem, divergence: str, occ: Occupancies | None = None) -> Array:
    """`[B, S, A]`: the Q that minimises Eq. 2."""
    occ, generator = occ or occupancies(problem), GENERATORS[divergence]
    return minimise_inner(problem, generator, occ, first_q(problem, generator, occ), steps=200)


def optimiser(name: OptimiserName, rate: float, steps: int) -> optax.GradientTransformation:
    """Descent with steps of at most 0.1, or Adam; both with a rate that falls to 0 along a cosine."""
    schedule: Any = optax.cosine_decay_schedule(rate, steps)
    return gradient_descent(schedule, 0.1) if name == "descent" else optax.adam(schedule)


class Case(NamedTuple):
    """One critic to iterate."""

    divergence: str
    gradient: CriticGradient
    optimiser: OptimiserName
    rate: float
    steps: int
    sampled: bool = False
    """Whether the update sees one a' each (`sampled_actions`)."""


def measure(setup: Setup, case: Case) -> Row:
    """Iterate one critic per problem and compare where it ends with the exact answer."""
    record, inner = DIVERGENCES[case.divergence], setup.inner
    descent = Descent(optimiser(case.optimiser, case.rate, case.steps), case.steps)
    q_table: QTable = (lambda p: setup.q_table(p).reshape(-1, 1)) if case.sampled else setup.q_table

    def run(one: Inner) -> tuple[Any, ...]:
        seen = sampled_actions(one) if case.sampled else one
        trace = descend(case.gradient, record, seen, q_table, setup.params, descent)
        q = trace.q.reshape(-1, *one.policy.shape)
        field = critic_gradient(case.gradient, record, seen, q_table, trace.params, trace.params)
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(field)]))
        return q, largest, *_outcome(one, record, q[-1])

    q, field, loss, ratio = map(np.asarray, jax.jit(jax.vmap(run))(inner))
    best = exact_q(setup.problem, case.divergence)
    best_loss, best_ratio = map(np.asarray, jax.vmap(lambda i, x: _outcome(i, record, x))(inner, best))
    occ = occupancies(setup.problem)
    total = lambda x: float(np.mean(np.sum(occ.synthetic * x, axis=(1, 2, 3))))
    return Row(
        divergence=case.divergence,
        gradient=case.gradient + (", one a'" if case.sampled else ""),
        optimiser=case.optimiser,
        settled=float(np.mean(field < SETTLED)),
        growth=float(np.max(np.abs(q[:, -1] - q[:, -1 - q.shape[1] // 4]))),
        bias=total((q[:, -1] - best)[..., None]),
        largest_q=float(np.max(np.abs(q[:, -1]))),
        gap=float(np.mean(loss - best_loss)),
        mass=total(ratio),
        ratio_error=total(np.abs(ratio - best_ratio)),
        true_ratio_error=total(np.abs(ratio - occ.real / occ.synthetic)),
    )


def push(setup: Setup, divergence: str, kind: CriticGradient) -> float:
    """Sum over pairs of what one step would add to an exact Q table (at a rate of 1); 0 if the answer is left alone."""
    record, best = DIVERGENCES[divergence], jnp.asarray(exact_q(setup.problem, divergence))
    field = jax.vmap(lambda inner, q: critic_gradient(kind, record, inner, lambda x: x, q, q))(setup.inner, best)
    return float(-jnp.mean(jnp.sum(field, axis=(1, 2))))


def course(setup: Setup, case: Case, marks: int = 8) -> list[float]:
    """Mean Q at `marks` equal times of a long run at a constant rate of Adam."""
    descent = Descent(optax.adam(case.rate), case.steps, marks=marks)
    run = lambda one: descend(case.gradient, DIVERGENCES[case.divergence], one, setup.q_table, setup.params, descent).q
    return [float(x) for x in jnp.mean(jax.jit(jax.vmap(run))(setup.inner), axis=(0, 2, 3))]


def _outcome(inner: Inner, record: Divergence, q: Any) -> tuple[Any, Any]:
    """Eq. 2 and the recovered ratio at `q`."""
    return dual_loss(inner, record, q), record.f_prime_inverse(scaled_residual(inner, q, q))


def table(
    make: Callable[[], Setup], hows: Sequence[tuple[OptimiserName, float, int]], divergences: Sequence[str]
) -> Iterator[Row]:
    """A row for each divergence, gradient and `(optimiser, rate, steps)`, in double precision."""
    kinds: list[tuple[CriticGradient, bool]] = [*((kind, False) for kind in CRITIC_GRADIENTS), ("full", True)]
    cases = [Case(name, kind, *how, sampled) for name in divergences for kind, sampled in kinds for how in hows]
    with jax.enable_x64(True):
        setup = make()
        for case in Bar(cases, unit="critic", disable=None):
            yield measure(setup, case)

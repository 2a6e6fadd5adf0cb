"""A policy as one graph, from the environment's observations to its actions, in ONNX and StableHLO.

ONNX is written node by node with `onnx.helper`: a policy is a chain of a dozen nodes, for which a tracer would be one
more dependency, slower, and free to change the graph from version to version. Opset 17 and IR version 8 (June 2022)
are read by every runtime of the last years.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from damorl.behaviour.host_policy import LOG_STD_MAX, LOG_STD_MIN, NumpyPolicy
from damorl.errors import UserError
from damorl.experiment.describe import CARD as DATASET_CARD
from damorl.record import store
from damorl.world.tasks import find_task
from damorl.world.units import from_metadata

OPSET, IR_VERSION = 17, 8
EXTRA = "`pip install 'damorl[export]'`"


def import_extra(name: str) -> Any:
    """A module of the optional packages onnx and onnxruntime. UserError with the command that installs them."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"ONNX needs the package {name.split('.')[0]}, found none: install it with {EXTRA}") from error


class Graph(NamedTuple):
    """A deterministic policy, `clip(tanh(mlp((obs - mean) / scale)) * half + centre, low, high)`, all float32."""

    layers: NumpyPolicy
    """The last one ends in the means only, `[hidden, action_dim]`."""
    standardiser: tuple[np.ndarray, np.ndarray] | None
    """Mean and scale of the observations, `[obs_dim]` each. None: the network takes them as they are."""
    low: np.ndarray
    """The environment's action bounds, `[action_dim]`."""
    high: np.ndarray
    log_std: tuple[np.ndarray, np.ndarray] | None = None
    """The last layer's other half, kernel and bias of the log standard deviation. None: the mode is all there is."""

    @property
    def obs_dim(self) -> int:
        """Numbers per state."""
        return self.layers[0][0].shape[0]

    @property
    def scaled(self) -> bool:
        """Whether actions have other bounds than the tanh."""
        return bool(np.any(self.low != -1.0) or np.any(self.high != 1.0))

    @property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Half width and centre of the bounds, `[action_dim]` each."""
        low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        return ((high - low) / 2).astype(np.float32), ((high + low) / 2).astype(np.float32)


def make_graph(layers: NumpyPolicy, config: dict[str, Any], run_dir: Path) -> Graph:
    """The policy of a run with the scaling that its `config` tells of: `policy.obs_mean` and `policy.obs_scale`, and
    the environment's action bounds.

    UserError for numbers that do not fit the network.
    """
    (*hidden, (kernel, bias)), source = layers, run_dir / store.CONFIG
    obs_dim, action_dim = layers[0][0].shape[0], bias.size // 2
    low, high = (
        vector(source, f"data.action_{side}", bound, action_dim)
        for side, bound in zip(("low", "high"), read_bounds(run_dir, config["data"]), strict=True)
    )
    if not np.all(low < high):
        raise UserError(f"{source}: expected action_low below action_high, found {low} and {high}; correct the task")
    means = (*hidden, (kernel[:, :action_dim], bias[:action_dim]))
    log_std = kernel[:, action_dim:], bias[action_dim:]
    return Graph(means, read_standardiser(config.get("policy"), obs_dim, source), low, high, log_std)


def read_bounds(run_dir: Path, data: dict[str, Any]) -> tuple[Any, Any]:
    """The lowest and highest action: as the config's `data` states, else of its task, else of the data set's card."""
    if "action_low" in data:
        return data["action_low"], data["action_high"]
    if data["task"] is not None:
        task = find_task(data["task"])
        return task.action_low, task.action_high
    card = run_dir / DATASET_CARD
    return from_metadata(store.read_json(card)["metadata"] if card.exists() else {})


def read_standardiser(
    policy: dict[str, Any] | None, obs_dim: int, source: Path
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and scale of the observations; None for an algorithm that takes them as they are."""
    if not policy:
        return None
    mean = vector(source, "policy.obs_mean", policy.get("obs_mean"), obs_dim)
    scale = vector(source, "policy.obs_scale", policy.get("obs_scale"), obs_dim)
    if not np.all(scale > 0):
        raise UserError(f"{source}: expected policy.obs_scale above 0, found {scale.min()}; train the run again")
    return mean, scale


def vector(source: Path, key: str, value: Any, size: int) -> np.ndarray:
    """One finite float32 for each of `size` features, from as many or from a single one."""
    try:
        numbers = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        numbers = np.full(0, np.nan, np.float32)
    if numbers.shape not in ((), (size,)) or not np.isfinite(numbers).all():
        raise UserError(f"{source}: expected {size} finite numbers in {key}, found {value}; train the run again")
    return np.broadcast_to(numbers, size)


def operators(graph: Graph) -> list[tuple[str, tuple[np.ndarray, ...]]]:
    """The ONNX operators in order, each with the constants that follow its first input."""
    steps: list[tuple[str, tuple[np.ndarray, ...]]] = []
    if graph.standardiser is not None:
        mean, scale = graph.standardiser
        steps += [("Sub", (mean,)), ("Div", (scale,))]
    for layer in graph.layers:
        steps += [("Gemm", layer), ("Relu", ())]
    steps[-1] = ("Tanh", ())
    if graph.scaled:
        half, centre = graph.affine
        steps += [("Mul", (half,)), ("Add", (centre,))]
    # onnxruntime's tanh can give 1.0000001, and scaling rounds: an action is never outside its bounds
    return [*steps, ("Max", (graph.low,)), ("Min", (graph.high,))]


def to_onnx(graph: Graph, distribution: bool = False) -> bytes:
    """The graph as an ONNX model, checked with full shape inference. With `distribution` it also gives `mean` and
    `log_std` of the Gaussian before the tanh. UserError without the package."""
    onnx = import_extra("onnx")
    helper, steps = onnx.helper, operators(graph)
    results = [f"{operator.lower()}{number}" for number, (operator, _) in enumerate(steps)]
    results[-1], outputs = "action", ["action"]
    nodes, constants = [], []
    if distribution:
        means = max(number for number, (operator, _) in enumerate(steps) if operator == "Gemm")
        results[means], outputs = "mean", ["action", "mean", "log_std"]
        low, high = (np.full(graph.low.size, bound, np.float32) for bound in (LOG_STD_MIN, LOG_STD_MAX))
        assert graph.log_std is not None
        own = [("Gemm", graph.log_std), ("Max", (low,)), ("Min", (high,))]
        nodes, constants = chain(results[means - 1] if means else "obs", own, ["deviation", "bounded", "log_std"])
    main_nodes, main_constants = chain("obs", steps, results)
    obs, *values = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", size])
        for name, size in (("obs", graph.obs_dim), *((name, graph.low.size) for name in outputs))
    )
    model = helper.make_model(
        helper.make_graph([*main_nodes, *nodes], "policy", [obs], values, [*main_constants, *constants]),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="damorl",
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def chain(
    value: str, steps: list[tuple[str, tuple[np.ndarray, ...]]], results: list[str]
) -> tuple[list[Any], list[Any]]:
    """Nodes that work on `value` one after the other, each with a name for its result, and their constants."""
    onnx = import_extra("onnx")
    nodes, constants = [], []
    for (operator, arrays), result in zip(steps, results, strict=True):
        names = [f"{result}_{index}" for index in range(len(arrays))]
        constants += [
            onnx.numpy_helper.from_array(np.array(array), name) for array, name in zip(arrays, names, strict=True)
        ]
        nodes.append(onnx.helper.make_node(operator, [value, *names], [result]))
        value = result
    return nodes, constants


def to_stablehlo(graph: Graph) -> bytes:
    """The graph as `jax.export` serialises it, for CPU and CUDA."""
    import jax
    import jax.numpy as jnp
    from jax import export

    from damorl.core.nets import Dense, apply_mlp
    from damorl.core.scaler import Standardiser

    def act(obs: Any) -> Any:
        x = obs if graph.standardiser is None else Standardiser(*map(jnp.asarray, graph.standardiser)).apply(obs)
        action = jnp.tanh(apply_mlp(tuple(Dense(*map(jnp.asarray, layer)) for layer in graph.layers), x))
        half, centre = graph.affine
        return jnp.clip(action * half + centre if graph.scaled else action, graph.low, graph.high)

    (batch,) = export.symbolic_shape("batch")
    obs = jax.ShapeDtypeStruct((batch, graph.obs_dim), jnp.float32)
    # full float32 products: the default of recent GPUs keeps ten bits of the mantissa
    with jax.default_matmul_precision("float32"), without_source_paths():
        return bytes(export.export(jax.jit(act), platforms=("cpu", "cuda"))(obs).serialize())


@contextmanager
def without_source_paths() -> Iterator[None]:
    """Keep the paths of this machine's sources out of what JAX lowers; the same program then gives the same bytes."""
    import jax

    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)

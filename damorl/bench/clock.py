"""What every measurement of speed shares: the clock, turns, the matrix rate as yardstick, and what the machine is."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module, util
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from damorl._version import __version__
from damorl.record import store

MIN_ROUNDS = 3


def matrix_job(size: int, seconds: float) -> tuple[Callable[[], None], float]:
    """A chain of products `[size, size] @ [size, size]` lasting about `seconds`, and its number of operations."""
    matrix = jnp.asarray(np.random.default_rng(0).standard_normal((size, size)) / size**0.5, jnp.float32)
    chain = jax.jit(lambda x, count: jax.lax.fori_loop(0, count, lambda _, y: y @ matrix, x), static_argnums=1)
    run = lambda count: jax.block_until_ready(chain(matrix, count))
    run(1)
    count = max(1, int(seconds / clock(partial(run, 1))))
    run(count)
    return partial(run, count), 2.0 * size**3 * count


def product_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """Operations of the matrix products in one call, 2 for each multiplication, with loops of known length counted as
    often as they run. The arguments may be shapes."""
    return _product_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _product_flops(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            rows = equation.invars[0].aval.shape
            total += 2.0 * prod(equation.outvars[0].aval.shape) * prod(rows[axis] for axis in contracted)
        inner = [_product_flops(part) for value in equation.params.values() for part in _jaxprs(value)]
        one_pass = max(inner, default=0.0) if "branches" in equation.params else sum(inner)
        total += equation.params.get("length", 1) * one_pass
    return total


def _jaxprs(value: Any) -> list[Any]:
    """The programs inside a parameter of an operation."""
    if isinstance(value, tuple | list):
        return [part for item in value for part in _jaxprs(item)]
    value = getattr(value, "jaxpr", value)
    return [value] if hasattr(value, "eqns") else []


def teller(quiet: bool) -> Callable[[str], None]:
    """What tells people how far a measurement is, on standard error; nothing if `quiet`."""
    return (lambda text: None) if quiet else (lambda text: print(f"bench: {text}", file=sys.stderr, flush=True))


def clock(job: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def interleave(jobs: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Run the jobs in turns, round after round, for `seconds` each on average; each one's median seconds per call."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    end = time.perf_counter() + seconds * len(jobs)
    while time.perf_counter() < end or len(next(iter(times.values()))) < MIN_ROUNDS:
        for name, job in jobs.items():
            times[name].append(clock(job))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory() -> dict[str, int | None]:
    """The most this process has held so far, in bytes: in main memory, and on the device where it is another."""
    host, stats = None, jax.devices()[0].memory_stats() or {}
    if util.find_spec("resource"):  # not on Windows
        resource: Any = import_module("resource")
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"host": host, "device": stats.get("peak_bytes_in_use")}


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    device = jax.devices()[0]
    origin = store.provenance((), "", device.device_kind)
    kept = ("started", "git", "versions", "python", "platform", "cpu_count", "device_kind")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    figures = {key: origin[key] for key in kept} | {"backend": device.platform, "usable_cpus": usable}
    return figures | {"versions": origin["versions"] | {"damorl": __version__}}

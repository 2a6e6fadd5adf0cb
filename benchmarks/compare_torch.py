"""damorl against plain PyTorch on this machine: the same epoch of DAMO, measured in turns in one process.

    python benchmarks/compare_torch.py [--threads N] [--seconds S] [--json]

An epoch is one block of 50 000 x 5 model rollouts and 1000 updates at full size. Rollouts and 100 updates are timed
in turns, round after round, and the medians are put together in the proportion 1 : 1000.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

EPOCH_UPDATES = 1000


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--threads", type=int, default=cpus, help="threads of each side (default: all cores)")
    parser.add_argument("--seconds", type=float, default=20.0, help="time for each of the four measurements")
    parser.add_argument("--updates", type=int, default=100, help="updates in one timed call")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(argv)


def limit_threads(threads: int) -> None:
    """Both libraries size their thread pools when they are first imported, so this comes before that."""
    os.environ["OMP_NUM_THREADS"] = os.environ["NPROC"] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def copy_weights(state: Any, agent: Any) -> None:
    """Give the PyTorch agent the networks of one seed's JAX state."""
    import numpy as np
    import torch
    from torch import nn

    tensor = lambda array: torch.from_numpy(np.array(array))

    def fill(net: nn.Sequential, layers: Any) -> None:
        linears = [module for module in net if isinstance(module, nn.Linear)]
        for linear, layer in zip(linears, layers, strict=True):
            linear.weight.copy_(tensor(layer.kernel).T)
            linear.bias.copy_(tensor(layer.bias))

    member = lambda layers, index: [type(layer)(layer.kernel[index], layer.bias[index]) for layer in layers]
    with torch.no_grad():
        fill(agent.actor.net, state.actor.params)
        fill(agent.classifier.net, state.classifier.params)
        agent.classifier.mean.copy_(tensor(state.classifier_inputs.mean))
        agent.classifier.scale.copy_(tensor(state.classifier_inputs.scale))
        for critic, params in ((agent.critic, state.critic.params), (agent.target_critic, state.target_critic)):
            fill(critic.q1, member(params, 0))
            fill(critic.q2, member(params, 1))
        agent.log_temperature.copy_(tensor(state.temperature.params))
        elites, dynamics = len(agent.elites), state.model
        for weight, bias, layer in zip(
            agent.dynamics.weights, agent.dynamics.biases, dynamics.params.layers, strict=True
        ):
            weight[:elites] = tensor(layer.kernel)
            bias[:elites] = tensor(layer.bias)[:, None]
        agent.dynamics.log_var_max.copy_(tensor(dynamics.params.log_var_max))
        agent.dynamics.log_var_min.copy_(tensor(dynamics.params.log_var_min))
        for name, scaler in (("input", dynamics.inputs), ("target", dynamics.targets)):
            getattr(agent.dynamics, f"{name}_mean").copy_(tensor(scaler.mean))
            getattr(agent.dynamics, f"{name}_scale").copy_(tensor(scaler.scale))


def torch_agent(config: Any, data: Any, state: Any) -> Any:
    """The PyTorch agent for a damorl config, dataset and one seed's state."""
    import numpy as np
    import torch

    from benchmarks import torch_damo

    shared = {name: value for name, value in vars(config).items() if name in torch_damo.Config.__dataclass_fields__}
    obs_dim, action_dim = data.rows.obs.shape[1], data.rows.action.shape[1]
    sizes = torch_damo.Config(
        **shared,
        obs_dim=obs_dim,
        action_dim=action_dim,
        num_members=config.dynamics.num_members,
        num_elites=config.dynamics.num_elites,
        dynamics_hidden=config.dynamics.hidden,
    )
    rows = torch_damo.Batch(*(torch.from_numpy(np.array(column)) for column in data.rows))
    agent = torch_damo.Damo(sizes, rows, torch_damo.hopper_ended)
    copy_weights(state, agent)
    return agent


def measure(threads: int, seconds: float, updates: int, workload: Any = None) -> dict[str, Any]:
    """Medians of both sides, and the ratio of the whole epochs."""
    limit_threads(threads)
    import jax
    import torch

    from damorl.bench.stages import Seeds, Workload, fresh_state, interleave, synthetic_data

    torch.set_num_threads(threads)
    workload = workload or Workload(updates=updates, num_seeds=(1,))
    data = synthetic_data(workload.num_rows)
    start = fresh_state(workload.config, data)
    ours = Seeds(workload, data, start, 1)
    agent = torch_agent(workload.config, data, start)
    transitions = agent.rollout()  # fills the model buffer, and warms up as `Seeds` does
    agent.update()

    def torch_updates() -> None:
        for _ in range(workload.updates):
            agent.update()

    jobs = {"jax updates": lambda: ours.run(ours.updates), "torch updates": torch_updates}
    jobs |= {"jax rollouts": lambda: ours.run(ours.refresh), "torch rollouts": agent.rollout}
    medians = interleave(jobs, seconds)
    sides = {
        name: {
            "updates_per_second": workload.updates / medians[f"{name} updates"],
            "rollouts_seconds": medians[f"{name} rollouts"],
            "epoch_seconds": EPOCH_UPDATES / workload.updates * medians[f"{name} updates"]
            + medians[f"{name} rollouts"],
        }
        for name in ("jax", "torch")
    }
    return sides | {
        "epoch_ratio": sides["torch"]["epoch_seconds"] / sides["jax"]["epoch_seconds"],
        "update_ratio": sides["jax"]["updates_per_second"] / sides["torch"]["updates_per_second"],
        "rollout_ratio": sides["torch"]["rollouts_seconds"] / sides["jax"]["rollouts_seconds"],
        "rollout_transitions": transitions,
        "threads": threads,
        "versions": {"jax": jax.__version__, "torch": torch.__version__},
    }


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    figures = measure(args.threads, args.seconds, args.updates)
    if args.json:
        print(json.dumps(figures, indent=2))
        return 0
    print(f"{'':<8}{'updates/s':>12}{'rollouts, s':>14}{'epoch, s':>12}   ({args.threads} threads)")
    for name in ("torch", "jax"):
        row = figures[name]
        print(
            f"{name:<8}{row['updates_per_second']:>12.1f}{row['rollouts_seconds']:>14.2f}{row['epoch_seconds']:>12.1f}"
        )
    print(f"damorl's epoch is {figures['epoch_ratio']:.2f} times as fast")
    return 0


if __name__ == "__main__":
    sys.exit(main())

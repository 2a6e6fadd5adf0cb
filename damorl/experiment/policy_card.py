"""The card of an exported policy: where it comes from, what goes in and out, how to call it, what it cannot do.

The card travels inside the exported file and stands beside it as JSON and as Markdown. Nothing in it depends on the
time of the export, so the same export gives the same bytes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from damorl.experiment.result import LAST
from damorl.record import store
from damorl.record.ending import final_step
from damorl.record.members import Member, describe
from damorl.world.tasks import TASKS

FORMAT, VERSION = "damorl policy", 1
CARD_TITLE = "# Policy card: "
PACKAGES = {"onnx": ("damorl", "numpy", "onnx"), "jax": ("damorl", "numpy", "jax", "jaxlib")}
SUFFIXES = {"onnx": ".onnx", "jax": ".jaxpolicy"}
"""Of the exported files, by format."""
OBS_FACTS = ("obs_mean", "obs_std", "obs_min", "obs_max")
ROUNDING = (
    "Arithmetic is float32: for observations like the data's, actions agree with the JAX policy to 1e-5; for features "
    "a thousand times larger, sums that cancel can differ by more, as they do in JAX itself from batch size to batch "
    "size."
)
DETERMINISTIC = "Deterministic: the action is the mode of the stochastic policy that was trained."
SAMPLING = (
    "`action` is the mode of the stochastic policy that was trained. A sample is `tanh(mean + exp(log_std) * noise)` "
    "with standard normal noise, in [-1, 1]; times half the width of the action bounds, plus their centre, it is in "
    "the environment's units. `log_std` means something only where the algorithm trains it (td3bc and rebrac do not)."
)


def step_of(run_dir: Path, step: int | None) -> int | None:
    """The gradient updates behind a policy; None for the last policy of a run that has no end yet."""
    return final_step(run_dir) if step is None else step


def score_of(run_dir: Path, config: dict[str, Any], member: Member, step: int | None) -> dict[str, Any] | None:
    """What the simulator said during training up to `step`; None if it was never asked."""
    rows = [row for row in store.read_metrics(run_dir) if member.marks.items() <= row.items()]
    rows = [row for row in rows if "eval/return_mean" in row]
    rows = [row for row in rows if step is None or row["step"] <= step]
    if not rows:
        return None
    key = "eval/score" if "eval/score" in rows[0] else "eval/return_mean"
    own = [row[key] for row in rows if row["step"] == step]
    return {
        "metric": key.removeprefix("eval/"),
        "of_this_policy": own[-1] if own else None,
        "mean_of_last_evaluations": float(np.mean([row[key] for row in rows[-LAST:]])),
        "evaluations": len(rows[-LAST:]),
        "episodes_per_evaluation": config["loop"]["eval_episodes"],
    }


def about(run_dir: Path, member: Member, step: int | None) -> dict[str, Any]:
    """What a run knows of one of its policies: algorithm, data and their hash, task, seed, step, score."""
    config = store.read_json(run_dir / store.CONFIG)
    data = config["data"]
    step = step_of(run_dir, step)
    task = TASKS.get(data["task"])
    return {
        "run": run_dir.resolve().name,
        "algorithm": config["algo"],
        "dataset": {key: data.get(key) for key in ("name", "sha256", "num_transitions")},
        "task": data["task"],
        "obs_names": [] if task is None else list(task.obs_names),
        "reference_min": data.get("reference_min"),
        "reference_max": data.get("reference_max"),
        "seed": member.seed,
        **({} if member.setting is None else {"settings": dict(member.values)}),
        "step": step,
        "score": score_of(run_dir, config, member, step),
        "observations": {key: data[key] for key in OBS_FACTS if data.get(key) is not None},
    }


def make_card(run_dir: Path, member: Member, step: int | None, kind: str, command: list[str]) -> dict[str, Any]:
    """Everything but the sizes and bounds, which the graph knows. `command` is what exported it."""
    provenance = store.read_json(run_dir / store.PROVENANCE)
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        **about(run_dir, member, step),
        "trained": {
            "command": shlex.join(provenance.get("command", [])),
            "git": provenance.get("git"),
            "versions": provenance.get("versions"),
        },
        "exported": {
            "command": shlex.join(command),
            "git": store.git_revision(Path(__file__)),
            "versions": {package: store.version_of(package) for package in PACKAGES[kind]},
        },
    }


def usage(kind: str, name: str, obs_dim: int, outputs: Sequence[str] = ("action",)) -> list[str]:
    """Three lines of Python that call the file `name`."""
    call = f"np.asarray(obs, np.float32).reshape(-1, {obs_dim})"
    if kind == "onnx":
        return [
            "import numpy as np, onnxruntime",
            f"session = onnxruntime.InferenceSession({json.dumps(name)})",
            f'{", ".join(outputs)} = session.run({json.dumps(list(outputs))}, {{"obs": {call}}})'
            if len(outputs) > 1
            else f'action = session.run(["action"], {{"obs": {call}}})[0]',
        ]
    return [
        "import zipfile, numpy as np, jax.export",
        f'policy = jax.export.deserialize(bytearray(zipfile.ZipFile({json.dumps(name)}).read("policy.stablehlo")))',
        f"action = policy.call({call})",
    ]


def limits(card: dict[str, Any]) -> list[str]:
    """What the policy must not be trusted with."""
    task = f" of the task {card['task']}" if card["task"] else ""
    found = [
        f"Trained offline, on {card['dataset']['name']}{task} only: away from the states in it, it extrapolates.",
        SAMPLING if "log_std" in card["outputs"] else DETERMINISTIC,
        ROUNDING,
    ]
    if card["score"] is None:
        found.append("Never scored in a simulator.")
    if card["kind"] == "jax":
        found.append(
            "StableHLO promises to read a file for six months: keep the run directory, it can always be exported again."
        )
    return found


def markdown(card: dict[str, Any], name: str) -> str:
    """The card for people; `name` is the exported file's."""
    data, obs = card["dataset"], card["observations"]
    facts = {
        "algorithm": card["algorithm"],
        "data set": f"{data['name']} ({data['num_transitions']} transitions, sha256 `{data['sha256']}`)",
        "task": card["task"] or "none known",
        "seed": card["seed"],
        **({"settings": describe(card["settings"])} if "settings" in card else {}),
        "gradient updates": "not known: the run is not finished" if card["step"] is None else card["step"],
        "score": score_sentence(card["score"]),
        "input `obs`": f"float32 [batch, {card['obs_dim']}], in the environment's own units",
        "output `action`": f"float32 [batch, {card['action_dim']}], in the environment's own units",
        **(
            {"outputs `mean`, `log_std`": f"float32 [batch, {card['action_dim']}], of the Gaussian before the tanh"}
            if "log_std" in card["outputs"]
            else {}
        ),
        "action bounds": f"{card['action_low']} to {card['action_high']}",
        "observation scaling": "inside" if card["standardised"] else "none: the network takes raw observations",
        **{f"{key.removeprefix('obs_')} of the data's observations": brief(values) for key, values in obs.items()},
    }
    origin = [
        f"- {verb}: `{card[verb]['command']}`, git {git_sentence(card[verb]['git'])}, {versions(card[verb])}"
        for verb in ("trained", "exported")
    ]
    table = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]
    calling = ["## Calling it", "", "```python", *card["usage"], "```"]
    bounds = ["## Limits", "", *(f"- {limit}" for limit in card["limits"])]
    parts = [[CARD_TITLE + name], table, calling, bounds, ["## Origin", "", *origin]]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def score_sentence(score: dict[str, Any] | None) -> str:
    """The score, with how often it was measured."""
    if score is None:
        return "never scored in a simulator"
    unit = "normalised score" if score["metric"] == "score" else "return"
    own = "" if score["of_this_policy"] is None else f"{score['of_this_policy']:.1f} of this very policy, "
    return (
        f"{own}{score['mean_of_last_evaluations']:.1f} on average of the last {score['evaluations']} evaluations "
        f"({unit}, {score['episodes_per_evaluation']} episodes each)"
    )


def brief(values: list[float]) -> str:
    """Numbers with four digits."""
    return ", ".join(f"{float(value):.4g}" for value in values)


def git_sentence(git: dict[str, Any] | None) -> str:
    """The revision, and whether the sources had been changed."""
    return "unknown" if git is None else f"{git['revision']}{' with changes' if git['dirty'] else ''}"


def versions(origin: dict[str, Any]) -> str:
    """`damorl 0.1, jax 0.10`."""
    return ", ".join(f"{name} {version}" for name, version in (origin["versions"] or {}).items())

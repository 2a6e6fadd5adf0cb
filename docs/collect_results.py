"""Keep what is worth keeping of finished runs: python docs/collect_results.py RUN_DIR NAME [RUN_DIR NAME ...].

Writes docs/results/NAME.json (command, versions, data hash, scores, the curve of each seed) and docs/results/NAME.png.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from damorl.record.ending import finished
from damorl.record.store import read_json, read_metrics

RESULTS = Path(__file__).resolve().parent / "results"
CURVES = ("eval/score", "eval/episode_length", "critic/q_mean", "classifier/accuracy", "classifier/log_ratio_synthetic")


def collect(run_dir: Path, name: str) -> None:
    """One run."""
    config, provenance = read_json(run_dir / "config.json"), read_json(run_dir / "provenance.json")
    rows = [row for row in read_metrics(run_dir) if "eval/return_mean" in row]
    curves: dict[str, Any] = {}
    for seed in config["seeds"]:
        own = [row for row in rows if row["seed"] == seed]
        curves[str(seed)] = {key: [round(row[key], 3) for row in own if key in row] for key in CURVES}
        curves[str(seed)]["updates"] = [row["step"] for row in own]
    command = provenance["command"]
    if "--out" in command:
        at = command.index("--out")
        command = command[:at] + command[at + 2 :]
    done = finished(run_dir)
    summary = {
        "command": " ".join([Path(command[0]).name, *command[1:]]),
        "finished": done,
        "scores": {k: v for k, v in read_json(run_dir / "result.json").items() if k != "provenance"} if done else None,
        "git": provenance["git"],
        "versions": provenance["versions"],
        "python": provenance["python"],
        "cpu_count": provenance["cpu_count"],
        "data": {key: value for key, value in config["data"].items() if key != "obs_std"},
        "curves": curves,
    }
    text = json.dumps(summary, separators=(",", ":")).replace('},"', '},\n"')
    (RESULTS / f"{name}.json").write_text(text + "\n")
    if (run_dir / "curves.png").exists():
        shutil.copyfile(run_dir / "curves.png", RESULTS / f"{name}.png")


if __name__ == "__main__":
    for directory, label in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        collect(Path(directory), label)

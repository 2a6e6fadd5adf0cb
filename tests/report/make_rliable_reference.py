"""Ask `rliable` itself for the numbers that `test_statistics.py` compares with.

`rliable` pins the world around it, so it lives in an environment of its own:

    python -m venv /tmp/rliable && /tmp/rliable/bin/pip install "rliable==1.2.0" "arch==7.2.0" "pandas<3"
    /tmp/rliable/bin/python tests/report/make_rliable_reference.py

writes `rliable_reference.json` beside this file. Its bootstrap draws from NumPy's global generator whatever
`random_state` it is given, so that generator is seeded.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path

import numpy as np

RUNS, OTHER_RUNS, TASKS, SEED = 6, 5, 4, 20211
THRESHOLDS = [-0.1, 0.0, 0.2, 0.35, 0.5, 0.75, 0.9, 1.0, 1.2, 2.0]
AGGREGATES = ("iqm", "mean", "median", "optimality_gap")  # the order in which `aggregate` returns them


def matrices() -> dict[str, np.ndarray]:
    """Two algorithms with different numbers of runs, scores below 0 and above 1, and some ties."""
    rng = np.random.default_rng(SEED)
    level, spread = np.array([0.3, 0.55, 0.9, 1.05]), np.array([0.3, 0.1, 0.15, 0.05])
    scores = rng.normal(level, spread, (RUNS, TASKS)).round(3)
    others = rng.normal(level - 0.08, spread, (OTHER_RUNS, TASKS)).round(3)
    others[0] = scores[0]
    return {"scores": scores, "others": others}


def main() -> None:
    """Compute and write."""
    from rliable import library, metrics

    functions = [getattr(metrics, f"aggregate_{name}") for name in AGGREGATES]
    aggregate = lambda x: np.array([function(x) for function in functions])
    improvement = lambda x, y: np.array([metrics.probability_of_improvement(x, y)])
    data = matrices()
    np.random.seed(SEED)
    points, ends = library.get_interval_estimates(data, aggregate, reps=50_000)
    pair, pair_ends = library.get_interval_estimates(
        {"pair": [data["scores"], data["others"]]}, improvement, reps=10_000
    )
    profiles, bands = library.create_performance_profile(data, np.array(THRESHOLDS), reps=10_000)
    packages = ("rliable", "arch", "numpy", "scipy", "pandas")
    reference = {
        "versions": {name: importlib.metadata.version(name) for name in packages}
        | {"python": platform.python_version()},
        "matrices": {name: matrix.tolist() for name, matrix in data.items()},
        "thresholds": THRESHOLDS,
        "aggregates": {
            name: {key: [points[name][i], *ends[name][:, i]] for i, key in enumerate(AGGREGATES)} for name in data
        },
        "probability_of_improvement": [pair["pair"][0], *pair_ends["pair"][:, 0]],
        "profiles": {name: [profiles[name].tolist(), *bands[name].tolist()] for name in data},
    }
    path = Path(__file__).with_name("rliable_reference.json")
    path.write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

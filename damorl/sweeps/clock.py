"""How long runs take: a line for every finished run in the cache folder, and what follows for those to come."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from damorl.data.cache import cache_dir
from damorl.sweeps.plan import Job

TIMINGS = "timings.jsonl"
RECENT = 20  # runs of a kind that the expectation is the median of


def kind_of(job: Job) -> dict[str, Any]:
    """What a run's time depends on most: the algorithm, its budget, its nets and how many seeds it holds."""
    settings = job.config.algo_config
    return {
        "algo": job.config.algo,
        "updates": job.config.loop.total_updates,
        "hidden": list(getattr(settings, "hidden", ())),
        "seeds": len(job.config.seeds),
    }


def remember_seconds(job: Job, seconds: float, path: Path | None = None) -> None:
    """Add a finished run. That the cache cannot be written is nobody's loss."""
    path = path or cache_dir() / TIMINGS
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            row = kind_of(job) | {"dataset": job.config.dataset, "seconds": round(seconds, 1)}
            file.write(f"\n{json.dumps(row)}\n")  # the first line end closes what a kill may have torn


def stored_timings(path: Path | None = None) -> list[dict[str, Any]]:
    """What was remembered, oldest first; lines that cannot be read are passed over."""
    try:
        lines = (path or cache_dir() / TIMINGS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("seconds"), int | float):
                rows.append(row)
    return rows


def expected_seconds(job: Job, timings: Sequence[dict[str, Any]]) -> float | None:
    """The median of the last runs of its kind, on its own data set if there are any; None if there are none."""
    kind = kind_of(job)
    alike = [row for row in timings if all(row.get(key) == value for key, value in kind.items())]
    own = [row for row in alike if row.get("dataset") == job.config.dataset]
    seconds = [float(row["seconds"]) for row in (own or alike)[-RECENT:]]
    return statistics.median(seconds) if seconds else None


def total_seconds(jobs: Iterable[Job], timings: Sequence[dict[str, Any]], slots: int) -> tuple[float | None, int]:
    """The time that `slots` workers need for the jobs, and for how many of them nothing is known.

    Those are taken to last as long as the others do on average; None if nothing is known of any.
    """
    expected = [expected_seconds(job, timings) for job in jobs]
    known = [seconds for seconds in expected if seconds is not None]
    unknown = len(expected) - len(known)
    if not known:
        return (0.0 if not expected else None), unknown
    total = sum(known) + unknown * sum(known) / len(known)
    return max(total / max(slots, 1), max(known)), unknown


def duration(seconds: float | None) -> str:
    """`3 h 05 min`, `4 min`, `40 s`, or `?`."""
    if seconds is None:
        return "?"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

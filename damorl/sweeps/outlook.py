"""`damorl sweep --dry-run`: what a sweep would do, with nothing made or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from damorl.experiment.config import RunConfig
from damorl.experiment.sources import is_missing
from damorl.record.store import plain
from damorl.sweeps.clock import duration, expected_seconds, stored_timings, total_seconds
from damorl.sweeps.live import job_label
from damorl.sweeps.local import usable_cores
from damorl.sweeps.run import asked_for, place_of, plan_sweep

SHOWN = 40
COUNTED = {"done": "done", "known": "known from records", "left": "left"}


def dry_run(
    grid: Path | str | Mapping[str, Any],
    out: Path | str | None = None,
    known: Path | str | None = None,
    workers: int | None = None,
    seeds_per_process: int | None = None,
) -> dict[str, Any]:
    """Every run that is left, how many are done, and how long the rest would take by the timings of earlier runs.

    `expected_seconds` is None where nothing is known. UserError for a bad grid, as `sweep`.
    """
    out, known = place_of(grid, out), None if known is None else Path(known)
    configs, _ = asked_for(grid, out)
    plan = plan_sweep(configs, out, known, seeds_per_process or 1)
    timings, slots = stored_timings(), workers or len(usable_cores())
    seconds, unknown = total_seconds(plan.jobs, timings, slots)
    runs = [
        {"run": job.name, "label": job_label(job), "expected_seconds": expected_seconds(job, timings)}
        for job in plan.jobs
    ]
    return plain(
        {
            "out": out,
            "total": plan.total,
            "done": len(plan.done),
            "known": len(plan.known),
            "left": plan.left,
            "workers": slots,
            "expected_seconds": seconds,
            "runs_without_timing": unknown,
            "data_sets_to_make": missing_data_sets(configs),
            "runs": runs,
        }
    )


def missing_data_sets(configs: Sequence[RunConfig]) -> list[str]:
    """The built-in data sets that would be made first."""
    missing = (each.dataset for each in configs if is_missing(each.dataset, each.loop.dataset_steps))
    return list(dict.fromkeys(missing))


def outlook_text(found: Mapping[str, Any]) -> str:
    """The same for people."""
    runs = found["runs"]
    lines = [f"{duration(run['expected_seconds']):>10}  {run['label']}" for run in runs[:SHOWN]]
    if len(runs) > SHOWN:
        lines.append(f"{'':>10}  and {len(runs) - SHOWN:,} more")
    if found["data_sets_to_make"]:
        lines.append(f"data sets that are made first: {', '.join(found['data_sets_to_make'])}")
    counted = ", ".join(f"{found[key]:,} {words}" for key, words in COUNTED.items())
    lines.append(f"{found['total']:,} runs: {counted}")
    time = duration(found["expected_seconds"])
    remark = f" ({found['runs_without_timing']:,} of a kind never timed here)" if found["runs_without_timing"] else ""
    workers = found["workers"]
    lines.append(f"expected time with {workers} worker{'s' * (workers > 1)}: {time}{remark}")
    return "\n".join(lines)

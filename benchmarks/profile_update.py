"""Where an update's time goes, by XLA's own profile: python benchmarks/profile_update.py damo mopo [--preset quick].

For each algorithm: microseconds and calls of an update by kind of operation (products, random bits, copies, ...), the
slowest single operations, and how many instructions the compiled loop body has. Profiling adds about half a microsecond
to each operation, also to the sixty of a loop that draws random bits: these look slower than they are. `damorl bench`
has the times themselves.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CALLS, SLOWEST = 3, 8
KINDS = (
    ("random bits and other loops", r"while"),
    ("matrix products", r"dot|ynn|custom-call|.*dot.*fusion"),
    ("gathers and slices", r".*(gather|dynamic|slice)"),
    ("copies", r"copy"),
    ("reductions", r".*reduce"),
)
"""First match counts; the rest is element-wise. A loop's own operations are counted in it, and left out elsewhere."""
WAITING = ("ThunkExecutor", "end: ", "Thunk", "call")


def kind_of(name: str) -> str:
    """Of an operation, by its name."""
    return next((kind for kind, pattern in KINDS if re.match(pattern, name)), "element-wise")


def events(folder: Path) -> Iterator[tuple[str, float, float]]:
    """Name, begin and end (microseconds) of each operation that a profile saw on the CPU's threads."""
    from jax.profiler import ProfileData

    for path in folder.rglob("*.xplane.pb"):
        for plane in ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                if "python" in line.name:
                    continue
                for event in line.events:
                    if not event.name.startswith(WAITING):
                        yield event.name, event.start_ns / 1e3, (event.start_ns + event.duration_ns) / 1e3


def outermost(found: list[tuple[str, float, float]], longest: float) -> Iterator[tuple[str, float]]:
    """Operations that lie in no other one, the loop over all updates (longer than `longest`) left out."""
    end = 0.0
    for name, begin, stop in sorted(found, key=lambda event: (event[1], -event[2])):
        if stop - begin > longest:
            continue
        if begin >= end:
            yield name, stop - begin
            end = stop


def profile(name: str, preset: str) -> dict[str, Any]:
    """The figures of one algorithm."""
    import dataclasses

    import jax

    from damorl.bench.algorithms import DATASET, whole_data
    from damorl.bench.clock import clock
    from damorl.bench.stages import Seeds, fresh_state, full_workload
    from damorl.experiment.config import defaults, find_algorithm

    algorithm, config, sizes = find_algorithm(name), defaults(name, preset, DATASET)[1], full_workload()
    data = whole_data(sizes.num_rows)
    workload = dataclasses.replace(sizes, algorithm=algorithm, config=config)
    seeds = Seeds(workload, data, fresh_state(config, data, algorithm), 1)
    run = partial(seeds.run, seeds.updates)
    plain = min(clock(run) for _ in range(10)) / sizes.updates * 1e6
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                run()
        found = list(outermost(list(events(Path(folder))), longest=10 * plain))
    kinds, singles = defaultdict(lambda: [0.0, 0.0]), defaultdict(lambda: [0.0, 0.0])
    for operation, took in found:
        for table, key in ((kinds, kind_of(operation)), (singles, operation)):
            table[key][0] += took / CALLS / sizes.updates
            table[key][1] += 1.0 / CALLS / sizes.updates
    slowest = dict(sorted(singles.items(), key=lambda item: -item[1][0])[:SLOWEST])
    bodies = re.split(r"\n(?=%\S+ \([^\n]*\) -> [^\n]*\{)", seeds.updates.as_text())
    largest = max(len(re.findall(r"(?m)^ +(?:ROOT )?%\S+ = ", body)) for body in bodies)
    return {"microseconds": plain, "instructions": largest, "kinds": dict(kinds), "slowest": slowest}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="+")
    parser.add_argument("--preset", default="quick", help="whose sizes: quick, standard or paper (default: quick)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    figures = {name: profile(name, args.preset) for name in args.algorithms}
    if args.json:
        print(json.dumps(figures, indent=1))
        return 0
    for name, own in figures.items():
        print(
            f"\n{name}: {own['microseconds']:.0f} us an update, {own['instructions']} instructions in the loop's body"
        )
        for title, table in (("by kind", own["kinds"]), ("the slowest", own["slowest"])):
            print(f"  {title:32}     us  calls")
            for key, (took, calls) in sorted(table.items(), key=lambda item: -item[1][0]):
                print(f"    {key:30} {took:6.1f} {calls:6.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

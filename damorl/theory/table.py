"""The claims' table as text: one line for the divergences for which a claim holds, one for those for which it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from damorl.theory.claims import OF_Q, TOLERANCE, Row
from damorl.theory.generators import GENERATORS
from damorl.theory.misprints import Misprint

HEAD = ("claim", "source", "divergence", "cases", "violated", "largest", "verdict")


def table_lines(rows: Sequence[Row]) -> Iterator[str]:
    """The table, then a counter-example for each line that fails."""
    lines = list(_merged(rows))
    yield _line(HEAD)
    for number, same in enumerate(lines, start=1):
        yield _line(_cells(number, same))
    yield ""
    yield (
        "cases: random problems for each divergence. largest: of (left - right) / max(1, |left|, |right|); a claim is\n"
        f"violated above {TOLERANCE:g} (claims about a minimiser: {OF_Q:g}).\n"
        "* not printed in the paper: a reading of it, or what holds instead."
    )
    for number, same in enumerate(lines, start=1):
        if not same[0].holds:
            yield ""
            yield from _example_lines(number, same)


def _merged(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of one claim and source with the same verdict, in the order of the claims."""
    keys = list(dict.fromkeys((row.claim, row.source, row.printed) for row in rows))
    for key in keys:
        for holds in (True, False):
            same = [row for row in rows if (row.claim, row.source, row.printed) == key and row.holds == holds]
            if same:
                yield same


def _cells(number: int, same: Sequence[Row]) -> tuple[str, ...]:
    row = same[0]
    violated = [each.violations for each in same]
    names = [each.divergence for each in same]
    return (
        f"{number:>2} {row.claim}{'' if row.printed else ' *'}",
        row.source,
        "every one" if len(names) == len(GENERATORS) else ", ".join(names),
        str(row.cases),
        str(min(violated)) if min(violated) == max(violated) else f"{min(violated)} to {max(violated)}",
        f"{max(each.largest for each in same):.1e}",
        "holds" if row.holds else "FAILS",
    )


def _line(cells: Sequence[str]) -> str:
    claim, source, divergence, cases, violated, largest, verdict = cells
    return f"{claim:<42} {source:<9} {cases:>6} {violated:>12} {largest:>8}  {verdict:<6} {divergence}".rstrip()


def _example_lines(number: int, same: Sequence[Row]) -> Iterator[str]:
    """One of the counter-examples of the merged rows: a finite one if there is any."""
    row = min(same, key=lambda row: row.largest == float("inf"))
    example = dict(row.example or {})
    left, right, kind = example.pop("left"), example.pop("right"), example.pop("kind")
    yield f"{number}. {row.claim}, {row.divergence}: left {left:.6g}, right {right:.6g} ({kind})"
    yield from (f"   {name} = {json.dumps(value)}" for name, value in example.items())


def misprint_lines(found: Sequence[Misprint]) -> Iterator[str]:
    """Each misprint with the numbers that show it."""
    yield "misprints"
    for each in found:
        yield f"{each.where}: printed {each.printed}; meant or true: {each.meant}"
        yield f"   {'shown' if each.shown else 'NOT SHOWN'}: " + "; ".join(
            f"{name} {value:.4g}" for name, value in each.numbers.items()
        )

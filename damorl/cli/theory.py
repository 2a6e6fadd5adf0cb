"""`damorl theory`: the paper's claims, computed."""

from __future__ import annotations

import dataclasses

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class TheoryArgs:
    """Check every theorem of the paper on random finite MDPs, exactly, its misprints, and the duals of the DICE family.

    A claim that fails is shown with a small MDP on which it does; that is a result, so the exit code is 0. A minute on
    two cores.

    examples:
      damorl theory
      damorl theory --cases 5000 --seed 1
      damorl theory --json > theory.json
    """

    cases: int = 1200
    """Random problems for each claim and divergence; rounded up to a multiple of 60. The duals get a 20th of them."""
    seed: int = 0
    """Seed of the problems."""
    json: bool = False
    """Print JSON: every claim for every divergence, each counter-example, each misprint."""


def theory_verb(argv: list[str]) -> int:
    """`damorl theory`."""
    args = parse(TheoryArgs, "theory", argv)
    from damorl.theory.claims import check
    from damorl.theory.dual_claims import DUALS
    from damorl.theory.misprints import misprints
    from damorl.theory.table import misprint_lines, table_lines

    rows = check(args.cases, args.seed, progress=not args.json)
    duals = check(-(-args.cases // 20), args.seed, not args.json, DUALS)
    found = misprints()
    if args.json:
        print_json(
            {
                "claims": [row._asdict() for row in rows],
                "duals": [row._asdict() for row in duals],
                "misprints": [each._asdict() for each in found],
            }
        )
        return 0
    heading = "the duals of AlgaeDICE, OptiDICE and O-DICE"
    print("\n".join([*table_lines(rows), "", heading, *table_lines(duals), "", *misprint_lines(found)]))
    return 0

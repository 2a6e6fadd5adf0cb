"""`damorl theory`: the paper's claims, computed."""

from __future__ import annotations

import dataclasses

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class TheoryArgs:
    """Check every theorem of the paper on random finite MDPs, exactly, and its misprints.

    Also the parts of the log-ratio, references other than the behaviour, and the duals of the DICE family.

    A claim that fails is shown with a small MDP on which it does; that is a result, so the exit code is 0. A minute on
    two cores.

    examples:
      damorl theory
      damorl theory --cases 5000 --seed 1
      damorl theory --json > theory.json
    """

    cases: int = 1200
    """Random problems for each claim and divergence; rounded up to a multiple of 60. Duals and ascents get a 20th."""
    seed: int = 0
    """Seed of the problems."""
    json: bool = False
    """Print JSON: every claim for every divergence, each counter-example, each misprint."""


def theory_verb(argv: list[str]) -> int:
    """`damorl theory`."""
    args = parse(TheoryArgs, "theory", argv)
    from damorl.theory.claims import check
    from damorl.theory.dual_claims import DUALS
    from damorl.theory.known import KNOWN
    from damorl.theory.misprints import misprints
    from damorl.theory.split_claims import CERTAIN, CLIMBS, SPLIT
    from damorl.theory.table import misprint_lines, table_lines

    rows = check(args.cases, args.seed, progress=not args.json)
    few = -(-args.cases // 20)
    split = check(args.cases, args.seed, not args.json, SPLIT)
    certain, climbs, duals = (check(few, args.seed, not args.json, study) for study in (CERTAIN, CLIMBS, DUALS))
    split += certain + climbs + check(args.cases, args.seed, not args.json, KNOWN)
    found = misprints()
    if args.json:
        print_json(
            {
                "claims": [row._asdict() for row in rows],
                "split": [row._asdict() for row in split],
                "duals": [row._asdict() for row in duals],
                "misprints": [each._asdict() for each in found],
            }
        )
        return 0
    tables = {
        "the split log-ratio, and references in the behaviour's place": split,
        "the duals of AlgaeDICE, OptiDICE and O-DICE": duals,
    }
    lines = [*table_lines(rows), ""]
    for heading, found_rows in tables.items():
        lines += [heading, *table_lines(found_rows), ""]
    print("\n".join([*lines, *misprint_lines(found)]))
    return 0

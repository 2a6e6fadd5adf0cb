"""`damorl data download`: D4RL's own data sets."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import tyro

from damorl.cli.base import parse, print_json


@dataclasses.dataclass(frozen=True)
class DownloadArgs:
    """Fetch D4RL's own Gym data sets (v2), resuming a broken download; load them by name afterwards.

    Files that are in $D4RL_DATASET_DIR or ~/.d4rl/datasets already are used where they lie. The bytes that a name
    stood for at its first use are pinned: others are refused later.

    examples:
      damorl data download hopper-medium-v2
      damorl data download hopper-medium-v2 walker2d-medium-v2 --mirror /mnt/share/d4rl
      damorl data download hopper-medium-v2 --mirror https://example.org/d4rl --mirror "https://my.host/{name}?raw=1"
      damorl data download hopper-medium-v2 --directory ~/data --refresh
    """

    names: tyro.conf.Positional[tuple[str, ...]]
    """{hopper, halfcheetah, walker2d, ant}-{random, medium, expert, medium-replay, full-replay, medium-expert}-v2."""
    mirror: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Where to look first: base URL, folder, or template with {file} or {name}. Repeatable; then $DAMORL_MIRRORS."""
    directory: Path | None = None
    """Where to put the file; else $D4RL_DATASET_DIR, else damorl's cache."""
    refresh: bool = False
    """Fetch the file anew though it is here, and compare."""
    timeout: float = 30.0
    """Seconds to wait for a silent server."""
    json: bool = False
    """Print JSON."""


def data_download(argv: list[str]) -> int:
    """`damorl data download`."""
    args = parse(DownloadArgs, "data download", argv)
    from damorl.data.download import D4RL_NAMES, check_name, download
    from damorl.data.pins import read_pins
    from damorl.data.transfer import Patience
    from damorl.errors import UserError

    if not args.names:
        raise UserError(f"data download: expected a name, found none; give one or more of {', '.join(D4RL_NAMES)}")
    if not args.timeout > 0:
        raise UserError(f"--timeout: expected a positive number of seconds, found {args.timeout}; give one")
    for name in args.names:
        check_name(name)
    rows = []
    try:
        for name in args.names:
            path = download(
                name, args.mirror, args.directory, args.refresh, Patience(args.timeout), progress=not args.json
            )
            pin = read_pins()[name]
            rows.append({"name": name, "path": path, "sha256": pin.sha256, "size": pin.size, "url": pin.url})
            if not args.json:
                print(path)
    except KeyboardInterrupt:
        print("damorl: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    if args.json:
        print_json(rows)
    return 0

"""Policy export: one file that maps the environment's observations to the environment's actions, scaling inside.

An ONNX file carries its card as metadata; a `.jaxpolicy` file is a zip of the StableHLO program and the card. Neither
holds a pickle, and both hold a checksum of the program.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from damorl.errors import UserError
from damorl.experiment.exported import CARD, PROGRAM, read_exported
from damorl.experiment.policy_card import CARD_TITLE, FORMAT, SUFFIXES, limits, make_card, markdown, step_of, usage
from damorl.experiment.policy_graph import import_extra, make_graph, to_onnx, to_stablehlo
from damorl.experiment.result import load_layers
from damorl.files import atomic_file, writing
from damorl.record import store
from damorl.record.members import Member, find_member


class Export(NamedTuple):
    """What an export left behind."""

    path: Path
    card: dict[str, Any]


def export_policy(
    run_dir: Path | str,
    kind: str = "onnx",
    seed: int | None = None,
    step: int | None = None,
    out: Path | str | None = None,
    setting: int | None = None,
    distribution: bool = False,
) -> Export:
    """Write one policy of a run as `kind`, `onnx` or `jax`, with its card inside and beside it, as JSON and Markdown.

    The policy takes `obs` float32 `[batch, obs_dim]` and gives `action` float32 `[batch, action_dim]`, both in the
    environment's own units, for any batch size of 1 or more. By default it is the first seed's (of the first setting,
    in a population) after the last update, and goes below `RUN_DIR/export`. With `distribution` (ONNX only) it also
    gives `mean` and `log_std` of the Gaussian before the tanh, float32 `[batch, action_dim]`, to sample from. Raises
    UserError for an unknown format, seed, setting or step, a missing package, and for a place that cannot be written
    or holds something else than an export.
    """
    run_dir = Path(run_dir)
    if kind not in SUFFIXES:
        raise UserError(f"unknown export format {kind!r}: choose one of {', '.join(SUFFIXES)}")
    if distribution and kind != "onnx":
        raise UserError(f"expected the format onnx for a policy with its distribution, found {kind}: choose onnx")
    layers, config = load_layers(run_dir, seed, step, setting), store.read_json(run_dir / store.CONFIG)
    chosen = find_member(config, seed, setting, run_dir)
    path = default_path(run_dir, kind, chosen, step_of(run_dir, step)) if out is None else Path(out)
    check_place(path, kind)
    graph = make_graph(layers, config, run_dir)
    program = to_onnx(graph, distribution) if kind == "onnx" else to_stablehlo(graph)
    outputs = ["action", "mean", "log_std"] if distribution else ["action"]
    words = command(run_dir, kind, chosen, step, out) + ["--distribution"] * distribution
    card = make_card(run_dir, chosen, step, kind, words) | {
        "outputs": outputs,
        "obs_dim": graph.obs_dim,
        "action_dim": graph.low.size,
        "action_low": graph.low.tolist(),
        "action_high": graph.high.tolist(),
        "standardised": graph.standardiser is not None,
        "program_bytes": len(program),
        "program_sha256": hashlib.sha256(program).hexdigest(),
    }
    card = store.plain(card | {"usage": usage(kind, path.name, graph.obs_dim, outputs), "limits": limits(card)})
    write(path, program, card)
    return Export(path, card)


def default_path(run_dir: Path, kind: str, member: Member, step: int | None) -> Path:
    """`RUN_DIR/export/RUN-seed0-step20000.onnx`, with `setting1-` before the seed in a population."""
    number = "" if member.setting is None else f"setting{member.setting}-"
    stem = f"{run_dir.resolve().name}-{number}seed{member.seed}" + ("" if step is None else f"-step{step}")
    return run_dir / "export" / f"{stem}{SUFFIXES[kind]}"


def command(run_dir: Path, kind: str, member: Member, step: int | None, out: Path | str | None) -> list[str]:
    """The command line that does this export again."""
    chosen = [] if step is None else ["--step", str(step)]
    chosen += [] if member.setting is None else ["--setting", str(member.setting)]
    place = [] if out is None else ["--out", str(out)]
    return ["damorl", "export", str(run_dir), "--format", kind, "--seed", str(member.seed), *chosen, *place]


def write(path: Path, program: bytes, card: dict[str, Any]) -> None:
    """Write the file and its cards, each atomically."""
    json_path, markdown_path = card_paths(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes(pack_onnx(program, card) if card["kind"] == "onnx" else pack_zip(program, card))
    store.write_json(json_path, card)
    with atomic_file(markdown_path) as temporary:
        temporary.write_text(markdown(card, path.name), encoding="utf-8")


def pack_onnx(program: bytes, card: dict[str, Any]) -> bytes:
    """The model with the card as its metadata.

    Protocol buffers that follow each other are merged when they are read: the program stays in front as it was hashed.
    """
    onnx = import_extra("onnx")
    entry = onnx.StringStringEntryProto(key=CARD, value=json.dumps(card))
    return program + onnx.ModelProto(metadata_props=[entry]).SerializeToString()


def pack_zip(program: bytes, card: dict[str, Any]) -> bytes:
    """A zip file of program and card, without the time of day."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in ((PROGRAM, program), (CARD, json.dumps(card))):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def card_paths(path: Path) -> tuple[Path, Path]:
    """The JSON and the Markdown beside an exported file."""
    return path.with_name(f"{path.name}.card.json"), path.with_name(f"{path.name}.card.md")


def check_place(path: Path, kind: str) -> None:
    """UserError unless `path` has the format's ending and nothing is in the way but an earlier export."""
    if path.suffix != SUFFIXES[kind]:
        raise UserError(f"cannot export to {path}: expected a name that ends in {SUFFIXES[kind]}; choose another --out")
    for place in (path, *card_paths(path)):
        if place.exists() and not is_ours(place):
            raise UserError(
                f"cannot export to {path}: expected at most an earlier export in the way, found something else in "
                f"{place}; move it away or choose another --out"
            )


def is_ours(place: Path) -> bool:
    """Whether an earlier export wrote this file."""
    try:
        if place.suffix == ".md":
            return place.read_text(encoding="utf-8").startswith(CARD_TITLE)
        card = store.read_json(place) if place.suffix == ".json" else read_exported(place).card
        return isinstance(card, dict) and card.get("format") == FORMAT
    except (UserError, OSError, ValueError):
        return False

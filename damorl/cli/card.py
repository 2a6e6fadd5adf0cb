"""A data set's card as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

HEADS = {"mean": "mean", "std": "std", "min": "min", "q25": "25 %", "median": "median", "q75": "75 %", "max": "max"}
ROWS = {"episode_length": "episode length", "return": "return", "score": "normalised score", "reward": "reward"}
LONGEST = 70
"""Metadata longer than this are left to `--json`."""

Card = Mapping[str, Any]


def card_lines(card: Card) -> Iterator[str]:
    """The card of `world.card.summary` in groups: what and how much, distributions, actions, where it comes from."""
    yield card["name"]
    yield from _facts(
        {
            "file": card["path"] or "none",
            "task": card["task"] or "unknown",
            "sha256": card["sha256"],
            "transitions": f"{card['transitions']:,} of {card['obs_dim']}-d states and {card['action_dim']}-d actions",
            "stored as": _types(card["dtypes"]),
            "not finite": f"{card['non_finite_rows']:,} rows",
            "duplicates": f"{card['duplicates']:.2%} of the rows repeat another one",
            "episodes": f"{card['complete_episodes']:,} complete, {card['incomplete_episodes']:,} incomplete",
            "ended by": f"{card['terminals']:,} terminals, {card['truncations']:,} time limits or cuts",
        }
    )
    yield ""
    yield f"{'':<18}" + "".join(f"{head:>12}" for head in HEADS.values())
    for key, label in ROWS.items():
        values = card[key]
        yield f"{label:<18}" + ("".join(f"{_number(values[name]):>12}" for name in HEADS) if values else "     unknown")
    yield ""
    yield from _facts({"action coverage": _coverage(card), "at the bounds": _saturation(card)})
    yield ""
    yield from _origin(card["metadata"])


def _facts(facts: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{key:<18}{value}" for key, value in facts.items())


def _types(dtypes: Mapping[str, str]) -> str:
    kinds = {kind: ", ".join(key for key in dtypes if dtypes[key] == kind) for kind in dtypes.values()}
    return "; ".join(f"{kind}: {keys}" for kind, keys in kinds.items()) or "unknown"


def _number(value: float) -> str:
    return f"{value:,.2f}" if value == 0 or 0.01 <= abs(value) < 1e7 else f"{value:.3g}"


def _coverage(card: Card) -> str:
    per_dim = card["action_coverage_per_dim"]
    least = min(range(len(per_dim)), key=per_dim.__getitem__)
    return f"{card['action_coverage']:.1%} of 20 bins visited; least in dimension {least}: {per_dim[least]:.1%}"


def _saturation(card: Card) -> str:
    per_dim = card["action_saturation_per_dim"]
    most = max(range(len(per_dim)), key=per_dim.__getitem__)
    return f"{card['action_saturation']:.1%} of the actions; most in dimension {most}: {per_dim[most]:.1%}"


def _origin(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What the file says of itself; what stands above already, and long texts, are left out."""
    told = {key: str(value) for key, value in metadata.items() if key not in ("name", "task", "sha256")}
    yield from _facts({key: value for key, value in told.items() if len(value) <= LONGEST})
    long = [key for key, value in told.items() if len(value) > LONGEST]
    if long:
        yield f"{'with --json':<18}{', '.join(long)}"

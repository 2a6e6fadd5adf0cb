"""Fitted dynamics kept between runs: the same fit, asked for again, is read instead of made.

A fit is known by everything that decides its bits: data, settings, key, the code that fits, versions and device. So a
run gives the same numbers whether its model was read or made, and a sweep over what comes after the fit pays for the
fit once. Processes that need the same fit at the same time make it once as well: one fits, the others wait. Beside a
model lie the figures of its fit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from damorl.core import nets, optim, scaler
from damorl.data.cache import cache_dir
from damorl.errors import UserError
from damorl.experiment.config import RunConfig
from damorl.files import locked, remove_leftovers, temporary_folder
from damorl.parts import dynamics, dynamics_fit, holdout
from damorl.record import checkpoint, seal, store
from damorl.types import Fit, Key, Problem, Recall

CODE = (dynamics, dynamics_fit, holdout, nets, optim, scaler)
FIGURES = "figures.json"
MISSING = "the model was read from the cache, where the figures of its fit were not kept"


def remember(data_sha256: str, on_note: Callable[[str], None], directory: Path | None = None) -> Recall:
    """What finds fits to the data with this hash again, below `directory` (None: `models` in the cache folder).

    Whether a model was read, and which file, goes to `on_note`, and so does for whom the process waits. A damaged file
    is fitted again.
    """
    root = cache_dir() / "models" if directory is None else directory

    def recall(key: Key, settings: Any, template: Any, fit: Fit) -> tuple[Any, Any]:
        identity = identify(data_sha256, settings, key)
        place = root / seal.digest(identity)[:16]
        read = f"the dynamics were fitted before and are read from {place} (--refit fits them again)"
        if (found := stored(place, template, identity, on_note)) is not None:
            on_note(read)
            return found
        with alone(place, on_note) as is_alone:
            if (found := stored(place, template, identity, lambda note: None)) is not None:  # made in the meantime
                on_note(read)
                return found
            shutil.rmtree(place, ignore_errors=True)  # what is there, if anything, cannot be read
            if is_alone:
                with suppress(UserError):
                    remove_leftovers(place.parent, place.name)
            model, figures = fit()
            try:
                keep(place, model, figures, identity)
            except (OSError, UserError) as error:  # a run does not need it
                on_note(f"the fitted dynamics are not kept for other runs: {error}")
            return model, figures

    return recall


def stored(
    place: Path, template: Any, identity: dict[str, str], on_note: Callable[[str], None]
) -> tuple[Any, Any] | None:
    """The model at `place` with its figures, or None for those that cannot be read; None without a readable model."""
    try:
        found = checkpoint.restore(place, template, identity, on_note)
    except UserError:
        return None
    if found is None:
        return None
    figures = None
    with suppress(UserError):
        figures = store.read_json(place / FIGURES)
    return found[0], figures


@contextmanager
def alone(place: Path, on_note: Callable[[str], None]) -> Iterator[bool]:
    """Fit what belongs to `place` in one process at a time; where nothing can be written there, in any number.

    Yields whether the process is alone."""
    lock, held = place.with_name(f".{place.name}.lock"), False
    with ExitStack() as stack:
        with suppress(UserError):  # `keep` will say what is wrong
            held = stack.enter_context(locked(lock, on_note, "fitting the same dynamics"))
        yield held


def keep(place: Path, model: Any, figures: Any, identity: dict[str, str]) -> None:
    """Write `model` and `figures` so that `place` appears whole; where another process was faster, its copy stays."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(place) as own:
        checkpoint.save(own / place.name, model, 0, identity)
        store.write_json(own / place.name / FIGURES, figures)
        try:
            os.rename(own / place.name, place)
        except OSError:
            if not place.is_dir():
                raise


def identify(data_sha256: str, settings: Any, key: Key) -> dict[str, str]:
    """Everything that decides a fit, in words."""
    sources = b"".join(Path(str(module.__file__)).read_bytes() for module in CODE)
    device, versions = jax.devices()[0], (metadata.version(name) for name in ("jax", "jaxlib"))
    return {
        "data": data_sha256,
        "settings": json.dumps(store.plain(dataclasses.asdict(settings)), sort_keys=True),
        "key": json.dumps(jax.random.key_data(key).tolist()),
        "code": hashlib.sha256(sources).hexdigest(),
        "jax": " ".join(versions),
        "device": f"{device.platform} {device.device_kind}",
    }


def noting_fits(problem: Problem, on_figures: Callable[[Any], None]) -> Problem:
    """`problem`, in which every fit that is made or found again hands its figures to `on_figures`, too."""

    def recall(key: Key, settings: Any, template: Any, fit: Fit) -> tuple[Any, Any]:
        model, figures = fit() if problem.recall is None else problem.recall(key, settings, template, fit)
        on_figures({"missing": MISSING} if figures is None else figures)
        return model, figures

    return dataclasses.replace(problem, recall=recall)


def model_hashes(config: RunConfig, state: Any) -> dict[str, str | None]:
    """Per seed a SHA-256 of the fitted dynamics in the stacked states of a run; None for an algorithm without.

    It is of the elites, whatever else an algorithm keeps: equal fits have equal hashes in all algorithms.
    """
    model = getattr(state, "model", None)
    if not isinstance(model, dynamics.Dynamics):
        return {str(seed): None for seed in config.seeds}
    stacked, found = jax.device_get(model), {}
    for index, seed in enumerate(config.seeds):
        own = jax.tree.map(lambda leaf, i=index: leaf[i], stacked)
        elites = dynamics.first_members(own, config.algo_config.dynamics.num_elites)
        leaves = {name: np.asarray(leaf, order="C") for name, leaf in checkpoint.named_leaves(elites).items()}
        found[str(seed)] = checkpoint.digest(leaves, {})
    return found

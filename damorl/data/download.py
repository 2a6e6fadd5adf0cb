"""D4RL's own Gym data sets, version 2: found on this machine, or fetched from the first mirror that has them whole.

A file that is not complete and right never carries the data set's name. It grows as `FILE.part` beside its place, with
`FILE.part.json` telling what it is a part of (`transfer`), one process at a time (`pins.locked`, on `.FILE.lock`). Only
once all of it is here, it holds the bytes its name is pinned to (`pins`), and it reads as a data set, does
`os.replace` give it its name.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from damorl.data import pins
from damorl.data.cache import cache_dir
from damorl.data.examine import examine
from damorl.data.transfer import Failed, Hopeless, Patience, discard, transfer
from damorl.errors import UserError
from damorl.files import sync, writing
from damorl.world.tasks import infer_task

_ENVS = ("hopper", "halfcheetah", "walker2d", "ant")
_QUALITIES = ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert")
D4RL_NAMES: tuple[str, ...] = tuple(f"{env}-{quality}-v2" for env in _ENVS for quality in _QUALITIES)
"""The data sets that `damorl data download` knows."""

OFFICIAL = "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2"
"""D4RL's own host (its `d4rl/infos.py`), the last mirror to be asked."""
DEFAULT_PATIENCE = Patience()


def file_name(name: str) -> str:
    """What D4RL calls the file: `hopper-medium-replay-v2` -> `hopper_medium_replay-v2.hdf5`."""
    return name.removesuffix("-v2").replace("-", "_") + "-v2.hdf5"


def downloaded_path(name: str) -> Path | None:
    """The file of a D4RL data set on this machine, verified; None if `name` is none of `D4RL_NAMES`.

    It may lie in `$D4RL_DATASET_DIR` (without that: `~/.d4rl/datasets`), in damorl's cache, or wherever `download` or
    an earlier call found it. UserError if it is nowhere, or if its bytes are not those that `name` is pinned to.
    """
    if name not in D4RL_NAMES:
        return None
    if (path := _find(name)) is None:
        raise UserError(
            f"data set {name!r} is not downloaded yet: run `damorl data download {name}`, or put {file_name(name)} "
            f"into {_download_dir()}"
        )
    return verify(name, path)


def verify(name: str, path: Path) -> Path:
    """`path`, once it is sure to hold the bytes that `name` is pinned to; the first readable file pins its name.

    Bytes are hashed only if the file was not seen before with this size and modification time. UserError naming both
    hashes if they differ, or if the file is to pin the name but is no data set.
    """
    try:
        objection = None if pins.is_verified(name, path) else _objection(name, path, path, path.as_uri())
    except OSError as error:
        raise UserError(f"{path}: expected a readable file, found '{error.strerror or error}'; correct that") from error
    if objection:
        remedy = f"put the right file there with `damorl data download {name} --refresh`"
        raise UserError(f"{path}: {objection}; {remedy}")
    return path


def download(
    name: str,
    mirrors: Iterable[str] = (),
    directory: Path | None = None,
    refresh: bool = False,
    patience: Patience = DEFAULT_PATIENCE,
    progress: bool = False,
) -> Path:
    """The file of a D4RL data set, verified; fetched if it is not on this machine or if `refresh` is set.

    The mirrors asked are `mirrors`, those of `$DAMORL_MIRRORS` (separated by blanks or commas) and `OFFICIAL`, in that
    order, until one gives the whole and right file. A mirror is a base URL (http, https, file) or a local folder that
    the file's name is appended to, or a template with `{file}` or `{name}`.

    The file goes to `directory`, else to `$D4RL_DATASET_DIR`, else into damorl's cache; with `refresh`, to where it was
    found. The first bytes that a name stands for pin it: others are refused, and a file already there stays as it was.

    UserError if `name` or a mirror is malformed, if the file found here is not the pinned one, if the place cannot be
    written, or if no mirror gives the file, with the reason of each.
    """
    check_name(name)
    urls = [_locate(mirror, name) for mirror in (*mirrors, *_environment_mirrors(), OFFICIAL)]
    folder = directory.expanduser().absolute() if directory else None
    found = _find(name, folder)
    if found and not refresh:
        return verify(name, found)
    target = found or (folder or _download_dir()) / file_name(name)
    with pins.locked(target.with_name(f".{target.name}.lock")):
        if target.exists() and not refresh:  # brought by the process that had the lock
            return verify(name, target)
        if found:
            with suppress(UserError):
                verify(name, found)  # pins the name if nothing did: what was in use is what new bytes are held against
        return _first_whole(name, urls, target, patience, progress)


def _first_whole(name: str, urls: list[str], target: Path, patience: Patience, progress: bool) -> Path:
    reasons = []
    for url in urls:
        try:
            return _fetch(name, url, target, patience, progress)
        except Failed as reason:
            reasons.append(f"{url}: {reason}")
            if progress:
                tqdm.write(f"gave up on {reasons[-1]}", file=sys.stderr)
    raise UserError(
        f"{name}: expected a mirror that gives the whole file, found none ({'; '.join(reasons)}); name another one "
        f"with --mirror, or put {target.name} into {target.parent} yourself"
    )


def _fetch(name: str, url: str, target: Path, patience: Patience, progress: bool, again: bool = True) -> Path:
    """Bring the file from one mirror. Raises `Failed`; a part of a good file is then kept, a wrong file is not."""
    part = target.with_name(target.name + ".part")
    glued = transfer(url, part, patience, progress)
    objection = _objection(name, part, target, url)
    if not objection:
        with writing(target):
            sync(part)
            os.replace(part, target)
            sync(target.parent)
        discard(part)
        return target
    discard(part)
    if glued and again:  # perhaps only the old half was wrong
        return _fetch(name, url, target, patience, progress, again=False)
    raise Hopeless(objection)


def _objection(name: str, path: Path, target: Path, url: str) -> str | None:
    """Why the bytes of `path` cannot be `name`'s; if they can, they are pinned as those of `target`, its place."""
    stat, sha256 = path.stat(), pins.hash_file(path)  # in this order: a file changed meanwhile is hashed again
    return pins.differs(name, stat.st_size, sha256) or _flaw(name, path) or pins.claim(name, target, stat, sha256, url)


def _flaw(name: str, path: Path) -> str | None:
    """Why the file cannot be loaded as this data set, or None."""
    # D4RL's ant states have 111 columns, 84 of them contact forces that are all 0 (its issue 143): no simulator's.
    task = None if name.startswith("ant-") else infer_task(name)
    errors = (problem.message for problem in examine(path, task).problems if problem.severity == "error")
    message = next(errors, None)
    return message and message.removeprefix(f"{path}: ")


def check_name(name: str) -> None:
    """UserError with the nearest name if `name` is none of `D4RL_NAMES`."""
    if name in D4RL_NAMES:
        return
    close = difflib.get_close_matches(name.lower(), D4RL_NAMES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(D4RL_NAMES)}"
    raise UserError(f"unknown D4RL data set {name!r}: {hint}")


def _find(name: str, folder: Path | None = None) -> Path | None:
    """The file, if it is in `folder` or, without that, in any of the places a D4RL file may lie."""
    places = [folder / file_name(name)] if folder else _places(name)
    return next((path for path in places if path.is_file()), None)


def _places(name: str) -> Iterator[Path]:
    yield (_d4rl_dir() or Path("~/.d4rl/datasets").expanduser()) / file_name(name)
    yield cache_dir().absolute() / "d4rl" / file_name(name)
    pin = pins.read_pins().get(name)
    yield from map(Path, pin.files if pin else ())


def _d4rl_dir() -> Path | None:
    folder = os.environ.get("D4RL_DATASET_DIR")
    return Path(folder).expanduser().absolute() if folder else None


def _download_dir() -> Path:
    return _d4rl_dir() or cache_dir().absolute() / "d4rl"


def _environment_mirrors() -> list[str]:
    return [mirror for mirror in re.split(r"[\s,]+", os.environ.get("DAMORL_MIRRORS", "")) if mirror]


def _locate(mirror: str, name: str) -> str:
    """The URL of the data set's file at a mirror. UserError if it is of a kind that cannot be fetched."""
    if "{name}" in mirror or "{file}" in mirror:
        place = mirror.replace("{name}", name).replace("{file}", file_name(name))
    else:
        place = f"{mirror.rstrip('/')}/{file_name(name)}"
    scheme, separator, _ = place.partition("://")
    if not separator:
        return Path(place).expanduser().absolute().as_uri()
    if scheme.lower() not in ("http", "https", "file"):
        raise UserError(
            f"mirror {mirror!r}: expected a URL with http, https or file, or a folder, found {scheme!r}; correct it"
        )
    return place

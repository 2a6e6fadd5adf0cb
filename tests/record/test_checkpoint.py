"""A checkpoint gives back every bit, or says why it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from damorl.errors import UserError
from damorl.record import checkpoint, safe

IDENTITY = {"config": "3f2a", "seeds": "0 1"}


class State(NamedTuple):
    params: Any
    opt_state: Any
    extras: dict[str, Any]


def make_state(offset: float = 0.0) -> State:
    """Two seeds of everything that a training state may hold, with the values where bits get lost."""
    awkward = np.array([np.nan, -0.0, np.inf, 1e-45, np.float32(1) / 3, 16777217.0], np.float32)
    params = ({"kernel": jnp.tile(awkward, (2, 1)) + offset, "bias": jnp.zeros((2, 0))},)
    extras = {
        "key_data": jnp.array([[0, 2**32 - 1], [7, 11]], jnp.uint32),
        "flag": jnp.array([True, False]),
        "index": jnp.array([-(2**31), 2**31 - 1]),
        "half": jnp.array([0.1, 65504.0], jnp.float16),
        "brain": jnp.array([0.1, 3e38], jnp.bfloat16),
        "host_count": np.array(2**62 + 1),
    }
    return State(params, jax.vmap(optax.adam(1e-3).init)(params), extras)


def bits(tree: Any) -> list[tuple[str, bytes]]:
    return [(checkpoint.describe(leaf), np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def restore(directory: Path, template: Any = None, identity: dict[str, str] = IDENTITY) -> tuple[Any, list[str]]:
    warnings: list[str] = []
    template = make_state() if template is None else template
    return checkpoint.restore(directory, template, identity, warnings.append), warnings


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    """The safetensors library writes metadata in a random order, another at each call."""
    files = [checkpoint.save(tmp_path / str(i), make_state(), step=1, identity=IDENTITY) for i in range(8)]
    assert len({file.read_bytes() for file in files}) == 1
    leaves = {"β": np.ones((2, 3), np.float32), "a": np.zeros(0, np.int8)}
    for i in range(8):
        safe.save(tmp_path / f"{i}.safetensors", leaves, {"z": "ü", "format": "x-1", "a": "1"})
    assert len({(tmp_path / f"{i}.safetensors").read_bytes() for i in range(8)}) == 1
    read, metadata = safe.read(tmp_path / "0.safetensors", "x")
    assert metadata == {"z": "ü", "format": "x-1", "a": "1"}
    assert {name: array.tolist() for name, array in read.items()} == {n: a.tolist() for n, a in leaves.items()}


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_every_leaf_comes_back_bit_for_bit_in_its_place(tmp_path):
    state = make_state()
    assert checkpoint.save(tmp_path, state, 123, IDENTITY) == tmp_path / "step_000000123.safetensors"
    (restored, step), warnings = restore(tmp_path)
    assert step == 123
    assert warnings == []
    assert bits(restored) == bits(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert isinstance(restored.extras["flag"], jax.Array)
    assert isinstance(restored.extras["host_count"], np.ndarray)


def test_a_description_is_enough_of_a_template(tmp_path):
    state = make_state()._replace(extras={})
    checkpoint.save(tmp_path, state, 1, IDENTITY)
    (restored, _), _ = restore(tmp_path, jax.eval_shape(lambda: state))
    assert bits(restored) == bits(state)


def test_leaves_are_named_by_their_path():
    assert list(checkpoint.named_leaves(make_state()))[:4] == [
        "params/0/bias",
        "params/0/kernel",
        "opt_state/0/count",
        "opt_state/0/mu/0/bias",
    ]
    with pytest.raises(ValueError, match="same path"):
        checkpoint.named_leaves({"a/b": 1, "a": {"b": 2}})


def test_the_newest_two_are_kept(tmp_path):
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, make_state(step), step, IDENTITY)
    assert sorted(os.listdir(tmp_path)) == ["step_000000020.safetensors", "step_000000030.safetensors"]
    checkpoint.save(tmp_path, make_state(30), 30, IDENTITY)
    assert sorted(os.listdir(tmp_path)) == ["step_000000020.safetensors", "step_000000030.safetensors"]


def test_no_directory_and_an_empty_one_hold_nothing(tmp_path):
    assert restore(tmp_path / "none") == (None, [])
    assert restore(tmp_path) == (None, [])


# --- damage ---


@pytest.fixture
def two(tmp_path) -> Path:
    checkpoint.save(tmp_path, make_state(1.0), 10, IDENTITY)
    checkpoint.save(tmp_path, make_state(2.0), 20, IDENTITY)
    return tmp_path / "step_000000020.safetensors"


@pytest.mark.parametrize("content", [b"", b"{}", b"\x89HDF\r\n\x1a\n" + bytes(5000), bytes(100), b"\xff" * 100])
def test_what_is_no_checkpoint_is_passed_over(two, content):
    two.write_bytes(content)
    (state, step), warnings = restore(two.parent)
    assert (step, bits(state)) == (10, bits(make_state(1.0)))
    assert len(warnings) == 1
    assert str(two) in warnings[0]


def test_wherever_it_was_cut_it_is_passed_over(two):
    data = two.read_bytes()
    for length in range(0, len(data), 97):
        two.write_bytes(data[:length])
        assert restore(two.parent)[0][1] == 10


def test_whichever_byte_was_flipped_it_is_passed_over(two):
    for position in range(0, two.stat().st_size, 5):
        flip(two, position)
        with pytest.raises((ValueError, KeyError, SafetensorError)):
            checkpoint.read(two)
        flip(two, position)
    flip(two, two.stat().st_size - 1)
    (state, step), warnings = restore(two.parent)
    assert (step, bits(state)) == (10, bits(make_state(1.0)))
    assert "does not match its checksum" in warnings[0]


def test_weights_of_another_program_are_passed_over(two):
    save_file({"weight": np.zeros(3)}, two)
    assert restore(two.parent)[0][1] == 10


def test_all_damaged_is_one_sentence(two):
    for path in two.parent.iterdir():
        flip(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match=r"found 2 that are all damaged.*--out"):
        restore(two.parent)


def test_a_save_after_falling_back_replaces_the_damaged_later_one(two):
    flip(two, 1000)
    checkpoint.save(two.parent, make_state(3.0), 15, IDENTITY)
    assert sorted(os.listdir(two.parent)) == ["step_000000010.safetensors", "step_000000015.safetensors"]


# --- foreign ---


def test_another_runs_checkpoint_is_refused(two):
    with pytest.raises(UserError, match=r"step_000000020\.safetensors.*expected config 77aa, found 3f2a; .*--out"):
        restore(two.parent, identity={**IDENTITY, "config": "77aa"})
    with pytest.raises(UserError, match="expected seeds None, found 0 1"):
        restore(two.parent, identity={"config": "3f2a"})


def test_another_format_is_refused(two, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", "damorl-checkpoint-2")
    with pytest.raises(UserError, match="expected format damorl-checkpoint-2, found damorl-checkpoint-1"):
        restore(two.parent)


@pytest.mark.parametrize(
    ("extras", "sentence"),
    [
        ({"flag": jnp.zeros(3, bool)}, r"expected extras/flag: bool\[3\], found bool\[2\]"),
        ({"flag": jnp.zeros(2)}, r"expected extras/flag: float32\[2\], found bool\[2\]"),
        ({"more": jnp.zeros(2)}, r"expected extras/more: float32\[2\], found no such leaf"),
    ],
)
def test_another_structure_is_refused(two, extras, sentence):
    state = make_state()
    with pytest.raises(UserError, match=rf"step_000000020\.safetensors.*{sentence}; .*--out"):
        restore(two.parent, state._replace(extras=state.extras | extras))


def test_a_leaf_too_many_is_refused(two):
    with pytest.raises(UserError, match=r"expected extras/\w+: no such leaf, found"):
        restore(two.parent, make_state()._replace(extras={}))


# --- the disk ---


def test_a_full_disk_leaves_the_older_checkpoint_and_nothing_else(tmp_path):
    """The kernel's limit on file sizes stands in for a full disk: writing really fails halfway."""
    resource = pytest.importorskip("resource")
    checkpoint.save(tmp_path, {"w": jnp.ones(8)}, 10, IDENTITY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"step_000000020\.safetensors.*File too large.*--out"):
            checkpoint.save(tmp_path, {"w": jnp.ones(100_000)}, 20, IDENTITY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["step_000000010.safetensors"]
    (state, step), _ = restore(tmp_path, {"w": jnp.zeros(8)})
    assert (step, state["w"].tolist()) == (10, [1.0] * 8)


def test_the_older_one_goes_only_after_the_new_one_is_on_the_disk(two, monkeypatch):
    def fail(source, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="Input/output error"):
        checkpoint.save(two.parent, make_state(3.0), 30, IDENTITY)
    assert sorted(os.listdir(two.parent)) == ["step_000000010.safetensors", "step_000000020.safetensors"]


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "checkpoint").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*checkpoint"):
        checkpoint.save(tmp_path / "checkpoint", make_state(), 1, IDENTITY)


def test_what_a_kill_left_is_never_read_and_soon_removed(two):
    left = two.parent / ".step_000000030.safetensors.tmp"
    left.write_bytes(two.read_bytes()[:500])
    assert restore(two.parent)[0][1] == 20
    checkpoint.save(two.parent, make_state(4.0), 40, IDENTITY)
    assert not left.exists()


def test_a_save_that_was_cut_off_before_it_removed_the_oldest_is_made_good(two, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "prune", lambda *_: None)
        checkpoint.save(two.parent, make_state(3.0), 30, IDENTITY)
    checkpoint.prune(two.parent, 25)  # there is none
    assert len(os.listdir(two.parent)) == 3
    checkpoint.prune(two.parent, 30)
    assert sorted(os.listdir(two.parent)) == ["step_000000020.safetensors", "step_000000030.safetensors"]


def test_kill_9_while_saving_always_leaves_a_sound_checkpoint(tmp_path):
    script = f"""
import itertools
from pathlib import Path
import numpy as np
from damorl.record.checkpoint import save
for step in itertools.count(1):
    save(Path({str(tmp_path)!r}), {{"w": np.full(500_000, step)}}, step, {{}})
"""
    for delay in (0.0, 0.0137):
        process = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 60
        while len(checkpoint.checkpoints(tmp_path)) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (state, step), warnings = restore(tmp_path, {"w": np.zeros(500_000, np.int64)}, {})
        assert warnings == []
        assert set(state["w"].tolist()) == {step}
        for path in tmp_path.iterdir():
            path.unlink()

"""Exported policies: the same numbers as the policy they come from, in real onnxruntime, JAX and simulator."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file

import damorl
from damorl.behaviour.host_policy import to_arrays
from damorl.cli.export import export_verb
from damorl.core.nets import Dense
from damorl.data.store import write_dataset
from damorl.errors import UserError
from damorl.experiment.describe import CARD
from damorl.experiment.export import card_paths, export_policy
from damorl.experiment.exported import load_exported, read_exported
from damorl.experiment.result import POLICIES, load_layers
from damorl.parts.actor import init_actor, policy
from damorl.record import store
from damorl.world.units import as_metadata, make_bounds

OBS_DIM, ACTION_DIM, HIDDEN = 11, 3, (64, 64)
KINDS = ("onnx", "jax")
SUFFIX = {"onnx": ".onnx", "jax": ".jaxpolicy"}
TOLERANCE = 1e-5


def make_run(run_dir: Path, gain: float = 1.0, sizes: tuple[int, int] = (OBS_DIM, ACTION_DIM), **changes: Any) -> Path:
    """A finished run of two seeds with random policies, `gain` times as steep as fresh ones."""
    data = {"name": "mine", "sha256": "ab" * 32, "num_transitions": 10, "task": None, "obs_std": [0.5] * sizes[0]}
    config = {"algo": "bc", "seeds": [0, 4], "data": data | changes.pop("data", {}), **changes}
    config["loop"] = {"total_updates": 40, "eval_episodes": 10}
    run_dir.mkdir(parents=True)
    store.write_json(run_dir / store.CONFIG, config)
    command = ["damorl", "train", "bc", "--dataset", "my data.hdf5"]
    store.write_json(run_dir / store.PROVENANCE, {"command": command, "versions": {"damorl": "0.1"}, "git": None})
    store.write_json(run_dir / store.RESULT, {})
    arrays: dict[str, np.ndarray] = {}
    for seed in config["seeds"]:
        actor = init_actor(jax.random.key(seed), *sizes, HIDDEN)
        layers = tuple((gain * np.asarray(layer.kernel), np.asarray(layer.bias)) for layer in actor)
        arrays |= to_arrays(layers, f"{seed}/")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, run_dir / POLICIES)
    scores = {20: 7.0, 40: 9.0}
    rows = [{"step": n, "seed": s, "eval/return_mean": v} for n, v in scores.items() for s in (0, 4)]
    store.append_metrics(run_dir, rows)
    return run_dir


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "bc-mine")


def ordinary_states(rng: np.random.Generator) -> np.ndarray:
    """500 states of the size that data have, and smaller, down to denormal numbers."""
    signs = rng.choice([-1.0, 1.0], (100, OBS_DIM))
    data_like = rng.normal(0.0, 1.0, (280, OBS_DIM)) * rng.uniform(0.1, 3.0, OBS_DIM)
    denormal = rng.normal(0.0, 1e-40, (100, OBS_DIM))
    return np.concatenate([np.zeros((20, OBS_DIM)), 1e-3 * signs, denormal, data_like]).astype(np.float32)


def extreme_states(rng: np.random.Generator) -> np.ndarray:
    """500 states with features of 1e3 and 1e6."""
    signs = rng.choice([-1.0, 1.0], (500, OBS_DIM))
    return (signs * np.repeat([1e3, 1e6], 250)[:, None]).astype(np.float32)


def jax_policy(run_dir: Path, obs: np.ndarray, seed: int = 0) -> np.ndarray:
    layers = tuple(Dense(*map(jax.numpy.asarray, layer)) for layer in load_layers(run_dir, seed))
    return np.asarray(policy(layers, jax.numpy.asarray(obs)).mode())


def exactly(run_dir: Path, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The action in float64, and how large the sums before the tanh would be if nothing in them cancelled."""
    value, size = obs.astype(np.float64), np.abs(obs).astype(np.float64)
    layers = load_layers(run_dir)
    for index, (kernel, bias) in enumerate(layers):
        value, size = value @ kernel.astype(np.float64) + bias, size @ np.abs(kernel) + np.abs(bias)
        value = np.maximum(value, 0.0) if index < len(layers) - 1 else value
    return np.tanh(value[:, :ACTION_DIM]), size[:, :ACTION_DIM]


def load(run_dir: Path, kind: str, out: Path, **options: Any) -> Callable[[np.ndarray], np.ndarray]:
    return load_exported(export_policy(run_dir, kind, out=out / f"p{SUFFIX[kind]}", **options).path)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_actions_are_those_of_the_jax_policy(run_dir: Path, tmp_path: Path, kind: str) -> None:
    obs = ordinary_states(np.random.default_rng(0))
    act = load(run_dir, kind, tmp_path)
    expected = jax_policy(run_dir, obs)
    assert np.abs(expected).max() < 0.99  # nothing here is saved by the tanh
    assert expected.std(axis=0).min() > 0.01
    np.testing.assert_allclose(act(obs), expected, rtol=0, atol=TOLERANCE)
    for size in (1, 7, 500):
        np.testing.assert_allclose(act(obs[-size:]), expected[-size:], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("gain", [1.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_states_differ_only_as_float32_sums_do(tmp_path: Path, kind: str, gain: float) -> None:
    """Sums of huge terms that cancel lose digits, in an order that depends on the library and even on JAX's batch size.

    So where 1e-5 is missed, the terms are so large that one part in 2^24 of them is more than 1e-5, that is rare, and
    the exported policy is as close to the exact one as JAX's own. Everywhere else 1e-5 holds.
    """
    run_dir = make_run(tmp_path / "run", gain)
    rng = np.random.default_rng(1)
    obs = np.concatenate([ordinary_states(rng), extreme_states(rng)])
    act = load(run_dir, kind, tmp_path)
    assert len(obs) == 1000
    ours, theirs = act(obs), jax_policy(run_dir, obs)
    exact, size = exactly(run_dir, obs)
    apart = np.abs(ours - theirs)
    delicate = 2.0**-24 * size > TOLERANCE
    assert apart[~delicate].max() <= TOLERANCE
    assert np.mean(apart > TOLERANCE) < 0.01
    assert np.abs(ours - exact).max() <= TOLERANCE + 4 * np.abs(theirs - exact).max()
    assert np.abs(ours).max() <= 1.0  # onnxruntime's own tanh gives 1.0000001


@pytest.mark.parametrize("kind", KINDS)
def test_scaling_of_observations_and_actions_is_inside(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(2)
    mean, scale = rng.normal(0, 5, OBS_DIM), rng.uniform(0.1, 9, OBS_DIM)
    low, high = np.array([-0.4, 0.1, -2.0]), np.array([0.4, 0.7, 6.0])
    run_dir = make_run(
        tmp_path / "run",
        policy={"obs_mean": mean.tolist(), "obs_scale": scale.tolist()},
        data={"action_low": low.tolist(), "action_high": high.tolist()},
    )
    obs = (mean + scale * rng.normal(0, 1, (300, OBS_DIM))).astype(np.float32)
    act, card = load_exported(export_policy(run_dir, kind, out=tmp_path / f"p{SUFFIX[kind]}").path)
    unit = jax_policy(run_dir, ((obs - mean) / scale).astype(np.float32))
    np.testing.assert_allclose(act(obs), low + (unit + 1) / 2 * (high - low), rtol=0, atol=2 * TOLERANCE)
    assert card["standardised"]
    extreme = act(np.float32(1e6) * rng.choice([-1, 1], (200, OBS_DIM)))  # saturated: exactly within the bounds
    assert np.all(extreme >= np.float32(low))
    assert np.all(extreme <= np.float32(high))
    assert np.isclose(extreme, np.float32(high)).any()


def test_the_bounds_are_those_of_the_task_or_of_the_recorded_data(tmp_path: Path) -> None:
    card = export_policy(make_run(tmp_path / "hopper", data={"task": "hopper"})).card
    assert (card["action_low"], card["action_high"]) == ([-1.0] * 3, [1.0] * 3)
    run_dir = make_run(tmp_path / "mine")
    store.write_json(run_dir / CARD, {"metadata": as_metadata(make_bounds(-0.5, [1.0, 2.0, 3.0]), 3)})
    card = export_policy(run_dir).card
    assert (card["action_low"], card["action_high"]) == ([-0.5] * 3, [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": {"obs_mean": [0.0] * 11}}, r"config.json: expected 11 finite numbers in policy.obs_scale"),
        ({"policy": {"obs_mean": [0.0] * 3, "obs_scale": 1.0}}, r"expected 11 finite numbers in policy.obs_mean"),
        ({"policy": {"obs_mean": 0.0, "obs_scale": 0.0}}, r"expected policy.obs_scale above 0"),
        ({"data": {"action_low": 1.0, "action_high": -1.0}}, r"expected action_low below action_high"),
    ],
)
def test_scaling_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        export_policy(make_run(tmp_path / "run", **changes))


def test_the_onnx_file_is_plain_and_named(run_dir: Path, tmp_path: Path) -> None:
    path, card = export_policy(run_dir, "onnx", out=tmp_path / "p.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu"] * 2 + ["Gemm", "Tanh", "Max", "Min"]
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (obs,), (action,) = session.get_inputs(), session.get_outputs()
    assert (obs.name, obs.shape, obs.type) == ("obs", ["batch", OBS_DIM], "tensor(float)")
    assert (action.name, action.shape, action.type) == ("action", ["batch", ACTION_DIM], "tensor(float)")
    assert json.loads(session.get_modelmeta().custom_metadata_map["card.json"]) == card


def test_the_jax_file_runs_on_two_platforms_and_holds_no_paths(run_dir: Path, tmp_path: Path) -> None:
    jax_policy(run_dir, np.zeros((2, OBS_DIM)))  # traced before, with this file's path
    path, card = export_policy(run_dir, "jax", out=tmp_path / "p.jaxpolicy")
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["card.json", "policy.stablehlo"]
        program = archive.read("policy.stablehlo")
        assert json.loads(archive.read("card.json")) == card
    exported = jax.export.deserialize(bytearray(program))
    assert exported.platforms == ("cpu", "cuda")
    assert [str(aval) for aval in (*exported.in_avals, *exported.out_avals)] == [
        "float32[batch,11]",
        "float32[batch,3]",
    ]
    assert str(Path(damorl.__path__[0]).parent).encode() not in program


@pytest.mark.parametrize("kind", KINDS)
def test_the_card_tells_where_the_policy_comes_from(run_dir: Path, tmp_path: Path, kind: str) -> None:
    path, card = export_policy(run_dir, kind, seed=4, out=tmp_path / f"p{SUFFIX[kind]}")
    json_path, markdown_path = card_paths(path)
    assert store.read_json(json_path) == card == read_exported(path).card
    assert (card["algorithm"], card["seed"], card["step"]) == ("bc", 4, 40)
    assert card["dataset"] == {"name": "mine", "sha256": "ab" * 32, "num_transitions": 10}
    assert card["score"] == {
        "metric": "return_mean",
        "of_this_policy": 9.0,
        "mean_of_last_evaluations": 8.0,
        "evaluations": 2,
        "episodes_per_evaluation": 10,
    }
    assert card["trained"]["command"] == "damorl train bc --dataset 'my data.hdf5'"
    assert card["exported"]["command"] == f"damorl export {run_dir} --format {kind} --seed 4 --out {path}"
    text = markdown_path.read_text()
    for part in ("ab" * 32, "my data.hdf5", *card["usage"], *card["limits"], "8.0 on average of the last 2"):
        assert part in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_three_lines_of_the_card_run_as_written(
    run_dir: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = export_policy(run_dir, kind, out=tmp_path / f"p{SUFFIX[kind]}").card
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"obs": [0.5] * OBS_DIM}
    exec("\n".join(card["usage"]), names)
    expected = jax_policy(run_dir, np.full((1, OBS_DIM), 0.5, np.float32))
    np.testing.assert_allclose(names["action"], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_exporting_again_replaces_and_gives_the_same_bytes(run_dir: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"p{SUFFIX[kind]}"
    files = [out, *card_paths(out)]
    export_policy(run_dir, kind, out=out)
    first = [file.read_bytes() for file in files]
    export_policy(run_dir, kind, out=out)
    assert [file.read_bytes() for file in files] == first
    assert sorted(tmp_path.iterdir()) == sorted(files)  # and no temporary file stays


@pytest.mark.parametrize("name", ["p.onnx", "p.onnx.card.json", "p.onnx.card.md"])
def test_what_is_not_an_export_is_never_overwritten(run_dir: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"my": "thesis"}')
    with pytest.raises(UserError, match=rf"found something else in .*{name}; move it away"):
        export_policy(run_dir, out=tmp_path / "p.onnx")
    assert (tmp_path / name).read_text() == '{"my": "thesis"}'
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_wrong_wish_is_one_sentence(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown export format 'tflite': choose one of onnx, jax"):
        export_policy(run_dir, "tflite")
    with pytest.raises(UserError, match=r"ends in \.onnx"):
        export_policy(run_dir, "onnx", out=tmp_path / "p.pt")
    with pytest.raises(UserError, match=r"expected one of the seeds \[0, 4\], found 1"):
        export_policy(run_dir, seed=1)
    with pytest.raises(UserError, match="kept steps"):
        export_policy(run_dir, step=17)


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_command(
    run_dir: Path, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export_policy(run_dir, out=tmp_path / "p.onnx").path
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf"package {missing}, found none: .*pip install 'damorl\[export\]'"):
        load_exported(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_or_foreign_file_is_refused(run_dir: Path, tmp_path: Path, kind: str) -> None:
    path = export_policy(run_dir, kind, out=tmp_path / f"p{SUFFIX[kind]}").path
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1  # one bit of a weight
    for damaged in (whole[:-100], whole[: len(whole) // 2], bytes(flipped), b"", b"PK\x03\x04", b"not a policy"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"expected a policy written by `damorl export`, found .*export the run"):
            load_exported(path)
    with pytest.raises(UserError, match="found 'No such file or directory'"):
        load_exported(tmp_path / "nothing.onnx")


def test_somebody_elses_onnx_model_is_refused(tmp_path: Path) -> None:
    helper, path = onnx.helper, tmp_path / "theirs.onnx"
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in ("obs", "action")]
    onnx.save(
        helper.make_model(helper.make_graph([helper.make_node("Tanh", ["obs"], ["action"])], "g", *zip(ends))), path
    )
    with pytest.raises(UserError, match="a damaged or foreign file"):
        load_exported(path)


def test_observations_of_another_task_are_refused(run_dir: Path, tmp_path: Path) -> None:
    act = load(run_dir, "onnx", tmp_path)
    assert act(np.zeros(OBS_DIM)).shape == (ACTION_DIM,)
    assert act(np.zeros((2, 5, OBS_DIM))).shape == (2, 5, ACTION_DIM)
    with pytest.raises(UserError, match=r"expected observations of 11 features, found shape \(4, 17\)"):
        act(np.zeros((4, 17)))


def test_a_policy_without_a_task_needs_one(run_dir: Path, tmp_path: Path) -> None:
    path = export_policy(run_dir, out=tmp_path / "p.onnx").path
    with pytest.raises(UserError, match="expected a card that names a task, found none; give one with --task"):
        damorl.evaluate(path)
    with pytest.raises(UserError, match="expected 17 observations and 6 actions, found 11 and 3"):
        damorl.evaluate(path, task="walker2d")
    (row,) = damorl.evaluate(path, episodes=1, task="hopper")
    assert row["length_mean"] > 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_simulator_with_other_bounds_is_played_in_its_own_units(tmp_path: Path, kind: str) -> None:
    run_dir = make_run(tmp_path / "run", gain=3.0, sizes=(3, 1), data={"task": "pendulum"})
    path, card = export_policy(run_dir, kind, out=tmp_path / f"p{SUFFIX[kind]}")
    assert (card["action_low"], card["action_high"]) == ([-2.0], [2.0])
    obs = np.random.default_rng(0).normal(0, 1, (100, 3)).astype(np.float32)
    np.testing.assert_allclose(load_exported(path)[0](obs), 2 * jax_policy(run_dir, obs), rtol=0, atol=2 * TOLERANCE)
    (row,) = damorl.evaluate(path, episodes=2)
    assert row == {key: pytest.approx(value, rel=1e-3) for key, value in damorl.evaluate(run_dir, 2)[0].items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of behaviour cloning on hopper-shaped data."""
    rng, rows = np.random.default_rng(0), 600
    home = tmp_path_factory.mktemp("trained")
    columns = {
        name: rng.normal(0, 0.1, (rows, 11)).astype(np.float32) for name in ("observations", "next_observations")
    }
    columns |= {"actions": rng.uniform(-0.9, 0.9, (rows, 3)).astype(np.float32)}
    columns |= {"rewards": np.ones(rows, np.float32), "terminals": np.zeros(rows, bool)}
    write_dataset(home / "hopper-toy.hdf5", columns | {"timeouts": np.arange(rows) % 50 == 49}, {})
    result = damorl.train(
        "bc", str(home / "hopper-toy.hdf5"), "smoke", (3, 5), home, quiet=True, total_updates=40, refresh_interval=20,
        eval_interval=20, checkpoint_interval=40, eval_episodes=1, keep_policy_every=1
    )  # fmt: skip
    assert set(load_file(result.run_dir / POLICIES)) > {"3/kernel0", "5/kernel0"}
    return result.run_dir


@pytest.mark.parametrize(("kind", "noise"), [("onnx", 0.0), ("jax", 0.1)])
def test_the_score_is_the_runs_own(trained: Path, tmp_path: Path, kind: str, noise: float) -> None:
    path = export_policy(trained, kind, seed=5, out=tmp_path / f"p{SUFFIX[kind]}").path
    (row,) = damorl.evaluate(path, episodes=2, noise=noise)
    own = damorl.evaluate(trained, episodes=2, noise=noise)[1]
    assert list(row) == list(own)
    assert row["seed"] == own["seed"] == 5
    assert row == {key: pytest.approx(value, rel=1e-3) for key, value in own.items()}


def test_an_earlier_policy_carries_its_own_score(trained: Path) -> None:
    early, last = (export_policy(trained, step=step) for step in (20, None))
    rows = [row for row in store.read_metrics(trained) if row["seed"] == 3]
    for export, row in zip((early, last), rows, strict=True):
        assert export.path.name == f"{trained.name}-seed3-step{row['step']}.onnx"
        assert export.card["score"]["of_this_policy"] == row["eval/score"]
        assert export.card["task"] == "hopper"
    obs = np.ones((1, 11))
    assert np.abs(load_exported(early.path)[0](obs) - load_exported(last.path)[0](obs)).max() > 0


def test_the_command_line(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.onnx"
    assert export_verb([str(run_dir), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert export_verb([str(run_dir), "--format", "jax", "--seed", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["card"]["seed"] == 4
    assert Path(told["path"]) == run_dir / "export" / "bc-mine-seed4-step40.jaxpolicy"

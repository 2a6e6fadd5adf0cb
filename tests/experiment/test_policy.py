"""`damorl.Policy`: the same numbers from a run directory, an exported file, and a script without damorl and JAX."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import damorl
from damorl.behaviour.host_policy import LOG_STD_MAX, LOG_STD_MIN, act, to_arrays
from damorl.core.nets import Dense
from damorl.errors import UserError
from damorl.experiment.export import export_policy
from damorl.experiment.result import POLICIES, load_layers
from damorl.parts.actor import policy as jax_policy
from damorl.record import store

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/run_onnx.py"
OBS_DIM, ACTION_DIM = 3, 2
LOW, HIGH = [-0.4, 1.0], [0.4, 5.0]
TOLERANCE = 1e-6

WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib", "damorl", "gymnasium", "onnx"):
            raise ImportError(f"{name} is refused here")

sys.meta_path.insert(0, Refuse())
import runpy
import numpy as np

example, model, inputs, outputs = sys.argv[1:]
names = runpy.run_path(example)
policy, obs = names["load"](model), np.load(inputs)
one, batch = names["act"](policy, obs[0]), names["act"](policy, obs)
sampled = names["sample"](policy, obs, np.random.default_rng(7))
np.savez(outputs, one=one, batch=batch, sampled=sampled)
assert not {"jax", "damorl"} & set(sys.modules)
sys.argv = [example, model]
runpy.run_path(example, run_name="__main__")
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds with random layers, which reach both bounds of the log standard deviation."""
    run_dir = tmp_path_factory.mktemp("runs") / "bc-mine"
    run_dir.mkdir()
    data: dict[str, Any] = {"name": "mine", "sha256": "cd" * 32, "num_transitions": 10, "task": None}
    data |= {"obs_mean": [1.0, 0.0, -1.0], "obs_std": [0.5, 1.0, 2.0], "action_low": LOW, "action_high": HIGH}
    loop = {"total_updates": 40, "eval_episodes": 10}
    store.write_json(run_dir / store.CONFIG, {"algo": "bc", "seeds": [0, 4], "data": data, "loop": loop})
    store.write_json(run_dir / store.PROVENANCE, {"command": ["damorl"], "versions": {}, "git": None})
    store.write_json(run_dir / store.RESULT, {})
    store.append_metrics(run_dir, [{"step": 40, "seed": seed, "eval/return_mean": 7.0 + seed} for seed in (0, 4)])
    rng, arrays = np.random.default_rng(0), {}
    for seed in (0, 4):
        sizes = ((OBS_DIM, 16), (16, 16), (16, 2 * ACTION_DIM))
        layers = [(rng.normal(0, 0.4, size), rng.normal(0, 0.1, size[1])) for size in sizes]
        layers[-1][0][:, ACTION_DIM:] *= 8.0
        arrays |= to_arrays(tuple((k.astype(np.float32), b.astype(np.float32)) for k, b in layers), f"{seed}/")
    save_file(arrays, run_dir / POLICIES)
    return run_dir


@pytest.fixture(scope="module")
def obs() -> np.ndarray:
    return np.random.default_rng(1).normal(0.0, 1.0, (64, OBS_DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    return export_policy(run_dir, out=tmp_path_factory.mktemp("out") / "p.onnx", distribution=True).path


def in_bounds(unit: np.ndarray) -> np.ndarray:
    """The interval [-1, 1] stretched to the bounds, written out."""
    return np.stack([0.4 * unit[..., 0], 3.0 + 2.0 * unit[..., 1]], axis=-1)


def test_a_call_gives_what_it_always_gave(run_dir: Path, obs: np.ndarray) -> None:
    policy = damorl.load_policy(run_dir, seed=4)
    np.testing.assert_array_equal(policy(obs), act(load_layers(run_dir, 4), obs, None))
    np.testing.assert_allclose(policy(obs.reshape(4, 16, -1)), policy(obs).reshape(4, 16, -1), rtol=0, atol=TOLERANCE)


def test_predictions_are_in_the_environment_s_units(run_dir: Path, obs: np.ndarray) -> None:
    policy = damorl.load_policy(run_dir)
    action, state = policy.predict(obs)
    assert (state, action.dtype, action.shape) == (None, np.float32, (64, ACTION_DIM))
    np.testing.assert_allclose(action, in_bounds(policy(obs)), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(policy.predict(obs[0])[0], action[0], rtol=0, atol=TOLERANCE)
    saturated = policy.predict(1e8 * obs, deterministic=True)[0]
    assert np.all((saturated >= policy.action_low) & (saturated <= policy.action_high))
    assert (policy.obs_dim, policy.action_dim) == (OBS_DIM, ACTION_DIM)


def test_samples_follow_the_distribution_that_was_trained(run_dir: Path, obs: np.ndarray) -> None:
    policy = damorl.load_policy(run_dir)
    layers = tuple(Dense(*map(jnp.asarray, layer)) for layer in load_layers(run_dir))
    law = jax_policy(layers, jnp.asarray(obs))
    mean, log_std = policy.distribution(obs)
    np.testing.assert_allclose(mean, law.mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(log_std, law.log_std, rtol=0, atol=1e-5)
    assert (log_std.min(), log_std.max()) == (LOG_STD_MIN, LOG_STD_MAX)
    noise = np.random.default_rng(7).standard_normal(mean.shape, np.float32)
    sampled, _ = policy.predict(obs, deterministic=False, rng=np.random.default_rng(7))
    np.testing.assert_allclose(sampled, in_bounds(np.tanh(mean + np.exp(log_std) * noise)), rtol=0, atol=TOLERANCE)
    first, second = (damorl.load_policy(run_dir).predict(obs, deterministic=False)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)  # its own generator begins with the same seed
    assert np.abs(first - policy.predict(obs, deterministic=False, rng=np.random.default_rng(8))[0]).max() > 0.01


def test_an_exported_file_gives_the_same(run_dir: Path, exported: Path, obs: np.ndarray) -> None:
    own, theirs = damorl.load_policy(run_dir), damorl.load_policy(exported)
    np.testing.assert_allclose(theirs(obs), own(obs), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(theirs.predict(obs)[0], own.predict(obs)[0], rtol=0, atol=TOLERANCE)
    samples = [one.predict(obs, deterministic=False, rng=np.random.default_rng(3))[0] for one in (own, theirs)]
    np.testing.assert_allclose(*samples, rtol=0, atol=TOLERANCE)
    assert own.metadata.items() <= theirs.metadata.items()
    found = theirs.metadata
    assert (found["run"], found["dataset"]["sha256"], found["seed"], found["step"]) == ("bc-mine", "cd" * 32, 0, 40)
    assert found["score"]["of_this_policy"] == 7.0
    assert damorl.load_policy(run_dir, seed=4).metadata["score"]["of_this_policy"] == 11.0


def test_features_have_the_names_of_the_task(run_dir: Path, tmp_path: Path) -> None:
    for file in run_dir.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = store.read_json(tmp_path / store.CONFIG)
    config["data"]["task"] = "pendulum"
    store.write_json(tmp_path / store.CONFIG, config)
    assert damorl.load_policy(tmp_path).obs_names == ("cos-angle", "sin-angle", "angle velocity")
    assert damorl.load_policy(run_dir).obs_names == ()


def test_a_script_without_damorl_and_jax_gives_the_same(
    run_dir: Path, exported: Path, obs: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "obs.npy", obs)
    words = [sys.executable, "-c", WITHOUT, EXAMPLE, exported, tmp_path / "obs.npy", tmp_path / "found.npz"]
    result = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("bc on mine, 40 updates\none observation: [")
    assert "four, sampled:" in result.stdout
    policy = damorl.load_policy(run_dir)
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["one"], policy.predict(obs[0])[0], rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(found["batch"], policy.predict(obs)[0], rtol=0, atol=TOLERANCE)
        expected, _ = policy.predict(obs, deterministic=False, rng=np.random.default_rng(7))
        np.testing.assert_allclose(found["sampled"], expected, rtol=0, atol=TOLERANCE)


def test_the_lines_of_the_card_give_the_distribution_too(
    exported: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = damorl.load_policy(exported)
    monkeypatch.chdir(exported.parent)
    names: dict[str, Any] = {"obs": np.zeros(OBS_DIM)}
    exec("\n".join(policy.metadata["usage"]), names)
    mean, log_std = damorl.load_policy(run_dir).distribution(np.zeros((1, OBS_DIM)))
    np.testing.assert_allclose(names["mean"], mean, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(names["log_std"], log_std, rtol=0, atol=TOLERANCE)
    assert policy.metadata["exported"]["command"].endswith("--distribution")


def test_what_cannot_be_given_is_one_sentence(run_dir: Path, exported: Path, tmp_path: Path) -> None:
    plain = damorl.load_policy(export_policy(run_dir, "jax", out=tmp_path / "p.jaxpolicy").path)
    with pytest.raises(UserError, match="export it again with --distribution, or load the run directory"):
        plain.predict(np.zeros(OBS_DIM), deterministic=False)
    with pytest.raises(UserError, match="expected the format onnx for a policy with its distribution, found jax"):
        export_policy(run_dir, "jax", distribution=True)
    with pytest.raises(UserError, match=r"p\.onnx: expected no seed, step, setting .* found seed 1; give them with"):
        damorl.load_policy(exported, seed=1)
    with pytest.raises(UserError, match=r"nothing\.onnx: .*found 'No such file or directory'"):
        damorl.load_policy(tmp_path / "nothing.onnx")
    for policy in (plain, damorl.load_policy(run_dir)):
        with pytest.raises(UserError, match=r"expected observations of 3 features, found shape \(5,\)"):
            policy(np.zeros(5))


def test_the_page_s_lines_run(run_dir: Path, obs: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    page = (EXAMPLE.parents[1] / "docs/scores.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0].replace("runs/bc-mine", str(run_dir))
    names: dict[str, Any] = {"damorl": damorl, "np": np, "obs": obs}
    exec(code, names)
    np.testing.assert_array_equal(names["unit_action"], damorl.load_policy(run_dir)(obs))
    assert f"bc-mine 40 {'cd' * 32}" in capsys.readouterr().out

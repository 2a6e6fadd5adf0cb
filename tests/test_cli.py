"""The command line: a contract. Mistakes give one sentence and exit code 2, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from damorl.cli import main
from damorl.errors import UserError
from damorl.experiment.config import RunConfig

MISTAKES = {
    "unknown verb": ["fly"],
    "unknown data verb": ["data", "fly"],
    "unknown algorithm": ["train", "dama", "--preset", "smoke"],
    "unknown preset": ["train", "damo", "--preset", "slow"],
    "unknown dataset": ["train", "damo", "--dataset", "hoper-medium"],
    "missing file": ["train", "damo", "--dataset", "/nowhere/hopper.hdf5"],
    "dataset not made": ["train", "damo", "--dataset", "hopper-medium", "--preset", "smoke", "--no-make"],
    "impossible batch": ["train", "damo", "--preset", "smoke", "--batch-size", "0"],
    "bad combination": ["train", "damo", "--preset", "smoke", "--divergence", "kl"],
    "not a run": ["eval", "/nowhere"],
    "not a run to go on": ["finetune", "/nowhere", "--env", "hopper"],
    "not a run to film": ["film", "/nowhere"],
    "not a film": ["film", "/nowhere", "--out", "film.avi"],
    "not in the zoo": ["zoo", "antelope"],
    "nothing of the zoo to score": ["eval", "zoo:antelope"],
    "unknown name to make": ["data", "make", "hopper-good"],
    "unknown behaviour": ["data", "train-behaviour", "antelope"],
    "missing file to check": ["data", "check", "/nowhere/x.hdf5"],
    "unknown info": ["data", "info", "nothing"],
}


@pytest.mark.parametrize("argv", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_sentence_and_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    text = captured.err or captured.out
    assert text.strip()
    assert "Traceback" not in text


@pytest.mark.parametrize(
    "argv", [["train", "--no-such-flag"], ["train", "--batch-size", "many"], ["eval"], ["finetune"]]
)
def test_a_bad_flag_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "verb",
    [
        ["train"],
        ["finetune"],
        ["eval"],
        ["film"],
        ["zoo"],
        ["bench"],
        ["data", "list"],
        ["data", "make"],
        ["data", "info"],
        ["data", "check"],
        ["data", "export"],
        ["data", "download"],
        ["select"],
        ["ope"],
        ["model"],
        ["report"],
        ["export"],
        ["paper"],
        ["plugins"],
    ],
)
def test_every_verb_has_help_with_examples(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*verb, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"damorl {' '.join(verb)}" in text


def test_version_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("damorl 0.")
    assert main(["--help"]) == 0
    assert main([]) == 2


def test_train_eval_and_info_speak_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "make", "hopper-medium", "--steps", "400", "--json"]) == 0
    path = json.loads(capsys.readouterr().out)["path"]
    assert main(["data", "info", path, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    train = [
        "train",
        "bc",
        "--dataset",
        path,
        "--preset",
        "smoke",
        "--seeds",
        "3",
        "4",
        "--out",
        str(tmp_path),
        "--json",
    ]
    train += ["--total-updates", "50", "--eval-interval", "50"]
    assert main(train) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["dataset_sha256"] == card["sha256"]
    assert set(result["per_seed"]) == {"3", "4"}
    assert main(train) == 2  # the run is there already
    assert "--resume" in capsys.readouterr().err
    assert main([*train, "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["per_seed"] == result["per_seed"]
    assert main(["eval", result["run_dir"], "--episodes", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["seed"] for row in rows] == [3, 4]
    assert main(["eval", result["run_dir"], "--episodes", "2", "--noise", "0.5", "--json"]) == 0
    noisy = json.loads(capsys.readouterr().out)
    assert noisy[0]["return_mean"] != rows[0]["return_mean"]
    check_eval(Path(result["run_dir"]), rows, capsys)


def check_eval(run_dir: Path, rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """Sampled actions, kept steps and exported policies, beside the deterministic `rows`."""

    def play(*words: str) -> list[dict[str, Any]]:
        assert main(["eval", *words, "--episodes", "2", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    sampled = play(str(run_dir), "--stochastic")
    assert sampled == play(str(run_dir), "--stochastic")
    assert sampled[0]["return_mean"] != rows[0]["return_mean"]
    assert play(str(run_dir), "--step", "50") == rows
    assert main(["export", str(run_dir), "--seed", "4", "--out", str(run_dir / "policy.onnx"), "--json"]) == 0
    capsys.readouterr()
    (exported,) = play(str(run_dir / "policy.onnx"))
    assert exported["seed"] == 4
    assert exported["return_mean"] == pytest.approx(rows[1]["return_mean"], rel=1e-3)
    assert main(["eval", str(run_dir / "policy.onnx"), "--stochastic"]) == 2
    assert "one deterministic policy" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "expected"), [("False", False), ("True", True)])
def test_booleans_parse_as_booleans(text: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import damorl.api

    seen = []

    def stop(config: RunConfig, *_: object, **__: object) -> None:
        seen.append(config)
        raise UserError("stopped before the run")

    monkeypatch.setattr(damorl.api, "run", stop)
    assert main(["train", "damo", "--preset", "smoke", "--data-alignment", text]) == 2
    assert seen[0].algo_config.data_alignment is expected


def test_a_reader_that_has_seen_enough_is_no_mistake() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "damorl", "--help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")

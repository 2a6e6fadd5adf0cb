"""Write down what this version writes, for later ones to read: python -m tests.written.make

Makes tests/written/VERSION, a few dozen kB: the directory of a tiny run, its record, an exported policy, and in
`expected.json` what reading them gave. One is added when a layout changes (docs/release.md), and none is made again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from damorl import __version__
from damorl.cli import main
from damorl.experiment.policy import load_policy
from damorl.record import checkpoint, store
from damorl.record.compact import write_record
from damorl.testing.algorithms import write_toy

HERE = Path(__file__).resolve().parent
TRAIN = (
    "train mopo --dataset toy.hdf5 --task hopper --preset smoke --seeds 0 1 --hidden 4 --dynamics.hidden 4 "
    "--dynamics.num-members 2 --dynamics.num-elites 1 --rollout-starts 8 --rollout-length 1 --rollout-retain 1 "
    "--total-updates 4 --refresh-interval 2 --eval-interval 2 --checkpoint-interval 2 --keep-policy-every 1 "
    "--eval-episodes 1 --out ."
)
MACHINE = {"platform": "Linux", "device_kind": "cpu", "cpu_count": 1, "git": None}
"""What a file for everybody says of the machine."""


def make(folder: Path) -> None:
    """Train in `folder`, take out what damorl never reads, and write down what is read."""
    folder.mkdir()
    os.chdir(folder)
    write_toy(Path("toy.hdf5"))
    assert main(TRAIN.split()) == 0
    (made,) = (path for path in folder.iterdir() if path.is_dir())
    run = made.rename(folder / "run")
    shutil.rmtree(run / "tb")
    older = checkpoint.checkpoints(run / "checkpoint")[:-1]
    for path in [*run.glob("*.png"), run / store.LOCK, *older]:
        path.unlink()
    told = store.read_json(run / store.PROVENANCE)
    store.write_json(run / store.PROVENANCE, told | MACHINE | {"command": ["damorl", *TRAIN.split()]}, seal=True)
    assert main(["export", "run", "--format", "onnx", "--seed", "1", "--out", "policy.onnx"]) == 0
    write_record(run, folder)
    for path in [folder / "toy.hdf5", *folder.glob("policy.onnx.card.*")]:
        path.unlink()
    store.write_json(folder / "expected.json", expected(run))


def expected(run: Path) -> dict[str, object]:
    """What reading the run gives; actions are those for observations of ones."""
    found = checkpoint.newest(run / "checkpoint", print)
    assert found is not None
    return {
        "version": __version__,
        "actions": {
            f"{seed} {step}": load_policy(run, seed=seed, step=step)(np.ones(11)) for seed in (0, 1) for step in (2, 4)
        },
        "leaves": {name: float(np.sum(leaf, dtype=np.float64)) for name, leaf in sorted(found[1].items())},
        "scores": [row["eval/score"] for row in store.read_metrics(run)],
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["DAMORL_HOME"] = home
        make(HERE / __version__)

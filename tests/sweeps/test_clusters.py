"""The same sweep on a Ray cluster that loses a node, and through Slurm's stand-ins."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import damorl
from tests.sweeps.test_survives import check_all, finished

pytestmark = pytest.mark.usefixtures("data_sets")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray_finishes_without_the_node_that_died(grid: Path, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    doomed = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    out = tmp_path / "out"
    when: list[int] = []

    def kill() -> None:
        while len(finished(out)) < 4:
            time.sleep(0.1)
        when.append(len(finished(out)))
        cluster.remove_node(doomed, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        result = damorl.sweep(grid, "ray", out, form="lines", address=cluster.address)
    finally:
        thread.join()
        cluster.shutdown()
    assert when[0] < 24
    assert result.complete
    check_all(grid, out, tmp_path / "alone")


@pytest.mark.slow
def test_submitit_runs_the_same_sweep(grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from damorl.sweeps import on_slurm

    make = on_slurm.Slurm.__init__
    monkeypatch.setattr(on_slurm.Slurm, "__init__", lambda self, *a, **k: make(self, *a, **k, cluster="local"))
    out = tmp_path / "out"
    result = damorl.sweep(grid, "slurm", out, form="lines", workers=2)
    assert result.complete
    check_all(grid, out, tmp_path / "alone")


def test_the_batch_file_says_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from submitit.slurm.slurm import SlurmExecutor

    from damorl.sweeps.on_slurm import Slurm

    monkeypatch.setattr(SlurmExecutor, "affinity", classmethod(lambda cls: 2))  # as where sbatch is
    words = {"slurm_partition": "short", "timeout_min": "90", "mem_gb": "8"}
    backend = Slurm(tmp_path, 4, 2.0, 1.0, words, refit=False)
    slurm: Any = backend.executor._executor
    text = slurm._make_submission_file_text("true", "uid")
    for line in ("--job-name=damorl-", "--cpus-per-task=2", "--gpus-per-node=1", "--partition=short", "--time=90"):
        assert f"#SBATCH {line}" in text
    assert "--mem=8GB" in text

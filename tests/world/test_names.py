"""The names of data sets, and what task a name tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from damorl.errors import UserError
from damorl.world.tasks import DATASET_NAMES, TASKS, DatasetName, infer_task


def test_data_set_names() -> None:
    assert len(DATASET_NAMES) == len(set(DATASET_NAMES)) == 16
    assert DATASET_NAMES[:4] == ("hopper-random", "hopper-medium", "hopper-medium-replay", "hopper-medium-expert")
    for name in DATASET_NAMES:
        parsed = DatasetName.parse(name)
        assert str(parsed) == name
        assert infer_task(name) is TASKS[parsed.task]
    assert DatasetName.parse("inverted_double_pendulum-medium-replay") == ("inverted_double_pendulum", "medium-replay")
    with pytest.raises(UserError, match=r"'hopper-medium-v2': did you mean 'hopper-medium'.*HDF5"):
        DatasetName.parse("hopper-medium-v2")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("hopper-medium-v2", "hopper"),
        ("/x/hopper_medium-v2.hdf5", "hopper"),
        ("halfcheetah_medium_expert-v2.hdf5", "halfcheetah"),
        (Path("/a/hopper/Walker2d-v4.h5"), "walker2d"),
        ("InvertedDoublePendulum-v4-random.hdf5", "inverted_double_pendulum"),
        ("inverted_double_pendulum-random-200000-seed0.hdf5", "inverted_double_pendulum"),
        ("hopper.hdf5", "hopper"),
        ("ant-medium-v2", "ant"),
        ("Ant-v4.hdf5", "ant"),
        ("antmaze-umaze-v2.hdf5", None),
        ("AntMaze_Large-v4.hdf5", None),
        ("Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse.hdf5", None),  # D4RL's files are called so
        ("antenna.csv", None),
        ("pendulum_random.npz", "pendulum"),
        ("Pendulum-v1.hdf5", "pendulum"),
        ("inverted_pendulum-medium.hdf5", None),
        ("InvertedPendulum-v4.hdf5", None),
        ("double_pendulum.hdf5", None),
        ("pendulum-swingup.hdf5", None),
        ("hopper_hop-expert.hdf5", None),
        ("grasshopper-medium.hdf5", None),
        ("hoppers-medium.hdf5", None),
        ("/hopper/mine.hdf5", None),
        ("", None),
    ],
)
def test_the_task_is_inferred_from_a_name(name: str | Path, task: str | None) -> None:
    found = infer_task(name)
    assert (found.name if found else None) == task

"""Which setting a sweep would take, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from damorl.experiment.choice import Candidate, choose_setting, format_choice, setting_label, standard_error
from damorl.experiment.config import resolve

SMALL = resolve("damo", "hopper-medium", "smoke", (0, 1), {"divergence_weight": 0.3}).as_dict()
LARGE = resolve("damo", "hopper-medium", "smoke", (0, 1), {"divergence_weight": 3.5}).as_dict()


def selection(run_dir: str, *policies: tuple[int, int, float | None, float | None, float | None]) -> dict[str, Any]:
    """Policies are (seed, step, model value, FQE, score)."""
    keys = ("seed", "step", "model_value", "fqe", "score")
    return {
        "run_dir": run_dir,
        "dataset": "hopper-medium",
        "dataset_sha256": "aa",
        "metric": "eval/score",
        "settings": {"fqe": {"gamma": 0.99}},
        "policies": [dict(zip(keys, row, strict=True)) | {"model_std": 1.0} for row in policies],
    }


A = selection("a", (0, 10, 5.0, 1.0, 20.0), (1, 10, 7.0, 9.0, 40.0), (0, 20, 2.0, 1.0, 60.0), (1, 20, 3.0, 1.0, 60.0))
B0 = selection("b0", (0, 10, 1.0, 2.0, 10.0), (0, 20, 20.0, 2.0, 50.0))
B1 = selection("b1", (1, 10, 1.0, 2.0, 10.0), (1, 20, -8.0, None, 90.0))


def choose(**words: Any) -> dict[str, Any]:
    (found,) = choose_setting([A, B0, B1], [SMALL, LARGE, LARGE], **words)
    return found


def test_the_pessimistic_rule_takes_the_highest_mean_less_its_error() -> None:
    found = choose()
    assert (found["setting"], found["step"], found["seed"], found["run_dir"]) == (
        "damo smoke (divergence_weight=0.3)",
        *(10, 1, "a"),
    )
    # 6 +- sqrt((2 + 1) / 2) against 6 +- sqrt((392 + 1) / 2): the same mean, the smaller error
    assert (found["value"], found["error"]) == (6.0, pytest.approx(math.sqrt(1.5)))
    assert found["second"] == "damo smoke (divergence_weight=3.5)"  # its step 10: 1 +- sqrt(0.5)
    assert found["margin"] == 5.0
    assert found["margin_error"] == pytest.approx(math.sqrt(1.5 + 0.5))
    assert (found["score"], found["policy_score"], found["best_score"], found["regret"]) == (30.0, 40.0, 70.0, 40.0)
    assert (found["settings"], found["candidates"]) == (2, 4)


def test_a_diverged_estimate_takes_its_step_out() -> None:
    found = choose(estimator="fqe", rule="mean")
    assert (found["setting"], found["step"], found["value"], found["candidates"]) == (
        "damo smoke (divergence_weight=0.3)",
        *(10, 5.0, 3),
    )


def test_a_step_that_one_seed_lacks_is_no_candidate() -> None:
    (found,) = choose_setting([B0, selection("b1", (1, 10, 1.0, 2.0, 10.0))], [LARGE, LARGE])
    assert (found["step"], found["candidates"], found["second"], found["margin"]) == (10, 1, None, None)


def test_without_scores_there_is_no_regret_and_without_estimates_no_choice() -> None:
    (blind,) = choose_setting([selection("a", (0, 10, 5.0, 1.0, None))], [SMALL])
    assert (blind["score"], blind["regret"], blind["best_score"], blind["error"]) == (None, None, None, 1.0)
    (none,) = choose_setting([selection("a", (0, 10, None, 1.0, 3.0))], [SMALL])
    assert none["setting"] is None
    assert "no choice" in format_choice(none)
    assert "regret" not in format_choice(blind)


def test_the_error_of_one_seed_is_its_own() -> None:
    assert standard_error([3.0], [2.0]) == 2.0
    assert standard_error([3.0], None) is None
    assert standard_error([1.0, 3.0], None) == 1.0
    assert Candidate("x", 1, (0,), (3.0,), None, (None,), ("a",)).bound("pessimistic") == 3.0


def test_a_setting_is_called_by_what_is_not_the_presets() -> None:
    assert setting_label(LARGE) == "damo smoke (divergence_weight=3.5)"
    assert setting_label(resolve("bc", "hopper-medium", "quick", (0,), {}).as_dict()) == "bc quick"
    foreign = [setting_label({"algo": "bc", "algo_config": {"gone": value}}) for value in (1, 1, 2)]
    assert foreign[0] == foreign[1] != foreign[2]


def test_the_text_names_policy_doubt_and_regret() -> None:
    text = format_choice(choose())
    for part in ("take damo smoke (divergence_weight=0.3) at step 10", "seed 1\n  in a", "6.0 +- 1.2", "regret 40.0"):
        assert part in text

"""Choices, regrets and rank correlations, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from damorl.experiment.ranking import choose, format_selection, pooled_correlations, rank_correlation


def policies(*rows: tuple[float | None, float | None, float | None]) -> list[dict[str, Any]]:
    """Rows of (fqe, model value, score), of seed 0 at steps 10, 20, ..."""
    return [
        {"seed": 0, "step": 10 * (i + 1), "fqe": fqe, "model_value": model, "model_std": 0.5, "score": score}
        for i, (fqe, model, score) in enumerate(rows)
    ]


RANKED = policies((1.0, 9.0, 20.0), (2.0, 5.0, 40.0), (9.0, 6.0, 35.0), (4.0, 1.0, 60.0))


def test_each_estimator_chooses_its_greatest_and_pays_the_regret():
    chosen = choose(RANKED)
    assert chosen["fqe"] == {"seed": 0, "step": 30, "score": 35.0, "regret": 25.0}
    assert chosen["model_value"] == {"seed": 0, "step": 10, "score": 20.0, "regret": 40.0}
    assert chosen["best"] == {"seed": 0, "step": 40, "score": 60.0, "regret": 0.0}


def test_a_diverged_estimate_is_not_chosen():
    rows = policies((None, None, 20.0), (2.0, None, 10.0))
    assert choose(rows)["fqe"] == {"seed": 0, "step": 20, "score": 10.0, "regret": 10.0}
    assert choose(rows)["model_value"] is None


def test_without_scores_there_is_a_choice_but_no_regret():
    chosen = choose(policies((1.0, 2.0, None), (3.0, 1.0, None)))
    assert chosen["fqe"] == {"seed": 0, "step": 20, "score": None, "regret": None}
    assert chosen["best"] is None


def test_spearman_by_hand():
    """Ranks of the scores 1 3 2 4; of fqe 1 2 4 3: squared differences 0 1 4 1, so 1 - 6 * 6 / (4 * 15) = 0.4. Of the
    model 4 2 3 1: 9 1 1 9, so 1 - 6 * 20 / 60 = -1."""
    found = rank_correlation(RANKED)
    assert found["fqe"] == pytest.approx(0.4)
    assert found["model_value"] == pytest.approx(-1.0)
    assert found["num_policies"] == 4


def test_diverged_and_unscored_policies_do_not_count():
    rows = [*RANKED, *policies((None, 1e9, None), (None, 1e9, None))]
    assert rank_correlation(rows) == rank_correlation(RANKED)
    rows = [*RANKED, *policies((None, 0.0, 99.0))]
    assert rank_correlation(rows)["fqe"] == pytest.approx(0.4)
    assert rank_correlation(rows)["num_policies"] == 5


def test_a_policy_that_was_kept_at_many_steps_counts_once_with_the_mean_of_its_scores():
    """The second of `RANKED` three times, with scores around its 40; counted thrice it would rank otherwise."""
    repeated = policies((1.0, 9.0, 20.0), (2.0, 5.0, 70.0), (9.0, 6.0, 35.0), (2.0, 5.0, 10.0), (4.0, 1.0, 60.0))
    repeated += policies((2.0, 5.0, None), (2.0, 5.0, 40.0))
    marked = [row | {"policy": name} for row, name in zip(repeated, "abcbdbb", strict=True)]
    assert rank_correlation(marked) == rank_correlation(RANKED)
    assert rank_correlation(repeated) != rank_correlation(RANKED)
    chosen = choose(marked)
    assert (chosen["fqe"]["regret"], chosen["best"]["score"]) == (25.0, 60.0)
    assert choose(repeated)["best"]["score"] == 70.0


@pytest.mark.parametrize(
    "rows",
    [
        policies((1.0, 1.0, 5.0), (2.0, 2.0, 6.0)),
        policies((1.0, 1.0, 5.0), (2.0, 2.0, 6.0), (3.0, 3.0, 6.0), (4.0, 4.0, 5.0)),
        policies((1.0, 1.0, 5.0), (1.0, 1.0, 6.0), (1.0, 1.0, 7.0)),
        policies((1.0, 1.0, None), (2.0, 2.0, None), (3.0, 3.0, None)),
    ],
    ids=["two policies", "two distinct scores", "one distinct estimate", "no scores"],
)
def test_what_cannot_be_ranked_is_missing(rows):
    assert (rank_correlation(rows)["fqe"], rank_correlation(rows)["model_value"]) == (None, None)


def selection(rows: list[dict[str, Any]], sha: str = "a", gamma: float = 0.99) -> dict[str, Any]:
    return {
        "run": "damo-toy",
        "dataset": f"toy-{sha}",
        "dataset_sha256": sha,
        "metric": "eval/score",
        "horizon": 100,
        "settings": {"fqe": {"gamma": gamma}},
        "policies": rows,
        "chosen": choose(rows),
        "rank_correlation": rank_correlation(rows),
    }


def test_pooled_are_runs_on_the_same_data_with_the_same_discount():
    runs = [selection(RANKED[:2]), selection(RANKED[2:]), selection(RANKED, "b"), selection(RANKED, gamma=0.9)]
    (pooled,) = pooled_correlations(runs)
    assert pooled == {"dataset": "toy-a", "gamma": 0.99, "num_runs": 2} | rank_correlation(RANKED)


def test_the_table_marks_choices_and_says_what_they_cost():
    diverged = policies((None, None, None))[0] | {"seed": 1}
    text = format_selection(selection([*RANKED, diverged]))
    rows = {tuple(map(int, line.split()[:2])): line for line in text.splitlines() if line.split()[:1] in (["0"], ["1"])}
    assert rows[0, 10].split("<-")[0].split() == ["0", "10", "1.0", "9.0", "+-", "0.5", "20.0"]
    assert [line.partition("<- ")[2] for line in rows.values()] == ["model", "", "FQE", "best", ""]
    assert rows[1, 10].split() == ["1", "10", "diverged", "diverged", "-"]
    assert "FQE chooses seed 0 at step 30: score 35.0, 25.0 below the best kept" in text
    assert "over 4 policies: FQE 0.40, model -1.00" in text

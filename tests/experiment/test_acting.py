"""Who acts: an offline policy until another one has earned more by a margin, decided by hand-made returns."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damorl.experiment.acting import (
    Acting,
    Record,
    add_return,
    after_episode,
    beats,
    begin_acting,
    explores,
    on_trial,
)
from damorl.experiment.finetune_settings import FinetuneSettings

SETTINGS = FinetuneSettings(acting_episodes=2, trial_episodes=2, trial_margin=1.0)


def play(acting: Acting, *returns: float, settings: FinetuneSettings = SETTINGS) -> tuple[Acting, str]:
    """After these episodes, with who played each: i the incumbent, n with noise, c a challenger. The actor that is
    learned meanwhile is the number of the episode."""
    played = ""
    for earned in returns:
        played += "c" if on_trial(settings, acting) else "n" if explores(settings, acting) else "i"
        acting = acting._replace(episode=acting.episode + 1)
        acting = after_episode(settings, acting, earned, np.array(acting.episode))
    return acting, played


def test_the_offline_policy_is_known_first_then_rounds_begin() -> None:
    acting, played = play(begin_acting(np.array(0)), *[10.0] * 12)
    assert played == "iicc" + "incc" * 2
    assert acting.changes == 0
    assert acting.incumbent == 0
    assert acting.incumbent_record.count == 4  # noise is not counted
    assert acting.is_offline


def test_a_challenger_is_the_actor_of_the_moment_its_trial_begins() -> None:
    acting, _ = play(begin_acting(np.array(0)), 10.0, 10.0, 12.0)
    assert acting.challenger == 2
    acting, _ = play(acting, 12.5)
    assert (acting.incumbent, acting.changes, acting.is_offline, acting.turn) == (2, 1, 0, 0)
    assert acting.incumbent_record.mean == pytest.approx(12.25)
    assert acting.offline_record.mean == pytest.approx(10.0)


def test_a_worse_challenger_changes_nothing_but_whose_turn_it_is() -> None:
    acting, _ = play(begin_acting(np.array(0)), 10.0, 11.0)
    after, _ = play(acting, 9.0, 8.0)
    assert (after.incumbent, after.turn, after.changes) == (0, 0, 0)
    assert after.incumbent_record == acting.incumbent_record


def test_an_incumbent_that_was_lucky_gives_way_to_the_offline_policy() -> None:
    acting, _ = play(begin_acting(np.array(7)), 10.0, 10.0, 20.0, 21.0)
    assert acting.incumbent == 2
    acting, played = play(acting, 5.0, 99.0, 0.0, 0.0, -30.0)  # clean, noisy, two of a trial, clean
    assert played == "incci"
    assert (acting.incumbent, acting.is_offline, acting.changes) == (7, 1, 2)
    assert acting.incumbent_record.mean == 10.0


def test_the_margin_is_in_standard_errors_of_the_difference() -> None:
    incumbent, challenger = Record(), Record()
    for one, other in ((10.0, 11.0), (12.0, 15.0), (14.0, 16.0)):
        incumbent, challenger = add_return(incumbent, one), add_return(challenger, other)
    errors = math.hypot(np.std([10, 12, 14], ddof=1), np.std([11, 15, 16], ddof=1)) / math.sqrt(3)
    assert beats(challenger, incumbent, 2.0 / errors - 1e-6)
    assert not beats(challenger, incumbent, 2.0 / errors + 1e-6)
    assert not beats(incumbent, incumbent, 0.0)


@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=30))
def test_a_record_has_the_moments_of_its_returns(returns: list[float]) -> None:
    record = Record()
    for earned in returns:
        record = add_return(record, earned)
    assert record.mean == pytest.approx(np.mean(returns), abs=1e-6)
    assert record.error == pytest.approx(np.std(returns, ddof=1) / math.sqrt(len(returns)), abs=1e-5)


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=80), st.integers(1, 4), st.integers(1, 4))
def test_the_incumbent_is_known_not_to_be_worse_than_the_offline_policy(
    returns: list[float], trial: int, turns: int
) -> None:
    settings = dataclasses.replace(SETTINGS, trial_episodes=trial, acting_episodes=turns)
    acting, played = play(begin_acting(np.array(0)), *returns, settings=settings)
    assert acting.incumbent_record.mean >= acting.offline_record.mean
    assert played.count("c") <= trial * (1 + len(played) // (trial + turns))

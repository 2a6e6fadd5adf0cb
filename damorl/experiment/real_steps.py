"""Steps in the real environment, counted exactly: an episode goes on from one block of steps to the next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from damorl.behaviour.host_policy import NumpyPolicy, act
from damorl.experiment.acting import Acting, after_episode, explores, on_trial
from damorl.experiment.finetune_settings import FinetuneSettings
from damorl.types import Params, Transition
from damorl.world.playing import Place, Simulator, advance, begin

RESET_STREAM, NOISE_STREAM = 0, 1
"""What an episode's reset and its exploration noise are drawn from, with the seed and the episode's number."""


class Stage:
    """A simulator in the middle of an episode: what no checkpoint holds.

    The episode follows from the run's seed, its number and the actions, so a continued run plays it again up to where
    it stood.
    """

    def __init__(
        self, simulator: Simulator, seed: int, settings: FinetuneSettings, to_layers: Callable[[Params], NumpyPolicy]
    ) -> None:
        """`to_layers` makes of a state's actor one for observations in the environment's own units."""
        self.simulator, self.seed, self.settings, self.to_layers = simulator, seed, settings, to_layers
        self.reset_seed = 0
        self.obs = np.zeros(simulator.task.obs_dim)
        self.earned = 0.0
        """The return of the episode so far."""
        self.layers: NumpyPolicy = ()
        self.noise = np.random.default_rng(0)
        self.deviation = 0.0

    def begin(self, acting: Acting) -> None:
        """The start of the episode that `acting` is in."""
        episode = int(acting.episode)
        self.reset_seed = int(np.random.SeedSequence((self.seed, RESET_STREAM, episode)).generate_state(1)[0])
        self.obs, self.earned = np.array(begin(self.simulator, self.place(acting, 0))), 0.0
        self.noise = np.random.default_rng((self.seed, NOISE_STREAM, episode))
        self.layers = self.to_layers(acting.challenger if on_trial(self.settings, acting) else acting.incumbent)
        self.deviation = self.settings.exploration_noise if explores(self.settings, acting) else 0.0

    def place(self, acting: Acting, step: int) -> Place:
        """Where an error is said to have happened."""
        return Place(int(acting.episode), self.reset_seed, step)

    def choose(self) -> np.ndarray:
        """The next action, float32 `[action_dim]` in [-1, 1]."""
        action = act(self.layers, self.obs[None], None)[0]
        if self.deviation:
            action = action + self.deviation * self.noise.standard_normal(action.shape)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def advance(self, acting: Acting, action: np.ndarray) -> tuple[Transition, bool]:
        """The row of one step, and whether the episode has ended. A time limit is not terminal."""
        place = self.place(acting, int(acting.step) + 1)
        reached, reward, terminated, truncated = advance(self.simulator, action, place)
        reached = np.where(np.isfinite(reached), reached, self.obs)  # of a terminal state only; nothing follows it
        row = Transition(self.obs, action, np.float64(reward), reached, np.float64(terminated))  # type: ignore[arg-type]
        self.obs, self.earned = reached, self.earned + reward
        return row, terminated or truncated

    def resume(self, acting: Acting, rows: Transition) -> bool:
        """Play the episode that `acting` is in again, along its `rows` so far; whether it came to the same state."""
        self.begin(acting)
        actions = np.asarray(rows.action)
        for step, action in enumerate(actions):
            _, ended = self.advance(acting._replace(step=step), action)
            if ended:
                return False
        if self.deviation:
            self.noise.standard_normal(actions.shape)
        return bool(np.array_equal(np.asarray(self.obs, np.float32), np.asarray(rows.next_obs)[-1]))


def take_steps(stage: Stage, acting: Acting, latest: Params, count: int) -> tuple[Acting, Transition]:
    """`count` real steps: who acts afterwards, and the rows, float32 `[count, ...]`. `latest` is the actor as it is
    learned by now.

    UserError, with episode and step, for a simulator that breaks the rules.
    """
    rows = []
    for _ in range(count):
        if acting.step == 0:
            acting = acting._replace(episode=int(acting.episode) + 1)
            stage.begin(acting)
        row, ended = stage.advance(acting, stage.choose())
        rows.append(row)
        acting = acting._replace(step=int(acting.step) + 1)
        if ended:
            acting = after_episode(stage.settings, acting, stage.earned, latest)
    columns = (np.asarray(column, np.float32) for column in zip(*rows, strict=True))
    return acting, Transition(*columns)  # type: ignore[arg-type]

"""DAMO in PyTorch, written the straightforward way: the yardstick of `compare_torch.py`.

The same algorithm at the same sizes as `damorl.algos.damo` with its default settings (frozen target, loss
2/3 |y|^1.5, target floored at zero, consistent actor), as one would write it in plain PyTorch: modules, one loss per
part, `backward`, `step`. Rollouts follow OfflineRL-Kit: every member of the ensemble predicts every row, and one
elite's prediction is kept. Nothing is slowed down on purpose: buffers are tensors on the device, values that two
losses need are computed once, and no gradient is computed that nobody uses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
Termination = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    """The sizes and rates of damorl's `Config` that this file uses."""

    obs_dim: int = 11
    action_dim: int = 3
    hidden: tuple[int, ...] = (256, 256)
    batch_size: int = 256
    initial_batch_size: int = 256
    real_ratio: float = 0.05
    divergence_weight: float = 3.0
    actor_divergence_weight: float = 1.0
    logit_clip: float = 10.0
    gamma: float = 0.99
    tau: float = 0.005
    actor_lr: float = 1e-4
    critic_lr: float = 3e-4
    classifier_lr: float = 3e-4
    temperature_lr: float = 1e-4
    num_members: int = 7
    num_elites: int = 5
    dynamics_hidden: tuple[int, ...] = (200, 200, 200, 200)
    rollout_starts: int = 50_000
    rollout_length: int = 5
    rollout_retain: int = 5


@dataclass
class Batch:
    """Transitions; the fields share their first axis."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminal: Tensor

    def columns(self) -> tuple[Tensor, ...]:
        return self.obs, self.action, self.reward, self.next_obs, self.terminal

    def __len__(self) -> int:
        return len(self.reward)

    def __getitem__(self, index: Tensor | slice) -> Batch:
        return Batch(*(column[index] for column in self.columns()))

    def join(self, other: Batch) -> Batch:
        return Batch(*(torch.cat(pair) for pair in zip(self.columns(), other.columns(), strict=True)))

    def sample(self, batch_size: int) -> Batch:
        return self[torch.randint(len(self), (batch_size,))]


class ReplayBuffer:
    """A ring of transitions."""

    def __init__(self, capacity: int, obs_dim: int, action_dim: int) -> None:
        widths = ((obs_dim,), (action_dim,), (), (obs_dim,), ())
        self.rows = Batch(*(torch.zeros(capacity, *width) for width in widths))
        self.capacity, self.next, self.size = capacity, 0, 0

    def add(self, batch: Batch) -> None:
        index = (self.next + torch.arange(len(batch))) % self.capacity
        for column, new in zip(self.rows.columns(), batch.columns(), strict=True):
            column[index] = new
        self.next = (self.next + len(batch)) % self.capacity
        self.size = min(self.size + len(batch), self.capacity)

    def sample(self, batch_size: int) -> Batch:
        return self.rows[torch.randint(self.size, (batch_size,))]


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Actor(nn.Module):
    """A tanh-Gaussian policy."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.net = mlp((config.obs_dim, *config.hidden, 2 * config.action_dim))

    def forward(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Action and its log density."""
        mean, log_std = self.net(obs).chunk(2, dim=-1)
        log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
        pre_tanh = mean + log_std.exp() * noise
        log_density = -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi)
        log_det = 2.0 * (math.log(2.0) - pre_tanh - F.softplus(-2.0 * pre_tanh))
        return pre_tanh.tanh(), (log_density - log_det).sum(-1)


class TwinCritic(nn.Module):
    """Two Q networks."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        sizes = (config.obs_dim + config.action_dim, *config.hidden, 1)
        self.q1, self.q2 = mlp(sizes), mlp(sizes)

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([obs, action], dim=-1)
        return self.q1(x).squeeze(-1), self.q2(x).squeeze(-1)


class Classifier(nn.Module):
    """The logit of P(model-generated | s, a, s') on standardised features."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = 2 * config.obs_dim + config.action_dim
        self.net = mlp((width, *config.hidden, 1))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def forward(self, batch: Batch) -> Tensor:
        x = torch.cat([batch.obs, batch.action, batch.next_obs - batch.obs], dim=-1)
        return self.net((x - self.mean) / self.scale).squeeze(-1)


class Ensemble(nn.Module):
    """Probabilistic dynamics: every member's mean and standard deviation of (next state, reward)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, out = config.obs_dim + config.action_dim, config.obs_dim + 1
        sizes = (width, *config.dynamics_hidden, 2 * out)
        shapes = list(pairwise(sizes))
        self.weights = nn.ParameterList(torch.randn(config.num_members, i, o) / (2.0 * i**0.5) for i, o in shapes)
        self.biases = nn.ParameterList(torch.zeros(config.num_members, 1, o) for _, o in shapes)
        self.log_var_max = nn.Parameter(torch.full((out,), 0.5))
        self.log_var_min = nn.Parameter(torch.full((out,), -10.0))
        for name, dim in (("input", width), ("target", out)):
            self.register_buffer(f"{name}_mean", torch.zeros(dim))
            self.register_buffer(f"{name}_scale", torch.ones(dim))

    def forward(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, d]` to mean and std `[member, B, obs_dim + 1]`, in the data's units."""
        x = (torch.cat([obs, action], dim=-1) - self.input_mean) / self.input_scale
        x = x.expand(len(self.weights[0]), *x.shape)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = F.silu(torch.baddbmm(bias, x, weight))
        mean, log_var = torch.baddbmm(self.biases[-1], x, self.weights[-1]).chunk(2, dim=-1)
        log_var = self.log_var_max - F.softplus(self.log_var_max - log_var)
        log_var = self.log_var_min + F.softplus(log_var - self.log_var_min)
        mean = mean * self.target_scale + self.target_mean
        mean = torch.cat([mean[..., :-1] + obs, mean[..., -1:]], dim=-1)
        return mean, torch.exp(0.5 * log_var) * self.target_scale


class Damo:
    """The agent: networks, optimisers, model buffer."""

    def __init__(self, config: Config, data: Batch, termination: Termination) -> None:
        self.config, self.data, self.termination = config, data, termination
        self.actor, self.critic, self.classifier = Actor(config), TwinCritic(config), Classifier(config)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.dynamics = Ensemble(config).requires_grad_(False)
        self.elites = torch.arange(config.num_elites)
        self.log_temperature = torch.zeros((), requires_grad=True)
        self.actor_optimiser = torch.optim.Adam(self.actor.parameters(), config.actor_lr)
        self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), config.critic_lr)
        self.classifier_optimiser = torch.optim.Adam(self.classifier.parameters(), config.classifier_lr)
        self.temperature_optimiser = torch.optim.Adam([self.log_temperature], config.temperature_lr)
        capacity = config.rollout_starts * config.rollout_length * config.rollout_retain
        self.buffer = ReplayBuffer(capacity, config.obs_dim, config.action_dim)

    @torch.no_grad()
    def rollout(self) -> int:
        """Branched rollouts into the model buffer; returns the number of transitions."""
        obs, total = self.data.sample(self.config.rollout_starts).obs, 0
        for _ in range(self.config.rollout_length):
            action, _ = self.actor(obs, torch.randn(len(obs), self.config.action_dim))
            mean, std = self.dynamics(obs, action)
            samples = mean + std * torch.randn_like(std)
            member = self.elites[torch.randint(len(self.elites), (len(obs),))]
            chosen = samples[member, torch.arange(len(obs))]
            next_obs, reward = chosen[:, :-1], chosen[:, -1]
            terminal = self.termination(obs, action, next_obs)
            self.buffer.add(Batch(obs, action, reward, next_obs, terminal.float()))
            total += len(obs)
            obs = next_obs[~terminal]
        return total

    def update(self) -> dict[str, Tensor]:
        """One gradient step of every part."""
        config, half = self.config, self.config.batch_size // 2
        num_real = int(config.batch_size * config.real_ratio)
        real, synthetic = self.data.sample(half), self.buffer.sample(config.batch_size - num_real)
        initial_obs = self.data.sample(config.initial_batch_size).obs

        classifier_loss = self.classifier_loss(real, synthetic[:half])
        self.classifier_optimiser.zero_grad()
        classifier_loss.backward()
        self.classifier_optimiser.step()

        batch = real[:num_real].join(synthetic)
        noise = torch.randn(config.batch_size, config.action_dim)
        initial_noise = torch.randn(config.initial_batch_size, config.action_dim)
        critic_loss, actor_loss, log_prob = self.losses(batch, initial_obs, noise, initial_noise)
        optimisers = (self.critic_optimiser, self.actor_optimiser, self.temperature_optimiser)
        for optimiser in optimisers:
            optimiser.zero_grad()
        for loss in (critic_loss, actor_loss, self.temperature_loss(log_prob)):
            loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        with torch.no_grad():
            self.log_temperature.clamp_(max=0.0)
            for target, online in zip(self.target_critic.parameters(), self.critic.parameters(), strict=True):
                target.lerp_(online, config.tau)
        return {"critic": critic_loss.detach(), "actor": actor_loss.detach(), "classifier": classifier_loss.detach()}

    def classifier_loss(self, real: Batch, synthetic: Batch) -> Tensor:
        """Binary cross-entropy, label 1 = model-generated."""
        logits = self.classifier(real.join(synthetic))
        labels = torch.cat([torch.zeros(len(real)), torch.ones(len(synthetic))])
        return F.binary_cross_entropy_with_logits(logits, labels)

    def losses(
        self, batch: Batch, initial_obs: Tensor, noise: Tensor, initial_noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The critic's loss, the actor's, and log pi of the sampled next actions."""
        config, weight = self.config, self.config.divergence_weight
        with torch.no_grad():
            log_ratio = self.classifier(batch).clamp(-config.logit_clip, config.logit_clip)
            reward = batch.reward - weight * log_ratio
        temperature = self.log_temperature.exp().detach()
        alive = config.gamma * (1.0 - batch.terminal)
        next_action, log_prob = self.actor(batch.next_obs, noise)
        initial_action, _ = self.actor(initial_obs, initial_noise)
        next_value = torch.minimum(*self.target_critic(batch.next_obs, next_action)) - temperature * log_prob
        target = (reward + alive * next_value.detach()).clamp(min=0.0)

        residuals = [target - q for q in self.critic(batch.obs, batch.action)]
        initial_q = self.critic(initial_obs, initial_action.detach())
        critic_loss = weight * sum((2.0 / 3.0 * (y / weight).abs() ** 1.5).mean() for y in residuals)
        critic_loss = critic_loss + (1.0 - config.gamma) * sum(q.mean() for q in initial_q)

        self.critic.requires_grad_(False)  # the actor's loss needs no gradient of the critic's weights
        initial_q = self.critic(initial_obs, initial_action)
        self.critic.requires_grad_(True)
        ratios = [(y.detach() / config.actor_divergence_weight).clamp(min=0.0).sqrt() for y in residuals]
        ratio = torch.stack(ratios).mean(0)
        actor_loss = -(1.0 - config.gamma) * torch.stack(initial_q).mean() - (ratio * alive * next_value).mean()
        return critic_loss, actor_loss, log_prob

    def temperature_loss(self, log_prob: Tensor) -> Tensor:
        """SAC's, towards the entropy -action_dim."""
        return -self.log_temperature * (log_prob.detach().mean() - self.config.action_dim)


def hopper_ended(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Hopper's termination rule."""
    in_range = (next_obs[:, 1:].abs() < 100.0).all(-1) & next_obs.isfinite().all(-1)
    return ~(in_range & (next_obs[:, 0] > 0.7) & (next_obs[:, 1].abs() < 0.2))

"""The ladder: one experiment, from REINFORCE to PPO, in which each rung changes one thing.

All rungs learn from the same number of environment steps with the same actor, the same critic
where they need one, the same optimiser and the same seeds.

| rung | what it changes | of the rung |
|---|---|---|
| ``return`` | the return of the whole trajectory weighs every step (eq-b12) | |
| ``causal`` | only the rewards that follow a step weigh it (eq-c1) | ``return`` |
| ``reward_to_go`` | they are discounted from that step on (eq-c2) | ``causal`` |
| ``baseline`` | less the critic's value (eq-c4) | ``reward_to_go`` |
| ``pieces`` | pieces of episodes, with the critic's value after their ends | ``baseline`` |
| ``one_step`` | the TD error: the actor's λ from 1 to 0 (eq-d15) | ``pieces`` |
| ``gae`` | generalised advantages: the actor's λ is 0.95 (eq-d26) | ``one_step`` |
| ``targets`` | the critic's target has that λ too, instead of 1 | ``gae`` |
| ``standardise`` | advantages are standardised over what a gradient step sees | ``targets`` |
| ``reuse`` | sixteen steps of the actor a batch, on the surrogate (eq-e10) | ``standardise`` |
| ``kl`` | a penalty on the KL divergence (eq-e12) | ``reuse`` |
| ``clip`` | clipping (eq-e13) | ``reuse`` |
| ``ppo`` | gradients longer than 0.5 are scaled down: `PPO` itself | ``clip`` |

A batch is a complete episode in each of 8 environments in the first four rungs, and 64 steps in
each of 8 in the others; there the loss is a mean over all steps, of which Adam keeps the
direction.  The critic always passes 4 times over its batch, in minibatches of 128, and so is held
back in no rung.  Before ``reuse`` the actor makes one step a batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppo_lib.book import worlds
from ppo_lib.book.evidence import Chance, area, chance, interval, middle, read_runs
from ppo_lib.book.fleet import Fleet, Rollout, earned
from ppo_lib.config import PPOConfig
from ppo_lib.objectives import (
    adapt_kl_coef,
    clipped_surrogate_loss,
    normalize_advantages,
    surrogate_loss,
    value_loss,
)
from ppo_lib.ppo import Batch
from ppo_lib.returns import gae, rewards_to_go
from ppo_lib.validate import require


@dataclass(frozen=True)
class Rung:
    """What a rung does; its neighbours differ in one of these."""

    weight: Literal["return", "causal", "reward_to_go", "advantage"] = "return"
    batch: Literal["episodes", "pieces"] = "episodes"
    actor_lambda: float = 1.0
    critic_lambda: float = 1.0
    standardised: bool = False
    reuse: bool = False
    restraint: Literal["", "kl", "clip"] = ""
    limited: bool = False


#: What each rung changes of which other.
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "causal": ("return", {"weight": "causal"}),
    "reward_to_go": ("causal", {"weight": "reward_to_go"}),
    "baseline": ("reward_to_go", {"weight": "advantage"}),
    "pieces": ("baseline", {"batch": "pieces"}),
    "one_step": ("pieces", {"actor_lambda": 0.0}),
    "gae": ("one_step", {"actor_lambda": 0.95}),
    "targets": ("gae", {"critic_lambda": 0.95}),
    "standardise": ("targets", {"standardised": True}),
    "reuse": ("standardise", {"reuse": True}),
    "kl": ("reuse", {"restraint": "kl"}),
    "clip": ("reuse", {"restraint": "clip"}),
    "ppo": ("clip", {"limited": True}),
}
RUNGS: dict[str, Rung] = {"return": Rung()}
for _name, (_below, _changes) in STEPS.items():
    RUNGS[_name] = replace(RUNGS[_below], **_changes)

#: Adam's learning rate at the first update: the four that every rung was tried with.
RATES = (5e-4, 2e-3, 8e-3, 3.2e-2)
HIDDEN_SIZES = (32, 32)  #: half of `PPO`'s: fifty agents are to learn in seconds
EPISODES = 5  #: of an evaluation on the way
EVALUATION_SEED = 1_000_000
FIRST_TRIAL = 100  #: the lowest seed of those that choose the rates; those shown are below


class Climb(NamedTuple):
    """Where the ladder is climbed, and how long."""

    world: type[worlds.World]
    total_steps: int
    gamma: float
    evaluations: int  #: on the way, evenly spaced
    final_episodes: int = 20  #: by which the last policy is judged; they choose nothing

    @property
    def steps(self) -> np.ndarray:
        """``[P]`` int64, the steps before which is evaluated; the first is 0."""
        return np.linspace(0, self.total_steps, self.evaluations + 1).astype(np.int64)


CLIMBS = {
    "cartpole": Climb(worlds.CartPole, 15_360, 0.98, 6),
    "acrobot": Climb(worlds.Acrobot, 30_720, 0.99, 5),
    "pendulum": Climb(worlds.Pendulum, 61_440, 0.9, 5),
}


class Runs(NamedTuple):
    """What the runs of some seeds earned, evaluated before training and P - 1 times on the way."""

    rung: str
    seeds: tuple[int, ...]
    steps: np.ndarray  #: ``[P]`` int64, environment steps
    returns: np.ndarray  #: ``[seeds, P]`` float64, mean undiscounted return of 5 greedy episodes
    finals: np.ndarray  #: ``[seeds]`` float64, that of 20 other episodes, by the last policy

    @property
    def areas(self) -> np.ndarray:
        """``[seeds]``, the mean return over the budget."""
        return area(self.steps, self.returns)


class Stored(NamedTuple):
    """The stored runs of one rung."""

    runs: Runs
    learning_rate: float  #: the best of those tried
    tried: dict[float, np.ndarray]  #: learning rate → areas of the runs with seeds of 100 and up


def run(
    rung: str,
    seeds: Iterable[int] = (0,),
    *,
    climb: str | Climb = "cartpole",
    total_steps: int | None = None,
    learning_rate: float | Sequence[float] = 2e-3,
    **changes: Any,
) -> Runs:
    """Train on one rung, with some seeds at once.

    Args:
        rung: one of `RUNGS`.
        seeds: of the initial weights; all rungs start with the same actors.  Everything else is
            drawn for all of them together.
        climb: one of `CLIMBS`, by name, or another.
        total_steps: environment steps, instead of the climb's own; rounded down to whole batches
            of 512, at least one.  The rungs that learn from episodes finish those of their last
            batch, and so may pass it.
        learning_rate: of all, or of each; it falls linearly to 0 in every rung.
        changes: other fields of `PPOConfig`.

    Raises:
        ValueError: if the rung is unknown, or a number is out of range.
    """
    require(rung in RUNGS, f"rung is {rung!r}, expected one of {', '.join(RUNGS)}")
    if isinstance(climb, str):
        require(climb in CLIMBS, f"climb is {climb!r}, expected one of {', '.join(CLIMBS)}")
        climb = CLIMBS[climb]
    where, seeds = climb, tuple(seeds)
    numbers = {
        "total_steps": where.total_steps if total_steps is None else total_steps,
        "gamma": where.gamma,
        "hidden_sizes": HIDDEN_SIZES,
        "seed": seeds[0],
    }
    fleet = Fleet(where.world, PPOConfig(**numbers | changes), seeds)
    budget = fleet.config.num_updates * fleet.config.batch_size
    steps = np.linspace(0, budget, where.evaluations + 1).astype(np.int64)
    kept = [fleet.snapshot() for _ in steps]  # what each agent was at each of these steps
    learner = Learner(fleet, RUNGS[rung], learning_rate)
    while (learner.env_steps < budget).any():
        before = learner.env_steps.copy()
        data = learner.collect()
        for step, there in zip(steps, kept, strict=True):
            passed = torch.from_numpy((before <= step) & (step < learner.env_steps))
            fleet.snapshot(there, passed)
        learner.update(data)
    fleet.snapshot(kept[-1])
    dice = np.random.default_rng(EVALUATION_SEED + seeds[0])
    every = {name: torch.cat([each[name] for each in kept]) for name in kept[0]}
    returns = earned(fleet, every, EPISODES, dice).view(len(steps), len(seeds)).T
    finals = earned(fleet, kept[-1], where.final_episodes, dice)
    return Runs(rung, seeds, steps, returns.numpy(), finals.numpy())


class Learner:
    """A fleet on a rung.

    Attributes:
        env_steps: ``[S]`` int64, what each agent has taken.
        kl_coef: ``[S]``, the β of the rung ``kl``.
    """

    def __init__(
        self, fleet: Fleet, rung: Rung, learning_rate: float | Sequence[float] = 2e-3
    ) -> None:
        self.fleet, self.rung = fleet, rung
        self.learning_rates = torch.tensor(learning_rate).expand(fleet.size)
        least = float(self.learning_rates.min())
        require(least > 0, f"learning_rate is {learning_rate}, expected numbers above 0")
        self.env_steps = np.zeros(fleet.size, dtype=np.int64)
        self.kl_coef = torch.full((fleet.size,), fleet.config.kl_coef)
        self.budget = fleet.config.num_updates * fleet.config.batch_size

    def collect(self) -> tuple[Rollout, Tensor, Tensor, Tensor]:
        """A batch of each agent that is not at the end of its budget, and what was learned of it.

        Returns:
            The rollout, and ``[T, S, N]`` weights, the critic's targets, and which steps count.
        """
        c, fleet, rung = self.fleet.config, self.fleet, self.rung
        left = torch.from_numpy(1 - self.env_steps / self.budget).float()
        self.acts = left > 0
        self.rates = self.learning_rates * (left if c.anneal_learning_rate else 1)
        whole = rung.batch == "episodes"
        rollout = fleet.collect(self.acts.numpy() if whole else None)
        ended = rollout.terminated | rollout.truncated
        counts = torch.ones_like(ended)
        if whole:  # until the first end
            counts[1:] = ended[:-1].cumsum(dim=0) == 0
            counts &= self.acts[:, None]
        self.env_steps += counts.sum(dim=(0, 2)).numpy()
        with torch.no_grad():
            weights, targets = self.estimates(rollout, counts)
        return rollout, weights, targets, counts

    def estimates(self, rollout: Rollout, counts: Tensor) -> tuple[Tensor, Tensor]:
        """What weighs each step, and the critic's targets, ``[T, S, N]``."""
        c, rung = self.fleet.config, self.rung
        shape, rewards = counts.shape, (rollout.rewards * counts).flatten(1)
        if rung.batch == "episodes":
            to_go = rewards_to_go(rewards, gamma=c.gamma).view(shape)
            if rung.weight == "advantage":
                return to_go - self._values(rollout.obs), to_go
            return _weigh(rung.weight, to_go, c.gamma), to_go
        values, next_values = (
            self._values(obs).flatten(1) for obs in (rollout.obs, rollout.next_obs)
        )
        ends = rollout.terminated.flatten(1), rollout.truncated.flatten(1)
        seen = rewards, values, next_values, *ends
        advantages, _ = gae(*seen, gamma=c.gamma, gae_lambda=rung.actor_lambda)
        _, targets = gae(*seen, gamma=c.gamma, gae_lambda=rung.critic_lambda)
        return advantages.view(shape), targets.view(shape)

    def update(self, data: tuple[Rollout, Tensor, Tensor, Tensor]) -> None:
        """What is learned from a batch."""
        rollout, weights, targets, counts = data
        batch = self.fleet.batch(rollout, weights, targets)
        counts = counts.transpose(0, 1).flatten(1)
        if self.rung.reuse:
            self._update_both(batch)
        else:
            self._climb_once(batch, counts)
            if self.rung.weight == "advantage":
                self._fit_critic(batch.obs, batch.returns, counts)

    def _climb_once(self, batch: Batch, counts: Tensor) -> None:
        """One step up the gradient: a sum over an episode's steps, or a mean over the pieces'."""
        log_probs = self.fleet.dist.log_prob(self.fleet.policy(batch.obs), batch.actions)
        weights = batch.advantages
        if self.rung.standardised:
            weights = torch.vmap(normalize_advantages)(weights)
        size = self.fleet.config.num_envs if self.rung.batch == "episodes" else counts.shape[1]
        loss = -(log_probs * weights * counts).sum(dim=1) / size
        self.fleet.descend(loss, self.rates, self.acts)

    def _fit_critic(self, obs: Tensor, targets: Tensor, counts: Tensor) -> None:
        for _ in range(self.fleet.config.num_epochs):
            for x, target, there in self.fleet.minibatches((obs, targets, counts), ~counts):
                number = there.sum(dim=1)
                errors = (self.fleet.value(x) - target).square() * there
                loss = 0.5 * errors.sum(dim=1) / number.clamp(min=1)
                self.fleet.descend(loss, self.rates, self.acts & (number > 0))

    def _update_both(self, batch: Batch) -> None:
        """Epochs of minibatches, as in `PPO.update`."""
        fleet, c = self.fleet, self.fleet.config
        none = torch.zeros(batch.log_probs.shape, dtype=torch.bool)
        limit = 0.5 if self.rung.limited else None
        for _ in range(c.num_epochs):
            for mb in map(Batch._make, fleet.minibatches(batch, none)):
                params = fleet.policy(mb.obs)
                log_probs = fleet.dist.log_prob(params, mb.actions)
                advantages = mb.advantages
                if self.rung.standardised:
                    advantages = torch.vmap(normalize_advantages)(advantages)
                pair = log_probs, mb.log_probs, advantages
                if self.rung.restraint == "clip":
                    loss = clipped_surrogate_loss(*pair, clip_range=c.clip_range)
                else:
                    loss = surrogate_loss(*pair)
                if self.rung.restraint == "kl":
                    kl = fleet.dist.kl(mb.dist_params, params)
                    loss = loss + (self.kl_coef[:, None] * kl).mean()
                loss = loss + value_loss(fleet.value(mb.obs), mb.returns)
                # A mean over all agents, as often as there are agents: each one's own gradient.
                fleet.descend(loss.expand(fleet.size), self.rates, self.acts, limit)
        if self.rung.restraint != "kl":
            return
        with torch.no_grad():
            far = fleet.dist.kl(batch.dist_params, fleet.policy(batch.obs)).mean(dim=1)
        self.kl_coef = torch.tensor(
            [
                adapt_kl_coef(coef, kl, kl_target=c.adaptive_kl_target)
                for coef, kl in zip(self.kl_coef.tolist(), far.tolist(), strict=True)
            ]
        )

    @torch.no_grad()
    def _values(self, obs: Tensor) -> Tensor:
        """``[T, S, N]`` at observations ``[T, S, N, F]``."""
        steps = obs.transpose(0, 1).flatten(1, 2)
        return self.fleet.value(steps).unflatten(1, (len(obs), -1)).transpose(0, 1)


def _weigh(weight: str, to_go: Tensor, gamma: float) -> Tensor:
    """What weighs a step in the first three rungs, ``[T, S, N]``."""
    if weight == "return":
        return to_go[:1].expand_as(to_go)
    if weight == "causal":
        return gamma ** torch.arange(len(to_go)).view(-1, 1, 1) * to_go
    return to_go


def load(path: str | Path) -> dict[str, Stored]:
    """The stored runs of every rung, by its name.

    Args:
        path: what ``make climbs`` has written.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    data = read_runs(path, "make climbs")
    steps = np.array(data["steps"])
    tried: dict[str, dict[float, Runs]] = {}
    shown: dict[str, dict[float, Runs]] = {}
    for name, entry in data["cases"].items():
        rung, rate = name.split()
        seeds, returns, finals = (np.array(entry[x]) for x in ("seeds", "returns", "finals"))
        for found, which in ((tried, seeds >= FIRST_TRIAL), (shown, seeds < FIRST_TRIAL)):
            if which.any():
                runs = Runs(rung, tuple(seeds[which]), steps, returns[which], finals[which])
                found.setdefault(rung, {})[float(rate)] = runs
    stored = {}
    for rung in filter(tried.__contains__, RUNGS):
        areas = {rate: runs.areas for rate, runs in sorted(tried[rung].items())}
        rate = best(areas)
        runs = shown.get(rung, tried[rung])[rate]
        stored[rung] = Stored(runs, rate, areas)
    return stored


def step(stored: Mapping[str, Stored], rung: str) -> Chance:
    """The chance that a run of a rung earns more than one of the rung that it changes.

    What counts is `Runs.finals`, and the interval is widened for as many comparisons as there are
    `STEPS`.

    Args:
        stored: what `load` gives.
        rung: one of `STEPS`.

    Raises:
        ValueError: if the rung changes no other.
    """
    require(rung in STEPS, f"rung is {rung!r}, expected one of {', '.join(STEPS)}")
    pair = (stored[name].runs.finals for name in (rung, STEPS[rung][0]))
    return chance(*pair, comparisons=len(STEPS))


def table(stored: Mapping[str, Stored], rungs: Iterable[str]) -> str:
    """A row for each rung, in Markdown: what it earned, and the chance that it earned more."""
    rows = ["| rung | earned | compared with | chance of earning more |", "|---|---|---|---|"]
    for rung in rungs:
        finals = stored[rung].runs.finals
        low, high = interval(finals)
        row = f"| `{rung}` | {middle(finals):.0f} ({low:.0f} to {high:.0f}) |"
        known = rung in STEPS
        rows.append(row + (f" `{STEPS[rung][0]}` | {step(stored, rung)} |" if known else " | |"))
    return "\n".join(rows)


def best(tried: dict[float, np.ndarray]) -> float:
    """The learning rate whose runs have the highest mean area."""
    return max(tried, key=lambda rate: float(np.mean(tried[rate])))

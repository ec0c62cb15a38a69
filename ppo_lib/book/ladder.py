"""The ladder: one experiment, eight rungs, each with one idea more than the rung before it.

Every rung learns CartPole-v1 from the same number of environment steps with the same actor, the
same critic where it needs one, the same optimiser and the same seeds.  They differ in what
stands for the return in the policy gradient, and in what is done with a batch.

| rung | what is new | gradient steps of the actor |
|---|---|---|
| ``return`` | the return of the whole trajectory weighs every step (eq-b12) | one a batch |
| ``reward_to_go`` | only what follows a step weighs it (eq-c2) | one a batch |
| ``baseline`` | less the critic's value (eq-c4) | one a batch |
| ``one_step`` | the TD error, from pieces of episodes (eq-d15) | one a batch |
| ``gae`` | generalised advantage estimation (eq-d26) | one a batch |
| ``reuse`` | epochs of minibatches on the surrogate (eq-e10) | sixteen a batch |
| ``kl`` | a penalty on the KL divergence (eq-e12) | sixteen a batch |
| ``clip`` | clipping instead (eq-e13): `PPO` itself | sixteen a batch |

A batch is a complete episode in each of 8 environments in the first three rungs, and 64 steps
in each of 8 in the others.  The critic always passes 4 times over its batch, in minibatches of
128, and so is held back in no rung; its target is the reward-to-go in rung 3, r + γ V in rung 4
and λ-returns from rung 5 on.  Advantages are normalised from rung 4 on, over what one gradient
step sees: to subtract a mean is to have a baseline, which is the idea of rung 3.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppo_lib.config import PPOConfig
from ppo_lib.evaluate import evaluate, play_episodes
from ppo_lib.objectives import (
    normalize_advantages,
    policy_gradient_loss,
    value_loss,
)
from ppo_lib.ppo import PPO, minibatches
from ppo_lib.returns import discounted_return, gae, rewards_to_go
from ppo_lib.rollout import Rollout
from ppo_lib.validate import require

#: Adam's learning rate at the first update: of those that ``make ladder`` tried, the best.
LEARNING_RATES = {
    "return": 2e-3,
    "reward_to_go": 8e-3,
    "baseline": 8e-3,
    "one_step": 2e-3,
    "gae": 8e-3,
    "reuse": 5e-4,
    "kl": 8e-3,
    "clip": 8e-3,
}
RUNGS = tuple(LEARNING_RATES)

ENV_ID = "CartPole-v1"
TOTAL_STEPS = 60_000
SOLVED = 475.0  #: the mean return from which gymnasium calls CartPole-v1 solved
EVALUATE_EVERY = 2048
EVALUATION_SEED = 10_000  # no training environment has a seed that large
#: What the rungs that reuse a batch change of `PPO`: without its penalty, a β of 0 that adapting
#: never raises, the surrogate is all that is left.
RESTRAINT: dict[str, dict[str, Any]] = {
    "reuse": {"loss": "kl", "kl_coef": 0.0},
    "kl": {"loss": "kl", "kl_coef": 1.0, "adaptive_kl_target": 0.01},
    "clip": {},
}


class Run(NamedTuple):
    """What one training run earned, evaluated P times."""

    rung: str
    seed: int
    steps: np.ndarray  #: ``[P]`` int64, environment steps before each evaluation; the first is 0
    returns: np.ndarray  #: ``[P]`` float64, mean undiscounted return of 20 greedy episodes


class Stored(NamedTuple):
    """The stored runs of one rung, on the P environment steps that all rungs share."""

    rung: str
    seeds: tuple[int, ...]
    steps: np.ndarray  #: ``[P]`` int64
    returns: np.ndarray  #: ``[seeds, P]`` float64, the last evaluation so far
    learning_rate: float  #: the best of those tried
    areas: dict[float, float]  #: learning rate tried → median `area` over the seeds


class Row(NamedTuple):
    """What the seeds of one rung reached."""

    rung: str
    steps_to_solve: int | None  #: median; None if half of the seeds or more never solve it
    solved: int  #: how many seeds had an evaluation of at least 475
    seeds: int
    final: float  #: median of the last evaluations
    worst: float  #: the lowest of the last evaluations
    best: float  #: the highest of them
    area: float  #: median `area`


def run(
    rung: str,
    *,
    seed: int = 0,
    total_steps: int = TOTAL_STEPS,
    learning_rate: float | None = None,
) -> Run:
    """Train on one rung, and evaluate before the first step, then about every 2,048 steps.

    Args:
        rung: one of `RUNGS`.
        seed: of everything that is drawn in training; all rungs start with the same actor.
        total_steps: environment steps, rounded down to whole batches of 512, at least one.  The
            first three rungs finish the episodes of their last batch, and so may pass it.
        learning_rate: instead of the rung's own; it falls linearly to 0 in every rung.

    Raises:
        ValueError: if the rung is unknown, or a number is out of range.
    """
    learner = make_learner(rung, seed=seed, total_steps=total_steps, learning_rate=learning_rate)
    steps, returns = [0], [_score(learner)]
    for env_steps in updates(learner, rung):
        if env_steps >= min(steps[-1] + EVALUATE_EVERY, _budget(learner)):
            steps.append(env_steps)
            returns.append(_score(learner))
    learner.envs.close()
    return Run(rung, seed, np.array(steps), np.array(returns))


def make_learner(
    rung: str,
    *,
    seed: int = 0,
    total_steps: int = TOTAL_STEPS,
    learning_rate: float | None = None,
) -> PPO:
    """What a rung trains: a `PPO` that gives its networks, environments and random numbers.

    Arguments and errors as in `run`.
    """
    require(rung in RUNGS, f"rung is {rung!r}, expected one of {', '.join(RUNGS)}")
    rate = LEARNING_RATES[rung] if learning_rate is None else learning_rate
    config = PPOConfig(
        total_steps=total_steps, learning_rate=rate, seed=seed, **RESTRAINT.get(rung, {})
    )
    return PPO(ENV_ID, config)


def updates(learner: PPO, rung: str) -> Iterator[int]:
    """Train what `make_learner` made to its end; yields the environment steps after an update."""
    config = learner.config
    while learner.env_steps < _budget(learner):
        if rung in RESTRAINT:
            learner.learn(lambda _: True)
        else:
            left = 1 - learner.env_steps / _budget(learner)
            learner.optimizer.param_groups[0]["lr"] = config.learning_rate * left
            learn = learn_from_rollout if rung in ("one_step", "gae") else learn_from_episodes
            learn(learner, rung)
        yield learner.env_steps


def _budget(learner: PPO) -> int:
    return learner.config.num_updates * learner.config.batch_size


def learn_from_episodes(learner: PPO, rung: str) -> None:
    """Rungs 1 to 3: play an episode in each environment, and take one step up the gradient.

    The critic's values are taken before it learns from the same episodes, or they would not be
    independent of the actions that they are a baseline for.
    """
    episodes = play_episodes(learner.envs, learner.policy, learner.generator)
    gamma, rewards = learner.config.gamma, episodes.rewards.float()
    to_go = rewards_to_go(rewards, gamma=gamma)
    if rung == "return":
        weights = discounted_return(rewards, gamma=gamma).expand_as(rewards)
    elif rung == "reward_to_go":
        weights = to_go
    else:
        weights = to_go - learner.critic(episodes.obs)
    log_probs = _log_probs(learner, episodes.obs, episodes.actions)
    _descend(learner, policy_gradient_loss(log_probs, weights * episodes.mask))
    if rung == "baseline":
        _fit_critic(learner, episodes.obs[episodes.mask], to_go[episodes.mask])
    learner.env_steps += int(episodes.mask.sum())


def learn_from_rollout(learner: PPO, rung: str) -> None:
    """Rungs 4 and 5: collect a rollout, and take one step up the gradient.

    The sum runs over the 64 steps of a column, and the mean over the 8 columns.
    """
    gae_lambda = 0.0 if rung == "one_step" else learner.config.gae_lambda
    rollout, advantages, returns = _collect(learner, gae_lambda)
    log_probs = _log_probs(learner, rollout.obs, rollout.actions)
    _descend(learner, policy_gradient_loss(log_probs, normalize_advantages(advantages)))
    _fit_critic(learner, rollout.obs.flatten(0, 1), returns.flatten())


def _collect(learner: PPO, gae_lambda: float) -> tuple[Rollout, Tensor, Tensor]:
    """A rollout, its advantages and what the critic is trained towards."""
    c = learner.config
    rollout = learner.collector.collect(learner.policy, c.num_steps, learner.generator)
    learner.env_steps += c.batch_size
    with torch.no_grad():
        values, next_values = learner.critic(rollout.obs), learner.critic(rollout.next_obs)
    ends = (rollout.terminated, rollout.truncated)
    advantages, returns = gae(
        rollout.rewards, values, next_values, *ends, gamma=c.gamma, gae_lambda=gae_lambda
    )
    return rollout, advantages, returns


def _fit_critic(learner: PPO, obs: Tensor, targets: Tensor) -> None:
    c = learner.config
    for _ in range(c.num_epochs):
        for mb in minibatches(_Targets(obs, targets), c.minibatch_size, learner.generator):
            _descend(learner, value_loss(learner.critic(mb.obs), mb.targets))


class _Targets(NamedTuple):
    obs: Tensor
    targets: Tensor


def _log_probs(learner: PPO, obs: Tensor, actions: Tensor) -> Tensor:
    return learner.policy.dist.log_prob(learner.policy(obs), actions)


def _descend(learner: PPO, loss: Tensor) -> None:
    """One step of Adam on the parameters that the loss depends on."""
    learner.optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learner.parameters, learner.config.max_grad_norm)
    learner.optimizer.step()


def _score(learner: PPO) -> float:
    return evaluate(learner.policy, ENV_ID, seed=EVALUATION_SEED).mean().item()


def area(steps: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """The mean return over the budget, where an evaluation counts until the next one.

    Args:
        steps: ``[P]``, rising from 0.
        returns: ``[…, P]``.

    Returns:
        ``[…]``, the area under each curve over its width.
    """
    return (returns[..., :-1] * np.diff(steps)).sum(-1) / steps[-1]


def on_grid(run: Run, total_steps: int = TOTAL_STEPS) -> tuple[np.ndarray, np.ndarray]:
    """A run at the environment steps that all rungs share.

    Returns:
        ``(steps, returns)``, both ``[P]``: every 2,048 steps and at the end of the budget, and
        the last evaluation by then.
    """
    config = PPOConfig(total_steps=total_steps)
    budget = config.num_updates * config.batch_size
    steps = np.append(np.arange(0, budget, EVALUATE_EVERY), budget)
    return steps, run.returns[np.searchsorted(run.steps, steps, side="right") - 1]


def read_runs(path: str | Path, command: str) -> dict[str, Any]:
    """What a command has stored.

    Raises:
        FileNotFoundError: if there is no such file; it names the command that writes it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path is {path}, where no file is; `{command}` writes it")
    return json.loads(path.read_text(encoding="utf-8"))


def load(path: str | Path) -> dict[str, Stored]:
    """The stored runs of every rung, by its name.

    Args:
        path: what ``make ladder`` has written.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    data = read_runs(path, "make ladder")
    stored = {}
    for rung, entry in data["rungs"].items():
        runs = [
            Run(rung, r["seed"], np.array(r["steps"]), np.array(r["returns"]))
            for r in entry["runs"]
        ]
        steps, returns = zip(*(on_grid(run, data["total_steps"]) for run in runs), strict=True)
        areas = {float(rate): float(np.median(a)) for rate, a in entry["areas"].items()}
        seeds = tuple(run.seed for run in runs)
        stored[rung] = Stored(
            rung, seeds, steps[0], np.stack(returns), entry["learning_rate"], areas
        )
    return stored


def table(stored: Mapping[str, Stored]) -> list[Row]:
    """A row for each rung; its median steps count a seed that never solves it as the last."""
    rows = []
    for rung, s in stored.items():
        solved = s.returns >= SOLVED
        first = np.where(solved.any(1), s.steps[solved.argmax(1)], np.inf)
        middle, final = float(np.median(first)), s.returns[:, -1]
        steps = int(middle) if middle < np.inf else None
        spread = (float(f(final)) for f in (np.median, np.min, np.max))
        middle_area = float(np.median(area(s.steps, s.returns)))
        rows.append(Row(rung, steps, int(solved.any(1).sum()), len(s.seeds), *spread, middle_area))
    return rows

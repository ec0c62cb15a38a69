"""What runs say: what a policy earns in episodes of its own, and statistics over the seeds.

The statistics are those of Agarwal et al. (2021, arXiv:2108.13264).
"""

import gymnasium as gym
import numpy as np
import torch

from ppo_lib.evaluate import evaluate
from ppo_lib.policies import Policy

DRAWS = 4000


@torch.no_grad()
def earns(
    policy: Policy, env_id: str, *, episodes: int, seed: int, deterministic: bool = True
) -> float:
    """The mean undiscounted return, an episode in each environment; over arrays where it can be.

    Args:
        policy: what acts.
        env_id: a gymnasium id.
        episodes: how many.
        seed: of the environments, and of the actions if they are drawn.
        deterministic: take the most probable action instead of drawing one.
    """
    if gym.spec(env_id).vector_entry_point is None:
        returns = evaluate(
            policy, env_id, num_episodes=episodes, seed=seed, deterministic=deterministic
        )
        return float(returns.mean())
    dice = torch.Generator().manual_seed(seed)
    envs = gym.make_vec(env_id, num_envs=episodes, vectorization_mode="vector_entry_point")
    obs, _ = envs.reset(seed=seed)
    earned, playing = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while playing.any():
        params = policy(torch.as_tensor(obs, dtype=torch.float32))
        actions = policy.dist.mode(params) if deterministic else policy.dist.sample(params, dice)
        obs, rewards, terminated, truncated, _ = envs.step(actions.numpy())
        earned += rewards * playing
        playing &= ~(terminated | truncated)
    envs.close()
    return float(earned.mean())


def iqm(runs: np.ndarray) -> np.ndarray:
    """The interquartile mean along the first axis: of the middle half of the seeds.

    Args:
        runs: ``[seeds, …]``.
    """
    n = len(runs)
    return np.sort(runs, axis=0)[n // 4 : n - n // 4].mean(axis=0)


def interval(runs: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The bootstrap's interval of the interquartile mean.

    Args:
        runs: ``[seeds]``.
        level: how often such an interval is to hold.
    """
    dice = np.random.default_rng(0)
    again = iqm(runs[dice.integers(0, len(runs), (len(runs), DRAWS))])
    low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def improvement(
    after: np.ndarray, before: np.ndarray, level: float = 0.95
) -> tuple[float, float, float]:
    """The share of pairs of runs in which the first earns more, and its interval.

    A tie counts as a half, so that the share is ½ if there is no difference.

    Args:
        after: ``[seeds]``.
        before: ``[seeds]``, drawn again by itself.
        level: how often such an interval is to hold.

    Returns:
        The share, and the ends of the interval.
    """
    dice = np.random.default_rng(0)
    wins = (after[:, None] > before) + 0.5 * (after[:, None] == before)
    shares = (dice.multinomial(n, np.full(n, 1 / n), DRAWS) / n for n in wins.shape)
    rows, columns = shares
    again = (rows @ wins * columns).sum(axis=1)
    low, high = np.quantile(again, [(1 - level) / 2, (1 + level) / 2])
    return float(wins.mean()), float(low), float(high)

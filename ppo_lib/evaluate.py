"""Evaluation: what a policy earns, one episode in each of some environments of its own."""

import torch
from torch import Tensor

from ppo_lib.envs import make_envs
from ppo_lib.policies import Policy
from ppo_lib.rollout import play_episodes
from ppo_lib.validate import require


def evaluate(
    policy: Policy,
    env_id: str,
    *,
    num_episodes: int = 20,
    seed: int,
    greedy: bool = True,
    **kwargs: object,
) -> Tensor:
    """Undiscounted returns of complete episodes.

    Args:
        policy: what acts.
        env_id: a gymnasium id.
        num_episodes: E, at least 1.
        seed: of the environments, and of the actions if they are drawn.
        greedy: take the most probable action (the mean of a Gaussian) instead of drawing one.
        kwargs: passed to each environment.

    Returns:
        ``[E]`` float64.
    """
    require(num_episodes >= 1, f"num_episodes is {num_episodes}, expected at least 1")
    generator = None if greedy else torch.Generator().manual_seed(seed)
    envs = make_envs(env_id, num_episodes, **kwargs)
    episodes = play_episodes(envs, policy, generator, seed=seed)
    envs.close()
    return episodes.rewards.sum(dim=0)

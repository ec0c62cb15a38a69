"""Vectors of environments, as a rollout wants them."""

from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, VectorEnv

from ppo_lib.validate import require


def make_envs(env_id: str, num_envs: int, **kwargs: Any) -> VectorEnv:
    """A vector of N copies of a registered environment, as `Collector` wants it.

    Args:
        env_id: a gymnasium id, ``"CartPole-v1"`` say.
        num_envs: N, at least 1.
        kwargs: passed to each environment.

    Returns:
        A vector environment that never resets by itself: the collector resets what has ended,
        after it has seen the true last observation.
    """
    require(num_envs >= 1, f"num_envs is {num_envs}, expected at least 1")
    return gym.make_vec(
        env_id,
        num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
        **kwargs,
    )

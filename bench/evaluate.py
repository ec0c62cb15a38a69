"""The one evaluator: what a greedy policy of any library earns, written without ppo_lib."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np

NUM_EPISODES = 20
FIRST_SEED = 10_000  # far from the seeds of the training runs

Act = Callable[[np.ndarray], np.ndarray]
"""Maps observations ``[E, D]`` float32 to greedy actions, ``[E]`` or ``[E, A]``."""


class Evaluator:
    """Plays one complete episode in each of 20 environments, always from the same seeds.

    Args:
        env_id: a gymnasium id with observations in a Box of one dimension.
    """

    def __init__(self, env_id: str) -> None:
        self.envs = [gym.make(env_id) for _ in range(NUM_EPISODES)]

    def mean_return(self, act: Act) -> float:
        """The mean undiscounted return.

        The batch keeps its 20 rows when episodes have ended, since JAX would compile ``act``
        again for every other number of rows.

        Args:
            act: the policy.
        """
        seeds = range(FIRST_SEED, FIRST_SEED + NUM_EPISODES)
        obs = np.stack([env.reset(seed=s)[0] for env, s in zip(self.envs, seeds, strict=True)])
        returns = np.zeros(NUM_EPISODES)
        playing = set(range(NUM_EPISODES))
        while playing:
            actions = act(obs)
            for i in sorted(playing):
                obs[i], reward, terminated, truncated, _ = self.envs[i].step(
                    self._legal(actions[i])
                )
                returns[i] += float(reward)
                if terminated or truncated:
                    playing.remove(i)
        return float(returns.mean())

    def _legal(self, action: np.ndarray) -> np.ndarray:
        space = self.envs[0].action_space
        return action.clip(space.low, space.high) if isinstance(space, gym.spaces.Box) else action

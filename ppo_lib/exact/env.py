"""The exact world as a gymnasium environment, ``ppo_lib/Ridge-v0``, and a policy for it."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from ppo_lib.distributions import Categorical
from ppo_lib.exact.mdp import MDP, ridge
from ppo_lib.policies import Policy


class MDPEnv(gym.Env[Any, Any]):
    """Samples an `MDP`: observations are the numbers of its states, actions those of its actions.

    Args:
        mdp: the world.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (gymnasium's own form)

    def __init__(self, mdp: MDP) -> None:
        self.mdp = mdp
        self.observation_space = gym.spaces.Discrete(len(mdp.states))
        self.action_space: gym.spaces.Discrete = gym.spaces.Discrete(len(mdp.actions))
        self._start = mdp.start.cumsum(0).numpy()
        self._transition = mdp.transition.cumsum(-1).numpy()
        self._reward = mdp.reward.numpy()
        self._terminal = mdp.terminal.numpy()

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  (gymnasium's own form)
    ) -> tuple[int, dict[str, Any]]:
        """Draw s_0 from P(s_0)."""
        super().reset(seed=seed)
        self._state = self._draw(self._start)
        return self._state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Draw s_{t+1} from P(· | s_t, a_t) (eq-a5)."""
        if self._terminal[self._state]:
            name = self.mdp.states[self._state]
            raise ValueError(f"state is {name!r}, in which the episode is over: call reset")
        if not self.action_space.contains(action):
            last = self.action_space.n - 1
            raise ValueError(f"action is {action!r}, expected an integer from 0 to {last}")
        state = self._draw(self._transition[self._state, action])
        reward = float(self._reward[self._state, action, state])
        self._state = state
        return state, reward, bool(self._terminal[state]), False, {}

    def _draw(self, cumulative: np.ndarray) -> int:
        """An index, by comparing a uniform number with the cumulative probabilities."""
        return int(np.searchsorted(cumulative, self.np_random.random() * cumulative[-1], "right"))


def make_ridge_env(slip: float = 0.2) -> MDPEnv:
    """The entry point of ``ppo_lib/Ridge-v0``; ``slip`` as in `ridge`."""
    return MDPEnv(ridge(slip))


class TabularPolicy(Policy):
    """A softmax over A logits of its own in each of S states (eq-a2).

    Args:
        num_states: S.
        num_actions: A.
        dtype: float64 by default, so that derivations can be checked to rounding.

    ``forward`` takes states ``[...]`` int64 and gives logits ``[..., A]``.
    """

    dist = Categorical
    obs_dtype = torch.int64

    def __init__(
        self, num_states: int, num_actions: int, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_states, num_actions, dtype=dtype))

    def forward(self, obs: Tensor) -> Tensor:
        """The logits of the given states."""
        return self.logits[obs]

    def probs(self) -> Tensor:
        """π_θ(a | s) of all states, ``[S, A]``, for the exact world."""
        return self.logits.softmax(-1)

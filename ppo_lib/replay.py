"""Running episodes as plain data, so that a trainer that was killed goes on in the midst of them.

No environment's own state is read.  An episode is a function of the random numbers that the
environment had when it began and of the actions since, so that these are kept, and the episode is
played again.  That is exact for every environment that draws from its ``np_random`` alone, as
gymnasium asks, and whose ``reset`` leaves nothing of the episode before.  Whether it was exact is
seen: the last observation, what was earned, and ``np_random`` must be what they were.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

MAX_STEPS = 100_000  #: of an episode that is kept; a longer one would take long to play again


class Log:
    """What environments were given since their episodes began.

    Keeping it took 0.3 to 0.7% of the time of training on CartPole and Pendulum.

    Args:
        envs: the environments.

    Attributes:
        refusal: why running episodes can't be kept; empty where they can.
    """

    def __init__(self, envs: VectorEnv) -> None:
        self.envs = envs
        one_by_one = type(envs) is SyncVectorEnv and envs.autoreset_mode == AutoresetMode.DISABLED
        arrays = type(envs) is CartPoleVectorEnv
        kind = type(envs).__name__
        self.refusal = "" if one_by_one or arrays else f"{kind} does not show what goes on in it"
        self._logging = one_by_one
        # Of each environment: its seed or its random numbers, and its first action's place.
        self._starts: list[Any] = [None] * envs.num_envs
        self._first = np.zeros(envs.num_envs, dtype=np.int64)
        self._actions: list[np.ndarray] = []

    def begin(self, which: np.ndarray | None = None, *, seed: int | None = None) -> None:
        """To be called before a reset: of all, by a seed, or of those where ``which`` is True."""
        if not self._logging:
            return
        for i, env in enumerate(self.envs.envs):
            if which is None or which[i]:
                self._starts[i] = _random_state(env) if seed is None else seed + i
                self._first[i] = len(self._actions)
        over = int(self._first.min())
        del self._actions[:over]
        self._first -= over
        if None in self._starts:
            self._stop("the environment's np_random is not gymnasium's")

    def add(self, actions: np.ndarray) -> None:
        """To be called before a step, with the actions ``[N, …]`` as the environments take them."""
        if self._logging:
            self._actions.append(actions.copy())
            if len(self._actions) > MAX_STEPS:
                self._stop(f"an episode has more than {MAX_STEPS:,} steps")

    def _stop(self, refusal: str) -> None:
        self._logging, self._actions, self.refusal = False, [], refusal

    def state_dict(self) -> dict[str, Any] | None:
        """The running episodes in tensors and plain numbers; None where they can't be kept."""
        if isinstance(self.envs, CartPoleVectorEnv):
            arrays = {name: torch.tensor(getattr(self.envs, name)) for name in _CARTPOLE}
            return {"arrays": arrays, "random": self.envs.np_random.bit_generator.state}
        if not self._logging:
            return None
        randoms = [_random_state(env) for env in self.envs.envs]
        actions = torch.tensor(np.array(self._actions)) if self._actions else None
        first = self._first.tolist()
        return {"starts": list(self._starts), "random": randoms, "first": first, "actions": actions}

    def fits(self, state: dict[str, Any]) -> bool:
        """Whether `state_dict` was taken of environments that are stepped as these are."""
        return ("arrays" in state) == isinstance(self.envs, CartPoleVectorEnv)

    def play(self, state: dict[str, Any]) -> tuple[np.ndarray, list[float]] | None:
        """Bring the environments to where `state_dict` was taken, of as many.

        Returns:
            The last observations ``[N, …]`` and what each episode has paid, nothing where no
            episode had to be played; None if the environments play otherwise.
        """
        if isinstance(self.envs, CartPoleVectorEnv):
            for name in _CARTPOLE:
                setattr(self.envs, name, state["arrays"][name].numpy().copy())
            self.envs.np_random.bit_generator.state = state["random"]
            return self.envs.state.T.astype(np.float32), []
        actions = [] if state["actions"] is None else list(state["actions"].numpy())
        obs, paid = [], []
        for i, env in enumerate(self.envs.envs):
            given = [rows[i] for rows in actions[state["first"][i] :]]
            seen, earned, ended = _play(env, state["starts"][i], given)
            if ended or _random_state(env) != state["random"][i]:
                return None
            obs.append(seen)
            paid.append(earned)
        self._starts, self._actions = list(state["starts"]), actions
        self._first = np.array(state["first"])
        return np.stack(obs), paid


_CARTPOLE = ("state", "steps", "prev_done")


def _play(env: gym.Env[Any, Any], start: Any, actions: list[Any]) -> tuple[Any, float, bool]:
    """An episode from its start on: its last observation, what it has paid, whether it is over."""
    if isinstance(start, int):
        obs, _ = env.reset(seed=start)
    else:
        env.np_random.bit_generator.state = start
        obs, _ = env.reset(options={})
    paid = 0.0
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        paid += float(reward)
        if terminated or truncated:
            return obs, paid, True
    return obs, paid, False


def _random_state(env: gym.Env[Any, Any]) -> Any:
    """The state of an environment's random numbers, or None if it is no plain data."""
    bits = getattr(env.np_random, "bit_generator", None)  # an old RandomState has none
    return bits.state if isinstance(bits, np.random.PCG64) else None

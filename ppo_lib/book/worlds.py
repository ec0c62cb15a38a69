"""Three of gymnasium's worlds over arrays: every copy is a column, and all move at once.

States are ``[K, n]`` float64, K numbers of n copies.  `tests/test_fleet.py` holds each step against
gymnasium's own.
"""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

Moved = tuple[np.ndarray, np.ndarray, np.ndarray]  #: states, rewards ``[n]``, ends ``[n]``


class World:
    """What the worlds have in common."""

    env_id: ClassVar[str]
    low: ClassVar[np.ndarray]  #: ``[K, 1]``, an episode starts between this and its negative

    @classmethod
    def starts(cls, n: int, dice: np.random.Generator) -> np.ndarray:
        """New states."""
        return dice.uniform(cls.low, -cls.low, (len(cls.low), n))

    @staticmethod
    def moves(states: np.ndarray, actions: np.ndarray) -> Moved:
        """One step of each copy; actions are ``[n]`` int64, or ``[n, D]`` as they were drawn."""
        raise NotImplementedError

    @staticmethod
    def sees(states: np.ndarray) -> np.ndarray:
        """Observations ``[n, F]`` float32."""
        raise NotImplementedError

    @classmethod
    def limit(cls) -> int:
        """The steps after which an episode is cut."""
        return int(gym.spec(cls.env_id).max_episode_steps or 0)


class CartPole(World):
    """CartPole-v1: place, speed, angle and angular speed."""

    env_id = "CartPole-v1"
    low = np.full((4, 1), -0.05)

    @staticmethod
    def moves(states: np.ndarray, actions: np.ndarray) -> Moved:
        """Pushed with 10 N to the left or right, for a fiftieth of a second."""
        x, v, angle, spin = states
        sine, cosine = np.sin(angle), np.cos(angle)
        push = (np.where(actions == 1, 10.0, -10.0) + 0.05 * spin**2 * sine) / 1.1
        turn = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
        speed_up = push - 0.05 * turn * cosine / 1.1
        states = states + 0.02 * np.stack([v, speed_up, spin, turn])
        fallen = (np.abs(states[0]) > 2.4) | (np.abs(states[2]) > 12 * 2 * np.pi / 360)
        return states, np.ones(len(x)), fallen

    @staticmethod
    def sees(states: np.ndarray) -> np.ndarray:
        """The state."""
        return states.T.astype(np.float32)


class Pendulum(World):
    """Pendulum-v1: angle and angular speed."""

    env_id = "Pendulum-v1"
    low = np.array([[-np.pi], [-1.0]])

    @staticmethod
    def moves(states: np.ndarray, actions: np.ndarray) -> Moved:
        """Turned with a torque of at most 2, for a twentieth of a second."""
        angle, spin = states
        torque = np.clip(np.nan_to_num(actions[:, 0]), -2, 2)
        upright = (angle + np.pi) % (2 * np.pi) - np.pi
        cost = upright**2 + 0.1 * spin**2 + 0.001 * torque**2
        spin = np.clip(spin + 0.05 * (15 * np.sin(angle) + 3 * torque), -8, 8)
        return np.stack([angle + 0.05 * spin, spin]), -cost, np.zeros(len(cost), dtype=bool)

    @staticmethod
    def sees(states: np.ndarray) -> np.ndarray:
        """Cosine, sine and angular speed."""
        angle, spin = states
        return np.stack([np.cos(angle), np.sin(angle), spin], axis=1).astype(np.float32)


class Acrobot(World):
    """Acrobot-v1: two angles and their speeds."""

    env_id = "Acrobot-v1"
    low = np.full((4, 1), -0.1)

    @staticmethod
    def moves(states: np.ndarray, actions: np.ndarray) -> Moved:
        """The joint turned one way, not at all, or the other, for a fifth of a second."""
        torque, dt = actions - 1.0, 0.2
        k1 = _speeds(states, torque)
        k2 = _speeds(states + dt / 2 * k1, torque)
        k3 = _speeds(states + dt / 2 * k2, torque)
        k4 = _speeds(states + dt * k3, torque)
        states = states + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        states[:2] = (states[:2] + np.pi) % (2 * np.pi) - np.pi
        most = np.array([[4.0], [9.0]]) * np.pi
        states[2:] = np.clip(states[2:], -most, most)
        up = -np.cos(states[0]) - np.cos(states[1] + states[0]) > 1
        return states, np.where(up, 0.0, -1.0), up

    @staticmethod
    def sees(states: np.ndarray) -> np.ndarray:
        """Cosine and sine of both angles, and their speeds."""
        one, two, *speeds = states
        angles = np.cos(one), np.sin(one), np.cos(two), np.sin(two)
        return np.stack([*angles, *speeds], axis=1).astype(np.float32)


def _speeds(states: np.ndarray, torque: np.ndarray) -> np.ndarray:
    """The derivative of Acrobot's states: links of length and mass 1, moments of inertia 1."""
    one, two, spin, bend = states
    cosine, sine = np.cos(two), np.sin(two)
    d1, d2 = 3.5 + cosine, 1.25 + 0.5 * cosine
    phi2 = 4.9 * np.sin(one + two)
    phi1 = 14.7 * np.sin(one) + phi2 - 0.5 * bend**2 * sine - bend * spin * sine
    second = torque + d2 / d1 * phi1 - 0.5 * spin**2 * sine - phi2
    second = second / (1.25 - d2**2 / d1)
    return np.stack([spin, bend, -(d2 * second + phi1) / d1, second])


class Copies(VectorEnv):
    """N copies of a world, for a `PPO`; each is reset where it is told to be.

    Args:
        world: what is copied.
        num_envs: N.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, world: type[World], num_envs: int) -> None:
        self.world, self.num_envs, self.limit = world, num_envs, world.limit()
        with gym.make(world.env_id) as env:
            spaces = env.observation_space, env.action_space
        self.single_observation_space, self.single_action_space = spaces
        self.observation_space, self.action_space = (batch_space(x, num_envs) for x in spaces)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """New states where ``options["reset_mask"]`` is True, or everywhere."""
        super().reset(seed=seed)
        starts = self.world.starts(self.num_envs, self.np_random)
        if options is None:
            self.states, self.counts = starts, np.zeros(self.num_envs, int)
        else:
            which = options["reset_mask"]
            self.states = np.where(which, starts, self.states)
            self.counts[which] = 0
        return self.world.sees(self.states), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step of each copy."""
        self.states, rewards, died = self.world.moves(self.states, actions)
        self.counts += 1
        return self.world.sees(self.states), rewards, died, self.counts >= self.limit, {}

"""What Stable-Baselines3 and SBX share: settings and the hook into their training loop."""

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule

from bench.measure import Measurement

NO_LIMIT = 10**9  # steps; the measurement ends training, and no schedule depends on the total

# The RL Zoo's hyperparams/ppo.yml, CartPole-v1; SBX is run with the Zoo's settings as well.
ZOO_CARTPOLE = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 20,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "ent_coef": 0.0,
    "learning_rate": LinearSchedule(0.001, 0.0, 1.0),
    "clip_range": LinearSchedule(0.2, 0.0, 1.0),
}
ZOO_CARTPOLE_ENVS = 8
ZOO_CARTPOLE_STEPS = 100_000

COMMON = ZOO_CARTPOLE | {"learning_rate": 1e-3, "clip_range": 0.2}


class Hook(BaseCallback):
    """Calls the measurement between an update and the next rollout.

    The first step of a rollout is where Stable-Baselines3 lets a callback stop training.

    Args:
        measurement: what clocks the run.
    """

    def __init__(self, measurement: Measurement) -> None:
        super().__init__()
        self.measurement = measurement

    def _on_rollout_start(self) -> None:
        if self.num_timesteps > 0:
            self.measurement.after_update(self.num_timesteps, self._act)

    def _on_step(self) -> bool:
        return not self.measurement.stopped

    def _act(self, obs: np.ndarray) -> np.ndarray:
        normalizer = self.model.get_vec_normalize_env()
        if normalizer is not None:
            obs = normalizer.normalize_obs(obs)
        return self.model.predict(obs, deterministic=True)[0]


def learn(model: BaseAlgorithm, total_steps: int, measurement: Measurement) -> None:
    """Train until the measurement says to stop, at most for ``total_steps``."""
    measurement.start()
    model.learn(total_steps, callback=Hook(measurement))

"""ppo_lib; its own settings are the defaults of `PPOConfig`."""

import numpy as np
import torch

from bench.measure import Measurement, main
from ppo_lib.ppo import PPO, PPOConfig

COMMON = {
    "num_envs": 8,
    "num_steps": 32,
    "num_epochs": 20,
    "minibatch_size": 256,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "learning_rate": 1e-3,
    "anneal_learning_rate": False,
}
PENDULUM = {
    "total_steps": 200_704,  # 196 updates: the first whole number of them that holds 200,000 steps
    "num_envs": 8,
    "num_steps": 128,
    "num_epochs": 10,
    "minibatch_size": 64,
    "gamma": 0.9,
    "learning_rate": 1e-3,
}
SETTINGS = {"cartpole": {}, "cold": {}, "common": COMMON, "pendulum": PENDULUM}


def train(measurement: Measurement, _peer: str, seed: int) -> None:
    """Train until the measurement says to stop."""
    trainer = PPO(measurement.task.env_id, PPOConfig(seed=seed, **SETTINGS[measurement.task.name]))

    def act(obs: np.ndarray) -> np.ndarray:
        return trainer.policy.dist.mode(trainer.policy(torch.as_tensor(obs))).numpy()

    measurement.start()
    trainer.learn(lambda trainer: measurement.after_update(trainer.env_steps, act))


if __name__ == "__main__":
    main(train)

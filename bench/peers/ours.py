"""ppo_lib; its own settings are those of `ppo_lib.settings`, which other seeds have chosen."""

from dataclasses import replace

import numpy as np
import torch

from bench.measure import Measurement, main
from ppo_lib import PPO, PPOConfig, settings

COMMON = PPOConfig(
    num_envs=8,
    num_steps=32,
    num_epochs=20,
    minibatch_size=256,
    gamma=0.98,
    gae_lambda=0.8,
    learning_rate=1e-3,
    anneal_learning_rate=False,
)


def train(measurement: Measurement, _peer: str, seed: int) -> None:
    """Train until the measurement says to stop."""
    task = measurement.task
    config = COMMON if task.name == "common" else settings(task.env_id)
    if task.name == "pendulum":
        config = replace(config, total_steps=200_704)  # the whole updates that hold 200,000
    trainer = PPO(task.env_id, replace(config, seed=seed))

    def act(obs: np.ndarray) -> np.ndarray:
        return trainer.policy.dist.mode(trainer.policy(torch.as_tensor(obs))).numpy()

    measurement.start()
    trainer.learn(lambda trainer: measurement.after_update(trainer.env_steps, act))


if __name__ == "__main__":
    main(train)

"""ppo_lib; its own settings are those of `ppo_lib.settings`, which other seeds have chosen.

``ppo_lib-array`` is the common setting once more, with gymnasium's own CartPole over arrays.
"""

from dataclasses import replace

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


def train(measurement: Measurement, peer: str, seed: int) -> None:
    """Train until the measurement says to stop."""
    task = measurement.task
    config = COMMON if task.common else settings(task.env_id)
    if peer == "ppo_lib-array":
        config = replace(config, vectorization="array")
    if task.name == "pendulum":
        config = replace(config, total_steps=200_704)  # the whole updates that hold 200,000
    trainer = PPO(task.env_id, replace(config, seed=seed))

    measurement.start()
    trainer.learn(lambda trainer: measurement.after_update(trainer.env_steps, trainer.policy.act))


if __name__ == "__main__":
    main(train)

"""Stable-Baselines3, with the settings of the RL Zoo (``sb3-zoo``) or its defaults (``sb3``)."""

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from bench.measure import Measurement, main
from bench.stable_baselines import (
    COMMON,
    NO_LIMIT,
    ZOO_CARTPOLE,
    ZOO_CARTPOLE_ENVS,
    ZOO_CARTPOLE_STEPS,
    learn,
)

# The RL Zoo's hyperparams/ppo.yml, Pendulum-v1; the minibatches of 64 are the library's default.
ZOO_PENDULUM = {
    "n_steps": 1024,
    "n_epochs": 10,
    "gamma": 0.9,
    "gae_lambda": 0.95,
    "ent_coef": 0.0,
    "learning_rate": 1e-3,
    "clip_range": 0.2,
    "use_sde": True,
    "sde_sample_freq": 4,
}
ZOO_CARTPOLE_RUN = (ZOO_CARTPOLE_ENVS, ZOO_CARTPOLE, ZOO_CARTPOLE_STEPS)
# number of environments, settings, steps on which the schedules are laid
RUNS = {
    ("sb3-zoo", "cartpole"): ZOO_CARTPOLE_RUN,
    ("sb3-zoo", "cold"): ZOO_CARTPOLE_RUN,
    ("sb3-zoo", "common"): (ZOO_CARTPOLE_ENVS, COMMON, NO_LIMIT),
    ("sb3-zoo", "pendulum"): (4, ZOO_PENDULUM, NO_LIMIT),
    ("sb3", "cartpole"): (1, {}, NO_LIMIT),
    ("sb3", "cold"): (1, {}, NO_LIMIT),
}


def train(measurement: Measurement, peer: str, seed: int) -> None:
    """Train until the measurement says to stop."""
    num_envs, settings, total_steps = RUNS[peer, measurement.task.name]
    envs = make_vec_env(measurement.task.env_id, num_envs, seed=seed)
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu", **settings)
    learn(model, total_steps, measurement)


if __name__ == "__main__":
    main(train)

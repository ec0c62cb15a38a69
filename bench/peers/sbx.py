"""SBX, Stable-Baselines3 in JAX; its README runs it with the settings of the RL Zoo."""

import os

# One thread, as for the others; XLA reads this when JAX is imported.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

from sbx import PPO
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


def train(measurement: Measurement, _peer: str, seed: int) -> None:
    """Train until the measurement says to stop."""
    common = measurement.task.common
    envs = make_vec_env(measurement.task.env_id, ZOO_CARTPOLE_ENVS, seed=seed)
    model = PPO("MlpPolicy", envs, seed=seed, **(COMMON if common else ZOO_CARTPOLE))
    learn(model, NO_LIMIT if common else ZOO_CARTPOLE_STEPS, measurement)


if __name__ == "__main__":
    main(train)

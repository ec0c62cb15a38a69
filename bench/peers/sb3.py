"""Stable-Baselines3 with its defaults (``sb3``) or with others' settings.

Those are the RL Zoo's (``sb3-zoo``), or ours (``sb3-ours``), which tell our loop from our settings.
"""

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from bench.measure import Measurement, main
from bench.stable_baselines import (
    COMMON,
    NO_LIMIT,
    ZOO_CARTPOLE,
    ZOO_CARTPOLE_ENVS,
    ZOO_CARTPOLE_STEPS,
    learn,
)
from ppo_lib.config import settings as our_settings

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
OURS = our_settings("CartPole-v1")
# The same in the names of Stable-Baselines3, whose networks are alike.
AS_OURS = {
    "n_steps": OURS.num_steps,
    "batch_size": OURS.minibatch_size,
    "n_epochs": OURS.num_epochs,
    "gamma": OURS.gamma,
    "gae_lambda": OURS.gae_lambda,
    "learning_rate": LinearSchedule(OURS.learning_rate, 0.0, 1.0),
    "clip_range": OURS.clip_range,
    "ent_coef": OURS.ent_coef,
    "vf_coef": OURS.vf_coef / 2,  # its value loss is not halved
    "max_grad_norm": OURS.max_grad_norm,
}
ZOO_CARTPOLE_RUN = (ZOO_CARTPOLE_ENVS, ZOO_CARTPOLE, ZOO_CARTPOLE_STEPS)
# number of environments, settings, steps on which the schedules are laid
RUNS = {
    ("sb3-zoo", "cartpole"): ZOO_CARTPOLE_RUN,
    ("sb3-zoo", "cold"): (ZOO_CARTPOLE_ENVS, COMMON, NO_LIMIT),
    ("sb3-zoo", "common"): (ZOO_CARTPOLE_ENVS, COMMON, NO_LIMIT),
    ("sb3-zoo", "pendulum"): (4, ZOO_PENDULUM, NO_LIMIT),
    ("sb3", "cartpole"): (1, {}, NO_LIMIT),
    ("sb3-ours", "cartpole"): (OURS.num_envs, AS_OURS, OURS.total_steps),
}


def train(measurement: Measurement, peer: str, seed: int) -> None:
    """Train until the measurement says to stop."""
    num_envs, settings, total_steps = RUNS[peer, measurement.task.name]
    envs = make_vec_env(measurement.task.env_id, num_envs, seed=seed)
    if peer == "sb3-ours" and OURS.normalize_obs:
        envs = VecNormalize(envs, norm_reward=False)
    model = PPO("MlpPolicy", envs, seed=seed, device="cpu", **settings)
    learn(model, total_steps, measurement)


if __name__ == "__main__":
    main(train)

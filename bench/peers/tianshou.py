"""Tianshou, its procedural PPO; its own settings are those of its test/discrete/test_ppo_discrete.

That script is the one in which Tianshou trains PPO on CartPole-v1: actor and critic share their
hidden layers, of rectified linear units, and advantages are not normalised.
"""

import gymnasium as gym
import numpy as np
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import ActorCritic, Net
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from torch import nn

from bench.measure import Measurement, main

OWN_ENVS, OWN_ROLLOUT = 20, 2000
OWN = {"gamma": 0.99, "gae_lambda": 0.95, "ent_coef": 0.0, "advantage_normalization": False}
COMMON_ENVS, COMMON_ROLLOUT = 8, 256
COMMON = {"gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0}


def make_algorithm(env: gym.Env, common: bool) -> PPO:
    """Networks, policy and algorithm, as the script builds them."""
    activation = nn.Tanh if common else nn.ReLU
    nets = [
        Net(
            state_shape=env.observation_space.shape,
            hidden_sizes=[64, 64],
            activation=activation,
        )
        for _ in range(2 if common else 1)
    ]
    actor = DiscreteActor(preprocess_net=nets[0], action_shape=(env.action_space.n,))
    critic = DiscreteCritic(preprocess_net=nets[-1])
    for module in ActorCritic(actor, critic).modules():
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight)
            nn.init.zeros_(module.bias)
    return PPO(
        policy=DiscreteActorPolicy(
            actor=actor,
            dist_fn=torch.distributions.Categorical,
            action_space=env.action_space,
            deterministic_eval=True,
        ),
        critic=critic,
        optim=AdamOptimizerFactory(lr=1e-3 if common else 3e-4),
        max_grad_norm=0.5,
        **(COMMON if common else OWN),
    )


def train(measurement: Measurement, _peer: str, seed: int) -> None:
    """Train until the measurement says to stop."""
    common = measurement.task.common
    num_envs, rollout = (COMMON_ENVS, COMMON_ROLLOUT) if common else (OWN_ENVS, OWN_ROLLOUT)
    np.random.seed(seed)  # noqa: NPY002  (Tianshou shuffles minibatches with the global generator)
    torch.manual_seed(seed)
    envs = DummyVectorEnv([lambda: gym.make(measurement.task.env_id)] * num_envs)
    envs.seed(seed)
    algorithm = make_algorithm(gym.make(measurement.task.env_id), common)
    trainer = algorithm.create_trainer(
        OnPolicyTrainerParams(
            training_collector=Collector(
                algorithm, envs, VectorReplayBuffer(10 * rollout, num_envs)
            ),
            # An epoch of one update, so that the measurement is called after each.
            epoch_num_steps=rollout,
            collection_step_num_env_steps=rollout,
            update_step_num_repetitions=20 if common else 10,
            batch_size=256 if common else 64,
            test_collector=None,
            show_progress=False,
            verbose=False,
        )
    )

    def act(obs: np.ndarray) -> np.ndarray:
        probabilities, _ = algorithm.policy.actor(obs)
        return probabilities.argmax(-1).numpy()

    measurement.start()
    trainer.reset()
    env_steps = 0
    while not measurement.stopped:
        trainer.execute_epoch()
        env_steps += rollout
        measurement.after_update(env_steps, act)


if __name__ == "__main__":
    main(train)

"""TorchRL; the loop and its own settings are those of its sota-implementations/ppo (MuJoCo).

TorchRL documents no settings for CartPole.  Those are its settings for PPO on observations that
are vectors.  Its running normalisation of observations is left out: CartPole's are small.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, SamplerWithoutReplacement, TensorDictReplayBuffer
from torchrl.envs import GymEnv, GymWrapper
from torchrl.envs.common import EnvBase
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss, group_optimizers
from torchrl.objectives.value import GAE

from bench.measure import Measurement, main


@dataclass(frozen=True)
class Settings:
    """What differs between its own settings and the common ones."""

    num_envs: int
    rollout: int
    """Steps of one update, over all environments."""
    num_epochs: int
    minibatch_size: int
    learning_rate: float
    anneal_over: int | None
    """Steps over which the learning rate falls to 0; None keeps it."""
    gamma: float
    gae_lambda: float
    critic_coeff: float
    max_grad_norm: float | None
    advantages_each_epoch: bool
    """Estimate the advantages again before every epoch, as TorchRL's scripts do."""


OWN = Settings(1, 2048, 10, 64, 3e-4, 1_000_000, 0.99, 0.95, 0.25, None, True)
COMMON = Settings(8, 256, 20, 256, 1e-3, None, 0.98, 0.8, 0.5, 0.5, False)


def make_env(env_id: str, num_envs: int) -> EnvBase:
    """One environment, or several in this process, in the reset mode that TorchRL prefers."""
    if num_envs == 1:
        return GymEnv(env_id, categorical_action_encoding=True)
    envs = gym.make_vec(
        env_id,
        num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
    )
    return GymWrapper(envs, categorical_action_encoding=True)


def make_net(num_outputs: int, gain: float) -> MLP:
    """Two hidden tanh layers of 64, with the initial weights of TorchRL's script."""
    net = MLP(in_features=4, out_features=num_outputs, num_cells=[64, 64], activation_class=nn.Tanh)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
    return net


class Updater:
    """Everything between two rollouts.

    Args:
        actor: the policy.
        critic: the value function.
        settings: every number.
    """

    def __init__(
        self, actor: ProbabilisticActor, critic: ValueOperator, settings: Settings
    ) -> None:
        self.settings = settings
        self.advantage = GAE(
            gamma=settings.gamma,
            lmbda=settings.gae_lambda,
            value_network=critic,
            average_gae=False,
        )
        self.loss = ClipPPOLoss(
            actor_network=actor,
            critic_network=critic,
            clip_epsilon=0.2,
            loss_critic_type="l2",
            entropy_coeff=0.0,
            critic_coeff=settings.critic_coeff,
            normalize_advantage=True,
            functional=False,  # the documented way to save what functional modules cost
        )
        self.optimizer = group_optimizers(
            torch.optim.Adam(actor.parameters(), lr=settings.learning_rate, eps=1e-5),
            torch.optim.Adam(critic.parameters(), lr=settings.learning_rate, eps=1e-5),
        )
        self.buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(settings.rollout),
            sampler=SamplerWithoutReplacement(),
            batch_size=settings.minibatch_size,
        )

    def update(self, data: TensorDict, env_steps: int) -> None:
        """Several epochs of minibatch gradient steps on one rollout."""
        c = self.settings
        if c.anneal_over is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = c.learning_rate * (1 - env_steps / c.anneal_over)
        for batch in self._minibatches(data):
            loss = self.loss(batch)
            (loss["loss_critic"] + loss["loss_objective"] + loss["loss_entropy"]).backward()
            if c.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(self.loss.parameters(), c.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def _minibatches(self, data: TensorDict) -> Iterator[TensorDict]:
        for epoch in range(self.settings.num_epochs):
            if epoch == 0 or self.settings.advantages_each_epoch:
                with torch.no_grad():
                    self.advantage(data)
                self.buffer.extend(data.reshape(-1))
            yield from self.buffer


def train(measurement: Measurement, _peer: str, seed: int) -> None:
    """Train until the measurement says to stop."""
    settings = COMMON if measurement.task.common else OWN
    torch.manual_seed(seed)
    env = make_env(measurement.task.env_id, settings.num_envs)
    env.set_seed(seed)
    logits = make_net(num_outputs=2, gain=1.0)
    actor = ProbabilisticActor(
        TensorDictModule(logits, in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"],
        spec=env.action_spec,
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(make_net(num_outputs=1, gain=0.01), in_keys=["observation"])
    updater = Updater(actor, critic, settings)
    collector = Collector(
        env,
        actor,
        frames_per_batch=settings.rollout,
        total_frames=-1,
        max_frames_per_traj=-1,
        auto_register_policy_transforms=False,  # they are for recurrent policies
    )

    def act(obs: np.ndarray) -> np.ndarray:
        return logits(torch.as_tensor(obs)).argmax(-1).numpy()

    measurement.start()
    env_steps = 0
    for data in collector:
        updater.update(data, env_steps)
        env_steps += settings.rollout
        if measurement.after_update(env_steps, act):
            break
    collector.shutdown()


if __name__ == "__main__":
    main(train)

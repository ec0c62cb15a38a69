"""Actions of several choices, from the environment to the file and back."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiDiscrete

from ppo_lib import PPO, PPOConfig, evaluate, load_policy
from ppo_lib.networks import MultiCategoricalPolicy
from ppo_lib.shell import command as shell


class Dials(gym.Env):
    """Ten times two dials, of 3 and 2 places, are shown and to be set; each right one pays 1."""

    observation_space, action_space = Box(0, 1, (2,)), MultiDiscrete([3, 2])

    def _show(self):
        self.right = self.np_random.integers(self.action_space.nvec)
        return (self.right / [2, 1]).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.steps = 0
        return self._show(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        paid = float((action == self.right).sum())
        return self._show(), paid, False, self.steps == 10, {}


gym.register("tests/Dials-v0", Dials)
CONFIG = PPOConfig(
    total_steps=16_384, num_envs=8, num_steps=64, learning_rate=5e-3, gamma=0.0, seed=2
)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    with PPO("tests/Dials-v0", CONFIG) as trainer:
        trainer.learn(lambda t: t.env_steps == 4096)
        trainer.half = tmp_path_factory.mktemp("dials") / "half.pt"
        trainer.save(trainer.half)
        trainer.learn()
        yield trainer


def test_every_choice_is_learned(trainer):
    # Whoever guesses gets 10 (1/3 + 1/2) = 8.3, who knows one dial at most 15; all right are 20.
    assert evaluate(trainer.policy, "tests/Dials-v0", seed=1000).mean() > 19
    drawn = evaluate(trainer.policy, "tests/Dials-v0", seed=1000, deterministic=False)
    assert drawn.mean() > 18
    places = [[0.0, 0.0], [0.5, 1.0], [1.0, 0.0]]
    assert trainer.policy.act(places).tolist() == [[0, 0], [1, 1], [2, 0]]
    one = trainer.policy.act(places[1])
    assert Dials.action_space.contains(one)


def test_a_run_goes_on_to_the_bit(trainer):
    with PPO.load(trainer.half) as again:
        assert (again.env_steps, again.anew) == (4096, "")
        again.learn()
        for a, b in zip(again.parameters, trainer.parameters, strict=True):
            assert torch.equal(a, b)
        assert again.history.episodes == trainer.history.episodes


def test_a_policy_is_read_back_alone(trainer, tmp_path):
    trainer.save(tmp_path / "dials.pt")
    policy = load_policy(tmp_path / "dials.pt")
    assert type(policy) is MultiCategoricalPolicy
    obs = np.random.default_rng(0).random((50, 2), dtype=np.float32)
    assert policy.act(obs).tolist() == trainer.policy.act(obs).tolist()
    with PPO.load(tmp_path / "dials.pt") as loaded:
        assert loaded.spaces == [["Box", 2], ["MultiDiscrete", 3, 2]]
    # Other dials are not these.
    with pytest.raises(ValueError, match=r"expected \[\['Box', 2\], \['MultiDiscrete', 3, 2\]\]"):
        PPO.load(tmp_path / "dials.pt", env="CartPole-v1")


@pytest.mark.parametrize("loss", ["clip", "kl"])
def test_the_command_line_trains_goes_on_and_evaluates(loss, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["tests/Dials-v0", "--total-steps", "1024", "--loss", loss, "--ent-coef", "0.01"]
    assert shell.run([*words, "--checkpoint", "a.pt"]) == 0
    assert shell.run(["--resume", "a.pt", "--total-steps", "2048"]) == 0
    capsys.readouterr()
    assert shell.run(["evaluate", "a.pt", "--episodes", "3"]) == 0
    assert capsys.readouterr().out.startswith("tests/Dials-v0: mean return")


def test_in_processes_of_their_own_the_same_is_learned():
    config = dataclasses.replace(CONFIG, total_steps=256, num_envs=2, num_steps=64)
    found = []
    for vectorization in ("sync", "async"):
        with PPO(Dials, dataclasses.replace(config, vectorization=vectorization)) as one:
            one.learn()
            found.append([p.detach().clone() for p in one.parameters])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)

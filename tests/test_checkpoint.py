"""Checkpoints: what is written is read back to the bit, and nothing else is taken for one."""

import dataclasses
import enum
import hashlib
import itertools
import math
import os
import pickle
import sys
import zipfile
from collections import deque, namedtuple
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import (
    FlattenObservation,
    FrameStackObservation,
    TimeLimit,
    TransformObservation,
)

from ppo_lib import PPO, Policy, PPOConfig, evaluate, load_policy, replay
from ppo_lib.checkpoint import plain, write_checkpoint
from ppo_lib.distributions import Categorical
from ppo_lib.networks import CategoricalPolicy, GaussianPolicy

SMALL = PPOConfig(
    total_steps=64, num_envs=4, num_steps=8, minibatch_size=8, num_epochs=2, hidden_sizes=(8,)
)
NORMALIZED = dataclasses.replace(
    SMALL, num_envs=2, num_steps=16, normalize_obs=True, normalize_rewards=True, target_kl=0.5
)
KL = dataclasses.replace(
    NORMALIZED, loss="kl", adaptive_kl_target=0.005, value_clip_range=0.3, seed=4
)
CONFIGS = {"plain": SMALL, "normalized": NORMALIZED, "kl": KL}
ENVS = {"CartPole-v1": {}, "Pendulum-v1": {"g": 9.0}}


class OneStep(gym.Env):
    """One step an episode; every second copy shows 1 at its start, the others -1; best is a = 1/2.

    Between two steps nothing is left of an episode, and a seed changes nothing, so that training
    goes on to the same bits when its environments are made anew.
    """

    observation_space, action_space = Box(-2, 2, (2,)), Box(-2, 2, (1,))
    made = itertools.count()

    def __init__(self, notes=None):
        self.notes = notes
        self.place = np.array([(-1) ** next(self.made), 0.5], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return self.place.copy(), {}

    def step(self, action):
        return self.place.copy(), -float((action[0] - 0.5) ** 2), True, False, {}


class Own(gym.Wrapper):
    """A wrapper of one's own: nothing in gymnasium has its name."""


class Two(Policy):
    """A policy of one's own: one layer without a bias."""

    dist = Categorical

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2, bias=False)

    def forward(self, obs):
        return self.layer(obs)


class Trace:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


gym.register("tests/OneStep-v0", OneStep)


def learned(config=SMALL, env_id="CartPole-v1", **more):
    trainer = PPO(env_id, config, **more)
    trainer.learn()
    return trainer


def numbers(trainer):
    """A copy of every tensor and number that training depends on, by name."""
    kept = {"generator": trainer.generator.get_state()}
    for name in ("policy", "critic", "reward_normalizer"):
        part = getattr(trainer, name)
        if part is not None:
            kept |= {f"{name}.{key}": x for key, x in part.state_dict().items()}
    for i, moments in trainer.optimizer.state_dict()["state"].items():
        kept |= {f"optimizer.{i}.{key}": x for key, x in moments.items()}
    kept |= {name: torch.tensor(getattr(trainer, name)) for name in ("kl_coef", "env_steps")}
    return {name: x.detach().clone() for name, x in kept.items()}


def assert_same_numbers(first, second):
    assert first.keys() == second.keys()
    for name, x in first.items():
        assert x.dtype == second[name].dtype, name
        assert torch.equal(x, second[name]), name


def assert_same_history(first, second, without=()):
    assert len(first.rows) == len(second.rows)
    for a, b in zip(first.rows, second.rows, strict=True):
        assert list(a) == list(b)
        for name in a.keys() - set(without):
            assert a[name] == b[name] or (math.isnan(a[name]) and math.isnan(b[name])), name
    assert first.episodes == second.episodes


# ------------------------------------------------------------------ a round trip


@pytest.mark.parametrize("env_id", ENVS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_number_is_read_back_to_the_bit(name, env_id, tmp_path):
    config, kwargs = CONFIGS[name], ENVS[env_id]
    trainer = learned(config, env_id, env_kwargs=kwargs)
    before = numbers(trainer)
    earned = evaluate(trainer.policy, env_id, num_episodes=3, seed=5, env_kwargs=kwargs)
    trainer.save(tmp_path / "agent.pt")
    assert_same_numbers(numbers(trainer), before)
    loaded = PPO.load(tmp_path / "agent.pt")
    assert_same_numbers(numbers(loaded), before)
    assert_same_history(loaded.history, trainer.history)
    assert loaded.config == config
    assert loaded.env_name == {"id": env_id, "kwargs": kwargs, "wrappers": []}
    again = evaluate(loaded.policy, env_id, num_episodes=3, seed=5, env_kwargs=kwargs)
    assert torch.equal(again, earned)


def test_the_round_trip_has_something_to_keep():
    # Otherwise the test above would also pass for numbers that never left their first values.
    before, after = numbers(PPO("Pendulum-v1", KL)), numbers(learned(KL, "Pendulum-v1"))
    # Adam knows nothing before its first step, and the bounds of actions are only kept.
    assert before.keys() == {name for name in after if not name.startswith("optimizer.")}
    assert len(after) > len(before)
    for bound in ("policy.low", "policy.high"):
        del before[bound]
    assert [name for name, x in before.items() if torch.equal(x, after[name])] == []


def test_a_loaded_trainer_shares_nothing_with_the_file_or_the_first(tmp_path):
    trainer = learned(NORMALIZED)
    trainer.save(tmp_path / "agent.pt")
    before = numbers(trainer)
    PPO.load(tmp_path / "agent.pt", total_steps=128).learn()
    assert_same_numbers(numbers(trainer), before)
    assert_same_numbers(numbers(PPO.load(tmp_path / "agent.pt")), before)


def test_the_environment_gets_its_arguments_back(tmp_path):
    notes = {"a": [1, 2.5, "b", True, None], "c": {"d": -1e-300}}
    PPO("tests/OneStep-v0", SMALL, env_kwargs={"notes": notes}).save(tmp_path / "agent.pt")
    loaded = PPO.load(tmp_path / "agent.pt")
    assert [env.unwrapped.notes for env in loaded.envs.envs] == [notes] * 4


def test_the_file_is_read_without_running_code(tmp_path):
    learned(KL).save(tmp_path / "agent.pt")
    state = torch.load(tmp_path / "agent.pt", weights_only=True)
    kinds = {type(number) for row in state["rows"] for number in row.values()}
    assert kinds <= {int, float}
    assert {type(number) for episode in state["episodes"] for number in episode} == {int, float}


def test_numbers_of_numpy_in_a_configuration_are_read_back_too(tmp_path):
    config = dataclasses.replace(KL, kl_coef=np.float64(0.5), learning_rate=np.float64(1e-3))
    trainer = learned(config)
    trainer.save(tmp_path / "agent.pt")
    assert PPO.load(tmp_path / "agent.pt").config == config


def test_folders_on_the_way_are_made_and_nothing_else_is_left_there(tmp_path):
    path = tmp_path / "some" / "where" / "agent.pt"
    PPO("CartPole-v1", SMALL).save(str(path))
    assert [p.name for p in path.parent.iterdir()] == ["agent.pt"]
    assert PPO.load(str(path)).env_steps == 0


# ------------------------------------------------------------------ policies


def test_a_policy_acts_alone(tmp_path):
    for env_id, config in (("CartPole-v1", NORMALIZED), ("Pendulum-v1", KL)):
        trainer = learned(config, env_id)
        trainer.save(tmp_path / "agent.pt")
        policy = load_policy(tmp_path / "agent.pt")
        assert_same_numbers(policy.state_dict(), trainer.policy.state_dict())
        seen = evaluate(policy, env_id, num_episodes=3, seed=5)
        assert torch.equal(seen, evaluate(trainer.policy, env_id, num_episodes=3, seed=5))


def test_networks_of_ones_own_are_saved_and_take_the_files_weights(tmp_path):
    torch.manual_seed(0)
    critic = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(-2))
    trainer = PPO("CartPole-v1", SMALL, policy=Two(), critic=critic)
    before = [p.clone() for p in trainer.parameters]
    trainer.learn()
    assert len(before) == 3
    assert not any(torch.equal(a, b) for a, b in zip(before, trainer.parameters, strict=True))
    trainer.save(tmp_path / "agent.pt")
    again = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(-2))
    loaded = PPO.load(tmp_path / "agent.pt", policy=Two(), critic=again, total_steps=96)
    assert_same_numbers(numbers(loaded), numbers(trainer))
    assert len(loaded.learn()) == 3
    policy = load_policy(tmp_path / "agent.pt", Two())
    assert torch.equal(policy.layer.weight, trainer.policy.layer.weight)
    for load in (load_policy, PPO.load):
        # A network of the library's would take weights of the same shapes, and be another one.
        with pytest.raises(ValueError, match=r"^policy is None, expected the network of your own"):
            load(tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=r"^critic is None, expected the network of your own"):
        PPO.load(tmp_path / "agent.pt", policy=Two())
    with pytest.raises(ValueError, match=r"^policy has other weights than .*agent.pt"):
        load_policy(tmp_path / "agent.pt", CategoricalPolicy(4, 2, (8,), torch.Generator()))


class Shifted(Policy):
    """Has parameters of its own by the names of a Gaussian policy's bounds."""

    dist = Categorical

    def __init__(self):
        super().__init__()
        self.low, self.high = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))

    def forward(self, obs):
        return obs[..., :2] + self.low + self.high


def test_parameters_that_are_called_as_bounds_are_read_as_parameters(tmp_path):
    trainer = PPO("CartPole-v1", SMALL, policy=Shifted())
    trainer.learn()
    trainer.save(tmp_path / "agent.pt")
    loaded = PPO.load(tmp_path / "agent.pt", policy=Shifted())
    assert trainer.policy.low.abs().min() > 0
    assert torch.equal(loaded.policy.low, trainer.policy.low)


def test_another_seed_that_goes_on_lives_in_other_episodes(tmp_path):
    trainer = PPO("CartPole-v1", SMALL)
    trainer.learn(lambda _: True)
    trainer.save(tmp_path / "agent.pt")
    opening = []
    for seed in (0, 0, 1):
        loaded = PPO.load(tmp_path / "agent.pt", seed=seed)
        loaded.start_episodes()
        opening.append(loaded.collector.obs)
    assert torch.equal(opening[0], opening[1])
    assert not torch.equal(opening[0], opening[2])


# ------------------------------------------------------------------ training goes on


@pytest.mark.parametrize("name", CONFIGS)
def test_training_that_was_saved_goes_on_to_the_same_bits(name, tmp_path):
    config = dataclasses.replace(CONFIGS[name], total_steps=160, anneal_clip_range=True)
    whole = learned(config, "tests/OneStep-v0")
    stopped = PPO("tests/OneStep-v0", config)
    stopped.learn(lambda trainer: trainer.env_steps == 96)
    stopped.save(tmp_path / "agent.pt")
    loaded = PPO.load(tmp_path / "agent.pt")
    assert loaded.env_steps == 96
    loaded.learn()
    assert (loaded.env_steps, len(loaded.history)) == (160, 5)
    assert_same_numbers(numbers(loaded), numbers(whole))
    assert_same_history(loaded.history, whole.history, without=["steps_per_second"])


def test_a_longer_training_can_be_asked_for(tmp_path):
    learned(dataclasses.replace(SMALL, learning_rate=0.01)).save(tmp_path / "agent.pt")
    done = PPO.load(tmp_path / "agent.pt")
    assert len(done.learn()) == 2
    longer = PPO.load(tmp_path / "agent.pt", total_steps=128)
    longer.learn()
    assert longer.history["env_steps"].tolist() == [32, 64, 96, 128]
    # Of two updates, then of four.
    assert longer.history["learning_rate"].tolist() == pytest.approx([0.01, 0.005, 0.005, 0.0025])


def test_what_does_not_shape_the_networks_can_be_changed(tmp_path):
    learned(NORMALIZED).save(tmp_path / "agent.pt")
    changes = {"num_envs": 8, "gamma": 0.5, "loss": "kl", "total_steps": 320, "hidden_sizes": (8,)}
    loaded = PPO.load(tmp_path / "agent.pt", **changes)
    assert loaded.config == dataclasses.replace(NORMALIZED, **changes)
    assert loaded.reward_normalizer.gamma == 0.5
    assert loaded.learn()["env_steps"].tolist() == [32, 64, 192, 320]


def openings(trainer):
    """What a trainer's environments show first."""
    return trainer.collect().obs[0]


def test_a_run_that_begins_anew_opens_with_other_episodes_and_always_with_the_same(tmp_path):
    # A vector environment that resets itself does not show what goes on in it.
    def envs():
        return SyncVectorEnv([partial(gym.make, "CartPole-v1")] * 4)

    config = dataclasses.replace(SMALL, total_steps=96)
    fresh, trainer = openings(PPO(envs(), config)), PPO(envs(), config)
    seen = [fresh]
    for updates in range(1, 3):
        trainer.learn(lambda _: True)
        trainer.save(tmp_path / "agent.pt")
        loaded = [PPO.load(tmp_path / "agent.pt", env=envs()) for _ in range(2)]
        assert {each.anew for each in loaded} == {"SyncVectorEnv does not show what goes on in it"}
        first, again = map(openings, loaded)
        assert torch.equal(first, again)
        seen.append(first)
        assert trainer.env_steps == 32 * updates
    # Three times four environments: twelve openings, none of them twice.
    assert len({tuple(obs) for obs in torch.cat(seen).tolist()}) == 12
    # The file of a run that has not begun begins it.
    PPO(envs(), config).save(tmp_path / "agent.pt")
    assert torch.equal(openings(PPO.load(tmp_path / "agent.pt", env=envs())), fresh)


class Drifting(gym.Env):
    """Random numbers at the start, at each step and of a generator that gymnasium knows not."""

    observation_space, action_space = Box(-9, 9, (2,)), Discrete(2)
    foreign = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.own = np.random.default_rng()
        self.place, self.steps = self.np_random.normal(size=2), 0
        return self.place.astype(np.float32), {}

    def step(self, action):
        draw = self.own if self.foreign else self.np_random
        self.place = np.clip(0.9 * self.place + draw.normal(size=2) + action - 0.5, -9, 9)
        self.steps += 1
        ended = self.np_random.random() < 0.05
        return self.place.astype(np.float32), self.place[0], ended, self.steps == 40, {}


class Foreign(Drifting):
    """Draws from where nobody knows."""

    foreign = True


gym.register("tests/Drifting-v0", Drifting)
gym.register("tests/Foreign-v0", Foreign)
FOUR_LAYERS = [(FrameStackObservation, {"stack_size": 3}), FlattenObservation]
EXACT = {
    "one by one": ("CartPole-v1", {}, {}),
    "over arrays": ("CartPole-v1", {"vectorization": "array"}, {}),
    "a Box of actions": ("Pendulum-v1", {}, {}),
    "random steps": ("tests/Drifting-v0", {}, {}),
    "wrappers that remember": ("Acrobot-v1", {}, {"wrappers": FOUR_LAYERS}),
    "states by number": ("ppo_lib/Ridge-v0", {}, {}),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_run_goes_on_in_the_episodes_that_were_running_to_the_bit(name, tmp_path):
    env_id, changes, more = EXACT[name]
    config = dataclasses.replace(
        NORMALIZED,
        total_steps=192,
        num_envs=2,
        num_steps=16,
        normalize_obs=env_id != "ppo_lib/Ridge-v0",
        **changes,
    )
    whole, stopped = learned(config, env_id, **more), PPO(env_id, config, **more)
    PPO.save(stopped, tmp_path / "agent.pt")  # before the first step, too
    for steps in (0, 64, 96, 160):
        trainer = PPO.load(tmp_path / "agent.pt")
        assert (trainer.env_steps, trainer.anew) == (steps, "")
        until = {0: 64, 64: 96, 96: 160, 160: None}[steps]
        trainer.learn(lambda t, until=until: t.env_steps == until)
        trainer.save(tmp_path / "agent.pt")
    assert_same_numbers(numbers(trainer), numbers(whole))
    assert_same_history(trainer.history, whole.history, without=["steps_per_second"])
    assert torch.equal(trainer.reward_normalizer.sums, whole.reward_normalizer.sums)
    assert torch.equal(trainer.collector.obs, whole.collector.obs)
    lengths = [length for _, _, length in whole.history.episodes]
    assert max(lengths, default=99) > 2  # some were running when it stopped


def test_a_state_that_was_taken_is_not_changed_by_the_trainer_that_takes_it_up():
    trainer = PPO("CartPole-v1", NORMALIZED)
    trainer.learn(lambda _: True)
    state = plain(trainer.state_dict())
    rollouts = []
    for _ in range(2):
        trainer.load_state_dict(state)
        rollouts.append(trainer.collect())
    assert all(torch.equal(a, b) for a, b in zip(*rollouts, strict=True))
    sums = state["sums"].clone()
    assert sums.any()
    trainer.load_state_dict(state)
    trainer.start_episodes()
    assert torch.equal(state["sums"], sums)


@pytest.mark.parametrize("what", ["obs", "random numbers"])
def test_episodes_that_end_up_elsewhere_begin_anew(what):
    trainer = PPO("CartPole-v1", SMALL)
    trainer.collect()
    state = trainer.state_dict()
    (running,) = state["running"]
    if what == "obs":  # although they have paid the same
        running["obs"] = running["obs"] + 1e-3
    else:
        running["log"]["random"][0] = np.random.default_rng(99).bit_generator.state
    with pytest.warns(UserWarning, match="the environment plays otherwise"):
        trainer.load_state_dict(state)
    assert trainer.anew.startswith("given the same random numbers")


@pytest.mark.parametrize("env_id", ["tests/Foreign-v0"])
def test_an_environment_that_plays_otherwise_is_noticed_and_begins_anew(env_id, tmp_path):
    trainer = learned(SMALL, env_id)
    trainer.save(tmp_path / "agent.pt")
    with pytest.warns(UserWarning, match="running episodes begin anew: given the same random num"):
        loaded = PPO.load(tmp_path / "agent.pt", total_steps=96)
    assert loaded.anew.startswith("given the same random numbers")
    assert len(loaded.learn()) == 3


def test_other_environments_than_those_that_were_running_begin_anew(tmp_path):
    path = tmp_path / "agent.pt"
    learned(SMALL).save(path)
    assert PPO.load(path, num_envs=2).anew == "they were of 4 environments"
    array = PPO.load(path, vectorization="array").anew
    assert array == "the environments are stepped in another way"
    with PPO.load(path, vectorization="async") as trainer:
        assert trainer.anew == "AsyncVectorEnv does not show what goes on in it"


def test_an_episode_that_is_very_long_is_not_kept(monkeypatch):
    assert replay.MAX_STEPS == 100_000
    monkeypatch.setattr(replay, "MAX_STEPS", 16)
    trainer = PPO("Pendulum-v1", SMALL)
    for steps in (8, 16, 24):
        trainer.collect()
        kept = trainer.state_dict()["running"][0]
        assert ("log" in kept) == (steps <= 16)
    assert kept == {"refusal": "an episode has more than 16 steps"}


def test_two_runs_resumed_from_one_file_are_the_same_to_the_bit(tmp_path):
    trainer = PPO("CartPole-v1", NORMALIZED)
    trainer.learn(lambda _: True)
    trainer.save(tmp_path / "agent.pt")
    first, second = (PPO.load(tmp_path / "agent.pt") for _ in range(2))
    for resumed in (first, second):
        resumed.learn()
        assert len(resumed.history) == 2
    assert_same_numbers(numbers(first), numbers(second))
    assert_same_history(first.history, second.history, without=["steps_per_second"])


@pytest.mark.parametrize(("first", "then"), [("clip", "kl"), ("kl", "clip")])
def test_a_column_that_only_some_updates_have_is_nan_in_the_others(first, then, tmp_path):
    learned(dataclasses.replace(SMALL, loss=first)).save(tmp_path / "agent.pt")
    history = PPO.load(tmp_path / "agent.pt", loss=then, total_steps=128).learn()
    known = [loss == "kl" for loss in (first, first, then, then)]
    assert (~np.isnan(history["kl_coef"])).tolist() == known
    with pytest.raises(KeyError, match=r"name is 'beta', expected one of .*kl_coef"):
        history["beta"]


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_sizes": (9,)}, r"hidden_sizes is \(9,\), expected \(8,\) as in .*agent.pt"),
        ({"hidden_sizes": (8, 8)}, r"hidden_sizes is \(8, 8\), expected \(8,\) as in"),
        ({"normalize_obs": True}, "normalize_obs is True, expected False as in"),
        ({"normalize_rewards": True}, "normalize_rewards is True, expected False as in"),
        ({"gamma": 2.0}, "gamma is 2.0, expected"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_by_name(change, message, tmp_path):
    PPO("CartPole-v1", SMALL).save(tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=f"^{message}"):
        PPO.load(tmp_path / "agent.pt", **change)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "agent.pt", tmp_path):
        with pytest.raises(FileNotFoundError) as refusal:
            PPO.load(path)
        assert str(refusal.value) == f"path is {path}, where no file is; expected a checkpoint"


def test_a_change_of_what_is_no_field_is_refused_by_name(tmp_path):
    PPO("CartPole-v1", SMALL).save(tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=r"^nonsense is 1, expected no such field; .* gamma, "):
        PPO.load(tmp_path / "agent.pt", nonsense=1)


def test_another_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "agent.pt"
    PPO("CartPole-v1", SMALL).save(path)
    checkpoint = path.read_bytes()
    others = {
        "empty": b"",
        "text": b"not a checkpoint\n",
        "cut off": checkpoint[: len(checkpoint) // 2],
        "a pickle": pickle.dumps({"format": 5}),
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    for name, content in {"a list": [1, 2], "a network": {"weight": torch.ones(2)}}.items():
        torch.save(content, tmp_path / name)
    for name in (*others, "a list", "a network"):
        with pytest.raises(
            ValueError, match=r"expected an? (undamaged )?file of PPO.save"
        ) as refusal:
            PPO.load(tmp_path / name)
        assert str(refusal.value).startswith(f"path is {tmp_path / name}, ")


def with_checksum(content):
    """As a checkpoint ends: the length of a comment, and the SHA-256 of all before it."""
    content = content[:-2] + b"\x40\x00"
    return content + hashlib.sha256(content).hexdigest().encode()


def rewritten(path, change):
    """A checkpoint with other content, and the checksum of that."""
    torch.save(change(torch.load(path)), path)
    path.write_bytes(with_checksum(path.read_bytes()))


def test_a_file_with_the_checksum_of_something_else_is_no_checkpoint_either(tmp_path):
    path = tmp_path / "agent.pt"
    for content in ([1, 2], {"weight": torch.ones(2)}):
        torch.save(content, path)
        path.write_bytes(with_checksum(path.read_bytes()))
        with pytest.raises(ValueError, match=r"^path is .*agent.pt, expected a file of PPO.save$"):
            PPO.load(path)


def test_every_flip_of_a_bit_is_refused(tmp_path):
    path = tmp_path / "agent.pt"
    learned().save(path)
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    # Bits anywhere, and each kind of place: the first bytes, the directory, the comment.
    places = [
        *draw.integers(8 * len(whole), size=150),
        0,
        *range(8 * len(whole) - 700, 8 * len(whole), 7),
    ]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        for load in (load_policy, PPO.load):
            with pytest.raises(
                ValueError, match=r"agent.pt, whose checksum is wrong or missing, ex"
            ):
                load(path)
    path.write_bytes(whole)
    assert PPO.load(path).env_steps == 64


def test_a_file_that_was_cut_off_is_refused_at_any_length(tmp_path):
    path = tmp_path / "agent.pt"
    learned().save(path)
    whole = path.read_bytes()
    for length in (1, 63, 64, 65, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="whose checksum is wrong or missing"):
            PPO.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"agent.pt, which is empty, expected a file of PPO.save"):
        PPO.load(path)


def test_a_file_that_would_run_code_is_refused_before_it_does(tmp_path):
    torch.save({"format": 5, "rows": Trace(tmp_path / "trace")}, tmp_path / "agent.pt")
    written = (tmp_path / "agent.pt").read_bytes()
    (tmp_path / "agent.pt").write_bytes(with_checksum(written))
    with pytest.raises(ValueError, match=r"expected a file of PPO\.save"):
        PPO.load(tmp_path / "agent.pt")
    assert not (tmp_path / "trace").exists()
    torch.load(tmp_path / "agent.pt", weights_only=False)["rows"].close()
    assert (tmp_path / "trace").exists()  # so it was a trap


@pytest.mark.parametrize(
    "name", ["env", "spaces", "own_networks", "config", "policy", "critic", "gamma", "another"]
)
def test_a_forged_file_that_lacks_something_is_refused(name, tmp_path):
    path = tmp_path / "agent.pt"
    PPO("CartPole-v1", SMALL).save(path)

    def forged(state):
        state["config"] |= {"another": 1} if name == "another" else {}
        for part in (state, state["config"]):
            if name != "another":
                part.pop(name, None)
        return state

    rewritten(path, forged)
    for load in (load_policy, PPO.load):
        with pytest.raises(ValueError, match=rf"^path is .*agent.pt, .*'{name}'\]"):
            load(path)


def test_a_forged_space_is_refused_and_forged_episodes_begin_anew(tmp_path):
    path = tmp_path / "agent.pt"
    learned().save(path)
    rewritten(path, lambda state: state | {"running": [{"log": None}]})
    assert PPO.load(path).anew == "the state does not hold all of them"
    rewritten(path, lambda state: state | {"spaces": [["Box", 4], ["Tuple", 2]]})
    with pytest.raises(ValueError, match=r"spaces can.t be read: spaces has 'Tuple', expected one"):
        load_policy(path)


@pytest.mark.parametrize("number", [1, 2, 99, "4"])
def test_a_file_of_another_format_is_refused(number, tmp_path):
    path = tmp_path / "agent.pt"
    PPO("CartPole-v1", SMALL).save(path)
    rewritten(path, lambda state: state | {"format": number})
    with pytest.raises(ValueError, match=f"agent.pt has format {number}, expected 5$"):
        PPO.load(path)


NAMED = {"id": "CartPole-v1", "kwargs": {}, "wrappers": []}
#: Of each part of a state what is of another kind, though the checksum is right.
FORGED = {
    "env": [
        *({}, [], 5, "CartPole-v1", NAMED | {"id": 5}, NAMED | {"kwargs": [1]}),
        *(NAMED | {"wrappers": x} for x in (None, [5], [[5, {}]], [["TimeLimit", [7]]])),
    ],
    "spaces": [None, {}, [], "text", [["Box", 4]], [["Box", 4], ["Discrete"]], [["Box", "a"]] * 2],
    "own_networks": [None, "policy", ["another"], [[]]],
    "config": [None, [], "text", {5: 1}, *({"seed": x} for x in ("1", None)), {"device": 5}],
    "policy": [
        *(None, [], "text", {5: torch.ones(1)}, {"net.0.weight": "text"}),
        {"net.0.weight": torch.ones(8, 4), 5: torch.ones(1)},
    ],
    "critic": [None, [], "text", {5: torch.ones(1)}, {"net.0.weight": "text"}],
    "optimizer": [None, [], "text", {}, {"state": 5, "param_groups": 5}],
    "reward_normalizer": [[], "text", {5: torch.ones(1)}],
    "sums": [5, "text", []],
    "generator": [None, "text", torch.zeros(3)],
    "kl_coef": [None, "1", -1.0, math.nan, math.inf, []],
    "env_steps": [None, "64", 64.0, -1, True, [64]],
    "running": [None, "text", {}, [5], [None], [{}, 5]],
    "rows": [None, "text", {}, [5], [None]],
    "episodes": [None, "text", {}, [5], [(1, 2)], [(64, "2", 3)]],
}
CASES = [(name, value) for name, values in FORGED.items() for value in values]


def test_every_part_of_a_state_has_its_forgeries():
    assert PPO("CartPole-v1", SMALL).state_dict().keys() == FORGED.keys()


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda x: repr(x)[:30])
def test_a_part_of_another_kind_is_refused_by_its_name_and_that_of_the_file(name, value, tmp_path):
    path = tmp_path / "agent.pt"
    PPO("CartPole-v1", NORMALIZED).save(path)
    partly = name == "config" and isinstance(value, dict)
    rewritten(path, lambda state: state | {name: state[name] | value if partly else value})
    loads = [PPO.load]
    if value != {} and name in ("env", "spaces", "own_networks", "config"):
        loads.append(load_policy)
    for load in loads:
        with pytest.raises(ValueError, match=rf"\b{name}\b") as refusal:
            load(path)
        assert "agent.pt" in str(refusal.value) or name == "optimizer"


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda x: repr(x)[:30])
def test_a_trainer_that_a_forged_state_is_given_is_as_it_was(name, value):
    trainer = learned(NORMALIZED)
    before, rows = numbers(trainer), len(trainer.history)
    with pytest.raises(ValueError, match=f"(?s)^state does not fit, .*{name}"):
        trainer.load_state_dict(trainer.state_dict() | {name: value})
    assert_same_numbers(numbers(trainer), before)
    assert len(trainer.history) == rows


@pytest.mark.parametrize("name", ["None", "vector"])
def test_a_wrapper_that_is_none_of_gymnasiums_is_refused_where_it_is_needed(name, tmp_path):
    path = tmp_path / "agent.pt"
    learned().save(path)
    rewritten(path, lambda state: state | {"env": NAMED | {"wrappers": [[name, {}]]}})
    with pytest.raises(ValueError, match=r"^env is .*agent.pt, expected classes of gymnasium.wr"):
        PPO.load(path)
    assert PPO.load(path, env=lambda: gym.make("CartPole-v1")).env_steps == 64
    load_policy(path)


@pytest.mark.parametrize("name", ["log", "obs", "returns", "lengths", "resetting", "sums"])
@pytest.mark.parametrize("vectorization", ["sync", "array"])
def test_forged_numbers_of_running_episodes_begin_anew(name, vectorization, tmp_path):
    path = tmp_path / "agent.pt"
    learned(dataclasses.replace(NORMALIZED, vectorization=vectorization)).save(path)
    assert PPO.load(path).anew == ""
    for value in (torch.ones(1), torch.ones(2, 9), torch.tensor(5), None, "text", [1, 2]):

        def forged(state, value=value):
            if name == "sums":
                return state | {"sums": value}
            return state | {"running": [state["running"][0] | {name: value}]}

        learned(dataclasses.replace(NORMALIZED, vectorization=vectorization)).save(path)
        rewritten(path, forged)
        if name == "sums" and not isinstance(value, torch.Tensor | None):
            continue  # refused, as above
        anew = PPO.load(path).anew
        assert anew in ("the state does not hold all of them", "they were of 1 environments")


@pytest.mark.parametrize("notes", [(1, 2), {1: 2}, {1, 2}, math.nan, abs], ids=str)
def test_arguments_that_would_not_be_read_back_are_refused_before_training(notes):
    with pytest.raises(ValueError, match=r"^env_kwargs is \{'notes': .*, expected what JSON"):
        PPO("tests/OneStep-v0", SMALL, env_kwargs={"notes": notes})


@pytest.mark.parametrize(
    "wrapper",
    [
        lambda env: TimeLimit(env, 7),
        Own,
        partial(TimeLimit, max_episode_steps=7),
        (TransformObservation, {"func": abs, "observation_space": None}),
        (TimeLimit, {"max_episode_steps": (7, 8)}),
        "TimeLimit",
    ],
    ids=["a function", "own", "partial", "a function inside", "a tuple inside", "a word"],
)
def test_wrappers_that_a_file_cannot_name_are_refused_before_training(wrapper):
    with pytest.raises(ValueError, match=r"^wrappers holds .*, expected classes of gymnasium.wr"):
        PPO("CartPole-v1", SMALL, wrappers=[FlattenObservation, wrapper])


def test_a_callable_may_hide_anything_and_is_given_again_when_loaded(tmp_path):
    trainer = learned(SMALL, lambda: Own(gym.make("CartPole-v1")))
    trainer.save(tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=r"^env is None, expected an environment: .*agent.pt does"):
        PPO.load(tmp_path / "agent.pt")
    loaded = PPO.load(tmp_path / "agent.pt", env=lambda: Own(gym.make("CartPole-v1")))
    assert_same_numbers(numbers(loaded), numbers(trainer))
    other = r"env has spaces .*, expected \[\['Box', 4\], \['Discrete', 2\]\] as in .*agent.pt"
    with pytest.raises(ValueError, match=other):
        PPO.load(tmp_path / "agent.pt", env="Acrobot-v1")


def test_wrappers_are_written_by_name_with_their_arguments_and_put_on_again(tmp_path):
    wrappers = [(TimeLimit, {"max_episode_steps": 7}), FlattenObservation]
    trainer = learned(SMALL, wrappers=wrappers)
    trainer.save(tmp_path / "agent.pt")
    loaded = PPO.load(tmp_path / "agent.pt", total_steps=128)
    for env in (*trainer.envs.envs, *loaded.envs.envs):
        # The first one innermost.
        assert type(env) is FlattenObservation
        assert type(env.env) is TimeLimit
    loaded.learn()
    assert {length for _, _, length in loaded.history.episodes} == {7}


def test_no_module_is_imported_because_a_file_names_it(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("import gymnasium\nprint('sprung')\n")
    path = tmp_path / "agent.pt"
    PPO("CartPole-v1", SMALL).save(path)
    rewritten(path, lambda state: state | {"env": state["env"] | {"id": "trap:CartPole-v1"}})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="no module is imported because"):
        PPO.load(path)
    assert "trap" not in sys.modules
    assert PPO.load(path, env="CartPole-v1").env_steps == 0


def test_a_link_stays_a_link_and_its_file_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    link, file = tmp_path / "link.pt", tmp_path / "there" / "agent.pt"
    learned().save(file)
    link.symlink_to(file)
    PPO("CartPole-v1", NORMALIZED).save(link)
    assert link.is_symlink()
    assert PPO.load(file).env_steps == PPO.load(link).env_steps == 0
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["agent.pt", "link.pt", "there"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("no space left")])
def test_an_interrupted_write_leaves_the_older_checkpoint(interruption, tmp_path, monkeypatch):
    path = tmp_path / "agent.pt"
    older = learned()
    older.save(path)

    def torn(_):
        assert len(list(tmp_path.iterdir())) == 2
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", torn)
        with pytest.raises((KeyboardInterrupt, OSError)):
            PPO("CartPole-v1", NORMALIZED).save(path)
    assert_same_numbers(numbers(PPO.load(path)), numbers(older))
    newer = PPO("CartPole-v1", NORMALIZED)
    newer.save(path)
    assert_same_numbers(numbers(PPO.load(path)), numbers(newer))
    assert [p.name for p in tmp_path.iterdir()] == ["agent.pt"]


def test_a_file_has_its_name_only_when_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    seen = []

    def sync(number):
        seen.append((os.fstat(number).st_size, (tmp_path / "agent.pt").exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write_checkpoint(tmp_path / "agent.pt", {})  # so short that all of it has room in a buffer
    assert seen == [((tmp_path / "agent.pt").stat().st_size, False)]


class Pull(gym.Env):
    """Pays for what is pulled; ``bound`` is how far one may."""

    observation_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, bound=1.0):
        self.action_space = gym.spaces.Box(-bound, bound, (1,))

    def reset(self, *, seed=None, options=None):  # noqa: ARG002
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(action[0]), True, False, {}


PULLS = PPOConfig(total_steps=64, num_envs=2, num_steps=8, minibatch_size=8, hidden_sizes=(8,))


def test_a_policy_clips_to_the_bounds_of_the_environment_that_is_there(tmp_path):
    with PPO(Pull, PULLS) as trainer:
        trainer.save(tmp_path / "a.pt")
    with PPO.load(tmp_path / "a.pt", env=lambda: Pull(2.0)) as loaded:
        assert (loaded.policy.low.item(), loaded.policy.high.item()) == (-2, 2)


def test_another_seed_draws_other_numbers(tmp_path):
    with PPO(Pull, PULLS) as trainer:
        trainer.save(tmp_path / "a.pt")
    losses = []
    for seed in (0, 1, 2):
        with PPO.load(tmp_path / "a.pt", env=Pull, seed=seed) as loaded:
            losses.append(loaded.learn()["policy_loss"].tolist())
    assert len({tuple(loss) for loss in losses}) == 3


def test_what_a_checkpoint_names_does_not_change_afterwards():
    kwargs = {"sutton_barto_reward": False}
    config = dataclasses.replace(PULLS, vectorization="sync")
    with PPO("CartPole-v1", config, env_kwargs=kwargs) as trainer:
        kwargs["sutton_barto_reward"] = True
        assert trainer.env_name["kwargs"] == {"sutton_barto_reward": False}


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path):
    with PPO(Pull, PULLS) as trainer:
        trainer.learn(lambda t: t.history.rows[-1].update(mine=np.float32(0.5)))
        trainer.save(tmp_path / "a.pt")
    with PPO.load(tmp_path / "a.pt", env=Pull) as loaded:
        assert loaded.history["mine"].tolist() == [0.5] * 4


def test_random_numbers_of_an_old_kind_do_not_stop_learning():
    class Old(Pull):
        def reset(self, *, seed=None, options=None):  # noqa: ARG002
            self._np_random = np.random.RandomState(0)
            return np.zeros(1, np.float32), {}

    with PPO(Old, PULLS) as trainer:
        assert len(trainer.learn()) == 4
        refusal = "the environment's np_random is not gymnasium's"
        assert trainer.running() == [{"refusal": refusal}]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state["critic"].popitem(), "Missing key"),
        (lambda state: state["critic"].update({"net.3.bias": torch.zeros(7)}), "size mismatch"),
        (lambda state: state.pop("rows"), r"it has no \['rows'\]"),
        (lambda state: state.update(generator=torch.zeros(3, dtype=torch.uint8)), "RNG state"),
        (lambda state: state["optimizer"]["param_groups"].pop(), "different number of param"),
        (lambda state: state.update(reward_normalizer=None), "the state has no reward_normalizer"),
        (lambda state: state.update(rows=7), "rows can.t be read: it is 7"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(spoil, message):
    first, second = learned(NORMALIZED), learned(dataclasses.replace(NORMALIZED, seed=1))
    before, rows = numbers(second), [*second.history.rows]
    state = plain(first.state_dict())
    spoil(state)
    with pytest.raises(ValueError, match=f"(?s)^state does not fit, expected .*: .*{message}"):
        second.load_state_dict(state)
    assert_same_numbers(numbers(second), before)
    assert second.history.rows == rows


def test_a_state_with_rewards_scaled_does_not_fit_a_trainer_that_does_not_scale():
    trainer = learned(dataclasses.replace(NORMALIZED, normalize_rewards=False))
    with pytest.raises(ValueError, match="the trainer has no reward_normalizer"):
        trainer.load_state_dict(learned(NORMALIZED).state_dict())


def test_weights_that_do_not_fit_leave_the_policy_as_it_was(tmp_path):
    class Wide(Two):
        def __init__(self):
            super().__init__()
            self.more = torch.nn.Linear(4, 2)

    trainer = PPO("CartPole-v1", SMALL, policy=Two())
    trainer.save(tmp_path / "agent.pt")
    policy = Wide()
    before = policy.layer.weight.detach().clone()
    for load in (load_policy, PPO.load):
        with pytest.raises(ValueError, match="policy has other weights than"):
            load(tmp_path / "agent.pt", policy=policy)
        assert torch.equal(policy.layer.weight, before)
    assert not plain({"w": policy.layer.weight})["w"].requires_grad


# ------------------------------------------------------------------ what does not fit


class Layers(Policy):
    """Two layers, which stand in this order or in that."""

    def __init__(self, *names, inner=4):
        super().__init__()
        self.dist = Categorical()
        sizes = {"body": (4, inner), "head": (inner, 2)}
        for name in names:
            setattr(self, name, torch.nn.Linear(*sizes[name]))

    def forward(self, obs):
        return self.head(self.body(obs))


@pytest.mark.parametrize("inner", [2, 4])
def test_layers_in_another_order_are_refused_whose_moments_would_be_mixed_up(inner, tmp_path):
    torch.manual_seed(0)
    learned(policy=Layers("body", "head", inner=inner)).save(tmp_path / "a.pt")
    words = r"optimizer: it knows the parameters by their order \['policy.body.weight', .*, expec"
    with pytest.raises(ValueError, match=words):
        PPO.load(tmp_path / "a.pt", policy=Layers("head", "body", inner=inner))
    # Who only acts needs no order.
    load_policy(tmp_path / "a.pt", Layers("head", "body", inner=inner))
    assert PPO.load(tmp_path / "a.pt", policy=Layers("body", "head", inner=inner)).anew == ""


@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq"])
def test_moments_of_another_shape_than_their_parameter_are_refused(moment):
    trainer = learned()
    state, before = trainer.state_dict(), numbers(trainer)
    state["optimizer"]["state"][3][moment] = torch.zeros(3)
    with pytest.raises(ValueError, match=rf"optimizer: {moment} has shape \(3,\), expected \(2,\)"):
        trainer.load_state_dict(state)
    for wrong in (torch.zeros(()), 0.0):  # torch would take the one, and not the other
        state["optimizer"]["state"][3][moment] = wrong
        with pytest.raises(ValueError, match=r"^state does not fit, .*: optimizer: "):
            trainer.load_state_dict(state)
    assert_same_numbers(numbers(trainer), before)


def test_moments_are_a_trainers_own_whatever_they_were_read_from():
    first, second = PPO("CartPole-v1", SMALL), PPO("CartPole-v1", SMALL)
    state = learned().state_dict()
    ones = torch.ones(64)
    state["optimizer"]["state"][0]["exp_avg"] = ones[:1].expand(8, 4)  # one number, 32 times
    for trainer in (first, second):
        trainer.config = dataclasses.replace(SMALL, total_steps=96)
        trainer.load_state_dict(state)
    before = numbers(second)
    first.learn()
    assert torch.equal(ones, torch.ones(64))
    assert_same_numbers(numbers(second), before)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "AdamW", "NAdam"])
def test_another_optimizer_is_kept_and_not_taken_for_adam(name, tmp_path):
    def other():
        trainer = PPO("CartPole-v1", SMALL)
        trainer.optimizer = getattr(torch.optim, name)(trainer.parameters, 1e-2)
        return trainer

    trainer = other()
    trainer.learn()
    trainer.save(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"optimizer: it is of {name}, expected Adam"):
        PPO.load(tmp_path / "a.pt")
    again = other()
    again.load_state_dict(torch.load(tmp_path / "a.pt"))
    assert again.optimizer.param_groups[0]["lr"] == 1e-2
    assert torch.equal(again.parameters[0], trainer.parameters[0])


def test_a_file_need_not_say_whose_optimizer_it_holds(tmp_path):
    trainer = learned()
    assert trainer.state_dict()["optimizer"]["name"] == "Adam"
    trainer.save(tmp_path / "a.pt")

    def unnamed(state):
        del state["optimizer"]["name"], state["optimizer"]["parameters"]
        return state

    rewritten(tmp_path / "a.pt", unnamed)
    assert_same_numbers(numbers(PPO.load(tmp_path / "a.pt")), numbers(trainer))


class Counting(torch.optim.SGD):
    """An optimizer whose state holds more than tensors."""

    def step(self, closure=None):
        super().step(closure)
        self.state["steps"] = self.state.get("steps", 0) + 1


@pytest.mark.parametrize("make", [torch.optim.Adafactor, Counting])
def test_what_another_optimizer_keeps_is_its_own(make):
    trainer = PPO("CartPole-v1", SMALL)
    trainer.optimizer = make(trainer.parameters, 1e-2)
    trainer.learn()
    before = trainer.optimizer.state_dict()["state"]
    trainer.load_state_dict(trainer.state_dict())
    torch.testing.assert_close(trainer.optimizer.state_dict()["state"], before, rtol=0, atol=0)


class Lazy(Policy):
    """Layers that know their width once they have seen an observation."""

    dist = Categorical()

    def __init__(self):
        super().__init__()
        layers = torch.nn.LazyLinear(8), torch.nn.Tanh(), torch.nn.LazyLinear(2)
        self.net = torch.nn.Sequential(*layers)

    def forward(self, obs):
        return self.net(obs)


def test_lazy_layers_are_loaded(tmp_path):
    trainer = learned(policy=Lazy())
    trainer.save(tmp_path / "a.pt")
    assert_same_numbers(numbers(PPO.load(tmp_path / "a.pt", policy=Lazy())), numbers(trainer))
    obs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(load_policy(tmp_path / "a.pt", Lazy())(obs), trainer.policy(obs))


class Renamed(Layers):
    """Layers whose body was once called a trunk."""

    def _load_from_state_dict(self, state, *args):
        for key in [key for key in state if key.startswith("trunk.")]:
            state["body" + key.removeprefix("trunk")] = state.pop(key)
        super()._load_from_state_dict(state, *args)


def test_the_order_of_keys_is_not_that_of_parameters_and_names_may_change():
    trainer = learned(policy=Renamed("body", "head"))
    before, state = numbers(trainer), trainer.state_dict()
    state["policy"] = dict(sorted(state["policy"].items(), reverse=True))
    trainer.load_state_dict(state)
    trunk = {key.replace("body", "trunk"): x for key, x in state["policy"].items()}
    known = [x.replace("body", "trunk") for x in state["optimizer"]["parameters"]]
    trainer.load_state_dict(
        state | {"policy": trunk, "optimizer": state["optimizer"] | {"parameters": known}}
    )
    assert_same_numbers(numbers(trainer), before)


def test_a_network_that_was_given_to_a_refused_load_is_as_it_was(tmp_path):
    learned(policy=Layers("body", "head")).save(tmp_path / "a.pt")
    own = Layers("body", "head")
    before = {name: x.clone() for name, x in own.state_dict().items()}

    def narrow():
        env = gym.make("CartPole-v1")
        env.action_space = Discrete(2, dtype=np.int32)
        return env

    with pytest.raises(ValueError, match=r"^env has spaces"):
        PPO.load(tmp_path / "a.pt", policy=own, env=narrow)
    assert_same_numbers(own.state_dict(), before)


class Loss(enum.StrEnum):
    CLIP = "clip"


class Number(enum.IntEnum):
    SEVEN = 7


class Half(float):
    """A float of somebody's own."""


def test_numbers_and_words_of_other_types_are_kept_as_pythons_own(tmp_path):
    config = dataclasses.replace(SMALL, loss=Loss.CLIP, seed=Number.SEVEN, gamma=Half(0.5))
    trainer = learned(config)
    Place = namedtuple("Place", "x y")
    notes = {np.int64(1): [Loss.CLIP, (Number.SEVEN, None)], "at": Place(Half(0.5), np.bool_(True))}
    more = [{1, 2}, 1j, b"a", torch.float32, torch.device("cpu")]
    trainer.history.rows[-1] |= {"notes": notes, "more": more}
    trainer.kl_coef = torch.tensor(0.5)
    trainer.save(tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt")
    assert state["rows"][-1]["notes"] == {1: ["clip", (7, None)], "at": (0.5, True)}
    assert state["rows"][-1]["more"] == more
    kinds = [type(state["config"][name]) for name in ("loss", "seed", "gamma")]
    assert (kinds, type(state["kl_coef"])) == ([str, int, float], float)
    loaded = PPO.load(tmp_path / "a.pt")
    assert (loaded.config.loss, loaded.config.seed, loaded.kl_coef) == ("clip", 7, 0.5)


@pytest.mark.parametrize("x", [Path("a"), frozenset(), np.datetime64("2001-01-01"), deque(), abs])
def test_what_would_not_be_read_back_is_refused_before_a_file_is_written(x, tmp_path):
    trainer = learned()
    trainer.history.rows[-1]["x"] = [x]
    with pytest.raises(ValueError, match=r"is a \w+, which no checkpoint holds, expected tensors,"):
        trainer.save(tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())
    trainer.load_state_dict(learned().state_dict())  # in which there is no such row
    trainer.save(tmp_path / "a.pt")


def test_a_network_whose_numbers_come_from_the_file_may_hold_any_before(tmp_path):
    def own():
        return CategoricalPolicy(4, 2, (4,), torch.Generator().manual_seed(1))

    critic = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    trainer = PPO("CartPole-v1", SMALL, policy=own(), critic=critic)
    trainer.save(tmp_path / "a.pt")
    empty, critic = own(), torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    for parameter in (*empty.parameters(), *critic.parameters()):
        parameter.data.fill_(math.nan)
    loaded = PPO.load(tmp_path / "a.pt", policy=empty, critic=critic)
    assert_same_numbers(numbers(loaded), numbers(trainer))


def test_bounds_of_an_own_gaussian_policy_stay_its_own(tmp_path):
    def own(bound):
        policy = GaussianPolicy(3, 1, (4,), torch.Generator().manual_seed(1))
        policy.low.fill_(-bound)
        policy.high.fill_(bound)
        return policy

    PPO("Pendulum-v1", SMALL, policy=own(2.0)).save(tmp_path / "a.pt")
    loaded = PPO.load(tmp_path / "a.pt", policy=own(1.0))
    assert (loaded.policy.low.item(), loaded.policy.high.item()) == (-1.0, 1.0)


def test_a_price_of_kl_that_has_become_0_is_kept(tmp_path):
    trainer = learned(KL)
    trainer.kl_coef = 0.0
    trainer.save(tmp_path / "a.pt")
    assert PPO.load(tmp_path / "a.pt").kl_coef == 0


def test_the_file_is_an_archive_whose_comment_is_the_checksum_of_all_before(tmp_path):
    learned().save(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None
        comment = archive.comment
    before = (tmp_path / "a.pt").read_bytes()[:-64]
    assert comment.decode() == hashlib.sha256(before).hexdigest()

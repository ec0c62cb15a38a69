"""Checkpoints: what is written is read back to the bit, and nothing else is taken for one."""

import dataclasses
import math
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.wrappers import FlattenObservation

from ppo_lib import PPO, PPOConfig, evaluate
from ppo_lib.checkpoint import load_checkpoint, save_checkpoint

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
    """One step an episode; copy i, seeded with i, shows cos i at its start; best is a = 1/2.

    Between two steps nothing is left of an episode, so that training goes on to the same bits
    when its environments are made anew.
    """

    observation_space, action_space = Box(-2, 2, (2,)), Box(-2, 2, (1,))

    def __init__(self, notes=None):
        self.notes = notes

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        if seed is not None:
            self.place = np.array([math.cos(seed), 1], dtype=np.float32)
        return self.place.copy(), {}

    def step(self, action):
        return self.place.copy(), -float((action[0] - 0.5) ** 2), True, False, {}


class Trace:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


gym.register("tests/OneStep-v0", OneStep)


def learned(config=SMALL, env_id="CartPole-v1", **env_kwargs):
    trainer = PPO(env_id, config, **env_kwargs)
    trainer.learn()
    return trainer


def numbers(trainer):
    """A copy of every tensor and number that training depends on, by name."""
    kept = {"generator": trainer.generator.get_state(), "vector": trainer.optimizer.vector}
    for name in ("policy", "critic", "optimizer", "reward_normalizer"):
        part = getattr(trainer, name)
        if part is not None:
            kept |= {f"{name}.{key}": x for key, x in part.state_dict().items()}
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
    trainer = learned(config, env_id, **kwargs)
    before = numbers(trainer)
    earned = evaluate(trainer.policy, env_id, num_episodes=3, seed=5, **kwargs)
    save_checkpoint(trainer, tmp_path / "agent.pt")
    assert_same_numbers(numbers(trainer), before)
    loaded = load_checkpoint(tmp_path / "agent.pt")
    assert_same_numbers(numbers(loaded), before)
    assert_same_history(loaded.history, trainer.history)
    assert (loaded.config, loaded.env_id, loaded.env_kwargs) == (config, env_id, kwargs)
    again = evaluate(loaded.policy, env_id, num_episodes=3, seed=5, **loaded.env_kwargs)
    assert torch.equal(again, earned)


def test_the_round_trip_has_something_to_keep():
    # Otherwise the test above would also pass for numbers that never left their first values.
    before, after = numbers(PPO("Pendulum-v1", KL)), numbers(learned(KL, "Pendulum-v1"))
    assert before.keys() == after.keys()
    assert [name for name, x in after.items() if torch.equal(x, before[name])] == []


def test_a_loaded_trainer_shares_nothing_with_the_file_or_the_first(tmp_path):
    trainer = learned(NORMALIZED)
    save_checkpoint(trainer, tmp_path / "agent.pt")
    before = numbers(trainer)
    load_checkpoint(tmp_path / "agent.pt", total_steps=128).learn()
    assert_same_numbers(numbers(trainer), before)
    assert_same_numbers(numbers(load_checkpoint(tmp_path / "agent.pt")), before)


def test_the_environment_gets_its_arguments_back(tmp_path):
    notes = {"a": [1, 2.5, "b", True, None], "c": {"d": -1e-300}}
    save_checkpoint(PPO("tests/OneStep-v0", SMALL, notes=notes), tmp_path / "agent.pt")
    loaded = load_checkpoint(tmp_path / "agent.pt")
    assert loaded.env_kwargs == {"notes": notes}
    assert [env.unwrapped.notes for env in loaded.envs.envs] == [notes] * 4


def test_the_file_is_read_without_running_code(tmp_path):
    save_checkpoint(learned(KL), tmp_path / "agent.pt")
    state = torch.load(tmp_path / "agent.pt", weights_only=True)
    kinds = {type(number) for row in state["rows"] for number in row.values()}
    assert kinds <= {int, float}
    assert {type(number) for episode in state["episodes"] for number in episode} == {int, float}


def test_numbers_of_numpy_in_a_configuration_are_read_back_too(tmp_path):
    config = dataclasses.replace(KL, kl_coef=np.float64(0.5), learning_rate=np.float64(1e-3))
    trainer = learned(config)
    save_checkpoint(trainer, tmp_path / "agent.pt")
    assert load_checkpoint(tmp_path / "agent.pt").config == config


def test_folders_on_the_way_are_made_and_nothing_else_is_left_there(tmp_path):
    path = tmp_path / "some" / "where" / "agent.pt"
    save_checkpoint(PPO("CartPole-v1", SMALL), str(path))
    assert [p.name for p in path.parent.iterdir()] == ["agent.pt"]
    assert load_checkpoint(str(path)).env_steps == 0


# ------------------------------------------------------------------ training goes on


@pytest.mark.parametrize("name", CONFIGS)
def test_training_that_was_saved_goes_on_to_the_same_bits(name, tmp_path):
    config = dataclasses.replace(CONFIGS[name], total_steps=160, anneal_clip_range=True)
    whole = learned(config, "tests/OneStep-v0")
    stopped = PPO("tests/OneStep-v0", config)
    stopped.learn(lambda trainer: trainer.env_steps == 96)
    save_checkpoint(stopped, tmp_path / "agent.pt")
    loaded = load_checkpoint(tmp_path / "agent.pt")
    assert loaded.env_steps == 96
    loaded.learn()
    assert (loaded.env_steps, len(loaded.history)) == (160, 5)
    assert_same_numbers(numbers(loaded), numbers(whole))
    assert_same_history(loaded.history, whole.history, without=["steps_per_second"])


def test_a_longer_training_can_be_asked_for(tmp_path):
    save_checkpoint(learned(dataclasses.replace(SMALL, learning_rate=0.01)), tmp_path / "agent.pt")
    done = load_checkpoint(tmp_path / "agent.pt")
    assert len(done.learn()) == 2
    longer = load_checkpoint(tmp_path / "agent.pt", total_steps=128)
    longer.learn()
    assert longer.history["env_steps"].tolist() == [32, 64, 96, 128]
    # Of two updates, then of four.
    assert longer.history["learning_rate"].tolist() == pytest.approx([0.01, 0.005, 0.005, 0.0025])


def test_what_does_not_shape_the_networks_can_be_changed(tmp_path):
    save_checkpoint(learned(NORMALIZED), tmp_path / "agent.pt")
    changes = {"num_envs": 8, "gamma": 0.5, "loss": "kl", "total_steps": 320, "hidden_sizes": (8,)}
    loaded = load_checkpoint(tmp_path / "agent.pt", **changes)
    assert loaded.config == dataclasses.replace(NORMALIZED, **changes)
    assert loaded.reward_normalizer.gamma == 0.5
    assert loaded.learn()["env_steps"].tolist() == [32, 64, 192, 320]


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
    save_checkpoint(PPO("CartPole-v1", SMALL), tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=f"^{message}"):
        load_checkpoint(tmp_path / "agent.pt", **change)


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "agent.pt", tmp_path):
        with pytest.raises(FileNotFoundError) as refusal:
            load_checkpoint(path)
        assert str(refusal.value) == f"path is {path}, where no file is; expected a checkpoint"


def test_a_change_of_what_is_no_field_is_refused_by_name(tmp_path):
    save_checkpoint(PPO("CartPole-v1", SMALL), tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=r"^nonsense is 1, expected no such field; .* gamma, "):
        load_checkpoint(tmp_path / "agent.pt", nonsense=1)


def test_another_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "agent.pt"
    save_checkpoint(PPO("CartPole-v1", SMALL), path)
    checkpoint = path.read_bytes()
    others = {
        "empty": b"",
        "text": b"not a checkpoint\n",
        "cut off": checkpoint[: len(checkpoint) // 2],
        "a pickle": pickle.dumps({"format": 2}),
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    for name, content in {"a list": [1, 2], "a network": {"weight": torch.ones(2)}}.items():
        torch.save(content, tmp_path / name)
    for name in (*others, "a list", "a network"):
        with pytest.raises(ValueError, match=r"expected a file of save_checkpoint$") as refusal:
            load_checkpoint(tmp_path / name)
        assert str(refusal.value).startswith(f"path is {tmp_path / name}, ")


def test_a_file_that_would_run_code_is_refused_before_it_does(tmp_path):
    torch.save({"format": 2, "rows": Trace(tmp_path / "trace")}, tmp_path / "agent.pt")
    with pytest.raises(ValueError, match="expected a file of save_checkpoint"):
        load_checkpoint(tmp_path / "agent.pt")
    assert not (tmp_path / "trace").exists()
    torch.load(tmp_path / "agent.pt", weights_only=False)["rows"].close()
    assert (tmp_path / "trace").exists()  # so it was a trap


@pytest.mark.parametrize("number", [1, 99, "2"])
def test_a_file_of_another_format_is_refused(number, tmp_path):
    path = tmp_path / "agent.pt"
    save_checkpoint(PPO("CartPole-v1", SMALL), path)
    torch.save(torch.load(path) | {"format": number}, path)
    with pytest.raises(ValueError, match=f"agent.pt has format {number}, expected 2$"):
        load_checkpoint(path)


def test_arguments_that_a_file_cannot_hold_are_refused_and_the_older_file_stays(tmp_path):
    path = tmp_path / "agent.pt"
    save_checkpoint(PPO("CartPole-v1", SMALL), path)
    older = path.read_bytes()
    wrapped = PPO("CartPole-v1", SMALL, wrappers=[FlattenObservation])
    with pytest.raises(ValueError, match=r"^env_kwargs is \{'wrappers': .*, expected what JSON"):
        save_checkpoint(wrapped, path)
    assert path.read_bytes() == older
    assert [p.name for p in tmp_path.iterdir()] == ["agent.pt"]


@pytest.mark.parametrize("notes", [(1, 2), {1: 2}])
def test_arguments_that_would_be_read_back_as_others_are_refused(notes, tmp_path):
    with pytest.raises(ValueError, match=r"^env_kwargs is "):
        save_checkpoint(PPO("tests/OneStep-v0", SMALL, notes=notes), tmp_path / "agent.pt")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("no space left")])
def test_an_interrupted_write_leaves_the_older_checkpoint(interruption, tmp_path, monkeypatch):
    path = tmp_path / "agent.pt"
    older = learned()
    save_checkpoint(older, path)

    def torn(_, file):
        with open(file, "wb") as opened:  # noqa: PTH123  (torch.save takes any path, too)
            opened.write(b"half of it")
        raise interruption

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", torn)
        with pytest.raises((KeyboardInterrupt, OSError)):
            save_checkpoint(PPO("CartPole-v1", NORMALIZED), path)
    assert_same_numbers(numbers(load_checkpoint(path)), numbers(older))
    newer = PPO("CartPole-v1", NORMALIZED)
    save_checkpoint(newer, path)
    assert_same_numbers(numbers(load_checkpoint(path)), numbers(newer))
    assert [p.name for p in tmp_path.iterdir()] == ["agent.pt"]

"""The exact world as an environment that is sampled."""

import os
import signal
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

from ppo_lib import PPO, PPOConfig
from ppo_lib.envs import close_envs, make_envs, processes_told
from ppo_lib.exact.env import MDPEnv
from ppo_lib.exact.mdp import MDP, ridge


def test_gymnasium_finds_no_fault_with_it():
    check_env(gym.make("ppo_lib/Ridge-v0").unwrapped, skip_render_check=True)


def test_what_is_sampled_is_what_the_transition_matrix_says():
    env, world = MDPEnv(ridge()), ridge()
    counts = torch.zeros(14, 3, 14, dtype=torch.float64)
    state, _ = env.reset(seed=0)
    for action in np.random.default_rng(0).integers(3, size=15_000):
        following, reward, terminated, truncated, _ = env.step(action)
        counts[state, action, following] += 1
        assert reward == world.reward[state, action, following]
        assert terminated == world.terminal[following]
        assert not truncated
        state = env.reset()[0] if terminated else following
    n = counts.sum(-1, keepdim=True)
    assert (n[~world.terminal] > 100).all()
    assert (n[world.terminal] == 0).all()
    p = world.transition[~world.terminal]
    n = n[~world.terminal]
    # Five standard errors, and nothing at all where the probability is 0.
    margin = 5 * (p * (1 - p) / n).sqrt()
    assert ((counts[~world.terminal] / n - p).abs() <= margin).all()


def test_the_first_state_is_drawn_from_the_start_distribution():
    world = MDP(
        states=("a", "b", "c", "end"),
        actions=("go",),
        start=torch.tensor([0.2, 0.0, 0.8, 0.0], dtype=torch.float64),
        transition=torch.tensor([[[0, 0, 0, 1.0]]] * 3 + [[[0] * 4]], dtype=torch.float64),
        reward=torch.zeros(4, 1, 4, dtype=torch.float64),
        terminal=torch.tensor([False, False, False, True]),
    )
    env = MDPEnv(world)
    drawn = [env.reset(seed=0)[0]] + [env.reset()[0] for _ in range(1999)]
    assert set(drawn) == {0, 2}
    # The standard error of the share is √(0.2 · 0.8 / 2000) = 0.0089.
    assert abs(drawn.count(0) / 2000 - 0.2) < 0.045


def test_without_slip_an_episode_is_what_the_actions_say():
    env = gym.make("ppo_lib/Ridge-v0", slip=0.0)
    names = env.unwrapped.mdp.states
    assert names[env.reset(seed=0)[0]] == "start"
    # left, up, right, left: 1L, 2L, 3M, 4L.
    steps = [env.step(action) for action in (0, 1, 2, 0)]
    assert [names[state] for state, *_ in steps] == ["1L", "2L", "3M", "4L"]
    assert [reward for _, reward, *_ in steps] == [2.0, 0.0, 0.0, 10.0]
    assert [terminated for _, _, terminated, *_ in steps] == [False, False, False, True]


def test_one_seed_gives_the_same_episodes():
    def episode(seed):
        env = gym.make("ppo_lib/Ridge-v0", slip=0.9)
        states = [env.reset(seed=seed)[0]]
        while True:
            state, _, terminated, _, _ = env.step(1)
            states.append(state)
            if terminated:
                return states

    assert episode(3) == episode(3)
    assert len({tuple(episode(seed)) for seed in range(20)}) > 5


@pytest.mark.parametrize("action", [3, -1, 1.0, "up"])
def test_an_action_that_is_none_is_refused(action):
    env = MDPEnv(ridge())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action is .*, expected an integer from 0 to 2"):
        env.step(action)


def test_a_slip_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match="slip is 2, expected"):
        gym.make("ppo_lib/Ridge-v0", slip=2)


def test_make_envs_makes_as_many_as_asked_and_passes_arguments_on():
    envs = make_envs("ppo_lib/Ridge-v0", 3, env_kwargs={"slip": 0.5})
    assert envs.num_envs == 3
    assert envs.metadata["autoreset_mode"] == gym.vector.AutoresetMode.DISABLED
    # Up from the start: the middle with probability 1 - 0.5, either side with 0.25.
    p = envs.envs[2].unwrapped.mdp.transition[0, 1]
    assert p[1:4].tolist() == pytest.approx([0.25, 0.5, 0.25])


@pytest.mark.parametrize("num_envs", [0, -1])
def test_no_environment_at_all_is_refused(num_envs):
    with pytest.raises(ValueError, match=f"num_envs is {num_envs}, expected at least 1"):
        make_envs("CartPole-v1", num_envs)


def test_a_step_after_the_end_is_refused():
    env = gym.make("ppo_lib/Ridge-v0").unwrapped
    env.reset(seed=0)
    while not env.step(1)[2]:
        pass
    with pytest.raises(ValueError, match=r"^state is .*over: call reset"):
        env.step(1)


# ------------------------------------------------------------------ vectors


@pytest.mark.parametrize("made", [None, 3, SyncVectorEnv([lambda: gym.make("CartPole-v1")])])
def test_a_callable_that_makes_no_environment_is_refused(made):
    for vectorization in ("sync", "async"):
        with pytest.raises(ValueError, match=r"^env has made .*, expected an environment$"):
            make_envs(lambda: made, 2, vectorization=vectorization)


@pytest.mark.parametrize("wrappers", [gym.wrappers.FlattenObservation, "FlattenObservation"])
def test_a_wrapper_that_is_in_no_list_is_refused(wrappers):
    for make in (make_envs, lambda env, _, **more: PPO(env, **more)):
        with pytest.raises(ValueError, match=r"^wrappers is .*, expected a list: \["):
            make("CartPole-v1", 2, wrappers=wrappers)


@pytest.mark.parametrize(
    ("env", "more", "message"),
    [
        ("Acrobot-v1", {"vectorization": "array"}, "vectorization is 'array', expected 'sync' or"),
        (lambda: gym.make("CartPole-v1"), {"vectorization": "array"}, "vectorization is 'array'"),
        (
            "CartPole-v1",
            {"vectorization": "array", "wrappers": [gym.wrappers.FlattenObservation]},
            "vectorization is 'array', .* with 1 wrappers",
        ),
        ("CartPole-v1", {"vectorization": "fast"}, "vectorization is 'fast', expected 'sync', 'a"),
        (lambda: gym.make("CartPole-v1"), {"env_kwargs": {"g": 1}}, "env_kwargs is {'g': 1}, exp"),
    ],
)
def test_what_does_not_go_together_is_refused(env, more, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_envs(env, 2, **more)


def test_wrappers_are_put_on_from_the_inside_out_with_their_arguments():
    limit = (gym.wrappers.TimeLimit, {"max_episode_steps": 3})
    envs = make_envs("Pendulum-v1", 2, wrappers=[limit, gym.wrappers.FlattenObservation])
    assert isinstance(envs.envs[1], gym.wrappers.FlattenObservation)
    assert isinstance(envs.envs[1].env, gym.wrappers.TimeLimit)
    envs.reset(seed=0)
    ends = [envs.step(np.zeros((2, 1), np.float32))[3].tolist() for _ in range(3)]
    assert ends == [[False] * 2, [False] * 2, [True] * 2]


def test_in_processes_the_same_is_seen():
    seen = []
    for vectorization in ("sync", "async"):
        envs = make_envs("CartPole-v1", 2, vectorization=vectorization)
        obs = [envs.reset(seed=3)[0].copy()]
        obs += [envs.step(np.array([0, 1]))[0].copy() for _ in range(3)]
        seen.append(np.stack(obs))
        envs.close()
    assert np.array_equal(*seen)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_this_process_goes_on_hearing_signals(vectorization):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        close_envs(make_envs("CartPole-v1", 2, vectorization=vectorization))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


class Deaf(gym.Env):
    """Observes which of two signals its process ignores."""

    observation_space, action_space = gym.spaces.Box(0, 1, (2,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        handlers = [signal.getsignal(x) for x in (signal.SIGINT, signal.SIGHUP)]
        return np.array([x is signal.SIG_IGN for x in handlers], np.float32), {}


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_processes_of_environments_leave_signals_to_the_one_that_ends_them(vectorization):
    before = {x: signal.signal(x, signal.SIG_DFL) for x in (signal.SIGINT, signal.SIGHUP)}
    envs = make_envs(Deaf, 1, vectorization=vectorization)
    try:
        assert envs.reset(seed=0)[0].tolist() == [[float(vectorization == "async")] * 2]
    finally:
        close_envs(envs)
        for number, handler in before.items():
            signal.signal(number, handler)


class Slow(gym.Env):
    """A step with action 1 takes a minute."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        time.sleep(60 * int(action))
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_an_error_of_another_kind_stays_what_it_was(vectorization):
    envs = make_envs("CartPole-v1", 2, vectorization=vectorization)
    try:
        with pytest.raises(OSError, match="a disk"), processes_told(envs):
            raise OSError("a disk")  # and every process lives
    finally:
        close_envs(envs)


@pytest.mark.parametrize("gone", ["SIGINT", "SIGHUP", "SIGTERM", "in the midst"])
def test_environments_in_processes_are_closed_whatever_became_of_them(gone, monkeypatch):
    envs = make_envs(Slow, 2, vectorization="async")
    envs.reset(seed=0)
    processes = list(envs.processes)
    if gone == "in the midst":
        envs.step_async(np.array([0, 1]))
        envs.parent_pipes[0].recv()  # and here, say, an interruption came
        close, asked = envs.close, []

        def impatient(timeout):
            asked.append(timeout)
            close(timeout=0.1)

        monkeypatch.setattr(envs, "close", impatient)
        with pytest.warns(UserWarning, match="while waiting for a pending call"):
            close_envs(envs)
        assert asked == [5]
    else:
        for process in processes:
            os.kill(process.pid, getattr(signal, gone))
        if gone == "SIGTERM":
            processes[0].join()
        else:  # is no matter of theirs
            assert envs.step(np.zeros(2, np.int64))[0].shape == (2, 1)
        close_envs(envs)
    assert not any(process.is_alive() for process in processes)
    assert envs.closed


def test_the_process_of_an_environment_that_has_ended_is_named():
    config = PPOConfig(
        vectorization="async", num_envs=2, num_steps=8, minibatch_size=8, total_steps=64
    )
    with PPO("CartPole-v1", config) as trainer:
        process = trainer.envs.processes[1]
        os.kill(process.pid, signal.SIGKILL)
        process.join()  # else it may die before or after it is sent an action
        with pytest.raises(RuntimeError, match=r"^processes of env.* have ended, .* \{1: -9\}$"):
            trainer.learn()


def test_what_was_opened_is_closed_where_a_later_environment_cannot_be_made():
    opened = []

    class Few(Slow):
        def __init__(self):
            if len(opened) == 2:
                raise RuntimeError("there is no third one")
            opened.append(self)
            self.times_closed = 0

        def close(self):
            self.times_closed += 1

    with pytest.raises(RuntimeError, match=r"^there is no third one$"):
        make_envs(Few, 4)
    assert [env.times_closed for env in opened] == [1, 1]

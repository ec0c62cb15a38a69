"""The command line: what it writes, prints and refuses, and how it stops."""

import ast
import dataclasses
import errno
import inspect
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from PIL import Image, ImageSequence

from ppo_lib import PPO, PPOConfig, best, evaluate, load_policy
from ppo_lib.checkpoint import read_checkpoint, write_checkpoint
from ppo_lib.config import settings
from ppo_lib.shell import command as shell
from ppo_lib.shell import film, keep

#: Two updates of 15 steps.
SHORT = (
    *("--total-steps", "31", "--num-envs", "3", "--num-steps", "5"),
    *("--minibatch-size", "5", "--num-epochs", "1"),
)

#: Another value than the default one, for every field; ``device`` has none that works everywhere.
OTHERS = {
    "total_steps": 31,
    "num_envs": 3,
    "vectorization": "sync",
    "num_steps": 5,
    "num_epochs": 2,
    "minibatch_size": 7,
    "learning_rate": 1e-3,
    "anneal_learning_rate": False,
    "gamma": 0.91,
    "gae_lambda": 0.81,
    "loss": "kl",
    "clip_range": 0.31,
    "anneal_clip_range": True,
    "kl_coef": 0.7,
    "adaptive_kl_target": 0.02,
    "target_kl": 0.5,
    "normalize_advantages": False,
    "normalize_obs": False,
    "normalize_rewards": True,
    "vf_coef": 0.25,
    "value_clip_range": 0.4,
    "ent_coef": 0.01,
    "max_grad_norm": 0.9,
    "hidden_sizes": (5, 6, 7),
    "seed": 11,
    "num_threads": 2,
}
FIELDS = [field.name for field in dataclasses.fields(PPOConfig)]


def option(name, value=True):
    """The words that give a field of the configuration a value."""
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", *map(str, value if isinstance(value, tuple) else [value])]


def docstrings(cls):
    """The string under each field, from the source."""
    (node,) = ast.parse(inspect.getsource(cls)).body
    return {
        field.target.id: text.value.value
        for field, text in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def words_of(text):
    """Its words in a row, without the lines of the boxes that they are printed in."""
    return " ".join(re.sub("[─│╭╮╰╯]", " ", text).split())


@pytest.fixture(autouse=True)
def _as_it_was(tmp_path, monkeypatch):
    """Run in an empty folder, and undo what a process of its own need not undo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    handler, threads = signal.getsignal(signal.SIGINT), torch.get_num_threads()
    yield
    signal.signal(signal.SIGINT, handler)
    torch.set_num_threads(threads)


@pytest.fixture
def command(monkeypatch, capsys):
    """``command(*words)``: exit status and what was printed to stdout and stderr.

    An error that a process would print a traceback of is an error here.
    """

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ppo_lib", *map(str, words)])
        try:
            status = shell.main()
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


def an_agent(path, env_id="CartPole-v1", **changes):
    config = dataclasses.replace(PPOConfig(), total_steps=512, hidden_sizes=(4,), **changes)
    trainer = PPO(env_id, config)
    trainer.save(path)
    return trainer


def play_by_hand(policy, seed, **kwargs):
    """One greedy episode of CartPole in plain gymnasium: what it pays, and its pictures."""
    env = gym.make("CartPole-v1", **kwargs)
    (obs, _), total, over = env.reset(seed=seed), 0.0, False
    pictures = [env.render()] if kwargs else []
    while not over:
        with torch.no_grad():
            action = policy(torch.tensor(obs)).argmax().item()
        obs, reward, terminated, truncated, _ = env.step(action)
        pictures += [env.render()] if kwargs else []
        total, over = total + float(reward), terminated or truncated
    env.close()
    return total, pictures


# ------------------------------------------------------------------ training


def test_training_says_where_the_checkpoint_is_and_that_file_evaluates(command, tmp_path):
    status, out, err = command("CartPole-v1", *SHORT, "--total-steps", "255")
    assert (status, err) == (0, "")
    steps, mean, where = out.splitlines()
    assert re.fullmatch(r"255 steps, [\d,]+ a second", steps)
    assert re.fullmatch(r"mean return of the last 20 episodes: \d+\.\d", mean)
    path = tmp_path / where.removeprefix("checkpoint: ")
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*.pt*")] == [
        path.relative_to(tmp_path)
    ]
    assert re.fullmatch(r"CartPole-v1-\d{8}-\d{6}\.pt", path.name)
    trainer = PPO.load(path)
    assert (trainer.env_steps, len(trainer.history)) == (255, 17)
    returns = [r for _, r, _ in trainer.history.episodes]
    assert 0 < len(returns) <= 20
    assert mean.endswith(f" {np.mean(returns):.1f}")
    status, out, _ = command("evaluate", path, "--episodes", 2)
    assert status == 0
    assert out.startswith("CartPole-v1: mean return ")


def test_the_trained_agent_is_the_one_that_the_library_trains(command):
    command("Pendulum-v1", *SHORT, "--seed", 3, "--checkpoint", "a.pt")
    names = ("total_steps", "num_envs", "num_steps", "minibatch_size", "num_epochs", "seed")
    config = dataclasses.replace(
        settings("Pendulum-v1"), **dict(zip(names, (31, 3, 5, 5, 1, 3), strict=True))
    )
    alone = PPO("Pendulum-v1", config)
    alone.learn()
    kept = PPO.load("a.pt")
    for a, b in zip(kept.parameters, alone.parameters, strict=True):
        assert torch.equal(a, b)


def test_an_environment_of_a_namespace_makes_no_folder_of_its_own(command, tmp_path):
    gym.register("tests/Shell-v0", "gymnasium.envs.classic_control:CartPoleEnv")
    try:
        assert command("tests/Shell-v0", *SHORT)[0] == 0
    finally:
        del gym.registry["tests/Shell-v0"]
    (path,) = tmp_path.rglob("*.pt")
    assert path.parent == tmp_path / "checkpoints"
    assert path.name.startswith("tests-Shell-v0-")


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"])
def test_python_and_the_command_line_have_the_same_defaults(env_id, command, monkeypatch):
    options = []
    monkeypatch.setattr(shell, "train", lambda _, given, **__: options.append(given) or 0)
    assert command(env_id)[0] == 0
    trainer = PPO(env_id)
    assert options[0].config == trainer.config == settings(env_id)
    # In threads too: as many as the configuration says while it learns, in both.
    outside, inside = torch.get_num_threads(), []
    torch.set_num_threads(outside + 1)
    trainer.learn(lambda _: inside.append(torch.get_num_threads()) or True)
    assert inside == [trainer.config.num_threads] == [1]
    assert torch.get_num_threads() == outside + 1


def test_threads_are_put_back_when_learning_fails():
    torch.set_num_threads(3)
    small = PPOConfig(num_envs=2, num_steps=2, minibatch_size=4, total_steps=4, num_threads=2)
    trainer = PPO("CartPole-v1", small)
    with pytest.raises(KeyError, match="stop with 2"), trainer:
        trainer.learn(lambda _: {}[f"stop with {torch.get_num_threads()}"])
    assert torch.get_num_threads() == 3


def test_every_option_arrives(command):
    assert sorted([*OTHERS, "device"]) == sorted(FIELDS)
    defaults = settings("CartPole-v1")
    assert [name for name in OTHERS if OTHERS[name] == getattr(defaults, name)] == []
    words = [word for name, value in OTHERS.items() for word in option(name, value)]
    path = "some/where/else.pt"
    status, out, _ = command("CartPole-v1", *words, "--device", "cpu", "--checkpoint", path)
    assert status == 0
    assert out.endswith(f"\ncheckpoint: {path}\n")
    assert PPO.load(path).config == PPOConfig(**OTHERS)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"])
def test_what_is_not_given_is_what_suits_the_environment(env_id, command):
    steps = settings(env_id).batch_size
    command(env_id, "--total-steps", steps, "--checkpoint", "a.pt")
    expected = dataclasses.replace(settings(env_id), total_steps=steps)
    assert PPO.load("a.pt").config == expected


@pytest.fixture
def written(monkeypatch):
    """The steps of every checkpoint that is written."""
    steps, write = [], keep.write_checkpoint

    def watched(path, state):
        write(path, state)
        steps.append(state["env_steps"])

    monkeypatch.setattr(keep, "write_checkpoint", watched)
    return steps


def test_a_checkpoint_is_kept_at_once_after_the_first_update_and_at_the_end(command, written):
    command("CartPole-v1", *SHORT, "--total-steps", "45", "--checkpoint", "a.pt")
    assert written[:2] == [0, 15]
    assert written[-1] == 45
    assert PPO.load("a.pt").env_steps == 45


def test_a_checkpoint_is_kept_as_often_as_is_asked_for(command, written, monkeypatch):
    monkeypatch.setattr(keep, "SAVE_EVERY", 0.0)
    command("CartPole-v1", *SHORT)
    assert written == [0, 15, 30]


def test_what_is_kept_of_a_history_does_not_cost_more_the_longer_it_is(tmp_path):
    class Rows(list):
        def __iter__(self):
            raise AssertionError("the history was gone through")

    trainer = PPO("CartPole-v1", PPOConfig(total_steps=1024))
    keeper = keep.Keeper(trainer, tmp_path / "a.pt", {}, new=True)
    trainer.learn(lambda _: True)
    rows, trainer.history.rows = trainer.history.rows, Rows(trainer.history.rows)
    keeper(trainer)
    # What comes later is not in the file, which is of that moment.
    trainer.history.rows = rows
    keeper(trainer)
    trainer.learn()
    assert keeper.write()
    kept = PPO.load(tmp_path / "a.pt")
    assert (kept.env_steps, kept.history.rows) == (512, rows[:1])
    assert kept.history.episodes == [e for e in trainer.history.episodes if e[0] == 512]


def test_it_is_time_at_doubling_times_and_then_every_minute(monkeypatch):
    for first, expected in (
        (0.0, [1, 2, 4, 8, 16, 32, 64, 124, 184]),
        (10.0, [10, 20, 40, 80, 140]),
    ):
        now = [0.0]
        monkeypatch.setattr(keep.time, "monotonic", lambda now=now: now[0])
        due, times = keep._now_and_then(first, 60.0), []
        for now[0] in range(1, 200):
            if due():
                times.append(now[0])
        assert times == expected


def test_once_a_run_has_lasted_so_long_it_is_kept_and_told_every_minute():
    assert (keep.SAVE_EVERY, keep.LOG_EVERY, keep.FIRST_LINE) == (60, 60, 10)


@pytest.mark.parametrize("more", [[], ["--eval-every", "15", "--eval-episodes", "1"]])
def test_runs_that_begin_in_one_second_have_files_of_their_own(
    more, command, tmp_path, monkeypatch
):
    monkeypatch.setattr(shell.time, "strftime", lambda _: "20010203-040506")
    said = [command("CartPole-v1", *SHORT, *more, "--seed", seed)[1] for seed in range(3)]
    names = [f"checkpoints/CartPole-v1-20010203-040506{x}.pt" for x in ("", "-2", "-3")]
    assert [out.splitlines()[-1] for out in said] == [f"checkpoint: {name}" for name in names]
    assert [PPO.load(name).config.seed for name in names] == [0, 1, 2]
    names += [name.replace(".pt", ".best.pt") for name in names if more]
    assert sorted(tmp_path.rglob("*.p*t")) == sorted(tmp_path / name for name in names)


def test_a_best_agent_that_is_there_is_not_written_over(command, tmp_path):
    (tmp_path / "a.best.pt").write_text("mine")
    words = ["--checkpoint", "a.pt", "--eval-every", "15", "--eval-episodes", "1"]
    status, _, err = command("CartPole-v1", *SHORT, *words)
    assert (status, err[:39]) == (2, "error: checkpoint is a.best.pt, which i")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.best.pt", "mine")]


def test_one_of_many_that_claim_a_file_at_once_gets_it(tmp_path):
    trainer = PPO("CartPole-v1", PPOConfig(total_steps=512))

    def claim(_):
        try:
            keep.Keeper(trainer, tmp_path / "a.pt", {}, new=True)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_file_where_the_folder_of_checkpoints_would_be_is_told(command, tmp_path):
    (tmp_path / "checkpoints").write_text("mine")
    status, out, err = command("CartPole-v1", *SHORT)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"error: \[Errno \d+\] .*checkpoints.*\n", err)


@pytest.mark.parametrize("path", ["text/a.pt", "text/b/a.pt"])
def test_where_nothing_can_be_written_nothing_is_trained(path, command, monkeypatch, tmp_path):
    # No folder can be made of a file, whoever asks for it.
    (tmp_path / "text").write_text("")
    monkeypatch.setattr(PPO, "learn", lambda *_, **__: pytest.fail("it was trained"))
    status, out, err = command("CartPole-v1", *SHORT, "--checkpoint", path)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"error: \[Errno \d+\] .*text.*\n", err)


def test_a_disk_that_is_full_at_the_start_is_noticed_before_training(
    command, monkeypatch, tmp_path
):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(PPO, "learn", lambda *_, **__: pytest.fail("it was trained"))
    status, _, err = command("CartPole-v1", *SHORT, "--checkpoint", "new/a.pt")
    assert (status, err) == (2, "error: [Errno 28] No space left on device\n")
    assert list(tmp_path.iterdir()) == []


class Failing(gym.Env):
    """Episodes of three steps; its step number ``at`` raises, and without one they never end."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, at=None, error=ValueError):
        self.at, self.error, self.taken = at, error, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def step(self, action):  # noqa: ARG002  (gymnasium's own form)
        self.taken += 1
        if self.taken == self.at:
            raise self.error("of the environment")
        return np.zeros(1, np.float32), 1.0, self.at is not None and self.taken % 3 == 0, False, {}


for error in (ValueError, OSError, SystemExit, RuntimeError):
    for at in (2, 8):
        name = f"tests/{error.__name__}{at}-v0"
        gym.register(name, Failing, kwargs={"at": at, "error": error})
gym.register("tests/Endless-v0", Failing)


class Far(Failing):
    """Its actions are far from those of a policy that starts."""

    action_space = gym.spaces.Box(-500, 500, (1,))


gym.register("tests/Far-v0", Far)


def test_an_environment_that_goes_to_another_folder_takes_nothing_with_it(command, tmp_path):
    (tmp_path / "away").mkdir()

    class Leaves(CartPoleEnv):
        def step(self, action):
            os.chdir(tmp_path / "away")
            return super().step(action)

    gym.register("Leaves-v0", Leaves, max_episode_steps=9)
    try:
        words = ["--checkpoint", "in/a.pt", "--eval-every", 15, "--eval-episodes", 1]
        status, out, _ = command("Leaves-v0", *SHORT, *words)
    finally:
        os.chdir(tmp_path)
        del gym.registry["Leaves-v0"]
    assert status == 0
    assert "best agent: in/a.best.pt, mean" in out
    assert out.endswith("checkpoint: in/a.pt\n")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == [tmp_path / "in/a.best.pt", tmp_path / "in/a.pt"]
    assert read_checkpoint("in/a.pt")["env_steps"] == 30


@pytest.mark.parametrize("error", ["ValueError", "OSError", "SystemExit", "RuntimeError"])
def test_an_error_of_the_environment_keeps_its_traceback_and_says_how_to_go_on(error, command):
    status, out, err = command(f"tests/{error}8-v0", *SHORT, "--checkpoint", "a.pt")
    assert (status, out) == (1, "")
    assert "Traceback" in err
    assert 'raise self.error("of the environment")' in err
    *_, said, last = err.splitlines()
    assert said == f"{error}: of the environment"
    assert last == "failed after 15 steps: --resume a.pt goes on from 15"
    assert PPO.load("a.pt").env_steps == 15


def test_training_that_fails_before_anything_is_learned_leaves_nothing(command, tmp_path):
    status, out, err = command("tests/ValueError2-v0", *SHORT)
    assert (status, out) == (1, "")
    assert "ValueError: of the environment" in err
    last = "failed in the first update: nothing was learned, and nothing is kept"
    assert err.splitlines()[-1] == last
    assert list(tmp_path.iterdir()) == []


def test_the_words_that_go_on_name_an_environment_of_a_module(command, monkeypatch):
    def fails(self, rollout):
        if self.env_steps == 15:
            raise OSError
        return update(self, rollout)

    update, module = PPO.update, "gymnasium.envs.classic_control:CartPole-v1"
    with monkeypatch.context() as patch:
        patch.setattr(PPO, "update", fails)
        last = command(module, *SHORT, "--checkpoint", "a.pt")[2].splitlines()[-1]
    assert last == f"failed after 15 steps: {module} --resume a.pt goes on from 15"
    assert command(*last.split(": ")[1].removesuffix(" goes on from 15").split())[0] == 0
    assert PPO.load("a.pt", env=module).env_steps == 30


def test_an_evaluation_that_fails_loses_no_update(command, monkeypatch):
    def endless(*_, **__):
        raise ValueError("an episode that goes on")

    monkeypatch.setattr(best, "evaluate", endless)
    words = ("tests/Endless-v0", *SHORT, "--checkpoint", "a.pt", "--eval-every", 15)
    status, _, err = command(*words)
    assert status == 1
    assert err.splitlines()[-1] == "failed after 15 steps: --resume a.pt goes on from 15"
    trainer = PPO.load("a.pt")
    assert (trainer.env_steps, len(trainer.history)) == (15, 1)


def test_a_second_run_of_one_file_is_refused(command, tmp_path):
    an_agent("a.pt")
    (tmp_path / "link.pt").symlink_to("a.pt")
    hold = f"""
import sys
from pathlib import Path
from ppo_lib.shell.keep import locked
with locked(Path({str(tmp_path / "a.pt")!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        for path in ("a.pt", "link.pt"):
            status, out, err = command("--resume", path)
            assert (status, out) == (2, "")
            assert err == (
                f"error: checkpoint is {path}, which another run is kept in: wait for its end, or "
                "name another file with --checkpoint\n"
            )
        # From the same file another one may go on.
        assert command("--resume", "a.pt", "--checkpoint", "b.pt")[0] == 0
        process.kill()  # after which a lock is nobody's
        process.wait()
        assert (tmp_path / "a.pt.lock").exists()
        assert command("--resume", "a.pt")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "b.pt", "link.pt"]


@pytest.mark.skipif(keep.fcntl is None, reason="there are no locks on Windows")
@pytest.mark.parametrize("again", [False, True])
def test_a_lock_that_its_run_removes_while_it_is_taken_is_not_had(again, tmp_path, monkeypatch):
    # What is locked then is a file without a name, and a third run would lock another one.
    path, lock, take = tmp_path / "a.pt", tmp_path / "a.pt.lock", keep.fcntl.lockf

    def late(file, how):
        lock.rename(tmp_path / "gone")
        if again:
            lock.touch()
        take(file, how)

    monkeypatch.setattr(keep.fcntl, "lockf", late)
    with pytest.raises(FileExistsError, match="which another run is kept in"):  # noqa: SIM117
        with keep.locked(path):
            pass


def test_a_lock_that_somebody_removes_ends_no_run(tmp_path):
    with keep.locked(tmp_path / "a.pt"):
        for lock in tmp_path.glob("*.lock"):
            lock.unlink()
    assert not list(tmp_path.iterdir())


def test_a_run_that_trains_has_its_file_for_itself(command, monkeypatch, tmp_path):
    seen, update = [], PPO.update

    def watched(self, rollout):
        seen.append((tmp_path / "a.pt.lock").exists())
        return update(self, rollout)

    monkeypatch.setattr(PPO, "update", watched)
    assert command("CartPole-v1", *SHORT, "--checkpoint", "a.pt")[0] == 0
    assert command("--resume", "a.pt", "--total-steps", 46)[0] == 0
    assert seen == [True] * 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_reader_that_is_gone_ends_nothing():
    script = f"{sys.executable} -m ppo_lib CartPole-v1 {' '.join(SHORT)} --checkpoint a.pt"
    env = os.environ | {"PYTHONUNBUFFERED": "1"}  # prints at once, into a pipe that nobody reads
    done = subprocess.run(
        ["bash", "-c", f"{script} 2>said | true; echo ${{PIPESTATUS[0]}}; cat said"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[0] == "0", done.stdout
    assert "rror" not in done.stdout


def _closed():
    return None


def _full():
    return Path("/dev/full").open("w")


def _gone():
    """A terminal that somebody has closed."""
    there, here = os.openpty()
    os.close(there)
    return os.fdopen(here, "w")


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /dev/full")
@pytest.mark.parametrize("stdout", [_closed, _full, _gone])
def test_training_that_nobody_can_hear_of_has_the_status_of_its_own(stdout, command, monkeypatch):
    statuses = []
    # What an evaluation says is all that there is of it.
    for words in (["CartPole-v1", *SHORT, "--checkpoint"], ["evaluate", "--episodes", 1]):
        monkeypatch.setattr(sys, "stdout", stdout())
        status, _, err = command(*words, "a.pt")
        sys.stdout.close()
        assert ("[Errno" in err) == (stdout is not _closed)
        statuses.append(status)
    assert statuses == [0, 0 if stdout is _closed else 2]
    assert PPO.load("a.pt").env_steps == 30


def test_training_needs_no_stderr(command, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    status, out, _ = command("CartPole-v1", *SHORT, "--checkpoint", "a.pt")
    sys.stderr.close()
    assert (status, out.splitlines()[-1]) == (0, "checkpoint: a.pt")


def test_what_was_learned_is_kept_when_a_gradient_is_not_finite(command, monkeypatch):
    before, gradient = [], PPO.gradient

    def fails_in_the_second_update(trainer, minibatch):
        step = gradient(trainer, minibatch)
        before.append([p.detach().clone() for p in trainer.parameters])
        if len(before) == 5:
            trainer.parameters[0].grad.fill_(math.nan)
        return step

    monkeypatch.setattr(PPO, "gradient", fails_in_the_second_update)
    status, _, err = command("CartPole-v1", *SHORT, "--checkpoint", "a.pt")
    assert status == 1
    *_, said, last = err.splitlines()
    assert said.startswith("ValueError: the gradient has length nan")
    assert last == "failed after 15 steps: --resume a.pt goes on from 15"
    trainer = PPO.load("a.pt")
    assert trainer.env_steps == 15
    # As they were after the first update of three steps, and not in the midst of the second.
    for a, b in zip(trainer.parameters, before[3], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(before[3][0], before[4][0])


@pytest.mark.parametrize("vectorization", ["array", "async"])
def test_ctrl_c_stops_after_the_update_and_leaves_a_checkpoint(vectorization, tmp_path):
    words = ["CartPole-v1", "--total-steps", "100000000", "--checkpoint", "a.pt"]
    words += ["--vectorization", vectorization, "--num-envs", "4"]
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "ppo_lib", *words, "--tensorboard", "events"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            # The events of the first update make the file longer than its head.
            until = time.monotonic() + 600
            while sum(p.stat().st_size for p in tmp_path.glob("events/*")) < 500:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < until
                time.sleep(0.05)
            assert PPO.load("a.pt").env_steps >= 0  # the first one is written before training
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to environments as well
            out, err = process.communicate(timeout=600)
            with pytest.raises(ProcessLookupError):
                os.killpg(process.pid, 0)  # no process of an environment is left
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGINT
    assert all(re.match(r"[\d,]+ of 99,999,744 steps, ", line) for line in err.splitlines())
    trainer = PPO.load("a.pt")
    assert 0 < trainer.env_steps < 100_000_000
    assert trainer.env_steps == trainer.config.batch_size * len(trainer.history)
    assert out.startswith(f"{trainer.env_steps:,} steps, ")
    assert out.endswith("\nstopped by SIGINT: --resume a.pt goes on\ncheckpoint: a.pt\n")
    assert not list(tmp_path.glob("*.part"))


# ------------------------------------------------------------------ going on


def test_a_longer_training_is_asked_for_in_the_same_file_and_another(command):
    command("CartPole-v1", *SHORT, "--checkpoint", "a.pt", "--seed", 5)
    status, out, err = command("--resume", "a.pt", "--total-steps", "60", "--checkpoint", "b.pt")
    assert (status, err) == (0, "a.pt: 30 of 60 steps; it goes on with another total_steps\n")
    assert out.endswith("\ncheckpoint: b.pt\n")
    assert [PPO.load(name).env_steps for name in ("a.pt", "b.pt")] == [30, 60]
    status, out, err = command("CartPole-v1", "--resume", "a.pt", "--total-steps=4.5e1")
    assert (status, err) == (0, "a.pt: 30 of 45 steps; it goes on with another total_steps\n")
    kept = PPO.load("a.pt")
    assert (kept.env_steps, kept.config.total_steps, kept.config.seed) == (45, 45, 5)
    assert command("--resume", "a.pt")[2] == "a.pt: 45 of 45 steps; --total-steps asks for more\n"
    status, _, err = command("--resume", "a.pt", "--num-envs", "1", "--total-steps", "60")
    assert status == 0
    another = "another total_steps, num_envs, in new episodes: they were of 3 environments"
    assert err == f"a.pt: 45 of 60 steps; it goes on with {another}\n"
    *_, err = command("--resume", "a.pt", "--total-steps", 90, "--seed", 7)
    assert err == "a.pt: 60 of 90 steps; it goes on with another total_steps, seed\n"


def test_where_the_file_names_no_environment_it_is_not_said_to_be_the_same(command):
    config = PPOConfig(total_steps=60, num_envs=3, num_steps=10, minibatch_size=30)
    trainer = PPO(lambda: gym.make("CartPole-v1", max_episode_steps=50), config)
    trainer.learn(lambda _: True)
    trainer.save("a.pt")
    status, _, err = command("CartPole-v1", "--resume", "a.pt")
    assert status == 0
    assert err.startswith("a.pt: 30 of 60 steps; it goes on in CartPole-v1, since it names no env")


@pytest.mark.parametrize(
    "forged",
    [
        *(None, [], "text", {"another": 1}, {"eval_every": "500"}, {"eval_episodes": None}),
        {"tensorboard": 5},
    ],
    ids=str,
)
def test_forged_options_of_a_run_are_refused_by_name(forged, command):
    trainer = an_agent("a.pt")
    write_checkpoint("a.pt", trainer.state_dict() | {"options": forged})
    status, _, err = command("--resume", "a.pt")
    assert status == 2
    assert err.startswith(f"error: path is a.pt, whose options are {forged!r}, expected eval_every")


def test_the_best_agent_is_kept_beside_the_last(command, monkeypatch):
    means = iter([1.0, 7.0, 3.0, 5.0])
    monkeypatch.setattr(best, "evaluate", lambda *_, **__: torch.tensor([next(means)]))
    words = ("--total-steps", 90, "--eval-every", 30, "--checkpoint", "a.pt")
    _, out, _ = command("CartPole-v1", *SHORT, *words)
    assert "\nbest agent: a.best.pt, mean return 7.0 at 60 steps\n" in out
    assert [PPO.load(name).env_steps for name in ("a.best.pt", "a.pt")] == [60, 90]
    seen = PPO.load("a.pt").history["evaluation"]
    np.testing.assert_array_equal(seen, [math.nan, 1, math.nan, 7, math.nan, 3])
    # It is remembered what was asked for, and which was the best.
    _, out, _ = command("--resume", "a.pt", "--total-steps", 120)
    assert "\nbest agent: a.best.pt, mean return 7.0 at 60 steps\n" in out
    assert [PPO.load(name).env_steps for name in ("a.best.pt", "a.pt")] == [60, 120]


def test_a_run_that_goes_on_elsewhere_takes_its_best_agent_with_it(command, monkeypatch):
    means = iter([7.0, 1.0, 3.0])
    monkeypatch.setattr(best, "evaluate", lambda *_, **__: torch.tensor([next(means)]))
    command("CartPole-v1", *SHORT, "--eval-every", 15, "--checkpoint", "a.pt")
    words = ("--resume", "a.pt", "--total-steps", 45)
    _, out, _ = command(*words, "--checkpoint", "b.pt")
    assert "\nbest agent: b.best.pt, mean return 7.0 at 15 steps\n" in out
    assert PPO.load("b.best.pt").env_steps == 15
    # Who asks for none any more is told of none.
    status, out, _ = command(*words, "--eval-every", "None")
    assert (status, "best agent" in out) == (0, False)


def test_a_run_that_goes_on_writes_its_history_to_where_it_did(command, tmp_path):
    words = ("--tensorboard", "logs", "--checkpoint", "a.pt")
    assert command("CartPole-v1", *SHORT, *words)[0] == 0
    assert len(list((tmp_path / "logs").iterdir())) == 1
    assert command("--resume", "a.pt", "--total-steps", 45)[0] == 0
    assert len(list((tmp_path / "logs").iterdir())) == 2


@pytest.mark.parametrize("which", ["last", "best"])
def test_an_agent_that_could_not_be_kept_has_the_status_of_a_failure(which, command, monkeypatch):
    kept = {"last": keep.Keeper, "best": best.KeepBest}[which]
    monkeypatch.setattr(kept, "write", lambda _: False)
    words = ("--eval-every", 1000, "--eval-episodes", 1, "--checkpoint", "a.pt")
    assert command("CartPole-v1", *SHORT, *words)[0] == 1


def test_evaluations_change_nothing_of_what_is_learned(command):
    for name, more in {"a.pt": (), "b.pt": ("--eval-every", 15, "--eval-episodes", 2)}.items():
        command("CartPole-v1", *SHORT, "--checkpoint", name, *more)
    first, second = PPO.load("a.pt"), PPO.load("b.pt")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))
    assert torch.equal(first.generator.get_state(), second.generator.get_state())
    policy = second.policy if second.history["evaluation"].argmax() else load_policy("b.best.pt")
    earned = evaluate(policy, "CartPole-v1", num_episodes=2, seed=1_000_000)
    assert earned.mean().item() == second.history["evaluation"].max()


def test_the_best_agent_that_could_not_be_written_is_written_later(tmp_path):
    trainer = PPO("CartPole-v1", PPOConfig(total_steps=1024))
    (tmp_path / "folder").write_text("")
    callback = best.KeepBest(tmp_path / "folder" / "a.pt", 1, num_episodes=2)
    with pytest.warns(UserWarning, match="the best agent, at 512 steps, is not kept: "):
        trainer.learn(callback, lambda _: True)
    with pytest.warns(UserWarning, match="is not kept: "):
        assert not callback.write()
    (tmp_path / "folder").unlink()
    assert callback.write()
    assert callback.write()  # there is nothing left to be written
    assert PPO.load(tmp_path / "folder" / "a.pt").env_steps == 512


def test_two_of_them_have_columns_of_their_own(tmp_path, monkeypatch):
    found = {"CartPole-v1": iter([5.0, 9.0]), "CartPole-v0": iter([7.0, 6.0])}
    monkeypatch.setattr(best, "evaluate", lambda _, env, **__: torch.tensor([next(found[env])]))
    trainer = PPO("CartPole-v1", PPOConfig(total_steps=1024))
    first = best.KeepBest(tmp_path / "a.pt", 1)
    second = best.KeepBest(tmp_path / "b.pt", 1, env="CartPole-v0", column="on another")
    trainer.learn(first, second)
    assert trainer.history["evaluation"].tolist() == [5, 9]
    assert trainer.history["on another"].tolist() == [7, 6]
    kept = [PPO.load(tmp_path / name).env_steps for name in ("a.pt", "b.pt")]
    assert kept == [1024, 512]
    assert best.best_evaluation(trainer.history, "on another") == (512, 7.0)
    again = best.KeepBest(tmp_path / "c.pt", 1, column="on another")
    with pytest.raises(ValueError, match="column is 'on another', which the history has from else"):
        again(trainer)


def test_the_best_agent_is_looked_for_where_the_environment_is_of_a_module(tmp_path):
    module = "gymnasium.envs.classic_control:CartPole-v1"
    with PPO(module, PPOConfig(total_steps=512)) as trainer:
        trainer.learn(best.KeepBest(tmp_path / "a.pt", 1, num_episodes=1))
    assert PPO.load(tmp_path / "a.pt", env=module).env_steps == 512


def test_nothing_is_left_of_the_processes_of_environments(command):
    words = ("--vectorization", "async", "--checkpoint", "a.pt")
    assert command("CartPole-v1", *SHORT, *words)[0] == 0
    assert multiprocessing.active_children() == []


def test_what_a_killed_run_has_left_of_a_file_is_gone(command, tmp_path):
    command("CartPole-v1", *SHORT, "--checkpoint", "a.pt")
    for name in ("a.pt.0123abcd.part", "b.pt.0123abcd.part"):
        (tmp_path / name).touch()
    assert command("--resume", "a.pt", "--total-steps", 45)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt.0123abcd.part"]


def test_a_file_that_is_gone_is_removed_without_a_word(tmp_path):
    keeper = keep.Keeper(PPO("CartPole-v1"), tmp_path / "new" / "a.pt", {}, new=True)
    keeper.path.unlink()
    keeper.remove()
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_is_told_and_so_is_the_next_that_does_not(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    keeper = keep.Keeper(PPO("CartPole-v1"), tmp_path / "a.pt", {}, new=True)
    keeper.take(PPO("CartPole-v1"))
    with monkeypatch.context() as patch:
        patch.setattr(keep, "write_checkpoint", full)
        assert not keeper.write()
    assert keeper.write()
    assert keeper.write()
    assert capsys.readouterr().err == (
        "checkpoint: not written at 0 steps: [Errno 28] No space left on device\n"
        "checkpoint: written again at 0 steps\n"
    )


@pytest.mark.skipif(keep.fcntl is None, reason="there are no locks on Windows")
def test_a_file_system_without_locks_keeps_no_run_from_its_file(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(keep.fcntl, "lockf", unsupported)
    with keep.locked(tmp_path / "a.pt"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("disabled", [False, True])
def test_a_line_is_said_where_no_bar_is_drawn(terminal, disabled, monkeypatch, capsys):
    monkeypatch.setattr(keep, "FIRST_LINE", 0.0)
    monkeypatch.setattr(keep, "LOG_EVERY", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if disabled:
        monkeypatch.setenv("TQDM_DISABLE", "1")
    trainer = PPO("CartPole-v1", PPOConfig(total_steps=512))
    trainer.learn(keep.log(), show_progress=False)
    assert bool(capsys.readouterr().err) == (disabled or not terminal)


def test_away_from_a_terminal_a_line_now_and_then_says_how_far_it_is(command, monkeypatch):
    monkeypatch.setattr(keep, "LOG_EVERY", 0.0)
    _, _, err = command("CartPole-v1", *SHORT)
    lines = err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["15 of 30 steps", "30 of 30 steps"]
    assert re.fullmatch(
        r"30 of .* [\d,]+ a second, mean return of the last 20 episodes: .*", lines[1]
    )


def test_general_settings_and_an_id_without_a_version_are_told(command):
    steps = ("--total-steps", 512)
    assert command("Acrobot-v1", *steps)[2] == (
        "Acrobot-v1: general settings, since no better ones are known\n"
    )
    status, _, err = command("Pendulum", *SHORT, "--checkpoint", "a.pt")
    assert (status, err) == (0, "Pendulum: taken as Pendulum-v1\n")
    assert PPO.load("a.pt").env_name["id"] == "Pendulum-v1"
    assert settings("Pendulum") == settings("Pendulum-v1")


def test_states_by_number_are_trained_in_and_evaluated(command):
    words = ("--total-steps", "1_024", "--minibatch-size=6.4e1", "--checkpoint", "a.pt")
    assert command("ppo_lib/Ridge-v0", *words)[0] == 0
    assert PPO.load("a.pt").config.minibatch_size == 64
    status, out, _ = command("evaluate", "a.pt", "--episodes", 2)
    assert (status, out[:29]) == (0, "ppo_lib/Ridge-v0: mean return")


def test_a_world_of_one_process_needs_no_more_names(command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert command("CartPole-v1", *SHORT)[0] == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, err = command("CartPole-v1", *SHORT)
    assert status == 2
    assert re.fullmatch(r"error: .*RANK expected, but not set\n", err)


# ------------------------------------------------------------------ help


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_without_a_command_it_says_how_it_is_used(words, command):
    status, out, err = command(*words)
    assert (status, err) == (0, "")
    assert out == shell.USAGE
    assert out.count("python -m ppo_lib ") == 4
    assert all(word in out for word in ("ENV_ID", "evaluate CHECKPOINT", "--resume", "--help"))


def test_help_names_every_field_with_its_docstring_and_its_default_there(command):
    status, out, _ = command("Pendulum-v1", "--help")
    assert status == 0
    found, texts = words_of(out), docstrings(PPOConfig)
    assert list(texts) == FIELDS
    places = []
    for name, text in texts.items():
        value = getattr(settings("Pendulum-v1"), name)
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        said = f"{words_of(text)} (default: {shown})"
        assert said in found, said
        named = re.search(rf" {option(name)[0]}[ ,]", found)
        assert named, name
        assert named.start() < found.index(said)
        places.append(found.index(said))
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("cls", "words"),
    [(shell.Train, ["CartPole-v1", "--help"]), (shell.Evaluate, ["evaluate", "--help"])],
)
def test_help_says_what_every_other_option_is(cls, words, command):
    status, out, _ = command(*words)
    assert status == 0
    texts = docstrings(cls)
    assert len(texts) >= 5
    for name, text in texts.items():
        assert words_of(text) in words_of(out)
        assert (
            f"{option(name)[0]} " in out
            or (cls, name) == (shell.Evaluate, "checkpoint")
            or name == "draw"
        )


# ------------------------------------------------------------------ evaluation and films


def test_evaluation_prints_the_mean_and_the_range(command):
    trainer = an_agent("a.pt", seed=2)
    returns = [play_by_hand(trainer.policy, seed)[0] for seed in range(5, 9)]
    assert min(returns) < max(returns)
    _, out, err = command("evaluate", "a.pt", "--episodes", 4, "--seed", 5)
    assert out == (
        f"CartPole-v1: mean return {np.mean(returns):.1f} over 4 episodes, "
        f"from {min(returns):.1f} to {max(returns):.1f}\n"
    )
    assert err == ""


def test_an_environment_that_the_file_does_not_name_has_to_be_named(command):
    config = PPOConfig(total_steps=512, hidden_sizes=(4,))
    PPO(lambda: gym.make("CartPole-v1"), config).save("none.pt")
    module = "gymnasium.envs.classic_control:CartPole-v1"
    an_agent("module.pt", module)
    for name, env_id in (("none.pt", "CartPole-v1"), ("module.pt", module)):
        status, _, err = command("evaluate", name, "--episodes", 1)
        assert (status, err[:12]) == (2, "error: env i")
        status, out, _ = command("evaluate", name, "--episodes", 1, "--env", env_id)
        assert (status, out.split(":")[0]) == (0, env_id.split(":")[0])


def test_what_is_not_asked_for_is_as_the_help_and_the_pages_say():
    told = {"episodes": 20, "seed": 10_000, "draw": False, "env": None, "film": None}
    assert vars(shell.Evaluate(Path("a.pt"))) == {"checkpoint": Path("a.pt")} | told
    told = {"resume": None, "eval_every": None, "eval_episodes": 20, "tensorboard": None}
    expected = {"checkpoint": Path("a.pt"), "config": PPOConfig()} | told
    assert vars(shell.Train(Path("a.pt"))) == expected


def test_evaluation_plays_20_episodes_from_seed_10000_on(command):
    trainer = an_agent("a.pt", seed=2)
    returns = [play_by_hand(trainer.policy, seed)[0] for seed in range(10_000, 10_020)]
    _, out, _ = command("evaluate", "a.pt")
    assert f" {np.mean(returns):.1f} over 20 episodes, from {min(returns):.1f} to " in out


def test_actions_can_be_drawn_instead(command):
    # A fresh policy draws left and right alike: 20 to 25 steps on average, at best 60 or so.
    # Greedy, it takes one side and falls within 12.
    an_agent("a.pt", seed=2)
    numbers = []
    for words in ([], ["--draw"], ["--draw"], ["--draw", "--seed", "1"]):
        _, out, _ = command("evaluate", "a.pt", "--episodes", "100", *words)
        numbers.append(re.search(r"return ([\d.]+) over 100 .* to ([\d.]+)$", out).groups())
    greedy, drawn, again, other = (tuple(map(float, pair)) for pair in numbers)
    assert 18 < drawn[0] < 27
    assert drawn[1] > 30
    assert drawn == again != other
    assert greedy != drawn


def test_an_agent_is_not_evaluated_in_a_world_of_other_states(command):
    an_agent("a.pt", "FrozenLake8x8-v1")
    # The 16 states of the small lake have numbers that the agent of the large one knows.
    status, out, err = command("evaluate", "a.pt", "--env", "FrozenLake-v1", "--episodes", 1)
    assert (status, out) == (2, "")
    assert "whose spaces are [['Discrete', 16], ['Discrete', 4]], expected [['Discrete', 64]" in err


def test_evaluation_uses_the_arguments_of_the_environment(command):
    trainer = PPO("Pendulum-v1", PPOConfig(total_steps=512), env_kwargs={"g": 0.0})
    trainer.save("a.pt")
    _, out, _ = command("evaluate", "a.pt", "--episodes", 1, "--seed", 3)
    env, total, over = gym.make("Pendulum-v1", g=0.0), 0.0, False
    obs, _ = env.reset(seed=3)
    while not over:
        action = trainer.policy.net(torch.tensor(obs)).detach().numpy().clip(-2, 2)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
    printed = float(re.search(r"mean return (\S+) over 1 episodes", out).group(1))
    assert printed == pytest.approx(total, rel=1e-3, abs=0.06)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_a_film_shows_one_more_episode_from_its_first_picture_to_its_last(suffix, command):
    trainer = an_agent("a.pt", seed=2)
    total, pictures = play_by_hand(trainer.policy, 4, render_mode="rgb_array")
    path = f"film{suffix}"
    words = ("--episodes", 1, "--seed", 4, "--film", path)
    status, out, err = command("evaluate", "a.pt", *words)
    assert (status, err) == (0, "")
    assert len(pictures) == total + 1
    assert out.splitlines()[1:] == [f"film: {path}, {len(pictures)} frames"]
    with Image.open(path) as film:
        frames, durations = [], []
        for frame in ImageSequence.Iterator(film):
            frames.append(np.asarray(frame.convert("RGB"), dtype=float))
            durations.append(frame.info["duration"])
        assert film.is_animated
        assert film.info["loop"] == 0
    # CartPole draws 50 pictures a second; equal ones may be kept as one that lasts longer.
    assert sum(durations) == 20 * len(pictures)
    assert len(frames) > 1
    exact = suffix == ".png"
    for shown, drawn in ((frames[0], pictures[0]), (frames[-1], pictures[-1])):
        assert shown.shape == drawn.shape
        assert np.abs(shown - drawn).mean() <= (0 if exact else 2)
    assert np.abs(frames[0] - pictures[-1]).mean() > 2


class Darkening(gym.Env):
    """Three steps, each of which makes its picture 50 darker; no word of its speed."""

    metadata: dict = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (gymnasium's own form)
    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def __init__(self, first=250, render_mode=None):
        self.first, self.render_mode = first, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.shade = self.first
        return np.zeros(1, np.float32), {}

    def step(self, action):  # noqa: ARG002
        self.shade -= 50
        return np.zeros(1, np.float32), 0.0, self.shade == self.first - 150, False, {}

    def render(self):
        return np.full((8, 8, 3), self.shade, np.uint8)


gym.register("tests/Darkening-v0", Darkening)


@pytest.mark.filterwarnings("ignore:.*No render fps was declared")
@pytest.mark.parametrize("numbers", [{"first": 200}, None])
def test_a_film_has_every_picture_of_the_environment_that_is_named(numbers, tmp_path, monkeypatch):
    make, made = film.make_envs, []

    def watched(*args, **kwargs):
        made.append(make(*args, **kwargs))
        return made[0]

    monkeypatch.setattr(film, "make_envs", watched)
    path, env_id = tmp_path / "a.png", "tests/Darkening-v0"
    policy = an_agent(tmp_path / "a.pt", env_id).policy
    assert film.save_film(policy, env_id, path, seed=4, env_kwargs=numbers) == 4
    with Image.open(path) as pictures:
        shown = [
            (int(np.asarray(picture.convert("L")).mean()), picture.info["duration"])
            for picture in ImageSequence.Iterator(pictures)
        ]
    first = 200 if numbers else 250
    assert [shade for shade, _ in shown] == [first, first - 50, first - 100, first - 150]
    assert [lasts for _, lasts in shown] == pytest.approx([1000 / 30] * 4, abs=0.1)
    (envs,) = made
    assert envs.num_envs == 1
    assert envs.closed


# ------------------------------------------------------------------ refusals


REFUSED = {
    "a wrong option": (["CartPole-v1", "--gamme", "0.9"], "Unrecognized options: --gamme"),
    "a word": (["CartPole-v1", "--gamma", "high"], "Error parsing --gamma: .* 'high'"),
    "a fraction": (["CartPole-v1", "--num-envs", "1.5"], "Error parsing --num-envs: .*'1.5'"),
    "a choice": (["CartPole-v1", "--loss", "ppo"], r"'--loss'.* Expected one of \('clip', 'kl'\)"),
    "out of range": (["CartPole-v1", "--gamma", "2"], r"gamma is 2.0, expected .* \[0, 1\]"),
    "too few steps": (["CartPole-v1", "--total-steps", "9"], "total_steps is 9, expected at least"),
    "a device": (["CartPole-v1", "--device", "gpu"], "device is 'gpu', expected 'cpu', or 'cuda'"),
    "no checkpoint": (["evaluate"], "The file that training has written. .required."),
    "no number": (["evaluate", "a.pt", "--episodes"], "--episodes"),
    "no environment": (["NoSuchThing-v0"], "error: Environment `NoSuchThing` doesn't exist."),
    "no version": (["CartPole-v7"], "error: Environment version `v7` .* doesn't exist"),
    "no id": (["Cart Pole"], "error: Malformed environment ID: Cart Pole"),
    "a space": (["Blackjack-v1"], "error: observation_space is Tuple"),
    "a seed that is too large": (
        ["CartPole-v1", "--seed", "9" * 23],
        "seed is 9+, expected an inte",
    ),
    "half a step": (
        ["CartPole-v1", "--total-steps", "1.5e0"],
        "Error parsing --total-steps: .*1.5e0",
    ),
    "a step in which environments may reset themselves": (
        ["CartPole-v1", "--num-steps", "1", "--minibatch-size", "4"],
        "num_steps is 1, expected at least 2 with vectorization 'array'",
    ),
    "no widths": (["CartPole-v1", "--hidden-sizes"], "error: --hidden-sizes has no value, expec"),
    "no widths before an option": (
        ["CartPole-v1", "--hidden_sizes", "--seed", "1"],
        "error: --hidden_sizes has no value, expected the widths",
    ),
    "nothing to go on from": (["--resume", "b.pt"], "error: path is b.pt, where no file is"),
    "a name to go on from": (["CartPole-v1", "--resume"], "Missing value for argument '--resume"),
    "another environment": (
        ["Pendulum-v1", "--resume", "a.pt"],
        "error: env is Pendulum-v1, expected CartPole-v1 as in a.pt",
    ),
    "no evaluation": (
        ["CartPole-v1", "--eval-every", "0"],
        "error: every is 0, expected at least 1",
    ),
    "no option first": (["--seed", "1"], "error: the first word is .*, expected an environment"),
    "a file": (
        ["CartPole-v1", "--checkpoint", "a.pt"],
        "error: checkpoint is a.pt, which is there",
    ),
    "a file before anything is said": (
        ["Acrobot-v1", "--checkpoint", "a.pt"],
        "error: checkpoint is a.pt, which is there",
    ),
    "a folder": (["CartPole-v1", "--checkpoint", "."], "error: checkpoint is ., which is there"),
    "no file": (["evaluate", "b.pt"], "error: path is b.pt, where no file is; expected a check"),
    "another file": (
        ["evaluate", "text"],
        "error: path is text, whose checksum is wrong or missing, expected",
    ),
    "observations of several parts": (
        ["evaluate", "a.pt", "--env", "Blackjack-v1"],
        "error: observation_space is Tuple",
    ),
    "other observations": (
        ["evaluate", "a.pt", "--env", "Acrobot-v1"],
        r"env is Acrobot-v1, whose spaces are \[\['Box', 6\], \['Discrete', 3\]\], expected "
        r"\[\['Box', 4\], \['Discrete', 2\]\] as in a.pt",
    ),
    "no episode": (["evaluate", "a.pt", "--episodes", "0"], "error: num_episodes is 0, expected"),
    "a seed": (["evaluate", "a.pt", "--seed", "-1"], "error: Seed must be greater or equal to z"),
    "a seed of 23 digits": (
        ["evaluate", "a.pt", "--draw", "--seed", "9" * 23],
        "error: seed is 9+, expected an integer from 0 to",
    ),
    "a suffix": (
        ["evaluate", "a.pt", "--episodes", "1", "--film", "a.avi"],
        "error: path is a.avi, expected a name in .gif, .webp, .png",
    ),
    "no folder": (
        ["evaluate", "a.pt", "--episodes", "1", "--film", "none/a.gif"],
        "error: path is none/a.gif, expected one in a folder that is there",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_trained(name, command, tmp_path):
    an_agent("a.pt")
    (tmp_path / "text").write_text("not a checkpoint")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    words, message = REFUSED[name]
    status, out, err = command(*words)
    assert status == 2
    # tyro puts its lines into a box and adds where there is help; the library prints one line.
    assert re.search(message, words_of(err)), err
    assert message[:6] != "error:" or err.count("\n") == 1
    assert "Traceback" not in out + err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_another_run_makes_at_the_same_time_is_refused(command, tmp_path, monkeypatch):
    make = shell._make_trainer

    def late(*args):
        (tmp_path / "a.pt").write_text("another's")
        return make(*args)

    monkeypatch.setattr(shell, "_make_trainer", late)
    status, _, err = command("CartPole-v1", *SHORT, "--checkpoint", "a.pt")
    assert status == 2
    assert err.startswith("error: checkpoint is a.pt, which is there already: name another file")
    assert (tmp_path / "a.pt").read_text() == "another's"


def test_an_environment_of_a_module_that_is_not_there_is_refused_in_a_line(command):
    status, _, err = command("nosuchmodule:CartPole-v1")
    assert status == 2
    assert err.startswith("error: ")


def test_without_pillow_nothing_is_played_for_a_film(command, monkeypatch):
    an_agent("a.pt")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    status, out, err = command("evaluate", "a.pt", "--episodes", 1, "--film", "a.gif")
    assert (status, out) == (2, "")
    assert "pip install 'ppo_lib[film]'" in err


@pytest.mark.parametrize("film", ["a.avi", "none/a.gif"])
def test_the_path_of_a_film_is_refused_before_anything_is_played(film, command):
    an_agent("a.pt")
    status, out, _ = command("evaluate", "a.pt", "--episodes", 1, "--film", film)
    assert (status, out) == (2, "")


# ------------------------------------------------------------------ signals


def test_a_second_ctrl_c_is_told(command, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shell, "run", interrupted)
    assert command("CartPole-v1") == (130, "", "stopped at once\n")


def test_a_signal_in_the_last_update_stops_nothing(command, monkeypatch):
    update = PPO.update

    def signalled(self, rollout):
        if self.env_steps == 15:  # the second of two
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, rollout)

    monkeypatch.setattr(PPO, "update", signalled)
    status, out, err = command("CartPole-v1", *SHORT, "--checkpoint", "a.pt")
    assert (status, err) == (0, "")
    assert "stopped" not in out


@pytest.mark.parametrize(
    ("signals", "name"),
    [((), "SIGINT"), (("SIGINT",) * 2, "SIGINT"), (("SIGTERM", "SIGINT"), "SIGTERM")],
)
def test_what_ends_an_update_at_once_is_told_as_the_first_that_came(
    signals, name, command, monkeypatch
):
    update = PPO.update

    def ended(self, rollout):
        if self.env_steps == 15:  # the second of two
            for one in signals:
                os.kill(os.getpid(), getattr(signal, one))
            raise KeyboardInterrupt
        return update(self, rollout)

    monkeypatch.setattr(PPO, "update", ended)
    status, out, err = command("CartPole-v1", *SHORT, "--checkpoint", "a.pt")
    assert (status, err) == (128 + getattr(signal, name), "")
    assert out.endswith(f"\nstopped by {name}: --resume a.pt goes on\ncheckpoint: a.pt\n")
    assert PPO.load("a.pt").env_steps == 15


def test_an_update_that_fails_as_a_signal_comes_has_stopped_for_it(command, monkeypatch):
    # A signal comes to the processes of environments, too, and these may end at once.
    update = PPO.update

    def broken(self, rollout):
        if self.env_steps == 15:
            os.kill(os.getpid(), signal.SIGTERM)
            raise BrokenPipeError("a process has ended")
        return update(self, rollout)

    monkeypatch.setattr(PPO, "update", broken)
    status, out, err = command("CartPole-v1", *SHORT, "--checkpoint", "a.pt")
    told = "the update in which SIGTERM came has failed: BrokenPipeError('a process has ended')\n"
    assert (status, err) == (128 + signal.SIGTERM, told)
    assert "\nstopped by SIGTERM: --resume a.pt goes on\n" in out
    assert PPO.load("a.pt").env_steps == 15


def test_signals_are_handled_while_it_trains_and_what_is_ignored_stays_so():
    before = {name: signal.getsignal(name) for name in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with keep.Interruption() as interruption:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@pytest.mark.parametrize("words", [["CartPole-v1"], ["evaluate"]])
def test_help_names_the_command_as_it_was_typed(words, command):
    _, out, _ = command(*words, "--help")
    assert words_of(out).startswith(f"usage: python -m ppo_lib {words[0]} ")


@pytest.mark.filterwarnings("default:action_space is")
def test_what_is_warned_of_is_a_line(command):
    assert command("tests/Far-v0", *SHORT)[2].startswith("warning: action_space is Box(-500.0, 5")


def test_an_option_is_written_in_full(command):
    an_agent("a.pt")
    status, _, err = command("--res", "a.pt")
    assert (status, err) == (2, "error: the first word is ['--res'], expected an environment\n")


def test_what_was_trained_on_a_gpu_goes_on_on_the_cpu_where_there_is_none(command, monkeypatch):
    command("CartPole-v1", *SHORT, "--checkpoint", "a.pt")
    state = read_checkpoint("a.pt")
    state["config"]["device"] = "cuda"
    write_checkpoint("a.pt", state)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, _, err = command("--resume", "a.pt", "--total-steps", 45)
    assert status == 0
    assert err.splitlines() == [
        "a.pt: it was trained on 'cuda', and goes on on the CPU",
        "a.pt: 30 of 45 steps; it goes on with another total_steps, device",
    ]
    kept = PPO.load("a.pt")
    assert (kept.env_steps, kept.config.device) == (45, "cpu")

"""The command line: what it writes, prints and refuses, and how it stops."""

import ast
import dataclasses
import inspect
import math
import os
import re
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from ppo_lib import PPO, PPOConfig
from ppo_lib.config import settings
from ppo_lib.shell import command as shell

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
    monkeypatch.setattr(shell, "train", lambda _, given: options.append(given))
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


def test_a_checkpoint_is_kept_now_and_then(command, monkeypatch):
    kept = []
    monkeypatch.setattr(PPO, "save", lambda trainer, _: kept.append(trainer.env_steps))
    command("CartPole-v1", *SHORT)
    assert kept == [30]
    monkeypatch.setattr(shell, "SAVE_EVERY", 0.0)
    kept.clear()
    command("CartPole-v1", *SHORT)
    assert kept == [15, 30, 30]


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
    assert (status, err.splitlines()[-1][:34]) == (2, "error: the gradient has length nan")
    trainer = PPO.load("a.pt")
    assert trainer.env_steps == 15
    for a, b in zip(trainer.parameters, before[-1], strict=True):
        assert torch.equal(a, b)


def test_ctrl_c_stops_after_the_update_and_leaves_a_checkpoint(tmp_path):
    words = ["CartPole-v1", "--total-steps", "100000000", "--checkpoint", "a.pt"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "ppo_lib", *words, "--tensorboard", "events"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # The events of the first update make the file longer than its head.
        until = time.monotonic() + 60
        while sum(p.stat().st_size for p in tmp_path.glob("events/*")) < 500:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.05)
        assert not (tmp_path / "a.pt").exists()
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (0, "")
    trainer = PPO.load("a.pt")
    assert 0 < trainer.env_steps < 100_000_000
    assert trainer.env_steps == settings("CartPole-v1").batch_size * len(trainer.history)
    assert out.startswith(f"{trainer.env_steps:,} steps, ")
    assert out.endswith("\ncheckpoint: a.pt\n")
    assert not list(tmp_path.glob("*.part"))


# ------------------------------------------------------------------ help


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_without_a_command_it_says_how_it_is_used(words, command):
    status, out, err = command(*words)
    assert (status, err) == (0, "")
    assert out.count("python -m ppo_lib ") == 3
    assert all(word in out for word in ("ENV_ID", "evaluate CHECKPOINT", "--help"))


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
    assert len(texts) == (2 if cls is shell.Train else 5)
    for name, text in texts.items():
        assert words_of(text) in words_of(out)
        assert (
            f"--{name} " in out or (cls, name) == (shell.Evaluate, "checkpoint") or name == "draw"
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
    "a space": (["ppo_lib/Ridge-v0"], "error: observation_space is Discrete"),
    "a file": (
        ["CartPole-v1", "--checkpoint", "a.pt"],
        "error: checkpoint is a.pt, which is there",
    ),
    "a folder": (["CartPole-v1", "--checkpoint", "."], "error: checkpoint is ., which is there"),
    "no file": (["evaluate", "b.pt"], "error: path is b.pt, where no file is; expected a check"),
    "another file": (["evaluate", "text"], "error: path is text, expected a file of PPO.save"),
    "no episode": (["evaluate", "a.pt", "--episodes", "0"], "error: num_episodes is 0, expected"),
    "a seed": (["evaluate", "a.pt", "--seed", "-1"], "error: Seed must be greater or equal to z"),
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


def test_an_environment_of_a_module_that_is_not_there_is_refused_in_a_line(command):
    status, _, err = command("nosuchmodule:CartPole-v1")
    assert status == 2
    assert err.startswith("error: ")


@pytest.mark.parametrize("film", ["a.avi", "none/a.gif"])
def test_the_path_of_a_film_is_refused_before_anything_is_played(film, command):
    an_agent("a.pt")
    status, out, _ = command("evaluate", "a.pt", "--episodes", 1, "--film", film)
    assert (status, out) == (2, "")

"""TensorBoard: the events hold the history, and nothing is imported for who does not ask."""

import contextlib
import dataclasses
import errno
import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppo_lib import PPO, PPOConfig
from ppo_lib.shell import command as shell
from ppo_lib.shell.tensorboard import TensorBoard

# CartPole's episodes are longer than 8 steps: some rollouts see no end of one.
SMALL = PPOConfig(
    total_steps=96, num_envs=2, num_steps=8, minibatch_size=8, num_epochs=2, hidden_sizes=(8,)
)

WITHOUT = """
import sys
import ppo_lib
# Adam waits for torch._dynamo, which takes as long to import as torch itself.
print("torch._dynamo" in sys.modules)
config = ppo_lib.PPOConfig(total_steps=1024, loss="kl", normalize_obs=True)
trainer = ppo_lib.PPO("CartPole-v1", config)
assert len(trainer.learn()) == 2
ppo_lib.evaluate(trainer.policy, "CartPole-v1", num_episodes=1, seed=0)
slow = ("torch.utils.tensorboard", "tensorboard", "tyro", "matplotlib", "PIL", "pygame", "IPython")
print([name for name in slow if name in sys.modules])
"""


def scalars(folder):
    """What the events say: {name: [(step, value), …]}."""
    events = EventAccumulator(str(folder)).Reload()
    assert events.Tags()["tensors"] == []
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.mark.parametrize("loss", ["clip", "kl"])
def test_every_column_is_in_the_events_against_environment_steps(loss, tmp_path):
    trainer = PPO("CartPole-v1", dataclasses.replace(SMALL, loss=loss))
    rows = trainer.learn(TensorBoard(tmp_path)).rows
    written = scalars(tmp_path)
    assert ("kl_coef" in written) == (loss == "kl")
    assert written.keys() == rows[0].keys() - {"env_steps"}
    blanks = 0
    for name, points in written.items():
        expected = [
            (16 * (i + 1), np.float32(row[name]))
            for i, row in enumerate(rows)
            if not math.isnan(row[name])
        ]
        assert points == expected, name
        blanks += 6 - len(expected)
    assert blanks > 0
    assert not any(math.isnan(value) for points in written.values() for _, value in points)


def test_events_can_be_read_while_training_goes_on(tmp_path):
    lengths = []
    trainer = PPO("CartPole-v1", SMALL)
    trainer.learn(
        TensorBoard(tmp_path), lambda _: lengths.append(len(scalars(tmp_path)["entropy"]))
    )
    assert lengths == [1, 2, 3, 4, 5, 6]


def test_writing_events_does_not_stop_training_or_change_it(tmp_path):
    watched, alone = PPO("CartPole-v1", SMALL), PPO("CartPole-v1", SMALL)
    watched.learn(TensorBoard(tmp_path))
    alone.learn()
    assert watched.env_steps == alone.env_steps == 96
    for a, b in zip(watched.parameters, alone.parameters, strict=True):
        assert torch.equal(a, b)


def test_nothing_is_imported_or_written_unless_asked_for(tmp_path):
    python = [sys.executable, "-W", "error", "-c", WITHOUT]
    done = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("False\n[]\n", "", 0)
    assert list(tmp_path.iterdir()) == []


class Failure(Exception):
    """Something else breaks."""


def threads():
    return [thread for thread in threading.enumerate() if "AsyncWriter" in type(thread).__name__]


@pytest.mark.parametrize("ending", ["the end", "an error", "a refusal"])
def test_the_writer_is_closed_whatever_ends_it(ending, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    already, seen = len(threads()), []

    def watched(self, rollout):
        seen.append(len(threads()) - already)
        if ending == "an error":
            raise Failure
        return update(self, rollout)

    update = PPO.update
    monkeypatch.setattr(PPO, "update", watched)
    words = ["CartPole-v1", "--total-steps", "2048", "--tensorboard", "events", "--eval-every"]
    words += ["0" if ending == "a refusal" else "99999", "--eval-episodes", "1"]
    refused = pytest.raises(ValueError, match="every is 0")
    with refused if ending == "a refusal" else contextlib.nullcontext():
        assert shell.run(words) == (1 if ending == "an error" else 0)
    assert seen == {"the end": [1], "an error": [1], "a refusal": []}[ending]
    assert len(threads()) == already


def test_it_is_a_context(tmp_path):
    already = len(threads())
    with TensorBoard(tmp_path) as board:
        PPO("CartPole-v1", SMALL).learn(board)
        assert len(threads()) == already + 1
    assert len(threads()) == already


def test_a_full_disk_is_told_once_and_training_goes_on(tmp_path, monkeypatch):
    board = TensorBoard(tmp_path)
    flush, times = board._writer.flush, []

    def full():
        times.append(None)
        if len(times) >= 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush()

    monkeypatch.setattr(board._writer, "flush", full)
    monkeypatch.setattr(board._writer, "close", full)
    trainer = PPO("CartPole-v1", SMALL)
    with pytest.warns(UserWarning, match="tensorboard: ") as said, board:
        trainer.learn(board)
    assert trainer.env_steps == 96
    message = "tensorboard: no events are written from 48 steps on: [Errno 28] No space left"
    assert [str(warning.message)[: len(message)] for warning in said] == [message]
    monkeypatch.undo()
    board._writer.close()
    assert [step for step, _ in scalars(tmp_path)["entropy"]][:2] == [16, 32]


def test_a_disk_that_is_full_at_the_end_is_told(tmp_path, monkeypatch):
    board = TensorBoard(tmp_path)

    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(board._writer, "close", full)
        with pytest.warns(UserWarning, match="no events are written at the end: .*No space left"):
            board.__exit__()
    board._writer.close()

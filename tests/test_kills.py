"""Runs that are killed: whatever ends them, they go on to the bits of a run that was not.

Run as a script, this file has imported everything once, and forks a process for every run.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ppo_lib import PPO, PPOConfig, best
from ppo_lib.checkpoint import read_checkpoint
from ppo_lib.shell import command, keep

#: Twelve updates of 128 steps in episodes of up to 500 and of 200, with everything that is kept.
RUN = (
    *("--total-steps", "1536", "--num-envs", "4", "--num-steps", "32", "--minibatch-size", "32"),
    *("--num-epochs", "2", "--vectorization", "sync", "--normalize-obs", "--normalize-rewards"),
    *("--eval-every", "500", "--eval-episodes", "2"),
)
ENVS = {"sync": "CartPole-v1", "array": "CartPole-v1", "box": "Pendulum-v1"}
OTHER = {"array": ("--vectorization", "array")}
DISK = ("full for a while", "full to the end")


def begin(words, log, disk=None):
    """A process that trains: its number; what it says goes into a file."""
    pid = os.fork()
    if pid > 0:
        return pid
    status = 99
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        if disk is not None:
            fill_disk(until=None if disk == "full to the end" else 1024)
        sys.argv = ["ppo_lib", *words]
        status = command.main()
        sys.stdout.flush()
    except KeyboardInterrupt:  # of a second one, as the first is told of: the interpreter's status
        status = 130
    finally:
        os._exit(status)


def fill_disk(until):
    """No file may be longer than some bytes, from the third update on."""
    keep.SAVE_EVERY = 0.0
    update = PPO.update

    def full_or_not(self, rollout):
        full = self.env_steps >= 384 and (until is None or self.env_steps < until)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000 if full else hard, hard))
        return update(self, rollout)

    PPO.update = full_or_not


def end(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def until_it_trains(log):
    """Wait for the line of a run that goes on, after which signals are heard; whether it does."""
    limit = time.monotonic() + 120
    said = ""
    while "it goes on" not in said and "asks for more" not in said:
        assert time.monotonic() < limit, said
        time.sleep(0.005)
        said = log.read_text() if log.exists() else ""
    return "it goes on" in said


def killed(name, signals, seed):
    """A run that is not killed and one that is, again and again: what each kill has left."""
    words, found, draw = [ENVS[name], *RUN, *OTHER.get(name, ())], [], random.Random(seed)
    started = time.monotonic()
    assert end(begin([*words, "--checkpoint", f"{name}-whole.pt"], Path("log"))) == 0
    lasted = time.monotonic() - started
    # The file of a run that has hardly begun, to be sure of one.
    pid = begin([*words, "--checkpoint", f"{name}.pt"], Path("log"))
    while not Path(f"{name}.pt").exists() or Path(f"{name}.pt").stat().st_size == 0:
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    found.append(["SIGKILL", end(pid), read_checkpoint(f"{name}.pt")["env_steps"]])
    for number, how in enumerate(signals):
        log = Path(f"{name}-{number}.log")
        pid = begin(["--resume", f"{name}.pt"], log)
        if not until_it_trains(log):  # on a machine that has become faster it was through
            assert number > 0
            end(pid)
            break
        time.sleep(draw.random() * lasted / 12)
        for one in how.split():
            os.kill(pid, getattr(signal, one))
            time.sleep(0.01)
        found.append([how, end(pid), read_checkpoint(f"{name}.pt")["env_steps"], log.read_text()])
    assert end(begin(["--resume", f"{name}.pt"], Path("log"))) == 0
    return found


def filled(disk):
    """A run whose disk is full for some updates."""
    name, log = disk.replace(" ", "-"), Path(f"{disk}.log")
    words = [ENVS["sync"], *RUN, "--checkpoint", f"{name}.pt"]
    status = end(begin(words, log, disk))
    steps = read_checkpoint(f"{name}.pt")["env_steps"]
    again = end(begin(["--resume", f"{name}.pt"], Path("log")))
    return [status, steps, log.read_text(), again]


def main(folder):
    torch.set_num_threads(1)
    os.chdir(folder)
    for env_id in ENVS.values():  # what is imported late is there before any process begins
        PPO(env_id, PPOConfig(total_steps=512)).close()
    found = {
        "sync": killed("sync", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT", "SIGINT SIGINT"], 0),
        "array": killed("array", ["SIGKILL", "SIGTERM"], 1),
        "box": killed("box", ["SIGKILL", "SIGTERM SIGTERM"], 2),
    }
    found |= {disk: filled(disk) for disk in DISK}
    Path("found.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The folder of the runs, and what was seen of each."""
    folder = tmp_path_factory.mktemp("kills")
    env = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    python = [sys.executable, __file__, str(folder)]
    done = subprocess.run(python, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "found.json").read_text())


def same(a, b):
    """Whether two states are equal to the bit, but for the time that was taken."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(
            same(a[key], b[key]) for key in a if key != "steps_per_second"
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return a == b or (a != a and b != b)  # NaN, too


@pytest.mark.parametrize("name", ENVS)
def test_a_run_that_was_killed_ends_as_one_that_was_not_to_the_bit(name, found):
    folder, _ = found
    for kind in ("", ".best"):
        whole = read_checkpoint(folder / f"{name}-whole{kind}.pt")
        again = read_checkpoint(folder / f"{name}{kind}.pt")
        assert whole.keys() == again.keys()
        assert [key for key in whole if not same(whole[key], again[key])] == []
    assert whole["env_steps"] > 0
    rewards = PPO.load(folder / f"{name}.pt").history
    assert len(rewards) == 12
    assert best.best_evaluation(rewards)[0] == whole["env_steps"]
    assert np.isfinite(rewards["evaluation"]).sum() == 3  # after 500, 1,000 and 1,500


def test_every_kill_leaves_a_checkpoint_that_was_said_and_a_status_that_is_its_own(found):
    for name in ENVS:
        runs = found[1][name]
        assert runs[0][:2] == ["SIGKILL", -signal.SIGKILL]
        steps = [run[2] for run in runs]
        assert steps == sorted(steps)
        for how, status, left, said in runs[1:]:
            assert left % 128 == 0
            assert "it goes on to the bit" in said
            assert "Traceback" not in said
            first = getattr(signal, how.split()[0])
            if how == "SIGKILL":
                assert status in (-first, 0)
            else:
                # A second one may come while the first does its work, or when that is done, the
                # handlers have been given back, and what is left ends at once.
                twice = (130, -first) if " " in how else ()
                assert status in (128 + first, *twice, 0)
                assert f"{name}.pt" in said.splitlines()[-1] or status == 130
                assert left > 0 or " " in how  # a second one ends the first update, too


@pytest.mark.parametrize("disk", DISK)
def test_a_full_disk_is_told_and_survived(disk, found):
    folder, runs = found
    status, steps, said, again = runs[disk]
    assert "checkpoint: not written at 512 steps: [Errno 27]" in said
    assert "Traceback" not in said
    if disk == "full for a while":
        assert "checkpoint: written again at " in said
        assert (status, steps) == (0, 1536)
    else:
        assert "written again" not in said
        assert (status, steps) == (1, 384)
    assert again == 0
    path = folder / f"{disk.replace(' ', '-')}.pt"
    whole, after = (read_checkpoint(x) for x in (folder / "sync-whole.pt", path))
    assert [key for key in whole if not same(whole[key], after[key])] == []
    assert not list(folder.glob("*.part"))


if __name__ == "__main__":
    main(sys.argv[1])

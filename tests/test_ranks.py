"""Ranks: two processes train one agent, the one that a single process trains.

Run as a script, this file is one of the two processes.
"""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ppo_lib import PPO, PPOConfig
from ppo_lib.parallel import ParallelPPO

#: Minibatches of 28 of 128 steps: of most of them one rank has more than the other.
BOTH = PPOConfig(
    total_steps=4 * 128,
    num_envs=4,
    num_steps=32,
    minibatch_size=28,
    hidden_sizes=(16, 16),
    normalize_obs=True,
    normalize_rewards=True,
)
KL = {"loss": "kl", "adaptive_kl_target": 1e-3, "value_clip_range": 0.2, "anneal_clip_range": True}
CASES = {
    "clip, CartPole": ("CartPole-v1", dataclasses.replace(BOTH, target_kl=0.01, ent_coef=0.01)),
    "clip, Pendulum": ("Pendulum-v1", dataclasses.replace(BOTH, target_kl=0.002, seed=1)),
    "kl, CartPole": ("CartPole-v1", dataclasses.replace(BOTH, **KL, target_kl=0.003, seed=2)),
    "kl, Pendulum": ("Pendulum-v1", dataclasses.replace(BOTH, **KL, target_kl=0.0003, seed=3)),
}
#: Few steps, so that in some minibatches, or in all, one rank has none.
FEW = dataclasses.replace(
    BOTH,
    total_steps=24,
    minibatch_size=2,
    num_envs=2,
    num_steps=4,
    num_epochs=2,
    normalize_advantages=False,
)
for size in (1, 2):
    for env_id in ("CartPole-v1", "Pendulum-v1"):
        config = dataclasses.replace(FEW, minibatch_size=size)
        CASES[f"minibatches of {size}, {env_id}"] = (env_id, config)


def train(cls, env_id, config):
    """What a training run, watched, leaves behind: plain numbers and tensors."""
    trainer, rollouts, drawn, states = cls(env_id, config), [], [], []
    own = trainer.collector.collect
    collect, gradient = trainer.collect, trainer.gradient
    own_obs = []

    def watched_own(*args):
        rollout = own(*args)
        own_obs.append(rollout.obs)
        return rollout

    def watched_collect():
        rollouts.append(collect())
        return rollouts[-1]

    def watched_gradient(minibatch):
        drawn.append(minibatch.obs.clone())
        return gradient(minibatch)

    def state(trainer):
        parts = {"generator": trainer.generator.get_state()}
        for name in ("reward_normalizer", "policy", "critic"):
            kept = getattr(trainer, name).state_dict()
            parts |= {f"{name}.{key}": x for key, x in kept.items()}
        for i, parameter in enumerate(trainer.parameters):
            for key, x in trainer.optimizer.state.get(parameter, {}).items():
                parts[f"adam.{key}.{i}"] = x
        parts |= {name: torch.tensor(getattr(trainer, name)) for name in ("kl_coef", "env_steps")}
        states.append({name: x.clone() for name, x in parts.items()})

    trainer.collector.collect = watched_own
    trainer.collect, trainer.gradient = watched_collect, watched_gradient
    state(trainer)
    trainer.learn(state)
    return {
        "states": states,
        "rows": trainer.history.rows,
        "episodes": trainer.history.episodes,
        "drawn": drawn,
        "own obs": own_obs[0],
        "rollout": {name: getattr(rollouts[0], name) for name in ("obs", "actions", "rewards")},
    }


def exchange():
    """The seams of a trainer of two ranks, on numbers that tell the ranks apart."""
    trainer = ParallelPPO("CartPole-v1", BOTH)
    me = trainer.rank
    turned = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [6, 7]]]).transpose(0, 1) + 100 * me
    rows = torch.tensor([[1.0, 10.0]] * (1 + 2 * me)) * (1 + me)
    return {
        "num_ranks": trainer.num_ranks,
        "rank": me,
        "own": trainer.envs.num_envs,
        "columns": trainer.gather(torch.tensor([[0.0 + me], [10.0 + me]]), dim=1).tolist(),
        "flags": trainer.gather(torch.tensor([me == 1])).tolist(),
        "turned columns": trainer.gather(turned, dim=1).tolist(),
        "mean": trainer.mean(rows).tolist(),
        "mean of no rows": trainer.mean(rows[: 1 - me]).tolist(),
    }


def refusal():
    """What is said of three environments for two ranks."""
    try:
        ParallelPPO("CartPole-v1", PPOConfig(num_envs=3))
    except ValueError as error:
        return str(error)
    return "nothing"


def interrupted():
    """Ctrl-C in the second of two processes, in the second update: updates until the end."""
    from ppo_lib.shell.command import _stop_when_interrupted

    def press(trainer):
        if trainer.rank == 1 and len(trainer.history) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    trainer = ParallelPPO("CartPole-v1", dataclasses.replace(BOTH, total_steps=10 * 128))
    return len(trainer.learn(press, _stop_when_interrupted()))


def as_one_of_two(me, folder):
    """All that the tests want to know of two processes, in a file of each."""
    torch.set_num_threads(1)
    # A file instead of a port: no other process can have taken it.
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=me, world_size=2)
    found = {name: train(ParallelPPO, *case) for name, case in CASES.items()}
    found |= {"functions": exchange(), "refusal": refusal(), "interrupted": interrupted()}
    torch.save(found, folder / f"{me}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, each."""
    folder = tmp_path_factory.mktemp("ranks")
    python = [sys.executable, "-W", "error", __file__]
    processes = [
        subprocess.Popen(
            [*python, str(me), str(folder)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for me in range(2)
    ]
    try:
        said = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{me}.pt") for me in range(2)]


@pytest.fixture(scope="module")
def one():
    """What this process finds alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {name: train(PPO, *case) for name, case in CASES.items()}
    torch.set_num_threads(threads)


# ------------------------------------------------------------------ one rank


def test_a_process_alone_needs_no_ranks():
    trainer = PPO("CartPole-v1", BOTH)
    assert (trainer.rank, trainer.num_ranks) == (0, 1)
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert trainer.gather(x, dim=1) is x
    assert trainer.mean(x).tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match=r"^torch.distributed is not initialised, expected it"):
        ParallelPPO("CartPole-v1", BOTH)


# ------------------------------------------------------------------ two ranks


def test_two_processes_exchange_their_numbers(two):
    for me in range(2):
        found = two[me]["functions"]
        assert (found["num_ranks"], found["rank"]) == (2, me)
        assert found["own"] == 2  # of 4
        assert found["columns"] == [[0, 1], [10, 11]]
        assert found["flags"] == [False, True]
        assert found["turned columns"] == [
            [[0, 1], [4, 5], [100, 101], [104, 105]],
            [[2, 3], [6, 7], [102, 103], [106, 107]],
        ]
        # One row of (1, 10), and three of (2, 20).
        assert found["mean"] == [7 / 4, 70 / 4]
        assert found["mean of no rows"] == [1, 10]


@pytest.mark.parametrize("name", CASES)
def test_both_processes_have_the_same_agent_to_the_bit(name, two):
    first, second = (found[name] for found in two)
    assert len(first["states"]) == len(second["states"]) == CASES[name][1].num_updates + 1
    for a, b in zip(first["states"], second["states"], strict=True):
        assert a.keys() == b.keys()
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    for a, b in zip(first["rows"], second["rows"], strict=True):
        assert a.keys() == b.keys()
        for column in a.keys() - {"steps_per_second"}:
            np.testing.assert_array_equal(a[column], b[column], column)
    assert first["episodes"] == second["episodes"]
    # They are two: each has seen environments of its own.
    assert not torch.equal(first["own obs"], second["own obs"])


@pytest.mark.parametrize("name", CASES)
def test_two_processes_begin_with_the_agent_and_the_steps_of_one(name, two, one):
    both, alone = [found[name] for found in two], one[name]
    for key, x in alone["states"][0].items():
        assert torch.equal(both[0]["states"][0][key], x), key
    for key, x in alone["rollout"].items():
        seen = both[0]["rollout"][key]
        assert torch.equal(seen, both[1]["rollout"][key])
        # Rows of another batch are rounded in another way: it shows in a Gaussian's actions.
        torch.testing.assert_close(seen, x, rtol=1e-5, atol=1e-6)
        if CASES[name][0] == "CartPole-v1":
            assert torch.equal(seen, x), key


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_gradient_steps_of_one(name, two, one):
    config, both, alone = CASES[name][1], two[0][name], one[name]
    # What is observed later differs by what rounding has done to the actions before.
    for a, b in zip(both["drawn"], alone["drawn"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    steps = [row["gradient_steps"] for row in both["rows"]]
    assert steps == [row["gradient_steps"] for row in alone["rows"]]
    whole = config.num_epochs * -(-config.batch_size // config.minibatch_size)
    if config.target_kl is None:
        assert steps == [whole] * config.num_updates
    else:
        assert 1 <= min(steps) < whole  # so that it was seen to stop
    for a, b in zip(both["states"], alone["states"], strict=True):
        assert torch.equal(a["generator"], b["generator"])


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_learns(name, two, one):
    # Float32 has 7 digits, and sums of two parts are rounded in another way than sums of all:
    # at most 6e-8 of the parameters' length was seen, and 6e-7 of the moments'.
    both, alone = two[0][name], one[name]
    for a, b in zip(both["states"], alone["states"], strict=True):
        assert a.keys() == b.keys()
        # By part, since one layer's bias or its moments may be next to nothing.
        parts = {"policy.": 1e-6, "critic.": 1e-6, "adam.exp_avg.": 1e-5, "adam.exp_avg_sq.": 1e-5}
        parts |= {"adam.step.": 0, "reward_normalizer.": 1e-5, "kl_coef": 0, "env_steps": 0}
        for part, tolerance in parts.items():
            keys = [key for key in sorted(a) if key.startswith(part)]
            found, expected = (
                torch.cat([x[key].flatten().double() for key in keys] or [torch.zeros(1)])
                for x in (a, b)
            )
            assert (found - expected).norm() <= tolerance * expected.norm(), part
        assert all(key.startswith((*parts, "generator")) for key in a)
    for a, b in zip(both["rows"], alone["rows"], strict=True):
        assert a.keys() == b.keys()
        for column in a.keys() - {"steps_per_second"}:
            np.testing.assert_allclose(a[column], b[column], rtol=1e-4, atol=1e-5, err_msg=column)
    # Within a rollout, episodes are told rank by rank instead of in the order of their ends.
    assert [(steps, length) for steps, _, length in sorted(both["episodes"])] == [
        (steps, length) for steps, _, length in sorted(alone["episodes"])
    ]
    np.testing.assert_allclose(
        [earned for _, earned, _ in sorted(both["episodes"])],
        [earned for _, earned, _ in sorted(alone["episodes"])],
        rtol=1e-4,
    )


def test_environments_that_cannot_be_shared_out_are_refused(two):
    said = "num_envs is 3, expected a multiple of the number of ranks, 2"
    assert [found["refusal"] for found in two] == [said, said]


def test_ctrl_c_in_one_process_stops_both_after_the_same_update(two):
    assert [found["interrupted"] for found in two] == [2, 2]


def test_torchrun_trains_one_agent_and_prints_once(tmp_path):
    words = ["CartPole-v1", "--total-steps", "4096", "--checkpoint", "a.pt"]
    words += ["--vectorization", "sync"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "-m", "ppo_lib", *words],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint: a.pt\n") == 1
    assert done.stdout.count("4,096 steps, ") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
    trainer = PPO.load(tmp_path / "a.pt")
    # And the first observations of sixteen environments, which count too.
    assert trainer.env_steps == 4096 == trainer.policy.net[0].count.item() - 16


if __name__ == "__main__":
    as_one_of_two(int(sys.argv[1]), Path(sys.argv[2]))

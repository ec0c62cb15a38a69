"""Ranks: two processes train one agent, the one that a single process trains.

Run as a script, this file is one of the two processes.
"""

import contextlib
import dataclasses
import io
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
from ppo_lib import ppo as trainer_module
from ppo_lib.networks import CategoricalPolicy
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


def state_of(trainer):
    """All that was learned and counted, in tensors by their names."""
    parameters = torch.nn.utils.parameters_to_vector(trainer.parameters).detach()
    parts = {"vector": parameters, "generator": trainer.generator.get_state()}
    for name in ("policy", "critic", "reward_normalizer"):
        kept = getattr(trainer, name).state_dict()
        parts |= {f"{name}.{key}": x for key, x in kept.items()}
    # Both moments of Adam, each in one vector; there are none before the first step.
    moments = list(trainer.optimizer.state_dict()["state"].values())
    for key in ("exp_avg", "exp_avg_sq", "step") if moments else ():
        parts[f"optimizer.{key}"] = torch.cat([x[key].flatten() for x in moments])
    parts |= {name: torch.tensor(getattr(trainer, name)) for name in ("kl_coef", "env_steps")}
    return {name: x.clone() for name, x in parts.items()}


def train(env_id, config, cls=PPO):
    """What a training run, watched, leaves behind: plain numbers and tensors."""
    rollouts, drawn, states = [], [], []
    minibatches = trainer_module.minibatches

    class Watched(cls):
        def collect(self):
            rollouts.append(super().collect())
            return rollouts[-1]

    def watched_minibatches(*args):
        for minibatch in minibatches(*args):
            drawn.append(minibatch.obs.clone())
            yield minibatch

    trainer = Watched(env_id, config)
    own = trainer.collector.obs.clone()
    trainer_module.minibatches = watched_minibatches
    try:
        states.append(state_of(trainer))
        trainer.learn(lambda trainer: states.append(state_of(trainer)))
    finally:
        trainer_module.minibatches = minibatches
        trainer.close()
    return {
        "states": states,
        "rows": trainer.history.rows,
        "episodes": trainer.history.episodes,
        "drawn": drawn,
        "own obs": own,
        "rollout": {name: getattr(rollouts[0], name) for name in ("obs", "actions", "rewards")},
    }


def exchange():
    """What passes between ranks, on numbers that tell them apart."""
    trainer = ParallelPPO("CartPole-v1", FEW)
    me = trainer.rank
    turned = torch.tensor([[[0, 1], [2, 3]], [[4, 5], [6, 7]]]).transpose(0, 1) + 100 * me
    # One rank has 2 rows of the mean, the other 1, as of a minibatch of 3.
    rows = torch.tensor([[1.0, 10.0], [2.0, 20.0]]) if me == 0 else torch.tensor([[6.0, 0.0]])
    return {
        "ranks": (trainer.rank, trainer.num_ranks),
        "rows": trainer.gather(torch.tensor([[0.0 + me], [10.0 + me]])).tolist(),
        "columns": trainer.gather(torch.tensor([[0.0 + me], [10.0 + me]]), dim=1).tolist(),
        "turned columns": trainer.gather(turned, dim=1).tolist(),
        "flags": trainer.gather(torch.tensor([me == 0, True])),
        "mean": trainer.mean(rows).tolist(),
        "mean of numbers": trainer.mean(rows[:, 0]).item(),
        "mean of one rank's rows": trainer.mean(rows[:1] if me else rows[:0]).tolist(),
    }


def own_networks():
    """Networks that differ from rank to rank at first: what rank 0 gave is what all have."""
    generator = torch.Generator().manual_seed(ParallelPPO("CartPole-v1", FEW).rank)
    policy = CategoricalPolicy(4, 2, (8,), generator)
    config = dataclasses.replace(FEW, normalize_obs=False)
    trainer = ParallelPPO("CartPole-v1", config, policy=policy)
    start = state_of(trainer)["vector"]
    trainer.learn()
    return {"start": start, "end": state_of(trainer)["vector"]}


def frozen():
    """A layer that is frozen stays as it was, and the others learn."""
    trainer = ParallelPPO("CartPole-v1", FEW)
    trainer.policy.net[1].requires_grad_(False)
    before = [p.detach().clone() for p in trainer.policy.parameters()]
    trainer.learn()
    pairs = zip(before, trainer.policy.parameters(), strict=True)
    return [torch.equal(a, b) for a, b in pairs]


def refusal():
    """What is said of three environments for two ranks."""
    try:
        ParallelPPO("CartPole-v1", PPOConfig(num_envs=3))
    except ValueError as error:
        return str(error)
    return "nothing"


def saved(folder):
    """A run that rank 0 has saved, and that both go on with: openings and the agent."""
    trainer = ParallelPPO("CartPole-v1", dataclasses.replace(BOTH, total_steps=256))
    trainer.learn(lambda _: True)
    if trainer.rank == 0:
        trainer.save(folder / "agent.pt")
    dist.barrier()
    loaded = ParallelPPO.load(folder / "agent.pt")
    opening = loaded.collector.obs.clone()
    held = ["refusal" not in part for part in loaded.running()]
    loaded.learn()
    trainer.learn()
    pairs = [(state_of(loaded)[key], x) for key, x in state_of(trainer).items()]
    return {
        "opening": opening,
        "vector": state_of(loaded)["vector"],
        "steps": loaded.env_steps,
        "anew": loaded.anew,
        "held": held,
        "as one that was not": all(torch.equal(a, b) for a, b in pairs),
    }


def interrupted():
    """Ctrl-C in the second of two processes, in the second update.

    Updates until the end, the status, what was said, and whether a bar was asked for.
    """
    from ppo_lib.shell import command

    words = ["CartPole-v1", "--total-steps", "1280", "--num-envs", "4", "--num-steps", "32"]
    updates, update, bars, learn = [], ParallelPPO.update, [], ParallelPPO.learn

    def watched(self, *callbacks, show_progress=True):
        bars.append(show_progress)
        return learn(self, *callbacks, show_progress=show_progress)

    def press(self, rollout):
        updates.append(None)
        if self.rank == 1 and len(updates) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, rollout)

    ParallelPPO.update, ParallelPPO.learn, said = press, watched, io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = command.run([*words, "--minibatch-size", "28", "--vectorization", "sync"])
    finally:
        ParallelPPO.update, ParallelPPO.learn = update, learn
    return len(updates), status, said.getvalue(), bars


def as_one_of_two(me, folder):
    """All that the tests want to know of two processes, in a file of each."""
    torch.set_num_threads(1)
    # A file instead of a port: no other process can have taken it.
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=me, world_size=2)
    os.chdir(folder)
    found = {name: train(*case, ParallelPPO) for name, case in CASES.items()}
    found |= {"exchanged": exchange(), "refusal": refusal(), "saved": saved(folder)}
    found |= {"own networks": own_networks(), "frozen": frozen(), "interrupted": interrupted()}
    torch.save(found, folder / f"{me}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, each."""
    folder = tmp_path_factory.mktemp("ranks")
    python = [sys.executable, "-W", "error", __file__]
    with contextlib.ExitStack() as stack:  # closes what they say, too, whatever becomes of them
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [*python, str(me), str(folder)],
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for me in range(2)
        ]
        for process in processes:
            stack.callback(process.kill)
        # They take 20 seconds on two quiet cores, and may have a twentieth of that.
        said = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{me}.pt") for me in range(2)]


@pytest.fixture(scope="module")
def one():
    """What this process finds alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {name: train(*case) for name, case in CASES.items()}
    torch.set_num_threads(threads)


# ------------------------------------------------------------------ one rank


def test_without_ranks_there_is_one_and_nothing_to_exchange():
    trainer = PPO("CartPole-v1", FEW)
    assert (trainer.rank, trainer.num_ranks) == (0, 1)
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert trainer.gather(x) is trainer.gather(x, dim=1) is x
    assert trainer.mean(x).tolist() == [2, 4]
    assert trainer.mean(x[:, 0]).item() == 2


def test_a_part_of_an_agent_is_refused_where_no_others_were_started():
    with pytest.raises(ValueError, match=r"^torch\.distributed is not initialised, expected"):
        ParallelPPO("CartPole-v1", FEW)


# ------------------------------------------------------------------ two ranks


def test_two_processes_exchange_their_numbers(two):
    for me in range(2):
        found = two[me]["exchanged"]
        assert found["ranks"] == (me, 2)
        assert found["rows"] == [[0], [10], [1], [11]]
        assert found["columns"] == [[0, 1], [10, 11]]
        assert found["turned columns"] == [
            [[0, 1], [4, 5], [100, 101], [104, 105]],
            [[2, 3], [6, 7], [102, 103], [106, 107]],
        ]
        assert found["flags"].dtype == torch.bool
        assert found["flags"].tolist() == [True, True, False, True]
        # (1 + 2 + 6) / 3 and (10 + 20 + 0) / 3.
        assert found["mean"] == [3, 10]
        assert found["mean of numbers"] == 3
        assert found["mean of one rank's rows"] == [6, 0]


def test_networks_of_ones_own_begin_as_those_of_the_first_rank(two):
    first, second = (found["own networks"] for found in two)
    assert torch.equal(first["start"], second["start"])
    assert torch.equal(first["end"], second["end"])
    generator = torch.Generator().manual_seed(0)
    policy = torch.nn.utils.parameters_to_vector(
        CategoricalPolicy(4, 2, (8,), generator).parameters()
    )
    assert torch.equal(first["start"][: len(policy)], policy)
    assert not torch.equal(first["start"], first["end"])


def test_a_frozen_layer_stays_on_every_rank(two):
    # Weights and biases of three layers, after the normaliser; of these the first are frozen.
    for found in two:
        assert found["frozen"] == [True, True, False, False, False, False]


def test_a_saved_run_goes_on_in_all_processes_in_episodes_of_their_own(two):
    first, second = (found["saved"] for found in two)
    assert first["steps"] == second["steps"] == 256
    for found in (first, second):
        assert found["anew"] == ""
        assert found["held"] == [True, True]  # and would be saved again
        assert found["as one that was not"]
    assert torch.equal(first["vector"], second["vector"])
    seen = {tuple(obs) for found in (first, second) for obs in found["opening"].tolist()}
    begun = torch.cat([found["clip, CartPole"]["own obs"] for found in two]).tolist()
    assert len(seen | {tuple(obs) for obs in begun}) == 4 + 4


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
    # They are two: each has environments of its own, and both know the rollouts of all.
    assert not torch.equal(first["own obs"], second["own obs"])
    assert torch.equal(first["rollout"]["obs"], second["rollout"]["obs"])
    assert torch.equal(first["rollout"]["obs"][0], torch.cat([first["own obs"], second["own obs"]]))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_begin_with_the_agent_and_the_steps_of_one(name, two, one):
    both, alone = two[0][name], one[name]
    for key, x in alone["states"][0].items():
        assert torch.equal(both["states"][0][key], x), key
    for key, x in alone["rollout"].items():
        seen = both["rollout"][key]
        # Rows of another batch are rounded in another way: it shows in a Gaussian's actions.
        torch.testing.assert_close(seen, x, rtol=1e-5, atol=1e-6)
        if CASES[name][0] == "CartPole-v1":
            assert torch.equal(seen, x), key


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_gradient_steps_of_one(name, two, one):
    config, both, alone = CASES[name][1], two[0][name], one[name]
    for a, b in zip(both["drawn"], alone["drawn"], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
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
        # Layers are parts of the vector; a bias of its own may be next to nothing.
        layers = {key for key in a if key.startswith(("policy.", "critic."))}
        for key in a.keys() - layers - {"generator"}:
            tolerance = 1e-6 if key == "vector" else 1e-5
            difference = (a[key].double() - b[key].double()).norm()
            assert difference <= tolerance * b[key].double().norm(), key
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
    assert [found["interrupted"][0] for found in two] == [2, 2]


def test_every_process_says_what_has_stopped_it_though_the_signal_came_to_one(two):
    for rank, found in enumerate(two):
        _, status, said, _ = found["interrupted"]
        assert status == 130  # 128 and SIGINT's 2
        assert ("stopped by SIGINT: --resume checkpoints/" if rank == 0 else "rank 1: stop") in said


def test_one_process_draws_a_bar(two):
    assert [found["interrupted"][3] for found in two] == [[True], [False]]


def test_torchrun_trains_one_agent_and_prints_once(tmp_path):
    words = ["CartPole-v1", "--total-steps", "2048", "--checkpoint", "a.pt"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "-m", "ppo_lib", *words],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint: a.pt\n") == 1
    assert done.stdout.count("2,048 steps, ") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
    trainer = PPO.load(tmp_path / "a.pt")
    # The first observations of 16 environments, and those of each step.
    assert trainer.env_steps == 2048
    mask_steps = trainer.policy.net[0].count.item() - 16
    assert 0.9 * 2048 < mask_steps <= 2048


if __name__ == "__main__":
    as_one_of_two(int(sys.argv[1]), Path(sys.argv[2]))

"""What more environments and more processes change, and what they leave as it is.

Usage: ``python -m bench.scale`` (`make scale`), in the book's own environment.  It stores

- ``environments``: CartPole-v1 at its own settings, with the 2,048 steps of an update taken in more
  or fewer environments: steps to a second of the processor, and what the agent earns in 20 greedy
  episodes at the end;
- ``drift``: how far the parameters of a second run with the same seed are from those of the first,
  after each update, and which columns of its first rollout are the same to the bit;
- ``cold``: how many seconds of the processor a new process takes until it has imported the library,
  built a trainer and done one update;
- ``ranks``: steps to a second of the clock with one process and with two, for small and for large
  minibatches.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "book" / "_data" / "scale.json"
ENVIRONMENTS = (4, 16, 64, 256)
TOTAL_STEPS = 20 * 2048
#: How many updates a run of `speed` has, and what is large in it.
UPDATES = {"small": 8, "large": 4}
LARGE = {"num_envs": 64, "num_steps": 128, "minibatch_size": 4096, "hidden_sizes": (256, 256)}
#: The columns of the first rollout of two runs that are compared to the bit.
FIRST_ROLLOUT = ("obs", "actions", "dist_params", "log_probs")
#: What differs in a second run: an option of `follow`, or an environment variable.
SECOND_RUNS: dict[str, dict[str, str]] = {
    "nothing": {},
    # A thread that waits for the other one does not spin.
    "two threads": {"threads": "2", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},
    "two ranks": {"ranks": "2"},
    "AVX2 kernels": {"ATEN_CPU_CAPABILITY": "avx2"},
    "plain kernels": {"ATEN_CPU_CAPABILITY": "default"},
}


def start(*args: str, ranks: int = 0, **environment: str) -> str:
    """Run a part of this file in one process, or as ranks under torchrun; what it prints last."""
    command = [sys.executable]
    if ranks:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += ["-m", "bench.scale", *args]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1] if done.stdout else ""


def make(config: Any) -> Any:
    """A trainer of CartPole-v1; one of several if torchrun has started this process."""
    import torch.distributed as dist

    from ppo_lib import PPO
    from ppo_lib.parallel import ParallelPPO

    if "RANK" not in os.environ:
        return PPO("CartPole-v1", config)
    dist.init_process_group("gloo")
    return ParallelPPO("CartPole-v1", config)


def one_by_one() -> Any:
    """CartPole's own settings with environments that ranks can share: each has its own seed."""
    from ppo_lib import settings

    return replace(settings("CartPole-v1"), vectorization="sync")


def environments(num_envs: int, seed: int) -> tuple[int, float]:
    """Steps a second of the processor, and the greedy return, with N environments.

    Each takes as many steps in an update as 2,048 in all allow.
    """
    from ppo_lib import PPO, evaluate, settings

    config = replace(settings("CartPole-v1"), num_envs=num_envs, num_steps=2048 // num_envs)
    config = replace(config, total_steps=TOTAL_STEPS, seed=seed)
    with PPO("CartPole-v1", config) as trainer:
        started = time.process_time()
        trainer.learn(show_progress=False)
        steps_per_second = round(config.total_steps / (time.process_time() - started))
        returns = evaluate(trainer.policy, "CartPole-v1", seed=10_000)
    return steps_per_second, float(returns.mean())


def speed(size: str) -> None:
    """Print steps a second, the median over updates."""
    config = one_by_one() if size == "small" else replace(one_by_one(), **LARGE)
    config = replace(config, total_steps=UPDATES[size] * config.batch_size)
    trainer = make(config)
    speeds = trainer.learn(show_progress=False)["steps_per_second"]
    if trainer.rank == 0:
        print(round(median(speeds[1:])))


def follow(path: str, seed: int, threads: int) -> None:
    """Train, and write the parameters after each update and the first rollout."""
    import torch

    config = replace(one_by_one(), total_steps=TOTAL_STEPS, seed=seed, num_threads=threads)
    trainer = make(config)
    collect, rollouts = trainer.collect, []

    def watched() -> Any:
        rollout = collect()
        rollouts.append(rollout if not rollouts else None)
        return rollout

    def parameters() -> torch.Tensor:
        return torch.nn.utils.parameters_to_vector(trainer.parameters).detach().clone()

    trainer.collect, path_taken = watched, [parameters()]
    history = trainer.learn(lambda _: path_taken.append(parameters()), show_progress=False)
    if trainer.rank == 0:
        first = {name: getattr(rollouts[0], name) for name in FIRST_ROLLOUT}
        returns = torch.tensor(history["episode_return"])
        torch.save({"parameters": torch.stack(path_taken), "returns": returns} | first, path)


def drift(seed: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Every second run with a seed, held against the first."""
    import torch

    def run(name: str, threads: str = "1", ranks: str = "0", **environment: str) -> Any:
        path = folder / f"{name}.pt"
        start("follow", str(path), str(seed), threads, ranks=int(ranks), **environment)
        return torch.load(path)

    first, found = run("first"), {}
    for name, changes in SECOND_RUNS.items():
        second = run(name, **changes)
        apart = (second["parameters"] - first["parameters"]).abs().amax(1)
        found[name] = {
            "apart": [float(f"{x:.3g}") for x in apart],
            "same": [key for key in FIRST_ROLLOUT if second[key].equal(first[key])],
            "last_return": round(float(second["returns"][-1]), 1),
        }
    return found


def cold() -> None:
    """Print how far this process had come when, and how many modules it had imported."""

    def mark(name: str) -> None:
        marks[name] = {"seconds": round(time.process_time(), 3), "modules": len(sys.modules)}

    marks: dict[str, Any] = {}
    from ppo_lib import PPO, PPOConfig

    mark("import")
    trainer = PPO("CartPole-v1", PPOConfig())
    mark("trainer")
    trainer.update(trainer.collect())
    mark("update")
    print(json.dumps(marks))


def main() -> None:
    """Measure everything, in turn, and store it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("part", nargs="*")
    args = parser.parse_args()
    if args.part:
        name, *rest = args.part
        if name == "speed":
            speed(*rest)
        elif name == "follow":
            follow(rest[0], int(rest[1]), int(rest[2]))
        else:
            cold()
        return
    sys.path.append(str(ROOT / "tools"))
    from stored import store

    report: dict[str, Any] = {"environments": {}, "drift": {}, "cold": [], "ranks": {}}
    for seed in range(2 * args.repeats):
        for n in ENVIRONMENTS:
            row = report["environments"].setdefault(str(n), {"steps_per_second": [], "return": []})
            for key, value in zip(row, environments(n, seed), strict=True):
                row[key].append(value)
    for seed in range(args.repeats):
        with TemporaryDirectory() as folder:
            for name, found in drift(seed, Path(folder)).items():
                report["drift"].setdefault(name, []).append(found)
        report["cold"].append(json.loads(start("cold")))
        for size in UPDATES:
            for ranks in (1, 2):
                speeds = report["ranks"].setdefault(size, {}).setdefault(str(ranks), [])
                speeds.append(int(start("speed", size, ranks=ranks)))
        store(OUT, "make scale", report)
        print(f"seed {seed} is done", flush=True)


if __name__ == "__main__":
    main()

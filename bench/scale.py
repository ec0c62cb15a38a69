"""What more environments change, and what a cold start consists of.

Usage: ``python -m bench.scale`` (`make scale`), in the book's own environment.  It stores

- ``environments``: CartPole-v1 at its own settings, with the 2,048 steps of an update taken in more
  or fewer environments: steps to a second of the processor, and what the agent earns in 20 greedy
  episodes at the end;
- ``update``: where the milliseconds of an update go, in the quickest of some;
- ``gradient``: the milliseconds of a gradient of a minibatch of so many rows, through two layers of
  each width, the shortest of some;
- ``cold``: how many seconds of the processor a new process takes until it has imported the library,
  built a trainer and done one update, and how many modules are imported by then.

All on one thread.  Seconds of the processor leave out what else runs on the machine.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "book" / "_data" / "scale.json"
ENVIRONMENTS = (16, 64, 256)
TOTAL_STEPS = 20 * 2048
SEEDS, COLD_STARTS = 6, 3
WIDTHS, ROWS = (64, 512), (1, 8, 64, 128, 512, 2048)
UPDATES, GRADIENTS = 10, 20


def environments(num_envs: int, seed: int) -> tuple[int, float]:
    """Steps to a second of the processor, and the greedy return, with N environments.

    Each takes as many steps in an update as 2,048 in all allow.
    """
    from ppo_lib import PPO, evaluate, settings

    config = replace(settings("CartPole-v1"), num_envs=num_envs, num_steps=2048 // num_envs)
    config = replace(config, total_steps=TOTAL_STEPS, seed=seed)
    with PPO("CartPole-v1", config) as trainer:
        started = time.process_time()
        trainer.learn(show_progress=False)
        steps_per_second = round(TOTAL_STEPS / (time.process_time() - started))
        returns = evaluate(trainer.policy, "CartPole-v1", seed=10_000)
    return steps_per_second, float(returns.mean())


def update() -> dict[str, float]:
    """The milliseconds of each part of an update of CartPole-v1 at its own settings."""
    from ppo_lib import PPO, settings

    def timed(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def with_stopwatch(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            result = method(*args, **kwargs)
            spent[name] = spent.get(name, 0.0) + 1000 * (time.process_time() - began)
            return result

        return with_stopwatch

    spent: dict[str, float] = {}
    found = []
    with PPO("CartPole-v1", settings("CartPole-v1")) as trainer:
        trainer.collect = timed("rollout", trainer.collect)
        trainer.envs.step = timed("environments", trainer.envs.step)
        trainer.gradient = timed("gradients", trainer.gradient)
        trainer.optimizer.step = timed("Adam", trainer.optimizer.step)
        trainer.update = timed("update", trainer.update)
        for _ in range(UPDATES):
            spent.clear()
            trainer.update(trainer.collect())
            found.append(dict(spent))
    part = min(found, key=lambda spent: spent["rollout"] + spent["update"])
    part["acting"] = part.pop("rollout") - part["environments"]
    part["the rest"] = part.pop("update") - part["gradients"] - part["Adam"]
    return {name: round(ms, 3) for name, ms in part.items()}


def gradient(width: int) -> dict[int, float]:
    """The milliseconds of a gradient by the rows of its minibatch, in layers of a width."""
    import torch

    from ppo_lib import PPO, settings
    from ppo_lib.ppo import Batch

    def milliseconds(f: Callable[[], Any]) -> float:
        began = time.process_time()
        f()
        return 1000 * (time.process_time() - began)

    config = replace(settings("CartPole-v1"), hidden_sizes=(width, width))
    with PPO("CartPole-v1", config) as trainer:
        columns = [x.flatten(0, 1) for x in trainer.collect()[:4]]
        batch = Batch(*columns, *torch.zeros(3, 2048))
        found = {}
        for rows in ROWS:
            of_rows = partial(trainer.gradient, Batch(*(column[:rows] for column in batch)))
            of_rows()
            found[rows] = round(min(milliseconds(of_rows) for _ in range(GRADIENTS)), 3)
    return found


def cold() -> dict[str, dict[str, float]]:
    """How far this process has come when; it must be a new one."""

    def mark(name: str) -> None:
        marks[name] = {"seconds": round(time.process_time(), 3), "modules": len(sys.modules)}

    marks: dict[str, dict[str, float]] = {}
    from ppo_lib import PPO, PPOConfig

    mark("import")
    trainer = PPO("CartPole-v1", PPOConfig())
    mark("trainer")
    trainer.update(trainer.collect())
    mark("update")
    return marks


def cold_start() -> dict[str, dict[str, float]]:
    """The same of a process of its own."""
    command = [sys.executable, "-m", "bench.scale", "cold"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def main() -> None:
    """Measure, and store it."""
    if sys.argv[1:] == ["cold"]:
        print(json.dumps(cold()))
        return
    import torch

    torch.set_num_threads(1)
    report: dict[str, Any] = {"cold": [cold_start() for _ in range(COLD_STARTS)]}
    report["environments"] = {}
    for n in ENVIRONMENTS:
        rows = [environments(n, seed) for seed in range(SEEDS)]
        report["environments"][n] = {
            "steps_per_second": [speed for speed, _ in rows],
            "return": [mean_return for _, mean_return in rows],
        }
    report["update"] = update()
    report["gradient"] = {width: gradient(width) for width in WIDTHS}
    sys.path.append(str(ROOT / "tools"))
    from stored import store

    store(OUT, "make scale", report)


if __name__ == "__main__":
    main()

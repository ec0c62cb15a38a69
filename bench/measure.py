"""The one clock: it runs while a library trains, and stands still while its policy is judged."""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from bench.evaluate import Act, Evaluator

SOLVED = 475.0  # gymnasium's own threshold of CartPole-v1


@dataclass(frozen=True)
class Task:
    """What is measured while a library trains."""

    name: str
    env_id: str
    max_steps: int
    """Training stops at the first update that has taken this many environment steps."""
    evaluate_every: int | None = None
    """Environment steps between two evaluations; training stops after two solved in a row."""
    common: bool = False
    """At the one setting for all, not at each library's own."""
    warm_up: bool = False
    """Leave the first update off the clock, and its steps out of ``max_steps``."""
    evaluate_at_end: bool = False


# 2,000 and not 2,048: so a rollout of 2,000 steps (Tianshou) counts as one, like those of 2,048.
TASKS = {
    task.name: task
    for task in (
        Task("cartpole", "CartPole-v1", max_steps=200_000, evaluate_every=2_000),
        Task("common", "CartPole-v1", max_steps=25_600, common=True, warm_up=True),
        Task("pendulum", "Pendulum-v1", max_steps=200_000, evaluate_at_end=True),
        Task("cold", "CartPole-v1", max_steps=256, common=True),
    )
}


class Measurement:
    """Clocks one training run.

    A runner calls `start` when its trainer is built, and `after_update` after every update.

    Args:
        task: what to measure.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.stopped = False
        self._evaluations: list[dict[str, float]] = []
        self._next_evaluation = task.evaluate_every
        self._seconds = 0.0
        self._first_step = 0
        self._steps = 0
        self._warm = not task.warm_up
        self._since = 0.0

    def start(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def after_update(self, env_steps: int, act: Act) -> bool:
        """Pause the clock, judge the policy where that is due, and go on.

        Args:
            env_steps: environment steps that training has taken since its start.
            act: the greedy policy.

        Returns:
            Whether training shall stop.
        """
        self._seconds += time.perf_counter() - self._since
        if not self._warm:
            self._warm, self._seconds, self._first_step = True, 0.0, env_steps
        self._steps = env_steps - self._first_step
        done = self._steps >= self.task.max_steps
        if self._next_evaluation is not None and env_steps >= self._next_evaluation:
            self._next_evaluation = env_steps + self.task.evaluate_every
            self._evaluate(env_steps, act)
            done |= self._solved_at(2) is not None
        if done and self.task.evaluate_at_end:
            self._evaluate(env_steps, act)
        self.stopped = done
        self._since = time.perf_counter()
        return done

    def result(self) -> dict[str, object]:
        """What was measured; None stands for what was not reached."""
        result: dict[str, object] = {
            "env_steps": self._steps,
            "seconds": self._seconds,
            "steps_per_second": self._steps / self._seconds,
        }
        if self.task.evaluate_every is not None:
            for in_a_row, name in ((1, "first"), (2, "two")):
                solved = self._solved_at(in_a_row)
                result[f"steps_to_{name}"] = solved and solved["env_steps"]
                result[f"seconds_to_{name}"] = solved and solved["seconds"]
        if self.task.evaluate_at_end:
            last = self._evaluations[-1] if self._evaluations else None
            result["mean_return"] = last and last["mean_return"]
        return result | {"evaluations": self._evaluations}

    @cached_property
    def _evaluator(self) -> Evaluator:
        # Made when first needed, so that a cold start does not pay for it.
        return Evaluator(self.task.env_id)

    def _evaluate(self, env_steps: int, act: Act) -> None:
        with torch.no_grad():
            mean_return = self._evaluator.mean_return(act)
        self._evaluations.append(
            {"env_steps": env_steps, "seconds": self._seconds, "mean_return": mean_return}
        )

    def _solved_at(self, in_a_row: int) -> dict[str, float] | None:
        """The evaluation that ended the first row of so many solved ones."""
        row = 0
        for evaluation in self._evaluations:
            row = row + 1 if evaluation["mean_return"] >= SOLVED else 0
            if row == in_a_row:
                return evaluation
        return None


def main(train: Callable[[Measurement, str, int], None]) -> None:
    """Run one peer in this process and print its result as the last line, in JSON.

    Args:
        train: builds a trainer and trains until the measurement says to stop.  It is given the
            measurement, the peer's name in `bench.run`, and the seed.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("seed", type=int)
    args = parser.parse_args()
    imported = time.time()
    torch.set_num_threads(1)
    measurement = Measurement(TASKS[args.task])
    train(measurement, args.peer, args.seed)
    # `bench.run` says when it started this process; until here it imported the library.
    before = imported - float(os.environ.get("BENCH_STARTED", imported))
    print(json.dumps({"import_seconds": before} | measurement.result()))

"""Climb the ladder of `ppo_lib.book.ladder`, and store every rung's runs for the chapters.

Usage: ``python tools/ladder.py [RUNG …]``; two processes, some seven minutes on two free cores
for all rungs.  With rungs named, the stored runs of the others are kept.

Each rung is given the learning rate that suits it: of those tried, the one with the best median
area under the curve over the seeds.  If it is the smallest or the largest one tried, the next
one beyond it is tried too.
"""

import argparse
import json
import time
from collections.abc import Iterable
from concurrent.futures import Executor, ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import torch
from stored import store

from ppo_lib.book import ladder

DATA = Path(__file__).resolve().parents[1] / "book" / "_data" / "ladder.json"
SEEDS = range(5)
LEARNING_RATES = (5e-4, 2e-3, 8e-3)
FACTOR = 4  # between one learning rate and the next
Key = tuple[float, int]


def train(rung: str, rate: float, seed: int) -> ladder.Run:
    """One run, in a process of its own, with a line when it has ended."""
    started = time.perf_counter()
    run = ladder.run(rung, seed=seed, learning_rate=rate)
    took, mean = time.perf_counter() - started, ladder.area(*ladder.on_grid(run))
    print(f"{rung:12} rate {rate:<8g} seed {seed}  area {mean:5.1f}  {took:5.1f} s", flush=True)
    return run


def climb(executor: Executor, rung: str) -> dict[str, object]:
    """All runs of one rung: the areas of every learning rate, and the curves of the best."""
    runs: dict[Key, ladder.Run] = {}
    areas: dict[float, list[float]] = {}

    def try_out(rates: Iterable[float]) -> None:
        jobs = {key: executor.submit(train, rung, *key) for key in product(rates, SEEDS)}
        runs.update({key: job.result() for key, job in jobs.items()})
        for rate in rates:
            curves = (ladder.on_grid(runs[rate, seed]) for seed in SEEDS)
            areas[rate] = [round(float(ladder.area(*curve)), 2) for curve in curves]

    try_out(LEARNING_RATES)
    while (best := max(areas, key=lambda rate: np.median(areas[rate]))) in (min(areas), max(areas)):
        beyond = best / FACTOR if best == min(areas) else best * FACTOR
        try_out([float(f"{beyond:.6g}")])
    chosen = [runs[best, seed] for seed in SEEDS]
    return {
        "learning_rate": best,
        "areas": {f"{rate:g}": areas[rate] for rate in sorted(areas)},
        "runs": [
            {"seed": run.seed, "steps": run.steps.tolist(), "returns": run.returns.tolist()}
            for run in chosen
        ],
    }


def main() -> None:
    """Climb the rungs named, or every one, store the curves, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rungs", nargs="*", choices=[[], *ladder.RUNGS], metavar="RUNG")
    named = parser.parse_args().rungs or ladder.RUNGS
    rungs = {} if len(named) == len(ladder.RUNGS) else json.loads(DATA.read_text())["rungs"]
    with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as executor:
        rungs |= {rung: climb(executor, rung) for rung in named}
    data = {"env_id": ladder.ENV_ID, "total_steps": ladder.TOTAL_STEPS, "rungs": rungs}
    store(DATA, "make ladder", data)
    for row in ladder.table(ladder.load(DATA)):
        print(row)
        best, used = rungs[row.rung]["learning_rate"], ladder.LEARNING_RATES[row.rung]
        if best != used:
            print(f"  the best rate is {best:g}: change ladder.LEARNING_RATES, which has {used:g}")


if __name__ == "__main__":
    main()

"""Train with every bug of `ppo_lib.book.bugs`, and without, and store the learning curves.

Usage: ``python tools/bugs.py [--processes N] [BUG …]``; some six minutes on two free cores for all,
and for the right runs without a clip that stand beside no bug.
With bugs named, the stored runs of the others are kept.  Every bug has the seeds and the
settings of the right runs beside it; no setting was chosen on these seeds.
"""

import argparse
import json
import subprocess
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product

import torch
from experiments import ROOT, processor
from stored import store

from ppo_lib.book import bugs

DATA = ROOT / "book" / "_data" / "bugs.json"
SEEDS = tuple(range(0, 20_000, 1000))  # far apart, so that no two runs share an environment's seed


def run(task: str, name: str, changes: dict[str, object], seed: int) -> list[float]:
    """One learning curve, in a process of its own."""
    with bugs.planted(name):
        return [round(score, 3) for score in bugs.curve(task, seed=seed, **changes)]


def main() -> None:
    """Run the bugs named, or every one, and store after each what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bugs", nargs="*", choices=[[], *bugs.BUGS], metavar="BUG")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    named = arguments.bugs or list(bugs.BUGS)
    runs = json.loads(DATA.read_text())["runs"] if DATA.exists() and arguments.bugs else {}
    commit = ["git", "-C", str(DATA.parent), "rev-parse", "HEAD"]
    made_at = {
        "commit": subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip(),
        "processor": processor(),
        "seeds": list(SEEDS),
    }
    cases = {
        (task, key): (name if key == name else "", bugs.BUGS[name].changes)
        for name in named
        for task, key in product(
            bugs.BUGS[name].tasks, (bugs.right_with(bugs.BUGS[name].changes), name)
        )
    }
    if not arguments.bugs:
        cases |= {
            (task, bugs.right_with(changes)): ("", changes) for task, changes in bugs.CONTROLS
        }
    pool = partial(ProcessPoolExecutor, initializer=torch.set_num_threads, initargs=(1,))
    with pool(arguments.processes) as executor:
        # The small worlds first, and the right runs before the bugs.
        for task, key in sorted(cases, key=lambda case: case[0], reverse=True):
            name, changes = cases[task, key]
            curves = list(executor.map(partial(run, task, name, changes), SEEDS))
            runs.setdefault(task, {})[key] = curves
            store(DATA, "make bugs", made_at | {"runs": runs})
            print(f"{task:10} {key:40} {sorted(c[-1] for c in curves)}", flush=True)


if __name__ == "__main__":
    main()

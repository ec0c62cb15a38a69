"""Train with every bug of `ppo_lib.book.bugs`, and without, and store the learning curves.

Usage: ``python tools/bugs.py [--only BUG …] [--data FILE] [--processes N]``; some ten minutes
on two cores for all, and for the right runs that stand beside no bug.  A command that was
interrupted goes on where it stopped.  Every bug has the seeds and the settings of the right runs
beside it; no setting was chosen on these seeds.
"""

from itertools import product
from typing import Any

from experiments import LIBRARY, ROOT, Experiment, Job, Run, arguments, seeds_of

from ppo_lib.book import bugs
from ppo_lib.book.bugs import BUGS, CONTROLS, Bug

DATA = ROOT / "book" / "_data" / "bugs.json"
SEEDS = 50
APART = 1000  #: so that no two runs share an environment's seed


def cases(bug: Bug) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """The cases of a bug: by name the task, what is planted, and the changed settings."""
    planted = {bugs.right_with(bug.changes): "", bug.name: bug.name}
    return {
        f"{task}: {name}": (task, wrong, bug.changes)
        for task, (name, wrong) in product(bug.tasks, planted.items())
    }


ALONE = {f"{task}: {bugs.right_with(c)}": (task, "", c) for task, c in CONTROLS}
CASES = {case: what for bug in BUGS.values() for case, what in cases(bug).items()} | ALONE


def train(jobs: list[Job]) -> list[Run]:
    """One learning curve each."""
    runs = []
    for case, seed in jobs:
        task, wrong, changes = CASES[case]
        with bugs.planted(wrong):
            curve = bugs.curve(task, seed=seed, **changes)
        runs.append({"curves": [round(score, 3) for score in curve]})
    return runs


def main() -> None:
    """Make the runs that are missing, those of the small worlds first."""
    args = arguments(__doc__, cases=BUGS).parse_args()
    code = (*LIBRARY, "ppo_lib/book/bugs.py", "tools/bugs.py")
    experiment = Experiment("make bugs", args.data or DATA, code, {}, train)
    wanted = {case for name in args.only for case in cases(BUGS[name])}
    if len(args.only) == len(BUGS):
        wanted |= ALONE.keys()
    seeds = [APART * seed for seed in seeds_of(args, SEEDS)]
    jobs = ([(case, seed) for seed in seeds] for case in sorted(wanted, reverse=True))
    experiment.go_on(jobs, args.processes)


if __name__ == "__main__":
    main()

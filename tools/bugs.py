"""Train with every bug of `ppo_lib.book.bugs`, and without, and store the learning curves.

Usage: ``python tools/bugs.py [--only BUG …] [--data FILE] [--processes N]``; some six minutes on
two free cores for all.  A command that was interrupted goes on where it stopped.  Every bug has the
seeds and the settings of the right runs beside it; no setting was chosen on these seeds.
"""

from itertools import product

from experiments import LIBRARY, ROOT, Experiment, Job, Run, arguments

from ppo_lib.book import bugs
from ppo_lib.book.bugs import BUGS, Bug

DATA = ROOT / "book" / "_data" / "bugs.json"
SEEDS = 20
APART = 1000  #: so that no two runs share an environment's seed


def cases(bug: Bug) -> dict[str, tuple[str, str, Bug]]:
    """The cases of a bug: by name the task, what is planted, and whose settings it has."""
    planted = {bugs.right_beside(bug): "", bug.name: bug.name}
    return {
        f"{task}: {name}": (task, wrong, bug)
        for task, (name, wrong) in product(bug.tasks, planted.items())
    }


CASES = {case: what for bug in BUGS.values() for case, what in cases(bug).items()}


def train(jobs: list[Job]) -> list[Run]:
    """One learning curve each."""
    runs = []
    for case, seed in jobs:
        task, wrong, bug = CASES[case]
        with bugs.planted(wrong):
            curve = bugs.curve(task, seed=seed, **bug.changes)
        runs.append({"curves": [round(score, 3) for score in curve]})
    return runs


def main() -> None:
    """Make the runs that are missing, those of the small worlds first."""
    args = arguments(__doc__, seeds=SEEDS, cases=BUGS).parse_args()
    code = (*LIBRARY, "ppo_lib/book/bugs.py", "tools/bugs.py")
    experiment = Experiment("make bugs", args.data or DATA, code, {}, train)
    wanted = {case for name in args.only for case in cases(BUGS[name])}
    seeds = range(0, APART * args.seeds, APART)
    jobs = ([(case, seed) for seed in seeds] for case in sorted(wanted, reverse=True))
    experiment.go_on(jobs, args.processes)


if __name__ == "__main__":
    main()

"""Climb the ladder of `ppo_lib.book.climbs`, and store every rung's runs for the chapters.

Usage: ``python tools/climbs.py CLIMB [--seeds N] [--only RUNG …] [--first SEED --data FILE]``.  A
command that was interrupted goes on where it stopped.

Every rung is tried with the same four learning rates and the same seeds of 100 and up; the one
with the highest mean return over the budget is shown with seeds from 0 on.  With ``--first``
nothing is tried: the rates are those of the book's file, and the seeds begin there.
"""

from functools import partial

import numpy as np
from experiments import LIBRARY, ROOT, Experiment, Job, Run, arguments, seeds_of

from ppo_lib.book import climbs

TRIALS = range(climbs.FIRST_TRIAL, climbs.FIRST_TRIAL + 3)
SEEDS = {"cartpole": 50, "acrobot": 20, "pendulum": 20}
CODE = LIBRARY + tuple(f"ppo_lib/book/{room}.py" for room in ("climbs", "fleet", "worlds"))


def train(climb: str, jobs: list[Job]) -> list[Run]:
    """Runs of one rung, side by side."""
    rungs, rates = zip(*(case.split() for case, _ in jobs), strict=True)
    seeds, rates = (seed for _, seed in jobs), [float(rate) for rate in rates]
    return to_store(climbs.run(rungs[0], seeds, climb=climb, learning_rate=rates))


def to_store(runs: climbs.Runs) -> list[Run]:
    """What is stored of each run."""
    columns = runs.finals.round(1).tolist(), runs.returns.round(1).tolist()
    return [{"finals": f, "returns": r} for f, r in zip(*columns, strict=True)]


def main() -> None:
    """Try the rates, and make the runs that are shown."""
    parser = arguments(__doc__, cases=climbs.RUNGS)
    parser.add_argument("climb", choices=list(climbs.CLIMBS))
    args = parser.parse_args()
    book = ROOT / "book" / "_data" / f"ladder-{args.climb}.json"
    data = args.data or book
    where = climbs.CLIMBS[args.climb]
    settings = where._asdict() | {"world": where.world.env_id, "steps": where.steps.tolist()}
    command = f"make climbs CLIMB={args.climb}"
    experiment = Experiment(command, data, CODE, settings, partial(train, args.climb))
    tries = ([(f"{rung} {r:g}", s) for r in climbs.RATES for s in TRIALS] for rung in args.only)
    experiment.go_on(() if args.first else tries, args.processes)
    stored = climbs.load(book if args.first else data)
    chosen = [f"{rung} {stored[rung].learning_rate:g}" for rung in args.only]
    seeds = seeds_of(args, SEEDS[args.climb])
    shown = [[(case, seed) for seed in seeds] for case in chosen]
    experiment.go_on(shown, args.processes)
    for rung, s in climbs.load(data).items():
        area, final = np.mean(s.runs.areas), np.mean(s.runs.finals)
        print(f"{rung:13} rate {s.learning_rate:<7g} area {area:7.1f}  final {final:7.1f}")


if __name__ == "__main__":
    main()

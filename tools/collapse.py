"""Three causes of a collapse after success, each tested by what changes it alone.

Usage: ``python tools/collapse.py [--seeds N] [--only CASE …] [--processes N]``.  A command that
was interrupted goes on where it stopped.

The base is the ladder's last rung with `PPOConfig`'s own numbers and a learning rate that stays;
nothing was searched for, and nothing is chosen.
"""

from typing import Any

from climbs import CODE, to_store
from experiments import ROOT, Experiment, Job, Run, arguments, seeds_of

from ppo_lib.book import climbs, worlds

CLIMB = climbs.Climb(worlds.CartPole, 20_480, 0.98, 20)  #: evaluated after every second update
CASES: dict[str, dict[str, Any]] = {
    "base": {},
    "gamma=0.95": {"gamma": 0.95},
    "gamma=0.995": {"gamma": 0.995},
    "clip_range=1000": {"clip_range": 1e3},
    "clip_range=0.05": {"clip_range": 0.05},
    "learning_rate=0.008": {"learning_rate": 8e-3},
    "learning_rate=0.0005": {"learning_rate": 5e-4},
    "anneal_learning_rate=True": {"anneal_learning_rate": True},
}


def train(jobs: list[Job]) -> list[Run]:
    """Runs of one case, side by side."""
    changes = {"anneal_learning_rate": False} | CASES[jobs[0][0]]
    return to_store(climbs.run("ppo", (seed for _, seed in jobs), climb=CLIMB, **changes))


def main() -> None:
    """Make the runs that are missing."""
    args = arguments(__doc__, cases=CASES).parse_args()
    data = args.data or ROOT / "book" / "_data" / "collapse.json"
    settings = {"steps": CLIMB.steps.tolist(), "gamma": CLIMB.gamma}
    settings |= {"hidden_sizes": climbs.HIDDEN_SIZES, "episodes": climbs.EPISODES}
    told = {name: {"changes": changes} for name, changes in CASES.items()}
    code = (*CODE, "tools/collapse.py")
    experiment = Experiment("make collapse", data, code, settings, train, told)
    jobs = ([(case, seed) for seed in seeds_of(args, 50)] for case in args.only)
    experiment.go_on(jobs, args.processes)


if __name__ == "__main__":
    main()

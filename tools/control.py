"""Train continuous control over seeds, and store the curves for the book.

Usage: ``python tools/control.py [--only ENV_ID …] [--seeds N] [--data FILE] [--processes N]``.  A
command that was interrupted goes on where it stopped.
"""

import time
from dataclasses import asdict, replace

from experiments import LIBRARY, ROOT, Experiment, Job, Run, arguments, seeds_of

from ppo_lib import PPO, evaluate, settings

DATA = ROOT / "book" / "_data" / "control.json"
SEEDS = {"Pendulum-v1": 10, "Hopper-v5": 5, "HalfCheetah-v5": 5}
POINTS = 20  # evaluations on the way
EPISODES = 10
EVALUATION_SEED = 10_000  # no training environment has a seed that large


def train(jobs: list[Job]) -> list[Run]:
    """For each run what greedy episodes earn on the way, and what training episodes did."""
    return [_run(env_id, seed) for env_id, seed in jobs]


def _run(env_id: str, seed: int) -> Run:
    trainer = PPO(env_id, replace(settings(env_id), seed=seed))
    every = trainer.config.num_updates // POINTS
    steps: list[int] = []
    greedy: list[float] = []
    drawn: list[float] = []
    evaluated = 0.0

    def watch(trainer: PPO) -> None:
        nonlocal evaluated
        if len(trainer.history) % every:
            return
        started = time.process_time()
        returns = evaluate(trainer.policy, env_id, num_episodes=EPISODES, seed=EVALUATION_SEED)
        steps.append(trainer.env_steps)
        greedy.append(round(returns.mean().item(), 1))
        drawn.append(round(trainer.history.recent_return(), 1))
        evaluated += time.process_time() - started

    started = time.process_time()
    with trainer:
        trainer.learn(watch, show_progress=False)
    speed = round(trainer.env_steps / (time.process_time() - started - evaluated))
    return {"steps": steps, "greedy": greedy, "drawn": drawn, "steps_per_second": speed}


def main() -> None:
    """Make the runs that are missing."""
    args = arguments(__doc__, cases=SEEDS).parse_args()
    settled = {"evaluation_episodes": EPISODES}
    settled["settings"] = {env_id: asdict(settings(env_id)) for env_id in SEEDS}
    code = (*LIBRARY, "tools/control.py")
    experiment = Experiment("make control", args.data or DATA, code, settled, train)
    jobs = ([(name, seed)] for name in args.only for seed in seeds_of(args, SEEDS[name]))
    experiment.go_on(jobs, args.processes)


if __name__ == "__main__":
    main()

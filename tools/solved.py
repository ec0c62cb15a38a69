"""Train chapter 7's agent with many seeds, and store what the kept policies earn.

Usage: ``python tools/solved.py``; five minutes of one free core.

The chapter shows one run of its own trainer, which equals `ppo_lib.PPO` to the last bit; here the
library's makes the same run with other seeds.
"""

import copy

import torch
from experiments import LIBRARY, ROOT, made_at
from stored import store

from ppo_lib import PPO, PPOConfig, evaluate

DATA = ROOT / "book" / "_data" / "solved.json"
CODE = (*LIBRARY, "tools/solved.py")
ENV_ID = "CartPole-v1"
TOTAL_STEPS = 40_960
SEEDS = range(500, 550)
EVERY = 8  # updates between two evaluations
CHOOSING, JUDGING = 10_000, 20_000  # seeds of the episodes that choose, and of those that judge


def run(seed: int) -> tuple[float, float, float]:
    """The kept policy on the 20 episodes that chose it and on 100 others; the last one on these."""
    kept: dict[str, object] = {"score": -1.0}

    def keep_the_best(trainer: PPO) -> None:
        if len(trainer.history) % EVERY == 0:
            score = evaluate(trainer.policy, ENV_ID, seed=CHOOSING).mean().item()
            if score >= kept["score"]:
                kept.update(score=score, policy=copy.deepcopy(trainer.policy))

    with PPO(ENV_ID, PPOConfig(total_steps=TOTAL_STEPS, seed=seed)) as trainer:
        trainer.learn(keep_the_best, show_progress=False)
        judged = [
            evaluate(policy, ENV_ID, num_episodes=100, seed=JUDGING).mean().item()
            for policy in (kept["policy"], trainer.policy)
        ]
    return round(kept["score"], 2), round(judged[0], 2), round(judged[1], 2)


def main() -> None:
    """Run every seed, and store all."""
    torch.set_num_threads(1)
    rows = []
    for seed in SEEDS:
        rows.append(run(seed))
        print(seed, *rows[-1], flush=True)
    chosen_on, held_out, last = map(list, zip(*rows, strict=True))
    columns = {"chosen_on": chosen_on, "held_out": held_out, "last": last}
    data = {"env_id": ENV_ID, "total_steps": TOTAL_STEPS, "seeds": list(SEEDS)}
    store(DATA, "make solved", made_at(CODE) | data | columns)


if __name__ == "__main__":
    main()

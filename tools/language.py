"""Train in the world of language that can be listed, over seeds, and store what came of it.

Usage: ``python tools/language.py [--only CASE …] [--seeds N] [--data FILE] [--processes N]``; some
eight minutes on two cores.  A command that was interrupted goes on where it stopped.
Divergences are in nats.
"""

from typing import Any

from experiments import LANGUAGE, ROOT, Experiment, Job, Run, arguments, seeds_of

from ppo_lib.book import language
from ppo_lib.language import world

DATA = ROOT / "book" / "_data" / "language.json"
CODE = (*LANGUAGE, "ppo_lib/book/language.py", "tools/language.py")
SEEDS = 20
BETA = 0.3  #: where settings are changed, and mistakes are planted

#: By name the settings of `language.train`.
CASES: dict[str, dict[str, Any]] = {
    **{f"β = {beta:g}": {"kl_coef": beta} for beta in (0.05, 0.1, 0.3, 1.0, 3.0)},
    "β held at 0.1": {"kl_coef": 0.1, "start_coef": 0.1},
    "β held from the start": {"kl_coef": BETA, "start_coef": BETA},
    "γ = 0.9": {"kl_coef": BETA, "gamma": 0.9},
    "λ = 0": {"kl_coef": BETA, "gae_lambda": 0.0},
    "learning rate 1": {"kl_coef": BETA, "learning_rate": 1.0},
    "learning rate 1, no clip": {"kl_coef": BETA, "learning_rate": 1.0, "clip_range": None},
    **{name: {"kl_coef": BETA, "mistake": name} for name in language.MISTAKES},
}


def train(jobs: list[Job]) -> list[Run]:
    """What is known of each policy after training."""
    reference, rewards = world.reference_policy(), world.gold_rewards()
    runs = []
    for case, seed in jobs:
        best, _ = world.optimum(reference, rewards, kl_coef=CASES[case]["kl_coef"])
        logits = language.train(rewards, reference, seed=seed, **CASES[case])
        found = {
            "kl": world.kl(logits, best),
            "kl_from_reference": world.kl(logits, reference),
            "reward": world.text_log_probs(logits).exp() @ rewards,
            "first_word_not": logits[0].softmax(-1)[world.WORDS.index("not")],
        }
        runs.append({name: float(f"{float(number):.4g}") for name, number in found.items()})
    return runs


def main() -> None:
    """Make the runs that are missing."""
    args = arguments(__doc__, cases=CASES).parse_args()
    told = {case: {"settings": settings} for case, settings in CASES.items()}
    experiment = Experiment("make language", args.data or DATA, CODE, {}, train, told)
    jobs = ([(case, seed) for case in args.only] for seed in seeds_of(args, SEEDS))
    experiment.go_on(jobs, args.processes)


if __name__ == "__main__":
    main()

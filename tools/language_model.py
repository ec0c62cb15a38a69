"""Tune the small language model over seeds and prices of KL, and store what came of it.

Usage: ``python tools/language_model.py [--seeds N] [--data FILE] [--processes N]``; about a minute
a seed on an idle core.  A seed's policies are made one after the other with one generator, and
so all or none.  A command that was interrupted goes on where it stopped.
"""

from copy import deepcopy

import torch
from experiments import LANGUAGE, ROOT, Experiment, Job, Run, arguments, seeds_of

from ppo_lib.language import reviews
from ppo_lib.language.tokens import sequence_sum
from ppo_lib.language.tuning import (
    draw,
    fit_reward_model,
    measure,
    optimum_value,
    preferences,
    pretrain,
    reward,
    sample,
    tune,
)

DATA = ROOT / "book" / "_data" / "language_model.json"
CODE = (*LANGUAGE, "tools/language_model.py")
BETAS, SEEDS = (0.0, 0.05, 0.5, 0.1, 0.02), 10
UPDATES, TEXTS = 45, 4000
CURVES = ("score", "gold", "grammatical", "kl")


def correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    """Of two lists of numbers."""
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


def train(jobs: list[Job]) -> list[Run]:
    """One reference, one reward model, and from there a policy for each β: a seed's cases."""
    [seed] = {seed for _, seed in jobs}
    generator = torch.Generator().manual_seed(seed)
    reference = pretrain(seed).requires_grad_(False)
    reward_model = fit_reward_model(reference, preferences(reference, 2000, generator), generator)
    prompts, tokens = sample(reference, TEXTS, generator)
    gold, grammatical = reviews.judge(prompts, tokens)
    scores = torch.cat(
        [
            reward(reward_model, p, t)
            for p, t in zip(prompts.split(1000), tokens.split(1000, dim=1), strict=True)
        ]
    )
    result: dict[str, Run] = {
        "reference": {
            "gold": gold.mean().item(),
            "grammatical": grammatical.float().mean().item(),
            "correlation": correlation(scores, gold),
            "correlation_reviews": correlation(scores[grammatical], gold[grammatical]),
        }
    }
    for beta in BETAS:
        policy = deepcopy(reference).requires_grad_(True)
        curves = [
            measure(batch)
            for batch in tune(
                policy, reference, reward_model, generator, kl_coef=beta, updates=UPDATES
            )
        ]
        after = draw(policy, reference, reward_model, 1000, generator, kl_coef=beta)
        found: Run = {key: [row[key] for row in curves] for key in CURVES}
        found["after"] = measure(after)
        found["texts"] = [
            reviews.say(int(after.prompts[i]), after.tokens[:, i].tolist()) for i in range(4)
        ]
        if beta > 0:
            ratio = sequence_sum(after.log_probs - after.ref_log_probs, after.mask)
            goal = after.scores - beta * ratio
            found["goal"] = [goal.mean().item(), goal.std().item() / len(goal) ** 0.5]
            found["best_by_reference"] = optimum_value(scores, 0 * scores, prompts, kl_coef=beta)
            found["best_by_policy"] = optimum_value(
                after.scores, ratio, after.prompts, kl_coef=beta
            )
        result[str(beta)] = found
    return [rounded(result[case]) for case, _ in jobs]


def rounded(x: Run) -> Run:
    """The same with four digits behind the point."""
    if isinstance(x, float):
        return round(x, 4)
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    return [rounded(value) for value in x] if isinstance(x, list | tuple) else x


def main() -> None:
    """Make the runs that are missing."""
    cases = ["reference", *(str(beta) for beta in sorted(BETAS))]
    args = arguments(__doc__).parse_args()
    settings = {"updates": UPDATES, "texts": TEXTS}
    experiment = Experiment("make language-model", args.data or DATA, CODE, settings, train)
    jobs = ([(case, seed) for case in cases] for seed in seeds_of(args, SEEDS))
    experiment.go_on(jobs, args.processes)


if __name__ == "__main__":
    main()

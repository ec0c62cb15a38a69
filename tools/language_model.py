"""Tune the small language model over seeds and prices of KL, and store what came of it.

Usage: ``python tools/language_model.py [SEED ...]``; it writes ``book/_data/language_model.json``,
in about a minute a seed on an idle core.  Named seeds are run and put beside those stored.
"""

import json
import re
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch

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

STORE = Path(__file__).resolve().parents[1] / "book" / "_data" / "language_model.json"
BETAS, SEEDS = (0.0, 0.05, 0.5, 0.1, 0.02), range(5)
UPDATES, TEXTS = 45, 4000
CURVES = ("score", "gold", "grammatical", "kl")


def correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    """Of two lists of numbers."""
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


def run(seed: int) -> Iterator[dict[str, object]]:
    """One reference, one reward model, and a policy for each β; what is known, after each."""
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
    result: dict[str, object] = {
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
        found: dict[str, object] = {key: [row[key] for row in curves] for key in CURVES}
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
        print(seed, beta, {k: round(v, 2) for k, v in measure(after).items()}, flush=True)
        yield result


def rounded(x: object) -> object:
    """The same with four digits behind the point."""
    if isinstance(x, float):
        return round(x, 4)
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    return [rounded(value) for value in x] if isinstance(x, list | tuple) else x


def main(seeds: list[int]) -> None:
    """Run seeds one at a time, and store what is known after each policy."""
    for seed in seeds:
        for made in run(seed):
            known = json.loads(STORE.read_text(encoding="utf-8")) if STORE.is_file() else {}
            known[str(seed)] = rounded(made)
            text = json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False)
            # A list of numbers stands on one line.
            text = re.sub(r"\[[^\[\]{}\"]*\]", lambda m: " ".join(m[0].split()), text)
            # Put in place whole, since several may run side by side.
            new = STORE.with_suffix(f".{seed}")
            new.write_text(text + "\n", encoding="utf-8")
            new.replace(STORE)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main([int(seed) for seed in sys.argv[1:]] or list(SEEDS))

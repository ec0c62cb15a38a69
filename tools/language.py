"""Train in the world of language that can be listed, over seeds, and store what came of it.

Usage: ``python tools/language.py``; it writes ``book/_data/language.json``, in some four minutes.
Every number but the rewards is KL(π ‖ π*_β) after training, in nats, a list over seeds.
"""

import json
from pathlib import Path

from ppo_lib.book.language import MISTAKES, train
from ppo_lib.language import world

STORE = Path(__file__).resolve().parents[1] / "book" / "_data" / "language.json"
BETAS, SEEDS, BETA = (0.05, 0.1, 0.3, 1.0, 3.0), range(5), 0.3
#: What is changed in the settings of `train`, at β = 0.3.
CHANGES = {
    "γ = 0.9": {"gamma": 0.9},
    "λ = 0": {"gae_lambda": 0.0},
    "learning rate 1": {"learning_rate": 1.0},
    "learning rate 1, no clip": {"learning_rate": 1.0, "clip_range": None},
}


def main() -> None:
    """Run everything, a seed at a time."""
    reference, rewards = world.reference_policy(), world.gold_rewards()

    def distance(beta: float, seed: int, **settings: object) -> tuple[float, float, float]:
        best, _ = world.optimum(reference, rewards, kl_coef=beta)
        logits = train(rewards, reference, kl_coef=beta, seed=seed, **settings)  # type: ignore[arg-type]
        reward = float(world.text_log_probs(logits).exp() @ rewards)
        found = (world.kl(logits, best), world.kl(logits, reference))
        return round(float(found[0]), 5), round(float(found[1]), 5), round(reward, 5)

    result: dict[str, dict[str, list[float]]] = {"kl": {}, "from_reference": {}, "reward": {}}
    for beta in BETAS:
        runs = [distance(beta, seed) for seed in SEEDS]
        for i, key in enumerate(("kl", "from_reference", "reward")):
            result[key][str(beta)] = [run[i] for run in runs]
        print(beta, result["kl"][str(beta)], flush=True)
    for kind, cases in (
        ("changes", CHANGES),
        ("mistakes", {name: {"mistake": name} for name in MISTAKES}),
    ):
        result[kind] = {}
        for name, settings in cases.items():
            result[kind][name] = [distance(BETA, seed, **settings)[0] for seed in range(3)]
            print(name, result[kind][name], flush=True)
    STORE.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

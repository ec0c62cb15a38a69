"""Train in the world of language that can be listed, over seeds, and store what came of it.

Usage: ``python tools/language.py``; it writes ``book/_data/language.json``, in some two minutes.
A number is KL(π ‖ π*_β) after training, in nats, if nothing else is said; a list is over seeds.
"""

import json
from pathlib import Path

from ppo_lib.book.language import MISTAKES, train
from ppo_lib.language import world

STORE = Path(__file__).resolve().parents[1] / "book" / "_data" / "language.json"
BETAS, SEEDS, BETA = (0.05, 0.1, 0.3, 1.0, 3.0), range(5), 0.3
#: What is changed in the settings of `train`, at β = 0.3.
CHANGES = {
    "β held from the start": {"start_coef": BETA},
    "γ = 0.9": {"gamma": 0.9},
    "λ = 0": {"gae_lambda": 0.0},
    "learning rate 1": {"learning_rate": 1.0},
    "learning rate 1, no clip": {"learning_rate": 1.0, "clip_range": None},
}


def main() -> None:
    """Run everything, a seed at a time."""
    reference, rewards = world.reference_policy(), world.gold_rewards()

    def distance(beta: float, seed: int, **settings: object) -> tuple[float, float, float, float]:
        best, _ = world.optimum(reference, rewards, kl_coef=beta)
        logits = train(rewards, reference, kl_coef=beta, seed=seed, **settings)  # type: ignore[arg-type]
        reward = float(world.text_log_probs(logits).exp() @ rewards)
        first_word_not = float(logits[0].softmax(-1)[world.WORDS.index("not")])
        found = (float(world.kl(logits, best)), float(world.kl(logits, reference)), reward)
        return *(round(x, 5) for x in found), round(first_word_not, 6)  # type: ignore[return-value]

    table = ("kl", "from_reference", "reward", "first_word_not")
    result: dict[str, dict[str, list[float]]] = {key: {} for key in table}
    for beta in BETAS:
        runs = [distance(beta, seed) for seed in SEEDS]
        for i, key in enumerate(table):
            result[key][str(beta)] = [run[i] for run in runs]
        print(beta, result["kl"][str(beta)], flush=True)
    # What the way to β is for, at the β where it is needed.
    held = [distance(0.1, seed, start_coef=0.1) for seed in range(3)]
    result["held"] = {"kl": [run[0] for run in held], "first_word_not": [run[3] for run in held]}
    print("held", result["held"], flush=True)
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

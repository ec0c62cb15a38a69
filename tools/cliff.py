"""Write the start of the moving figure of chapter 6 from which the surrogate misleads most.

Usage: ``python tools/cliff.py``; it writes ``book/_static/widgets/start.js``.

The policy sees its column and not its row, so that it has nine logits.  Of 300 random starts it is
the one at which, along the gradient, J falls farthest while the surrogate goes on rising.
"""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.func import grad, vmap

from ppo_lib.exact import mdp

FILE = Path(__file__).resolve().parents[1] / "book" / "_static" / "widgets" / "start.js"
GAMMA = 0.9


def misled(start: Tensor) -> Tensor:
    """What J loses along its gradient at ``start``, ``[3, 3]``, where the surrogate still rises."""
    ridge = mdp.ridge()
    column = torch.tensor([column for _, column in ridge.cells] + [0])

    def earned(policy: Tensor) -> Tensor:
        return mdp.expected_return(ridge, policy, GAMMA)

    old = start[column].softmax(-1)
    uphill = grad(lambda theta: earned(theta[column].softmax(-1)))(start)
    x = torch.linspace(0, 8, 33, dtype=torch.float64)[:, None, None]
    policies = (start + x * uphill / uphill.norm())[:, column].softmax(-1)
    advantage = mdp.exact_values(ridge, old, GAMMA).advantage
    weights = mdp.state_visits(ridge, old, GAMMA)[:, None] * advantage
    true, surrogate = vmap(earned)(policies).diff(), (policies * weights).sum((-2, -1)).diff()
    return -(true * ((true < 0) & (surrogate > 0))).sum()


def render() -> str:
    """The file, as JavaScript."""
    noise = torch.Generator().manual_seed(7)
    starts = torch.randn(300, 3, 3, dtype=torch.float64, generator=noise)
    worst = starts[vmap(misled)(starts).argmax()]
    logits = [[round(x, 2) for x in row] for row in worst.tolist()]
    return f"// Written by tools/cliff.py.\nKit.cliffStart = {json.dumps(logits)};\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
    print(f"{FILE.name}: written")

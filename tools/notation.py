"""Write the part of the notation page that says what the reader of formulas knows.

Usage: ``python tools/notation.py``; it takes the forms from `ppo_lib.book.formulas`, and puts
their table into ``book/notation.md``.
"""

import re
from pathlib import Path

import torch

from ppo_lib.book.formulas import FORMS
from ppo_lib.book.reading import Known, World

PAGE = Path(__file__).resolve().parents[1] / "book" / "notation.md"
TITLE = "## What the reader of formulas knows"
SECTION = re.compile(rf"{re.escape(TITLE)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)


def numbers(*items: float) -> torch.Tensor:
    """Some numbers in 64 bits."""
    return torch.tensor(items, dtype=torch.float64)


#: The numbers of the examples: how the page says them, and what the symbols mean.
TINY: tuple[tuple[str, dict[str, object]], ...] = (
    (r"$z = 2$", {"z": 2.0, "e": torch.e}),
    (
        r"two outcomes $x$ with $p = (0.25, 0.75)$, $q = (0.5, 0.5)$ and $f = (10, 6)$",
        {"p(x)": numbers(0.25, 0.75), "q(x)": numbers(0.5, 0.5), "f(x)": numbers(10, 6)},
    ),
    (
        r"two states with $\pi(0 \mid s) = 0.2$ and $0.6$",
        {r"\pi(a \mid s)": torch.stack([numbers(0.2, 0.6), numbers(0.8, 0.4)])},
    ),
    (
        r"$\gamma = 0.5$, $T = 4$, $r_t = 1, 2, 3, 4$ and $\hat A^{(k)}_t = k\, r_t$",
        {
            r"\gamma": 0.5,
            "T": 4,
            r"\infty": 60,
            "r_t": numbers(1, 2, 3, 4),
            r"\hat A^{(k)}_t": torch.outer(numbers(0, 1, 2), numbers(1, 2, 3, 4)),
        },
    ),
    (
        r"three trajectories with the probabilities $0.5, 0.25, 0.25$, the returns $1, 4, 6$"
        r" and the first states $0, 0, 1$",
        {
            r"P_\theta(\tau)": numbers(0.5, 0.25, 0.25),
            r"R(\tau)": numbers(1, 4, 6),
            "s_t": Known(torch.tensor([[0], [0], [1]]), (r"\tau",)),
        },
    ),
    (
        r"$\theta = (1, 2)$ with $L(\theta) = \theta_0^2 + 3\, \theta_1$",
        {r"L(\theta)": lambda theta: theta[0, 0] ** 2 + 3 * theta[0, 1]},
    ),
)


def tiny_world() -> World:
    """What the symbols of the examples mean."""
    symbols = {name: meaning for _, known in TINY for name, meaning in known.items()}
    sizes = {"x": 2, "a": 2, "s": 2, "t": 4, r"\tau": 3}
    return World(symbols, sizes=sizes, theta=numbers(1, 2).view(1, 2))


def section() -> str:
    """The part of the page, as MyST Markdown."""
    lines = [
        TITLE,
        "",
        "The equations of the chapters are read as they are printed, and run.",
        "This table holds all that the reader understands; what stands in it drives the reader,"
        " and what does not is an error that names its place.",
        "Under *index* stands over what an example still runs, and under *value* what it gives"
        " with these numbers: " + "; ".join(said for said, _ in TINY) + ".",
        "",
        "| written | in print | read as | index | value |",
        "|---|---|---|---|---|",
    ]
    for form in FORMS:
        tex = form.example.replace("|", r"\|")
        index = ", ".join(rf"${axis}$".replace("∇", r"\nabla") for axis in form.axes.split(", "))
        index = index if form.axes else ""
        lines.append(f"| `{tex}` | ${tex}$ | {form.says} | {index} | {form.value} |")
    return "\n".join([*lines, "", ""])


def render() -> str:
    """The whole page, with this part as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    return SECTION.sub(lambda _: section(), text)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(f"{PAGE.name}: written, {len(FORMS)} forms")

"""Draw the picture of the front page and of the README: ``python tools/picture.py``."""

from pathlib import Path

from ppo_lib.book.figures import draw_ridge, set_style, svg
from ppo_lib.exact.mdp import ridge

PICTURE = Path(__file__).resolve().parents[1] / "book" / "_static" / "ridge.svg"

if __name__ == "__main__":
    set_style()
    PICTURE.write_text(svg(draw_ridge(ridge()).figure), encoding="utf-8")
    print(f"{PICTURE.name}: written")

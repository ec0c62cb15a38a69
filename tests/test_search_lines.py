"""What a result of the search shows: sentences, with formulas as signs."""

import pytest
import search_lines
from docutils import nodes

LINES = {
    r"\gamma V(s')": "γ V(s')",
    r"\pi_\theta(a \mid s)": "π_θ(a | s)",
    r"\hat A^{\mathrm{GAE}}_t": "Â^GAE_t",
    r"\tfrac12 + \frac{r_t}{d} \le \lambda": "1/2 + r_t/d ≤ λ",
    r"\mathbb E_{x \sim p}\big[f(x)\big]": "E_x ~ p[f(x)]",
    r"\Delta, \dots, \infty": "Δ, …, ∞",
}


@pytest.mark.parametrize(("tex", "line"), LINES.items())
def test_a_formula_is_a_line_of_signs(tex: str, line: str) -> None:
    assert " ".join(search_lines.plain(tex).split()) == line


def test_a_section_has_its_own_sentences_and_no_code() -> None:
    inner = nodes.section("", nodes.title("", "Inner"), nodes.paragraph("", "Third."), ids=["b"])
    code = nodes.literal_block("", "x = 1")
    said = nodes.paragraph("", "First one.\nSecond ", nodes.math("", r"\pi"), nodes.Text("."))
    outer = nodes.section("", nodes.title("", "Outer"), said, code, inner, ids=["a"])
    doctree = nodes.document(None, None, "", outer)
    assert list(search_lines.sections(doctree)) == [
        ("a", "Outer", ["First one.", "Second π."]),
        ("b", "Inner", ["Third."]),
    ]

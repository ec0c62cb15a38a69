"""The reader of formulas: true prints pass, misprints fail with their place, nothing is vacuous."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ppo_lib.book import formulas
from ppo_lib.book.checks import EXACT_TOLERANCE, CheckFailed, Verdict
from ppo_lib.book.formulas import Unreadable, find_tex, read_expression, read_formula
from ppo_lib.book.printed import check_equation, exact_world, revealing_world, sampled_worlds
from ppo_lib.book.reading import Known, World, changes, show
from ppo_lib.exact.mdp import draw, ridge

# torch.func imports torch.jit the first time.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BOOK = Path(__file__).resolve().parents[1] / "book"
LABELLED = re.compile(r"\$\$\n(?:(?!\$\$).)*?\n\$\$ \((eq-[\w-]+)\)", re.DOTALL)
#: What is no relation of numbers: sets, tuples, laws, factors left out, a program, matrices.
BESIDE = {
    "eq-a1": "a set",
    "eq-a3": "a tuple",
    "eq-a5": "a law",
    "eq-a11": "factors are left out",
    "eq-ppo-update": "a program",
    "eq-layer-gradient": "matrices",
    "eq-turned-signs": "digits are left out",
    "eq-soft-values": "words in its cases",
    "eq-soft-improvement": "a proportion",
    "eq-grpo-pair": "a sign",
    "eq-dpo": "two definitions in one",
}


def numbers(*items):
    return torch.tensor(items, dtype=torch.float64)


def check(folder, tex, world, **more):
    """Print an equation in a notebook of its own, and check it there."""
    cell = {"cell_type": "markdown", "id": "x", "metadata": {}, "source": f"$$\n{tex}\n$$ (eq-x)"}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "01-x.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    check_equation("eq-x", world, folder=folder, **more)


@pytest.fixture(scope="module")
def world():
    generator = torch.Generator().manual_seed(0)
    theta, noise = torch.randn(2, 14, 3, generator=generator, dtype=torch.float64)
    critic = torch.randn(14, generator=generator, dtype=torch.float64)
    start = torch.zeros(14, dtype=torch.float64)
    start[:2] = numbers(0.75, 0.25)
    mdp = replace(ridge(), start=start)
    return exact_world(mdp, theta, gamma=0.9, old_theta=theta + noise / 3, critic=critic)


# ------------------------------------------------------------------ numbers by hand


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"2 + 3 z^2 - \frac{z}{4}", 13.5),
        (r"\tfrac12 (z - 5)^2", 4.5),
        (r"\sum_{i=1}^3 (i + 1)\, z^{i-1}", 24.0),
        (r"\prod_{i=1}^3 (i + z)", 60.0),
        (r"\min(z, 3) + \max(z, 3) + \mathrm{clip}(z, 0, 1)", 6.0),
        (r"\big| 3 - 5 z \big| \log z", 4.852030263919617),
        (r"\mathbb 1[z < 3] + z", 3.0),
        (r"\mathbb E_{y \sim p}[f(y)]", 7.0),
        (r"\mathrm{Var}_{y \sim p}[f(y)]", 3.0),
        (r"\mathrm{KL}\big( p(\cdot) \,\Vert\, q(\cdot) \big)", 0.13081203594113694),
        (r"\mathrm{KL}\big( p \,\Vert\, q \big)", 0.13081203594113694),
    ],
)
def test_an_expression_has_the_value_worked_by_hand(tmp_path, capsys, tex, expected):
    symbols = {"z": 2.0, "c": expected, "p(x)": numbers(0.25, 0.75), "f(x)": numbers(10.0, 6.0)}
    bound = World(symbols | {"q(x)": numbers(0.5, 0.5)}, sizes={"y": 2, "a": 2})
    check(tmp_path, f"c = {tex}", bound)
    assert re.fullmatch(
        r"✓ eq-x · printed · rejects (\d+) of \1 one-token changes\n",
        capsys.readouterr().out,
    )
    with pytest.raises(CheckFailed):
        check(tmp_path, f"c = {tex} + 1", bound)


TWO_LAWS = numbers([0.2, 0.6], [0.8, 0.4])
AXES = {
    "z": 2.0,
    "n": 3,
    r"\pi(a \mid s)": TWO_LAWS,
    "u(a)": numbers(1.0, 2.0),
    "g(x)": lambda theta: torch.stack([2 * theta[0, 0], 3 * theta[0, 1] ** 2]),
    r"P_\theta(\tau)": numbers(0.5, 0.25, 0.25),
    r"P_{\theta'}(\tau)": numbers(0.25, 0.5, 0.25),
    "p(x)": numbers(1.0, 0.0),
    "h(x)": numbers(3.0, torch.nan),
    "q(x)": numbers(0.5, 0.5),
    r"\infty": 2,
    r"R(\tau)": numbers(4.0, 8.0, 2.0),
    "s_t": Known(torch.tensor([[0, 1], [0, 0], [0, 1]]), (r"\tau",)),
}


@pytest.mark.parametrize(
    ("tex", "axes", "expected"),
    [
        (r"\sum_{i=1}^2 \big( i + \sum_{i=1}^3 i \big)", (), 15.0),
        (r"\sum_{i=1}^3 \sum_{i=1}^i i", (), 10.0),
        (r"\sum_{i=1}^2 \sum_{k=1}^3 i k", (), 18.0),
        ("z^n", (), 8.0),
        (r"\sum_{i=t}^1 (i + 1)", ("t",), [3.0, 2.0]),
        (r"\max_{i \ge t} (3 - i)", ("t",), [3.0, 2.0]),
        (r"\mathrm{Var}_{x \sim q}[\nabla g(x)]", (), 226.0),
        ("u(1)", (), 2.0),
        ("u(2)", (), torch.nan),
        ("u(0 - 1)", (), torch.nan),
        (r"\mathbb E_{x \sim p}[h(x)]", (), 3.0),
        (r"\mathrm{KL}\big( P_\theta \,\Vert\, P_{\theta'} \big)", (), 0.17328679513998632),
        (r"\begin{cases} z & \text{if } z \ge 2, \\ z & \text{if } z < 3 \end{cases}", (), 2.0),
        (
            r"\begin{cases} z & \text{if } z \ge 2, \\ 3 & \text{if } z < 3 \end{cases}",
            (),
            torch.nan,
        ),
        (r"\mathbb E_{a \sim \pi(\cdot \mid s)}[u(a)]", ("s",), [1.8, 1.4]),
        (
            r"\mathbb E_{a \sim \pi}[u(a)]",
            (r"\tau", "t"),
            [[1.8, 1.4], [1.8, 1.8], [1.8, 1.4]],
        ),
        (
            r"\mathbb E[R(\tau) \mid s_t]",
            (r"\tau", "t"),
            [[4.5, 10 / 3], [4.5, 8.0], [4.5, 10 / 3]],
        ),
        (
            r"\frac{\partial g(x)}{\partial \theta_{s, a}}",
            ("x", "s", "a"),
            [[[2.0, 0.0]], [[0.0, 30.0]]],
        ),
        (r"\frac{\partial g(1)}{\partial \theta_{0, 1}}", (), 30.0),
        (r"\sum_{a=1}^1 \frac{\partial g(1)}{\partial \theta_{0, a}}", (), 30.0),
        (r"\lVert \nabla g(x) \rVert", ("x",), [2.0, 30.0]),
        (r"\lVert \nabla ( g(0) + g(1) ) \rVert^2", (), 904.0),
    ],
)
def test_a_value_with_its_axes_by_hand(tex, axes, expected):
    sizes = {"a": 2, "s": 2, "t": 2, "x": 2, r"\tau": 3}
    world = World(AXES, sizes=sizes, theta=numbers([4.0, 5.0]))
    found = world.value(read_expression(tex), {})
    assert sorted(found.axes) == sorted(axes)
    x = found.x.double().permute([found.axes.index(axis) for axis in axes])
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(x, expected, equal_nan=True)


def test_the_meaning_of_a_symbol_is_told_or_refused():
    world = World({"z": 2.0, r"f(\sum_{i=t}^n x)": 3.0})
    assert world.meaning("z") == 2
    with pytest.raises(Unreadable, match=r"^nothing says what y means$"):
        world.meaning("y")
    assert world.match(read_expression(r"f(\sum_{i=z}^n x)")) is not None
    for other in (r"f(\sum_i x)", r"f(\prod_{i=z}^n x)"):
        assert world.match(read_expression(other)) is None
    with pytest.raises(Unreadable, match=r"nothing says what w\(a \| s_\{t\}\) means"):
        World(AXES, sizes={"a": 2}).value(read_expression(r"\mathbb E_{a \sim w}[u(a)]"), {})
    # Nothing depends on θ where there is none.
    assert world.value(read_expression(r"\nabla z"), {}).x.shape == (0,)


def test_cases_take_the_value_whose_condition_holds(tmp_path):
    tex = (
        r"y = \begin{cases} z & \text{if } z \ge 0, \\"
        "\n"
        r"-2 z & \text{if } z < 0, \end{cases}"
    )
    along = ("point",)
    bound = {"z": Known(numbers(-1.0, 0.0, 3.0), along), "y": Known(numbers(2.0, 0.0, 3.0), along)}
    check(tmp_path, tex, World(bound))
    with pytest.raises(CheckFailed):
        check(tmp_path, tex.replace("-2", "2"), World(bound))
    with pytest.raises(CheckFailed, match="not a number"):
        check(tmp_path, tex.replace("<", ">"), World(bound))


# ------------------------------------------------------------------ misprints

TRUE = [
    r"A_\theta(s, a) = Q_\theta(s, a) - V_\theta(s)",
    r"R(\tau) = \sum_{t=0}^{T-1} \gamma^t\, r(s_t, a_t, s_{t+1})",
    r"P_\theta(\tau) = P(s_0) \prod_{t=0}^{T-1} \pi_\theta(a_t \mid s_t) P(s_{t+1} \mid s_t, a_t)",
    r"\delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)",
    r"\nabla J(\theta) = \sum_\tau R(\tau)\, \nabla P_\theta(\tau)",
]
MISPRINTS = [
    (0, "- V", "+ V"),
    (0, r"V_\theta", r"V_{\theta'}"),
    (1, "T-1", "T-2"),
    (1, "T-1", "T"),
    (1, "t=0", "t=1"),
    (1, r"\gamma^t", r"\gamma"),
    (1, "s_{t+1}", "s_{t+2}"),
    (2, r"P(s_0) ", ""),
    (2, r"\prod", r"\sum"),
    (2, r"\pi_\theta", r"\pi_{\theta'}"),
    (3, "s_{t+1}", "s_t"),
    (3, r"\gamma ", ""),
    (3, "- V", "+ V"),
    (4, r"R(\tau)\,", ""),
    (4, r"\nabla P", "P"),
]


@pytest.mark.parametrize("tex", TRUE)
def test_a_true_print_passes_and_rejects_its_changes(tmp_path, capsys, world, tex):
    check(tmp_path, tex, world)
    found = re.search(r"rejects (\d+) of (\d+)", capsys.readouterr().out)
    assert found[1] == found[2] != "0"


@pytest.mark.parametrize(("number", "right", "wrong"), MISPRINTS)
def test_a_misprint_fails(tmp_path, capsys, world, number, right, wrong):
    assert TRUE[number].count(right) >= 1
    with pytest.raises((CheckFailed, Unreadable)):
        check(tmp_path, TRUE[number].replace(right, wrong, 1), world)
    assert capsys.readouterr().out == ""


def test_a_failure_shows_the_relation_and_both_numbers(tmp_path):
    with pytest.raises(CheckFailed, match=r"\(eq-x\) y = z \+ 1: the sides are 2 and 3"):
        check(tmp_path, "y = z + 1", World({"z": 2.0, "y": 2.0}))


def test_rounding_is_allowed_and_no_more(tmp_path):
    # 1e-12 of the largest number that is printed on the right, and of 1 where all are smaller.
    for right, apart, holds in (
        (0.0, 1.0, True),
        (0.25, 0.7, True),
        (0.25, 1.5, False),
        (8.0, 7.0, True),
        (8.0, 15.0, False),
        (-8.0, 7.0, True),
    ):
        left = numbers(right + apart * EXACT_TOLERANCE, 0.25)
        world = World({"f(s)": left, "g(s)": numbers(right + 1, 1.25)})
        if holds:
            check(tmp_path, "f(s) = g(s) - 1", world)
            continue
        with pytest.raises(CheckFailed, match="more than allowed apart"):
            check(tmp_path, "f(s) = g(s) - 1", world)


# ------------------------------------------------------------------ what is no check


def test_a_symbol_that_nothing_binds_is_named(tmp_path, world):
    with pytest.raises(Unreadable, match="nothing says what W means"):
        check(tmp_path, r"A_\theta(s, a) = Q_\theta(s, a) - W(s)", world)


@pytest.mark.parametrize("tex", ["x", r"x \sim p", r"\text{a word}"])
def test_a_formula_without_a_relation_is_refused(tmp_path, tex):
    with pytest.raises(Unreadable, match="no relation"):
        check(tmp_path, tex, World({"z": 2.0}))


def test_a_side_held_against_itself_is_refused(tmp_path):
    both = numbers(1.0, 2.0)
    with pytest.raises(CheckFailed, match="against itself"):
        check(tmp_path, "z = z", World({"z": 2.0}))
    with pytest.raises(CheckFailed, match="both sides are one binding"):
        check(tmp_path, "f(x) = g(x)", World({"f(x)": both, "g(x)": both}, sizes={"z": 2}))
    with pytest.raises(CheckFailed, match="no token that could be changed"):
        check(tmp_path, "z = 2", World({"z": 2.0}))
    with pytest.raises(CheckFailed, match="claims nothing: where is nowhere True"):
        check(tmp_path, "z = 1 + 1", World({"z": 2.0}), where=Known(torch.tensor(False)))


def test_a_change_that_goes_unseen_needs_its_reason(tmp_path, capsys):
    bound = World({"z": 0.0, "y": 3.0})
    with pytest.raises(CheckFailed, match="goes unseen: the sign of z"):
        check(tmp_path, "y = 3 + z", bound)
    with pytest.raises(CheckFailed, match=r"is told apart: the sign of 3$"):
        check(
            tmp_path,
            "y = 3 + z",
            bound,
            equivalent=dict.fromkeys(("the sign of z", "the sign of 3"), "z is 0"),
        )
    check(tmp_path, "y = 3 + z", bound, equivalent={"the sign of z": "z is 0"})
    assert (
        "rejects 1 of 2 one-token changes; 1 change nothing: the sign of z"
        in capsys.readouterr().out
    )


def test_what_cannot_be_read_is_shown_with_its_place(tmp_path):
    with pytest.raises(Unreadable, match=re.escape("here: y = z +  ⟶ )")):
        check(tmp_path, "y = z + )", World({"z": 2.0, "y": 2.0}))
    with pytest.raises(Unreadable, match="which no notebook in"):
        find_tex("eq-none", tmp_path)


def test_a_parse_error_counts_the_characters_of_the_page(tmp_path):
    tex = r"y = \big( z + \tfrac12 \ldots \big)"
    with pytest.raises(Unreadable, match=re.escape("nothing says what ldots means")):
        check(tmp_path, tex, World({"z": 2.0, "y": 2.0}))
    broken = r"y = \big( z + \tfrac12 ] ) \big)"
    with pytest.raises(Unreadable, match=re.escape(f"character {broken.index('] )')}, here: ")):
        check(tmp_path, broken, World({"z": 2.0, "y": 2.0}))


# What has no value, with the piece of the print that the error must show, and why.
VALUELESS = [
    (r"y = \Big( z + 3 \mathbb{E}_{x \sim p}[w x] \Big)", "w", "nothing says what w means"),
    (r"y = z + \sum_k f(k)", r"\sum_k f(k)", "sizes does not say how many k there are"),
    (r"y = z + 0, \qquad z = \sum_{i=1} f(i)", r"\sum_{i=1} f(i)", "has no upper bound"),
    (r"y = z + \frac{u}{v}", r"\frac{u}{v}", "the index x has 2 values and 3"),
    (r"y = z + u\, v", r"u\, v", "the index x has 2 values and 3"),
    (r"y = z \cdot ( 1 + f(x, z))", "f(x, z)", "nothing says what f(x, z) means"),
    (r"y = z + h(x)", "h(x)", "h(x) has 1 places, its value 2 axes"),
    (r"y = z + \dots", r"\dots", "nothing says what the dots stand for"),
    (r"y = z + \nabla \min(z, w)", "w", "nothing says what w means"),
    (r"y = z + w^n", "w^n", "nothing says what w^{n} means"),
]


@pytest.mark.parametrize(("tex", "piece", "why"), VALUELESS)
def test_what_has_no_value_is_shown_with_its_place(tmp_path, tex, piece, why):
    two, three = numbers(1.0, 2.0), numbers(1.0, 2.0, 3.0)
    symbols = {"z": 2.0, "y": 2.0, "p(x)": two, "f(x)": two}
    symbols |= {"u": Known(two, ("x",)), "v": Known(three, ("x",))}
    world = World(symbols | {"h(x)": torch.ones(2, 2)}, sizes={"x": 2}, theta=two)
    with pytest.raises(Unreadable) as caught:
        check(tmp_path, tex, world)
    place = tex.rindex(piece)
    assert f'{why}, in "{tex}": at character {place}: {piece}' in str(caught.value)
    assert caught.value.span.piece == piece


def test_a_false_equation_shows_the_first_difference_and_both_pieces(tmp_path):
    tex = r"f(s, a) = \begin{aligned} g(s, a) + 1 \end{aligned}"
    g = torch.arange(6, dtype=torch.float64).view(3, 2)
    f = g + 1
    f[1, 1], f[2, 0] = 7.5, 9.0
    with pytest.raises(CheckFailed) as caught:
        check(tmp_path, tex, World({"f(s, a)": f, "g(s, a)": g}))
    assert str(caught.value) == (
        "(eq-x) f(s, a) = g(s, a) + 1: the sides are 7.5 and 4 at s = 1, a = 1, and at most 4 more"
        f' than allowed apart, in "{tex}": at character 0: f(s, a) and at character 26: g(s, a) + 1'
    )


def test_a_false_equation_counts_the_places_that_are_claimed(tmp_path):
    g = torch.arange(6, dtype=torch.float64).view(3, 2)
    claimed = Known(torch.tensor([[True, False], [True, True], [False, True]]), ("s", "a"))
    f = torch.tensor([[0.0, 5.0], [2.0, 9.0], [5.0, 5.0]]).double()
    with pytest.raises(CheckFailed, match="the sides are 3 and 9 at s = 1, a = 1, and at most 6"):
        check(tmp_path, "g(s, a) = f(s, a)", World({"f(s, a)": f, "g(s, a)": g}), where=claimed)
    # What is just allowed apart is not the first difference.
    f = {"f(s)": numbers(EXACT_TOLERANCE, 5.0), "g(s)": numbers(0.0, 0.0)}
    with pytest.raises(CheckFailed, match="the sides are 5 and 0 at s = 1, and at most 5"):
        check(tmp_path, "f(s) = g(s)", World(f))
    with pytest.raises(CheckFailed, match="not a number somewhere, first at s = 0, a = 0"):
        check(tmp_path, r"g(s, a) = \log(-g(s, a))", World({"g(s, a)": g}), where=claimed)


@pytest.mark.parametrize(
    "tex",
    [
        r"\hat A^{(k)}_t = \sum_{i=0}^{k-1} \big( \gamma^i r_{t+i} \big) - \tfrac12 V(s_t)",
        "y = x / z / w",
        "y = ( z + 1 )^2 / k + x^2 / k",
        "y = ( z )^k + ( z ) / k",
    ],
)
def test_every_part_of_the_print_knows_its_place(tex):

    def parts(node):
        yield node
        for child in node.children():
            yield from parts(child)

    (statement,) = read_formula(tex)
    for part in parts(statement):
        assert part.span.tex == tex
        if not hasattr(part, "relations") and not isinstance(part, formulas.Relation):
            assert read_expression(part.span.piece) == part


def test_the_place_of_what_a_bracket_is_multiplied_by_begins_behind_its_bracket():
    product = read_expression("( z + 1 )( w )^2 / k")
    fraction = product.factors[-1]
    assert (fraction.span.piece, fraction.top.span.piece) == ("w )^2 / k", "w )^2")


# ------------------------------------------------------------------ changes of one token

CHANGES = {
    r"2 z x - \frac{\gamma^t}{N} V(s_{t+1})": {
        "the sign of 2 z x": "- 2 z x - gamma^t/N V(s_{t + 1})",
        "the sign of gamma^t/N V(s_{t + 1})": "2 z x + gamma^t/N V(s_{t + 1})",
        "without 2": "z x - gamma^t/N V(s_{t + 1})",
        "without z": "2 x - gamma^t/N V(s_{t + 1})",
        "without x": "2 z - gamma^t/N V(s_{t + 1})",
        "without gamma^t/N": "2 z x - V(s_{t + 1})",
        "without V(s_{t + 1})": "2 z x - gamma^t/N",
        "without / N": "2 z x - gamma^t V(s_{t + 1})",
        "N / gamma^t": "2 z x - N/gamma^t V(s_{t + 1})",
        "without the exponent t": "2 z x - gamma/N V(s_{t + 1})",
        "gamma^t with +1": "2 z x - gamma^t + 1/N V(s_{t + 1})",
        "gamma^t with -1": "2 z x - gamma^t - 1/N V(s_{t + 1})",
        "the sign of t": "2 z x - gamma^t/N V(s_{- t + 1})",
        "the sign of 1": "2 z x - gamma^t/N V(s_{t - 1})",
    },
    r"\sum_{i=1}^{n} \min(f(i), z)": {
        "1 + 1": "sum_i=1 + 1..n min(f(i), z)",
        "1 - 1": "sum_i=1 - 1..n min(f(i), z)",
        "n + 1": "sum_i=1..n + 1 min(f(i), z)",
        "n - 1": "sum_i=1..n - 1 min(f(i), z)",
        "max for sum": "max_i=1..n min(f(i), z)",
        "min and max": "sum_i=1..n max(f(i), z)",
    },
    r"\mathbb E[R(\tau) \mid s_0, a_0]": {
        "without the condition s_{0}": "E[R(tau) | a_{0}]",
        "without the condition a_{0}": "E[R(tau) | s_{0}]",
        "Var for E": "Var[R(tau) | s_{0}, a_{0}]",
    },
    r"\log \pi_\theta(a_t \mid s_t)": {
        "without log": "pi_{theta}(a_{t} | s_{t})",
        "θ and θ'": "log(pi_{theta'}(a_{t} | s_{t}))",
        "a_{t} at t+1": "log(pi_{theta}(a_{t + 1} | s_{t}))",
        "a_{t} at t-1": "log(pi_{theta}(a_{t - 1} | s_{t}))",
        "s_{t} at t+1": "log(pi_{theta}(a_{t} | s_{t + 1}))",
        "s_{t} at t-1": "log(pi_{theta}(a_{t} | s_{t - 1}))",
    },
    r"\mathrm{KL}\big( p(\cdot) \,\Vert\, q(\cdot) \big)": {
        "the other order": "divergence(q(cdot), p(cdot))"
    },
    r"\mathbb 1[z < 3] f(t, z)": {
        "without indicator(z < 3)": "f(t, z)",
        "without f(t, z)": "indicator(z < 3)",
        "z < 3 the other way": "indicator(z > 3) f(t, z)",
        "f(t, z) at t+1": "indicator(z < 3) f(t + 1, z)",
        "f(t, z) at t-1": "indicator(z < 3) f(t - 1, z)",
    },
    r"\prod_{i=0}^{\infty} | x_i |": {
        "0 + 1": "prod_i=0 + 1..infty abs(x_{i})",
        "0 - 1": "prod_i=0 - 1..infty abs(x_{i})",
        "sum for prod": "sum_i=0..infty abs(x_{i})",
        "without abs": "prod_i=0..infty x_{i}",
    },
}


@pytest.mark.parametrize("tex", CHANGES)
def test_every_change_of_one_token_by_hand(tex):
    node = read_expression(tex)
    found = list(changes(node))
    assert {said: show(other) for said, other in found} == CHANGES[tex]
    assert len(found) == len(CHANGES[tex])


def test_arguments_behind_a_bracket_are_those_of_each_term():
    assert show(read_expression(r"(p + q)(a \mid s)")) == "p(a | s) + q(a | s)"
    with pytest.raises(Unreadable, match=r"cannot read a list behind a bracket, .*: a$"):
        read_expression("(p + 2)(a, s)")
    x, y = formulas.Symbol("x"), formulas.Symbol("y")
    assert show(formulas.Symbol("f", args=(x, y))) == "f(x, y)"


def test_a_logarithm_and_a_gradient_are_of_the_next_factor():
    assert show(read_expression(r"\log (z)(w)")) == "log(z) w"
    assert read_expression(r"\nabla_\theta L(\theta)") == read_expression(r"\nabla L(\theta)")


def test_of_two_meanings_the_one_that_says_most_counts():
    general, special = torch.arange(6.0).view(2, 3).double(), numbers(7.0, 8.0, 9.0)
    pairs = [(r"\hat A^{(k)}_t", general), (r"\hat A^{\mathrm{GAE}}_t", special)]
    for symbols in (dict(pairs), dict(reversed(pairs))):
        found = World(symbols).match(read_expression(r"\hat A^{\mathrm{GAE}}_t"))
        assert found is not None
        assert found[0].value is special


def test_of_an_error_of_what_a_symbol_means_the_first_line_is_told(tmp_path):
    def fails(_):
        raise ValueError("the first line\nthe second")

    with pytest.raises(Unreadable, match="the first line, in") as found:
        check(tmp_path, "y = z + 1", World({"y": 1.0, "z": fails}))
    assert "second" not in str(found.value)


def test_a_divergence_in_each_state_by_hand(tmp_path):
    p, q = numbers([0.25, 0.5], [0.75, 0.5]), numbers([0.5, 0.1], [0.5, 0.9])
    both = {r"p(x \mid s)": p, r"q(x \mid s)": q}
    # 1/4 log(1/2) + 3/4 log(3/2), and 1/2 log 5 + 1/2 log(5/9).
    found = numbers(0.13081203594113694, 0.510825623765991)
    tex = r"f(s) = \mathrm{KL}\big( p(\cdot \mid s) \,\Vert\, q(\cdot \mid s) \big)"
    check(tmp_path, tex, World(both | {"f(s)": found}, sizes={"a": 2, "s": 2}))


def test_a_number_is_one_of_float64():
    assert World({}).value(read_expression("0.1"), {}).x.item() == 0.1


def test_what_is_no_symbol_means_nothing():
    with pytest.raises(Unreadable, match=r"symbols has 'z \+ 1', expected a symbol"):
        World({"z + 1": 2.0})


def test_a_badge_holds_both_sides_of_each_relation_and_every_change(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(Verdict, "show", lambda verdict: shown.append(verdict))
    row = "[[statement]]\nlabel = 'eq-x'\nsource = 'z = 2.5'"
    (tmp_path / "ledger.toml").write_text(f"reads = []\n{row}", encoding="utf-8")
    bound = World({"y": 6.0, "w": 1.0, "z": 2.0, "u": 5.0, "k": 0.0})
    excused = dict.fromkeys(("the sign of k/u", "without / u"), "k is 0")
    check(tmp_path, r"y - w = z + 3 + \frac{k}{u} = u", bound, equivalent=excused)
    assert shown[0].rows == (
        ("left side", "5"),
        ("right side", "5"),
        ("the sign of y", "off by 12"),
        ("the sign of w", "off by 2"),
        ("the sign of z", "off by 4"),
        ("the sign of 3", "off by 6"),
        ("the sign of k/u", "the same numbers: k is 0"),
        ("without / u", "the same numbers: k is 0"),
        ("u / k", "not a number somewhere"),
        ("left side", "5"),
        ("right side", "5"),
        ("the source's own formula", "off by 0.5"),
    )
    assert shown[0].held == (
        "printed · rejects 5 of 7 one-token changes; 2 change nothing: the sign of k/u, without / u"
        " · source: off by 0.5"
    )


# ------------------------------------------------------------------ the exact world


def test_the_revealing_world_pays_on_every_move_and_hides_nothing():
    world = revealing_world()
    mdp = world.mdp
    assert torch.equal(mdp.reward != 0, mdp.transition > 0)
    assert torch.equal(mdp.transition, ridge().transition)
    assert mdp.start.tolist() == [0.6, 0.1, 0.1, 0.2] + [0.0] * 10
    paid = (mdp.reward - ridge().reward)[mdp.transition > 0]
    for noise in (paid, world.theta, world.critic):
        assert noise.dtype == torch.float64
        assert 0.5 < float(noise.std()) < 1.5
        assert len(noise.unique()) == noise.numel()
    apart = world.old_theta - world.theta
    assert apart.shape == (14, 3)
    assert 0.15 < float(apart.std()) < 0.45
    assert torch.equal(world.taken.value, world.every.mask)
    again = revealing_world()
    assert torch.equal(again.theta, world.theta)
    assert not torch.equal(revealing_world(4).theta, world.theta)


def test_behind_an_end_lie_48_steps_and_the_45th_power_of_lambda_is_below_rounding(world):
    assert world.meaning("r_t").shape[1] == 4 + 48
    assert world.meaning(r"\lambda") == 0.5
    assert world.meaning(r"\infty") == 44  # with the 0th, 45 terms


def test_every_symbol_of_the_exact_world_is_what_its_trajectories_say():
    made, gamma, lam = revealing_world(), 0.9, 0.7
    mdp, every, critic = made.mdp, made.every, made.critic
    dice = torch.Generator().manual_seed(0)
    samples = draw(every, made.theta.softmax(-1), 50, dice)
    more = {"old_theta": made.old_theta, "critic": critic, "samples": samples}
    world = exact_world(mdp, made.theta, gamma=gamma, gae_lambda=lam, **more)
    means = world.meaning
    T, states, n = 4, every.states, len(every.mask)
    lengths = every.mask.sum(1)
    power = gamma ** torch.arange(T, dtype=torch.float64)
    here = torch.nn.functional.one_hot(states[:, :T], 14).double() * every.mask[..., None]
    alive = ~mdp.terminal

    returns = torch.zeros(n, T + 1, dtype=torch.float64)  # the last one stays 0
    for t in reversed(range(T)):
        returns[:, t] = every.rewards[:, t] + gamma * returns[:, t + 1]
    known = {
        r"\gamma": numbers(gamma)[0],
        "P(s_0)": mdp.start[states[:, 0]],
        r"P(s' \mid s, a)": torch.einsum("sax->xsa", mdp.transition),
        "r(s, a, s')": mdp.reward,
        "r(s, a)": torch.einsum("sax,sax->sa", mdp.transition, mdp.reward),
        r"R(\tau)": returns[:, 0],
        "T": lengths,
        "a_t": every.actions,
        r"\lambda": numbers(lam)[0],
        r"\infty": torch.tensor(44),  # with the 0th, 45 terms
        "V(s)": critic * alive,
        "N": torch.tensor(50),
        "T_n": torch.cat([samples.mask[:1], samples.mask]).sum(1),
        "a^n_t": torch.cat([samples.actions[:1], samples.actions]),
    }
    for name, logits in ((r"\theta", made.theta), (r"\theta'", made.old_theta)):
        pi = logits.softmax(1)
        probs = mdp.start[states[:, 0]].clone()
        for t in range(T):
            s, a, then = states[:, t], every.actions[:, t], states[:, t + 1]
            probs *= torch.where(every.mask[:, t], pi[s, a] * mdp.transition[s, a, then], 1.0)
        visits = torch.einsum("n,nts->ts", probs, here)
        v = torch.zeros(14, dtype=torch.float64)
        for _ in range(T):  # after four steps everything is over
            q = torch.einsum("sax,sax->sa", mdp.transition, mdp.reward + gamma * v)
            v = (pi * q).sum(1)
        if name == r"\theta":
            known["e(s)"] = (critic - v) * alive
        known |= {
            rf"\pi_{{{name}}}(a \mid s)": pi.T,
            rf"P_{{{name}}}(\tau)": probs,
            f"J({name})": probs @ returns[:, 0],
            f"Q_{{{name}}}(s, a)": q,
            f"V_{{{name}}}(s)": v,
            f"A_{{{name}}}(s, a)": (q - v[:, None]) * alive[:, None],
            f"d_{{{name}}}(s)": power @ visits,
            f"P_{{{name}}}(s_t = s)": visits,
        }
    V = torch.cat([(critic * alive)[states], torch.zeros(n, 60)], 1)
    pay = torch.cat([every.rewards, torch.zeros(n, 60)], 1)
    delta = pay[:, :7] + gamma * V[:, 1:8] - V[:, :7]
    k_steps = torch.stack(
        [
            sum(gamma**i * pay[:, i : i + 7] for i in range(k))
            + gamma**k * V[:, k : k + 7]
            - V[:, :7]
            for k in range(1, 46)
        ],
        dim=1,
    )
    known[r"\hat A^{(k)}_t"] = torch.cat([k_steps[:, :1], k_steps], 1)
    for tex, expected in known.items():
        torch.testing.assert_close(means(tex), expected, rtol=1e-9, atol=1e-9, msg=tex)
    gae = [(gamma * lam) ** i * delta[:, i : i + 4] for i in range(4)]
    of_samples = {name: torch.cat([x[:1], x]) for name, x in samples._asdict().items()}
    known = {
        "s_t": states,
        "r_t": every.rewards,
        "R_t": returns,
        r"\delta_t": delta,
        r"\hat A^{\mathrm{GAE}}_t": sum(gae),
        "s^n_t": of_samples["states"],
        "r^n_t": of_samples["rewards"],
    }
    for tex, expected in known.items():  # with more steps, in which nothing happens
        found = means(tex)
        assert found.shape[1] == (53 if tex.startswith("s") else 52)
        if tex.startswith("s"):
            then = expected[:, -1:].expand(-1, 60)
        else:
            then = torch.zeros(len(expected), 60)
        expected = torch.cat([expected, then], 1)[:, : found.shape[1]]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=tex)
    codes = means(r"\tau^n")
    assert torch.equal(every.states[codes[1:]], samples.states)
    assert torch.equal(every.actions[codes[1:]], samples.actions)
    assert codes[0] == codes[1]
    assert world.sizes == {r"\tau": n, "t": 4, "t'": 4, "s": 14, "s'": 14, "a": 3, "b": 3}


# ------------------------------------------------------------------ estimates


def test_an_estimate_is_held_against_its_own_error(tmp_path, capsys):
    law, dice = numbers(0.1, 0.3, 0.2, 0.4), torch.Generator().manual_seed(0)
    draws = law.multinomial(2000, replacement=True, generator=dice)
    few = dict.fromkeys(("1 + 1", "1 - 1", "n - 1"), "one draw of many")

    def held(mean):
        def sampled(x):
            return World({"m": mean, "x_i": torch.cat([x[:1], x]), "n": len(x)})

        parts = [sampled(draws[i::40]) for i in range(40)]
        tex = r"m \approx \frac{1}{n} \sum_{i=1}^{n} x_i"
        check(tmp_path, tex, sampled(draws), parts=parts, equivalent=few)

    # Four standard errors of the mean of 2,000 numbers with a variance of 1.09 are 0.093.
    found = draws.double().mean().item()
    held(found + 0.07)
    assert "eq-x · printed · rejects" in capsys.readouterr().out
    for mean in (found + 0.12, found - 0.12):
        with pytest.raises(CheckFailed, match="more than allowed apart"):
            held(mean)


def test_a_changed_formula_is_held_against_the_error_of_the_printed_one(tmp_path, capsys):
    noise = 100 * torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [World({"m": 5.0, "u": 10 + x, "v": 5 + x}) for x in noise.tolist()]
    # The sum of both varies so much that it would be told from nothing.
    check(tmp_path, r"m \approx u - v", World({"m": 5.0, "u": 10.0, "v": 5.0}), parts=parts)
    assert "rejects 2 of 2" in capsys.readouterr().out


def test_each_number_of_an_estimate_is_held_against_its_own_error(tmp_path):
    noise = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [World({"u(x)": numbers(7 + 100 * e, 5 + e), "w": 1.0}) for e in noise.tolist()]
    whole = {"u(x)": numbers(7.0, 5.0), "w": 1.0}
    tex = r"f(x) \approx u(x) - w"
    check(tmp_path, tex, World(whole | {"f(x)": numbers(46.0, 4.0)}), parts=parts)
    for wrong in (numbers(6.0, 6.0), numbers(106.0, 4.0)):
        with pytest.raises(CheckFailed, match="more than allowed apart"):
            check(tmp_path, tex, World(whole | {"f(x)": wrong}), parts=parts)


def test_a_draw_is_held_against_its_mean_over_what_is_claimed(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(Verdict, "show", lambda verdict: shown.append(verdict))
    draws = numbers([2.0, 6.0], [4.0, 2.0], [torch.nan, torch.nan])
    symbols = {r"P_\theta(\tau)": AXES[r"P_\theta(\tau)"], "f(x)": Known(draws, (r"\tau",))}
    symbols |= {"u(x)": numbers(11 / 3, 17 / 3), "w": 1.0}  # less 1, times 3/4: 2 and 3.5
    where = Known(torch.tensor([True, True, False]), (r"\tau",))
    sizes = {r"\tau": 3, "x": 2}
    check(tmp_path, r"f(x) \approx u(x) - w", World(symbols, sizes=sizes), where=where)
    assert shown[0].rows[:2] == (
        ("left side", "2 numbers from 2 to 3.5"),
        ("right side", "2 numbers from 2 to 3.5"),
    )
    symbols["u(x)"] = numbers(11 / 3, 18 / 3)
    with pytest.raises(CheckFailed, match=r"the sides are 3\.5 and 3\.75 at x = 1"):
        check(tmp_path, r"f(x) \approx u(x) - w", World(symbols, sizes=sizes), where=where)


def test_forty_parts_of_the_samples_are_all_of_them():
    theta = torch.randn(14, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dice = torch.Generator().manual_seed(2)
    whole, parts = sampled_worlds(ridge(), theta, 400, dice, gamma=0.9)

    def value(world, tex):
        return world.value(read_expression(tex), {}).x.item()

    assert (value(whole, "N"), [value(part, "N") for part in parts]) == (400, [10] * 40)
    mean = r"\frac1N \sum_{n=1}^N R(\tau^n)"
    found = [value(part, mean) for part in parts]
    assert sum(found) / 40 == pytest.approx(value(whole, mean), rel=1e-12)
    assert len(set(found)) > 30


# ------------------------------------------------------------------ the source's own formula


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("source = 'y^V = z + 3'", "the same"),
        ("source = 'y^V = z + 3 - w'", "no value: nothing says what w means"),
        ("source = 'y^V = z + 3.25'", "off by 0.25"),
        ("source = '= 3 + z'", "the same"),
        ("source = '3 + z'", "the same"),
        ("source = '3 - z'", "off by 4"),
        ("source = '= z'\nleft = '2'", "the same"),
        ("source = '3 - z'\nleft = '1'", "the same"),
        ("source = 'y = z + 3 = 6'", "off by 1"),
        (r"source = '3 + z + \log(z - 3)'", "no number"),
        (r"source = 'y^V = z + 3 = \log(z - 3)'", "no number"),
        ("source = 'Y = z + 3'\nreads = [['Y', 'y']]", "the same"),
        (
            "source = 'y = z + 2'\nmended = [['z + 2', 'z + 3']]\nneeds = 'one more'",
            "off by 1; with one more: the same",
        ),
        ("source = 'y^V = f(x)'", "off by 0.25"),
        ("source = 'y = z'\naside = 'an example'", None),
        ("", None),
    ],
)
def test_the_sources_formula_is_run_with_the_numbers_of_the_book(tmp_path, capsys, row, said):
    ledger = f"reads = [['y^V', 'y']]\n[[statement]]\nlabel = 'eq-x'\n{row}\n"
    (tmp_path / "ledger.toml").write_text(ledger, encoding="utf-8")
    check(tmp_path, "y = z + 3", World({"z": 2.0, "y": 5.0, "f(x)": numbers(5.0, 5.25)}))
    _, _, found = capsys.readouterr().out.rstrip("\n").partition(" · source: ")
    assert found == (said or "")


def test_a_formula_of_the_source_that_cannot_be_read_is_shown_as_it_is(tmp_path):
    row = "reads = []\n[[statement]]\nlabel = 'eq-x'\nsource = 'y = z + )'"
    (tmp_path / "ledger.toml").write_text(row, encoding="utf-8")
    with pytest.raises(Unreadable, match=r"at character 8, here: y = z \+  ⟶ \)"):
        check(tmp_path, "y = z + 3", World({"z": 2.0, "y": 5.0}))


def test_a_mend_that_mends_nothing_is_refused(tmp_path):
    row = "source = 'y = z'\nmended = [['w', 'z']]\nneeds = 'z'"
    ledger = f"reads = []\n[[statement]]\nlabel = 'eq-x'\n{row}\n"
    (tmp_path / "ledger.toml").write_text(ledger, encoding="utf-8")
    with pytest.raises(CheckFailed, match="has no w to mend: y = z"):
        check(tmp_path, "y = z + 3", World({"z": 2.0, "y": 5.0}))


# ------------------------------------------------------------------ the book


def labels():
    """The labels of the displayed equations of the chapters."""
    for path in sorted(BOOK.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                yield from LABELLED.findall("".join(cell["source"]))


@pytest.mark.parametrize("label", list(labels()))
def test_every_equation_of_the_book_is_read_or_says_why_not(label):
    if label in BESIDE:
        with pytest.raises(Unreadable):
            read_formula(find_tex(label, BOOK))
    else:
        assert read_formula(find_tex(label, BOOK))


def test_the_print_becomes_a_tree_that_ignores_spacing():
    tight = read_expression(r"\hat A^{(k)}_t(1-\lambda)")
    assert tight == read_expression(r"\hat A^{(k)}_t \, \big( 1 - \lambda \big)")
    assert repr(read_expression("2")) == "Number(text='2')"  # without its place

"""The checks of the book fail when they should, and say the same on every machine."""

import sys
from types import SimpleNamespace

import pytest
import torch

from ppo_lib.book.checks import (
    CheckFailed,
    Verdict,
    check_estimate,
    check_exact,
    in_words,
    misses,
)


def tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


RIGHT = tensor(1.0, -3.0)
WRONG = {"sign": tensor(-1.0, 3.0)}


# ------------------------------------------------------------------ check_exact


def test_the_verdict_of_an_identity_is_this_text(capsys):
    check_exact("eq-b9", RIGHT, RIGHT, rejects={"sign": -RIGHT, "no γ": 2 * RIGHT})
    assert capsys.readouterr().out == "✓ eq-b9 · exact to 1e-12 · rejects: sign, no γ\n"


@pytest.mark.parametrize(
    ("left", "right", "wrong"),
    [
        (2.0, 2.0, 3.0),
        (2, 2, 3),
        (tensor(2.0)[0], 2.0, 3.0),
        (torch.tensor([1, 2]), torch.tensor([1, 2]), torch.tensor([1, 3])),
        (torch.tensor([True]), torch.tensor([True]), torch.tensor([False])),
        (tensor(0.1).requires_grad_(), tensor(0.1), tensor(0.2)),
    ],
)
def test_numbers_integers_and_booleans_can_be_checked(left, right, wrong):
    check_exact("eq-b9", left, right, rejects={"wrong": wrong})


def test_the_tolerance_is_absolute_below_1_and_relative_above():
    # The largest number on the right is 3, so that 3e-12 is allowed; then 0.01, so that 1e-12 is.
    check_exact("eq-b9", RIGHT + tensor(2.9e-12, 0), RIGHT, rejects=WRONG)
    with pytest.raises(CheckFailed, match=r"\(eq-b9\) the sides differ by 3.1e-12"):
        check_exact("eq-b9", RIGHT + tensor(3.1e-12, 0), RIGHT, rejects=WRONG)
    check_exact("eq-b9", tensor(0.01 + 0.9e-12), tensor(0.01), rejects={"x": tensor(1.0)})
    with pytest.raises(CheckFailed, match=r"the sides differ by 1\.1e-12, allowed is 1e-12"):
        check_exact("eq-b9", tensor(0.01 - 1.1e-12), tensor(0.01), rejects={"x": tensor(1.0)})


def test_a_difference_in_one_component_of_many_fails():
    right = torch.zeros(10, 10, dtype=torch.float64)
    left = right.clone()
    left[3, 7] = 1e-11
    with pytest.raises(CheckFailed, match="the sides differ by 1e-11"):
        check_exact("eq-b9", left, right, rejects={"one": right + 1})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_fails_wherever_it_stands(bad):
    spoilt = tensor(1.0, bad)
    for left, right, wrong in [
        (spoilt, RIGHT, -RIGHT),
        (RIGHT, spoilt, -RIGHT),
        (spoilt, spoilt, -RIGHT),
        (RIGHT, RIGHT, spoilt),
    ]:
        with pytest.raises(CheckFailed, match="holds a number not finite"):
            check_exact("eq-b9", left, right, rejects={"wrong": wrong})


def test_a_wrong_formula_equal_to_the_right_one_fails():
    for wrong in (RIGHT, RIGHT + 1e-12, RIGHT + 2.9e-9):
        with pytest.raises(CheckFailed, match=r"\(eq-b9\) the check does not reject 'same'"):
            check_exact("eq-b9", RIGHT, RIGHT, rejects={"sign": -RIGHT, "same": wrong})
    # A thousand tolerances, of 3e-12 each, are enough.
    check_exact("eq-b9", RIGHT, RIGHT, rejects={"near": RIGHT + 3.1e-9})


def test_a_failed_check_prints_no_verdict(capsys):
    with pytest.raises(CheckFailed):
        check_exact("eq-b9", RIGHT, -RIGHT, rejects=WRONG)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (1,), (), (3,)])
def test_sides_of_other_shapes_are_refused(shape):
    other = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"left has shape .*, expected \(2,\)"):
        check_exact("eq-b9", other, RIGHT, rejects=WRONG)
    with pytest.raises(ValueError, match=r"wrong has shape .*, expected \(2,\)"):
        check_exact("eq-b9", RIGHT, RIGHT, rejects={"wrong": other})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_floats_below_float64_are_refused(dtype):
    low = RIGHT.to(dtype)
    for left, right, wrong in [(low, RIGHT, -RIGHT), (RIGHT, low, -RIGHT), (RIGHT, RIGHT, -low)]:
        with pytest.raises(ValueError, match=f"has dtype {dtype}, expected float64"):
            check_exact("eq-b9", left, right, rejects={"wrong": wrong})


def test_empty_tensors_are_refused():
    empty = torch.zeros(0, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="is empty, expected at least one number"):
        check_exact("eq-b9", empty, empty, rejects={"wrong": empty})
    with pytest.raises(ValueError, match="is empty, expected at least one number"):
        check_estimate("eq-b9", torch.zeros(100, 0), tensor(), rejects={"wrong": tensor()})


@pytest.mark.parametrize("tolerance", [0.0, -1.0, 1.0, float("nan")])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(ValueError, match=f"tolerance is {tolerance}, expected"):
        check_exact("eq-b9", RIGHT, RIGHT, rejects=WRONG, tolerance=tolerance)


# ------------------------------------------------------------------ check_estimate

# 200 samples, half of them +1 and half -1 around a centre: the standard error of their mean is
# √(200/199) / √200 = 1 / √199.
SIGNS = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(100)
ERROR = 199**-0.5


def test_the_verdict_of_an_estimate_is_this_text(capsys):
    check_estimate("eq-a7", 5 + SIGNS, 5.0, rejects={"γ twice": 4.0, "0": 0})
    assert capsys.readouterr().out == (
        "✓ eq-a7 · estimate, 200 samples, within 4 standard errors · rejects: γ twice, 0\n"
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_the_distance_is_counted_in_standard_errors_of_the_mean(sign):
    wrong = {"far": 100.0}
    check_estimate("eq-a7", 5 + SIGNS, 5 + sign * 3.99 * ERROR, rejects=wrong)
    with pytest.raises(CheckFailed, match=r"the mean of 200 samples is 4\.01 standard errors away"):
        check_estimate("eq-a7", 5 + SIGNS, 5 + sign * 4.01 * ERROR, rejects=wrong)
    with pytest.raises(CheckFailed, match=r"5\.00 standard errors away from the exact value"):
        check_estimate("eq-a7", 5 + SIGNS, 5 + sign * 5 * ERROR, rejects=wrong)
    check_estimate("eq-a7", 5 + SIGNS, 5 + 5 * ERROR, rejects=wrong, standard_errors=5.5)


def test_a_wrong_value_inside_the_band_fails():
    with pytest.raises(CheckFailed, match=r"does not reject 'near': 200 samples see it only 3\.90"):
        check_estimate("eq-a7", SIGNS, 0.0, rejects={"far": 1.0, "near": 3.9 * ERROR})
    check_estimate("eq-a7", SIGNS, 0.0, rejects={"near": -4.1 * ERROR})


def test_every_component_must_be_close_and_one_is_enough_to_reject():
    samples = torch.stack([5 + SIGNS, 3 + 10 * SIGNS], dim=1)
    exact = tensor(5.0, 3.0)
    check_estimate("eq-a7", samples, exact, rejects={"first": tensor(6.0, 3.0)})
    with pytest.raises(CheckFailed, match="standard errors away"):
        check_estimate("eq-a7", samples, exact + tensor(1.0, 0.0), rejects={"x": tensor(0, 0)})
    with pytest.raises(CheckFailed, match="does not reject 'second'"):
        check_estimate("eq-a7", samples, exact, rejects={"second": tensor(5.0, 4.0)})


def test_a_component_that_never_varies_must_be_right_to_rounding():
    samples = torch.stack([5 + SIGNS, torch.full((200,), 0.1, dtype=torch.float64)], dim=1)
    check_estimate("eq-a7", samples, tensor(5.0, 0.1), rejects={"x": tensor(5.0, 0.1001)})
    with pytest.raises(CheckFailed, match="standard errors away"):
        check_estimate("eq-a7", samples, tensor(5.0, 0.1 + 1e-9), rejects={"x": tensor(0.0, 0.0)})
    zeros = torch.zeros(200)
    check_estimate("eq-a7", zeros, 0.0, rejects={"x": 1e-9})
    with pytest.raises(CheckFailed, match="does not reject"):
        check_estimate("eq-a7", zeros, 0.0, rejects={"x": 0.0})


@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_is_a_share_of_the_largest_mean_whatever_its_sign(sign):
    # 1e-12 of 1000, the mean of the largest size, is allowed in both.
    exact = tensor(sign * 1000.0, 0.1)
    samples = exact.repeat(200, 1)
    wrong = {"x": tensor(0.0, 0.0)}
    for component in (tensor(1.0, 0.0), tensor(0.0, 1.0)):
        for direction in (1, -1):
            moved = direction * component
            check_estimate("eq-a7", samples, exact + 0.9e-9 * moved, rejects=wrong)
            with pytest.raises(CheckFailed, match="standard errors away"):
                check_estimate("eq-a7", samples, exact + 1.2e-9 * moved, rejects=wrong)


def test_the_mean_of_a_real_sample_passes_and_a_biased_one_fails():
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(10_000, 3, generator=generator)
    exact = tensor(0.5, 0.5, 0.5)
    check_estimate("eq-a7", samples, exact, rejects={"n - 1": exact * 1.05})
    with pytest.raises(CheckFailed, match="standard errors away"):
        check_estimate("eq-a7", samples * 1.05, exact, rejects={"zero": exact * 0})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_fail(bad):
    samples = SIGNS.clone()
    samples[17] = bad
    with pytest.raises(CheckFailed, match="holds a number not finite"):
        check_estimate("eq-a7", samples, 0.0, rejects={"far": 1.0})
    for exact, wrong in [(bad, 1.0), (0.0, bad)]:
        with pytest.raises(CheckFailed, match="holds a number not finite"):
            check_estimate("eq-a7", SIGNS, exact, rejects={"far": wrong})


@pytest.mark.parametrize("n", [0, 1, 99])
def test_fewer_than_100_samples_are_refused(n):
    with pytest.raises(ValueError, match=f"samples holds {n} samples, expected at least 100"):
        check_estimate("eq-a7", SIGNS[:n], 0.0, rejects={"far": 1.0})
    check_estimate("eq-a7", SIGNS[:100], 0.0, rejects={"far": 1.0})


def test_estimates_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"samples has shape \(\), expected \[n, …\]"):
        check_estimate("eq-a7", SIGNS[0], 0.0, rejects={"far": 1.0})
    with pytest.raises(ValueError, match=r"exact has shape \(\), expected \(1,\)"):
        check_estimate("eq-a7", SIGNS[:, None], 0.0, rejects={"far": tensor(1.0)})
    with pytest.raises(ValueError, match=r"far has shape \(\), expected \(1,\)"):
        check_estimate("eq-a7", SIGNS[:, None], tensor(0.0), rejects={"far": 1.0})


# ------------------------------------------------------------------ both


@pytest.mark.parametrize("label", ["b9", "eqb9", "", "(eq-b9)", "Eq-b9"])
def test_a_label_that_is_none_is_refused(label):
    for check, left in ((check_exact, 0.0), (check_estimate, SIGNS)):
        with pytest.raises(ValueError, match=r"label is .*, expected one that starts with 'eq-'"):
            check(label, left, 0.0, rejects={"far": 1.0})


def test_a_check_that_rejects_nothing_is_refused():
    for check, left in ((check_exact, 0.0), (check_estimate, SIGNS)):
        with pytest.raises(ValueError, match=r"rejects is \{\}, expected at least one wrong"):
            check("eq-b9", left, 0.0, rejects={})


def test_a_failed_check_is_an_assertion_error():
    assert issubclass(CheckFailed, AssertionError)


def test_a_wrong_formula_that_a_check_is_given_fails_in_its_place():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        right = torch.randn(3, dtype=torch.float64, generator=generator)
        wrong = right + 2e-9 * torch.randn(3, dtype=torch.float64, generator=generator)
        try:
            check_exact("eq-b9", right, right, rejects={"wrong": wrong})
        except CheckFailed:
            continue
        with pytest.raises(CheckFailed):
            check_exact("eq-b9", wrong, right, rejects={"wrong": wrong})
        samples = right + torch.randn(200, 3, dtype=torch.float64, generator=generator)
        check_estimate("eq-b9", samples, right, rejects={"wrong": right + 1})
        with pytest.raises(CheckFailed):
            check_estimate("eq-b9", samples, right + 1, rejects={"wrong": right + 1})


def test_a_badge_holds_both_sides_and_how_far_each_wrong_formula_misses():
    verdict = Verdict(
        "eq-b9", "exact · rejects: a<b", (("left side", "1.5"), ("a<b", misses(0.25)))
    )
    assert repr(verdict) == "✓ eq-b9 · exact · rejects: a<b"
    assert verdict._repr_html_() == (
        '<details class="verdict"><summary>✓ <a href="#equation-eq-b9">eq-b9</a> · exact · '
        "rejects: a&lt;b</summary><table><tr><td>left side</td><td>1.5</td></tr>"
        "<tr><td>a&lt;b</td><td>off by 0.25</td></tr></table></details>"
    )


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([2.0], "2"),
        ([-2.0], "-2"),
        ([1.125 - 1e-16, 1.125], "2 times 1.125"),
        ([-1e-17, 0.1234567], "2 numbers from 0 to 0.1235"),
        ([0.12345], "0.1235"),
        ([0.12345 - 1e-16], "0.1235"),
    ],
)
def test_numbers_in_words_do_not_depend_on_their_last_bit(numbers, words):
    assert in_words(torch.tensor(numbers, dtype=torch.float64)) == words


def test_what_a_check_has_found_is_in_its_badge(monkeypatch):
    shown = []
    monkeypatch.setattr(Verdict, "show", lambda verdict: shown.append(verdict))
    tenth = torch.tensor([0.1], dtype=torch.float64)
    check_exact("eq-b9", [0.1], tenth, rejects={"twice": [0.2], "thrice": 3 * tenth})
    samples = torch.tensor([1.0, 2.0], requires_grad=True).repeat(100)
    check_estimate("eq-a7", samples, 1.5, rejects={"one more": 2.5})
    exact, estimate = shown
    assert exact.rows == (
        ("left side", "0.1"),
        ("right side", "0.1"),
        ("twice", "off by 0.1"),
        ("thrice", "off by 0.2"),
    )
    assert exact.held == "exact to 1e-12 · rejects: twice, thrice"
    assert estimate.rows == (("exact value", "1.5"), ("one more", "off by 1"))
    said = "estimate, 200 samples, within 4 standard errors · rejects: one more"
    assert estimate.held == said


def test_a_verdict_is_displayed_in_a_notebook_and_printed_elsewhere(monkeypatch, capsys):
    verdict, shown = Verdict("eq-b9", "held", ()), []
    display = SimpleNamespace(display=shown.append)
    for kernel, there in ((None, []), (object(), [verdict])):
        ipython = SimpleNamespace(get_ipython=lambda kernel=kernel: kernel, display=display)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        verdict.show()
        assert shown == there
    monkeypatch.delitem(sys.modules, "IPython")
    verdict.show()
    assert shown == [verdict]
    assert capsys.readouterr().out == "✓ eq-b9 · held\n" * 2


def test_a_wrong_formula_has_a_name_that_a_list_can_hold():
    with pytest.raises(ValueError, match="rejects names 'a, b', expected a name without a comma"):
        check_exact("eq-b9", [1.0], [1.0], rejects={"a, b": [2.0]})

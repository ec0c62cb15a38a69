"""The figures that move: what they show is what ppo_lib computes."""

from pathlib import Path
from typing import Any

import cliff
import numpy as np
import pytest
import torch
from playwright.sync_api import Page

from ppo_lib.exact import mdp
from ppo_lib.objectives import clipped_surrogate_loss, effective_sample_size
from ppo_lib.returns import gae, rewards_to_go

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"
PAGE = {
    "ridge": "01-basic-concepts",
    "noise": "03-reward-to-go-and-baseline",
    "gae": "05-gae",
    "cliff": "06-importance-sampling",
    "clip": "07-clipping-and-the-trainer",
}
RIDGE = mdp.ridge()
UNIFORM = torch.full((14, 3), 1 / 3, dtype=torch.float64)


class Widget:
    """One figure of a page, as a reader handles it."""

    def __init__(self, page: Page, name: str) -> None:
        self.page, self.errors = page, []
        page.on("pageerror", lambda error: self.errors.append(error))
        page.route("**/mathjax/**", lambda route: route.abort())  # a figure has none
        page.goto((HTML / "book" / f"{PAGE[name]}.html").as_uri())
        self.root = page.locator(f".widget[data-widget={name}]")

    @property
    def values(self) -> dict[str, Any]:
        """The numbers that it shows, unrounded."""
        assert not self.errors
        return self.root.evaluate("(root) => root.values")

    def slide(self, label: str, value: float) -> None:
        slider = self.root.locator("label.slider").filter(has=self.page.get_by_text(label))
        slider.locator("input").evaluate(
            "(x, v) => { x.value = v; x.dispatchEvent(new Event('input', { bubbles: true })); }",
            value,
        )

    def press(self, name: str) -> None:
        self.root.get_by_role("button", name=name, exact=True).click()

    def choose(self, name: str) -> None:
        self.root.get_by_role("radio", name=name, exact=True).check()


def close(found: Any, expected: Any, rtol: float = 1e-9) -> None:
    """Compare the numbers of a figure with the library's."""
    torch.testing.assert_close(float64(found), float64(expected), rtol=rtol, atol=1e-9)


def float64(numbers: Any) -> torch.Tensor:
    return torch.as_tensor(numbers, dtype=torch.float64)


# -- the ridge -------------------------------------------------------------------------------


def check_ridge(values: dict[str, Any]) -> None:
    policy = float64(values["policy"])
    close(policy.sum(dim=1), torch.ones(14))
    q, v, advantage = mdp.exact_values(RIDGE, policy, values["gamma"])
    close(values["J"], mdp.expected_return(RIDGE, policy, values["gamma"]))
    close(values["q"], q)
    close(values["v"], v)
    close(values["advantage"], advantage)


def test_ridge_follows_every_slider(page: Page) -> None:
    widget = Widget(page, "ridge")
    close(widget.values["policy"], UNIFORM)
    check_ridge(widget.values)
    widget.slide("discount", 0.9)
    widget.slide("left", 0.7)
    check_ridge(widget.values)
    widget.root.locator("select").select_option("2M")
    widget.slide("right", 0.25)
    widget.slide("up", 1.0)
    values = widget.values
    check_ridge(values)
    assert values["gamma"] == 0.9
    close(values["policy"][5], [0, 1, 0])
    close(values["policy"][4], [0.7, 0.15, 0.15])
    widget.slide("up", 0.5)
    close(widget.values["policy"][5], [0.25, 0.5, 0.25])


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_ridge_knows_the_best_policy(page: Page, gamma: float) -> None:
    widget = Widget(page, "ridge")
    widget.slide("discount", gamma)
    widget.press("best")
    best = mdp.expected_return(RIDGE, mdp.best_policy(RIDGE, gamma), gamma)
    close(widget.values["J"], best)


def test_ridge_climbs_to_its_expected_return(page: Page) -> None:
    widget = Widget(page, "ridge")
    widget.press("climb once")
    widget.press("ten times")
    for _ in range(4):
        widget.press("a thousand times")
    values = widget.values
    every = mdp.list_trajectories(RIDGE)
    probs, returns = mdp.trajectory_probs(every, UNIFORM), mdp.trajectory_returns(every, 1.0)
    deviation = (probs @ (returns - values["J"]) ** 2).sqrt()
    assert values["count"] == 4011
    assert abs(values["mean"] - values["J"]) < 4 * deviation / 4011**0.5
    assert "4,011 climbs" in widget.root.inner_text()


def test_ridge_answers_the_keyboard(page: Page) -> None:
    widget = Widget(page, "ridge")
    before = widget.values["J"]
    slider = widget.root.locator("label.slider").filter(has=page.get_by_text("left"))
    slider.locator("input").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    close(widget.values["policy"][0][0], 0.38)
    assert widget.values["J"] != before
    check_ridge(widget.values)


# -- the noise -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 12])
def test_noise_is_the_exact_variance(page: Page, steps: int) -> None:
    every = mdp.list_trajectories(RIDGE)
    theta = torch.zeros(14, 3, dtype=torch.float64)

    def gradient(theta: torch.Tensor) -> torch.Tensor:
        goal = lambda x: mdp.expected_return(RIDGE, x.softmax(-1), 1.0)  # noqa: E731
        return torch.func.grad(goal)(theta)

    for _ in range(steps):
        theta = theta + 0.5 * gradient(theta)
    policy, exact = theta.softmax(-1), gradient(theta).flatten()
    probs, scores = mdp.trajectory_probs(every, policy), mdp.scores(every, policy)
    now, to_go = every.states[:, :-1], rewards_to_go(every.rewards.T, gamma=1.0).T
    values = mdp.exact_values(RIDGE, policy, 1.0).v

    widget = Widget(page, "noise")
    if steps:
        widget.choose("trained: 12 steps")
    found = widget.values
    close(found["policy"], policy)
    close(found["gradient"], exact)
    best = float64(found["best"])
    weights = (to_go[:, :1].expand(-1, 4), to_go, to_go - values[now], to_go - best[now])
    for row, weight in zip(found["table"], weights, strict=True):
        X = torch.einsum("nt,ntsa->nsa", weight, scores).flatten(1)
        variance = probs @ (X**2).sum(1) - exact @ exact
        close(row["variance"], variance)
        close(row["needed"], variance / (exact @ exact))
    # No other baseline of the states leaves less: the derivative by each is zero.
    squares = probs[:, None] * (scores**2).sum((2, 3)) * (to_go - best[now])
    slope = torch.zeros(14, dtype=torch.float64).index_add(0, now.flatten(), squares.flatten())
    close(slope, torch.zeros(14))
    # The picture's vertical axis is the noisiest direction at right angles to the gradient.
    X = torch.einsum("nt,ntsa->nsa", weights[0], scores).flatten(1)
    X = X - (X @ exact)[:, None] * exact / (exact @ exact)
    noisiest = torch.linalg.eigh((X * probs[:, None]).T @ X).eigenvectors[:, -1]
    close(abs(noisiest @ float64(found["aside"])), 1.0, rtol=1e-6)


def test_noise_draws_what_the_text_says(page: Page) -> None:
    widget = Widget(page, "noise")
    for name, needed in {"R(τ)": "182", "Rₜ": "112", "Rₜ − V": "48"}.items():
        widget.choose(name)
        row = widget.root.locator("tr.chosen")
        assert row.locator("th").inner_text() == name
        assert row.locator("td").last.inner_text() == needed
    first = widget.values["mean"]
    widget.press("another hundred")
    assert widget.values["mean"] != first


# -- GAE -------------------------------------------------------------------------------------


def check_gae(values: dict[str, Any]) -> None:
    rewards = float64(values["rewards"])[:, None]
    V = torch.full_like(rewards, values["value"])
    ends, cuts = (torch.tensor(values[x])[:, None] for x in ("terminated", "truncated"))
    options = {"gamma": values["gamma"], "gae_lambda": values["lambda"]}
    two, _ = gae(rewards, V, V, ends, cuts, **options)
    one, _ = gae(rewards, V, V, ends | cuts, cuts, **options)
    close(values["advantage"], two[:, 0])
    close(values["wrong"], one[:, 0])
    # The chosen advantage is its weighted TD errors.
    first = next(t for t, w in enumerate(values["weights"]) if w)
    close(np.dot(values["weights"], values["delta"]), two[first, 0])


def test_gae_is_the_librarys_with_any_endings(page: Page) -> None:
    widget = Widget(page, "gae")
    check_gae(widget.values)
    assert widget.values["advantage"] != widget.values["wrong"]
    widget.slide("γ", 0.8)
    widget.slide("λ", 0.37)
    for step, presses in {4: 1, 8: 2, 0: 1, 11: 2, 6: 1}.items():
        for _ in range(presses):
            widget.root.get_by_role("button", name=f"step {step}:").click()
        widget.slide("Â of step", step)
        check_gae(widget.values)
    assert sum(widget.values["terminated"]) == 3
    assert sum(widget.values["truncated"]) == 2


# -- the cliff -------------------------------------------------------------------------------


def test_cliff_start_is_what_the_tool_finds() -> None:
    assert cliff.FILE.read_text(encoding="utf-8") == cliff.render()


@pytest.mark.parametrize("sees", ["its column", "its state"])
@pytest.mark.parametrize("x", [0.0, 1.5, 7.5])
def test_cliff_is_exact(page: Page, sees: str, x: float) -> None:
    widget = Widget(page, "cliff")
    widget.choose(sees)
    widget.slide("distance", x)
    found = {}
    for kind in ("none", "penalty", "clip"):
        widget.choose(kind)
        found[kind] = widget.values
    widget.slide("ε", 0.3)
    wide = widget.values

    column = torch.tensor([c for _, c in RIDGE.cells] + [0])
    old_theta = torch.zeros(14, 3, dtype=torch.float64)
    goal = lambda theta: mdp.expected_return(RIDGE, theta.softmax(-1), 0.9)  # noqa: E731
    if sees == "its column":
        start = float64(page.evaluate("Kit.cliffStart"))
        u = torch.func.grad(lambda theta: goal(theta[column]))(start)
        old_theta, u = start[column], (u / u.norm())[column]
    else:
        u = torch.func.grad(goal)(old_theta)
        u = u / u.norm()
    old, new = old_theta.softmax(-1), (old_theta + x * u).softmax(-1)
    A = mdp.exact_values(RIDGE, old, 0.9).advantage
    d, counts = (mdp.state_visits(RIDGE, old, g) * ~RIDGE.terminal for g in (0.9, 1.0))
    J_old, rho, kl = goal(old_theta), new / old, (old * (old / new).log()).sum(-1)
    weight = d[:, None] * old
    surrogate = J_old + (weight * rho * A).sum()
    close(found["none"]["J"], mdp.expected_return(RIDGE, new, 0.9))
    close(found["none"]["objective"], surrogate)
    close(found["penalty"]["objective"], surrogate - found["penalty"]["beta"] * d @ kl)
    close(found["none"]["kl"], counts @ kl / counts.sum())
    close(found["none"]["largest"], rho[~RIDGE.terminal].max())

    def clipped(epsilon: float) -> torch.Tensor:
        loss = torch.func.vmap(
            lambda new, old, A: clipped_surrogate_loss(new, old, A, clip_range=epsilon)
        )
        return (
            J_old
            - (weight.flatten() * loss(*(y.flatten() for y in (new.log(), old.log(), A)))).sum()
        )

    close(found["clip"]["objective"], clipped(0.2))
    close(wide["objective"], clipped(0.3))
    # The effective share of a large sample, by repeating each step as often as it comes.
    copies = (1e5 * counts[:, None] * old).round().long().flatten()
    drawn = rho.flatten().repeat_interleave(copies)
    close(found["none"]["share"], effective_sample_size(drawn) / len(drawn), rtol=1e-3)


def test_cliff_is_there_and_the_restraints_stop_before_it(page: Page) -> None:
    widget = Widget(page, "cliff")
    peaks = {}
    for kind in ("none", "penalty", "clip"):
        widget.choose(kind)
        peaks[kind] = widget.values["peak"]
        widget.slide("distance", peaks[kind])
        peaks[kind + " J"] = widget.values["J"]
    assert peaks["none"] == 8
    assert peaks["clip"] < 8
    assert peaks["penalty"] < 8
    assert peaks["penalty J"] > peaks["none J"]


# -- the clip --------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("rho", [0.5, 0.9, 1.1, 1.6])
def test_clip_has_the_librarys_value_and_slope(page: Page, sign: int, rho: float) -> None:
    widget = Widget(page, "clip")
    widget.choose("good: Â = 1" if sign > 0 else "bad: Â = −1")
    widget.slide("ρ", rho)
    widget.slide("ε", 0.25)
    log_rho = torch.tensor([rho], dtype=torch.float64).log().requires_grad_()
    A = torch.full_like(log_rho, sign)
    value = -clipped_surrogate_loss(log_rho, 0 * A, A, clip_range=0.25)
    (slope,) = torch.autograd.grad(value, log_rho)
    found = widget.values
    close(found["least"], value.item())
    close(found["slope"], slope.item() / rho)
    shown = widget.root.locator("tr", has_text="slope").inner_text()
    assert ("no gradient" in shown) == (slope.item() == 0)


def test_clip_batch_ascends_the_librarys_loss(page: Page) -> None:
    widget = Widget(page, "clip")
    widget.press("ten steps")
    widget.press("one step")
    found = widget.values
    s, a = (torch.tensor([row[x] for row in found["batch"]]) for x in "sa")
    A = float64([row["A"] for row in found["batch"]])
    theta = torch.zeros(14, 3, dtype=torch.float64)
    old = theta.log_softmax(-1)[s, a]

    def loss(theta: torch.Tensor) -> torch.Tensor:
        return clipped_surrogate_loss(theta.log_softmax(-1)[s, a], old, A, clip_range=0.2)

    for _ in range(11):
        theta = theta - found["rate"] * torch.func.grad(loss)(theta)
    ratios = (theta.log_softmax(-1)[s, a] - old).exp()
    close(found["ratios"], ratios)
    out = ((A > 0) & (ratios > 1.2)) | ((A < 0) & (ratios < 0.8))
    assert found["out"] == out.tolist()
    assert 0 < sum(found["out"]) < 20
    assert f"{sum(found['out'])} of 20 without a gradient" in widget.root.inner_text()
    widget.press("back to ρ = 1")
    close(widget.values["ratios"], torch.ones(20))

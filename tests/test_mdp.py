"""The exact world, against a walk through its rules written here a second time."""

from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch

from ppo_lib.exact.env import make_ridge_env
from ppo_lib.exact.mdp import (
    best_policy,
    draw,
    exact_values,
    expected_return,
    list_trajectories,
    ridge,
    scores,
    state_visits,
    step_probs,
    trajectory_probs,
    trajectory_returns,
)

REWARDS = {"1L": 2.0, "1M": 2.0, "1R": 4.0, "4L": 10.0, "4M": 2.0, "4R": 4.0}
GAMMAS = (0.0, 0.5, 0.9, 1.0)
WORLD = ridge()
TRAJECTORIES = list_trajectories(WORLD)


def random_policy(seed):
    logits = torch.randn(14, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(-1)


def uniform_policy():
    return torch.full((14, 3), 1 / 3, dtype=torch.float64)


def brute_force(slip=0.2):
    """Every walk by the rules of the world: {(states, actions): (probability, rewards)}."""
    walks = {}
    for pairs in product(product(range(3), repeat=2), repeat=4):
        column, prob, states, actions, rewards = 1, 1.0, ["start"], [], []
        for row, (meant, went) in enumerate(pairs, start=1):
            column += went - 1
            prob *= 1 - slip if meant == went else slip / 2
            states.append(f"{row}{'LMR'[column]}" if 0 <= column <= 2 else "fallen")
            actions.append(meant)
            rewards.append(REWARDS.get(states[-1], 0.0))
            if states[-1] == "fallen":
                break
        walks[tuple(states), tuple(actions)] = (prob, tuple(rewards))
    return walks


def test_probabilities_of_every_state_and_action_sum_to_one():
    totals = WORLD.transition.sum(-1)
    expected = (~WORLD.terminal).double()[:, None].expand(14, 3)
    torch.testing.assert_close(totals, expected, rtol=0, atol=1e-15)
    assert WORLD.start.sum() == 1


@pytest.mark.parametrize("seed", range(3))
def test_trajectory_probabilities_sum_to_one(seed):
    total = trajectory_probs(TRAJECTORIES, random_policy(seed)).sum()
    assert total.item() == pytest.approx(1, abs=1e-13)


def test_there_are_4257_trajectories():
    assert len(TRAJECTORIES.env_probs) == 4257
    assert len(brute_force()) == 4257


def test_the_list_holds_the_walks_of_a_brute_force_each_once():
    walks = brute_force()
    seen = set()
    world = ridge()
    assert not world.reward[world.transition == 0].any()
    for states, actions, rewards, mask, prob in zip(*list_trajectories(world), strict=True):
        assert prob.dtype == torch.float64
        steps = int(mask.sum())
        assert mask.tolist() == [True] * steps + [False] * (4 - steps)
        names = tuple(WORLD.states[s] for s in states)
        key = names[: steps + 1], tuple(actions[:steps].tolist())
        assert prob.item() == pytest.approx(walks[key][0], rel=1e-14)
        assert tuple(rewards[:steps].tolist()) == walks[key][1]
        # What stands after the end.
        assert set(names[steps:]) == {names[steps]}
        assert actions[steps:].abs().sum() == rewards[steps:].abs().sum() == 0
        seen.add(key)
    assert seen == walks.keys()


def test_env_probs_do_not_depend_on_the_policy_and_step_probs_are_the_rest():
    policy = random_policy(0).requires_grad_()
    assert not TRAJECTORIES.env_probs.requires_grad
    probs = step_probs(TRAJECTORIES, policy)
    assert torch.equal(probs[~TRAJECTORIES.mask], torch.ones_like(probs[~TRAJECTORIES.mask]))
    rows = zip(TRAJECTORIES.states, TRAJECTORIES.actions, TRAJECTORIES.mask, strict=True)
    for i, (states, actions, mask) in enumerate(rows):
        if i % 500:
            continue
        expected = 1.0
        for t in range(int(mask.sum())):
            expected *= policy[states[t], actions[t]].item()
        assert probs[i].prod().item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_expected_return_is_the_sum_over_a_brute_force(gamma):
    policy = random_policy(1)
    number = {name: s for s, name in enumerate(WORLD.states)}
    total = 0.0
    for (states, actions), (prob, rewards) in brute_force().items():
        for state, action in zip(states, actions, strict=False):
            prob *= policy[number[state], action].item()
        total += prob * sum(gamma**t * r for t, r in enumerate(rewards))
    assert expected_return(WORLD, policy, gamma).item() == pytest.approx(total, rel=1e-13)
    listed = trajectory_probs(TRAJECTORIES, policy) @ trajectory_returns(TRAJECTORIES, gamma)
    assert listed.item() == pytest.approx(total, rel=1e-13)


def conditional_returns(policy, gamma, s, a=None):
    """E[γ-discounted rewards from the visit of s on | s, and a taken there], by the list."""
    probs = trajectory_probs(TRAJECTORIES, policy)
    mass = total = 0.0
    for t in range(4):
        here = (TRAJECTORIES.states[:, t] == s) & TRAJECTORIES.mask[:, t]
        if a is not None:
            here = here & (TRAJECTORIES.actions[:, t] == a)
        later = sum(gamma**j * TRAJECTORIES.rewards[:, t + j] for j in range(4 - t))
        mass += probs[here].sum()
        total += (probs * later)[here].sum()
    return (total / mass).item()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("gamma", GAMMAS)
def test_values_are_conditional_expected_returns(gamma, seed):
    policy = random_policy(seed)
    values = exact_values(WORLD, policy, gamma)
    for s in range(14):
        if WORLD.terminal[s]:
            assert values.v[s] == 0
            assert values.q[s].tolist() == values.advantage[s].tolist() == [0, 0, 0]
            continue
        v = conditional_returns(policy, gamma, s)
        q = [conditional_returns(policy, gamma, s, a) for a in range(3)]
        assert values.v[s].item() == pytest.approx(v, abs=1e-12)
        assert values.q[s].tolist() == pytest.approx(q, abs=1e-12)
        assert values.advantage[s].tolist() == pytest.approx([x - v for x in q], abs=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_state_visits_are_counted_over_the_list(gamma):
    policy = random_policy(2)
    probs = trajectory_probs(TRAJECTORIES, policy)
    expected = torch.zeros(14, dtype=torch.float64)
    for states, mask, prob in zip(TRAJECTORIES.states, TRAJECTORIES.mask, probs, strict=True):
        for t in range(int(mask.sum()) + 1):
            expected[states[t]] += gamma**t * prob
    torch.testing.assert_close(state_visits(WORLD, policy, gamma), expected, rtol=0, atol=1e-13)
    if gamma == 1:
        torch.testing.assert_close(state_visits(WORLD, policy), expected, rtol=0, atol=1e-13)


def test_trajectories_are_drawn_as_often_as_their_probabilities_say():
    policy, num = random_policy(5), 20_000
    probs = trajectory_probs(TRAJECTORIES, policy)
    number = {}
    for i, (states, actions) in enumerate(zip(*TRAJECTORIES[:2], strict=True)):
        number[tuple(states.tolist()), tuple(actions.tolist())] = i
    drawn = draw(TRAJECTORIES, policy, num, torch.Generator().manual_seed(0))
    keys = zip(drawn.states.tolist(), drawn.actions.tolist(), strict=True)
    index = torch.tensor([number[tuple(states), tuple(actions)] for states, actions in keys])
    # Every column is of the same trajectory.
    for column, every in zip(drawn, TRAJECTORIES, strict=True):
        assert torch.equal(column, every[index])
    share = index.bincount(minlength=len(probs)) / num
    # Five standard errors, and one trajectory.
    assert ((share - probs).abs() <= 5 * (probs * (1 - probs) / num).sqrt() + 1 / num).all()
    with pytest.raises(ValueError, match=r"^num is 0, expected at least 1$"):
        draw(TRAJECTORIES, policy, 0, torch.Generator())
    again = draw(TRAJECTORIES, policy, num, torch.Generator().manual_seed(0))
    assert torch.equal(again.states, drawn.states)
    assert len(draw(TRAJECTORIES, policy.requires_grad_(), 1, torch.Generator()).states) == 1


def test_scores_are_the_gradients_of_log_probabilities():
    logits = random_policy(6).log().requires_grad_()
    found = scores(TRAJECTORIES, logits.softmax(-1).detach())
    assert found.shape == (4257, 4, 14, 3)
    assert not found[~TRAJECTORIES.mask].any()
    for i in range(0, 4257, 200):
        for t in range(int(TRAJECTORIES.mask[i].sum())):
            s, a = TRAJECTORIES.states[i, t], TRAJECTORIES.actions[i, t]
            (expected,) = torch.autograd.grad(logits.log_softmax(-1)[s, a], logits)
            torch.testing.assert_close(found[i, t], expected, rtol=0, atol=1e-14)


def test_the_ridge_slips_once_in_five_unless_it_is_said():
    for world in (ridge(), make_ridge_env().mdp):
        assert world.transition[0, 1, 1:4].tolist() == pytest.approx([0.1, 0.8, 0.1])


def test_gradient_of_the_expected_return_equals_central_differences():
    logits = random_policy(3).log().requires_grad_()

    def j(x):
        return expected_return(WORLD, x.softmax(-1), 0.9)

    (gradient,) = torch.autograd.grad(j(logits), logits)
    differences = torch.zeros_like(gradient)
    step = 1e-5
    with torch.no_grad():
        for s, a in product(range(14), range(3)):
            shift = torch.zeros_like(logits)
            shift[s, a] = step
            differences[s, a] = (j(logits + shift) - j(logits - shift)) / (2 * step)
    torch.testing.assert_close(gradient, differences, rtol=0, atol=1e-8)
    assert gradient.abs().max() > 0.1


@pytest.mark.parametrize("quantity", ["list", "j", "q", "v", "advantage", "visits"])
def test_autograd_passes_gradcheck(quantity):
    def function(logits):
        policy = logits.softmax(-1)
        if quantity == "list":
            returns = trajectory_returns(TRAJECTORIES, 0.9)
            return trajectory_probs(TRAJECTORIES, policy) @ returns
        if quantity == "j":
            return expected_return(WORLD, policy, 0.9)
        if quantity == "visits":
            return state_visits(WORLD, policy, 0.9)
        return getattr(exact_values(WORLD, policy, 0.9), quantity)

    assert torch.autograd.gradcheck(function, random_policy(4).log().requires_grad_())


@cache
def best(gamma):
    return best_policy(WORLD, gamma)


def value_iteration(gamma):
    """V* by Bellman's optimality equation, repeated until nothing changes."""
    v = torch.zeros(14, dtype=torch.float64)
    while True:
        q = (WORLD.transition * (WORLD.reward + gamma * v)).sum(-1)
        if torch.equal(q.max(-1).values, v):
            return v
        v = q.max(-1).values


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("seed", range(2))
def test_best_policy_reaches_the_values_of_value_iteration_in_every_state(gamma, seed):
    policy = best(gamma)
    assert torch.equal(policy.sum(-1), torch.ones(14, dtype=torch.float64))
    assert set(policy.flatten().tolist()) == {0.0, 1.0}
    v = exact_values(WORLD, policy, gamma).v
    torch.testing.assert_close(v, value_iteration(gamma), rtol=0, atol=1e-12)
    assert (v >= exact_values(WORLD, random_policy(seed), gamma).v - 1e-12).all()


def test_the_best_policy_beats_greed_for_the_next_reward_by_more_than_one():
    next_reward = (WORLD.transition * WORLD.reward).sum(-1)
    greedy = (next_reward == next_reward.max(-1, keepdim=True).values).double()
    greedy /= greedy.sum(-1, keepdim=True)
    best_return = expected_return(WORLD, best(1.0), 1.0)
    assert best_return > expected_return(WORLD, greedy, 1.0) + 1


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_uniform_policy_is_worse_than_the_best(gamma):
    uniform = expected_return(WORLD, uniform_policy(), gamma)
    assert uniform < expected_return(WORLD, best(gamma), gamma) - 0.1


def test_without_slip_the_world_is_deterministic():
    world = ridge(slip=0.0)
    assert set(world.transition.flatten().tolist()) == {0.0, 1.0}
    trajectories = list_trajectories(world)
    assert torch.equal(trajectories.env_probs, torch.ones_like(trajectories.env_probs))
    # left, up, up, up ends at 4L: 2 in the first row and 10 in the last.
    left_then_up = torch.zeros(14, 3, dtype=torch.float64)
    left_then_up[:, 1] = 1.0
    left_then_up[0] = torch.tensor([1.0, 0.0, 0.0])
    assert expected_return(world, left_then_up, 0.5).item() == 2 + 10 * 0.5**3


def test_the_states_are_the_cells_and_the_fall():
    names = ["start", *(f"{row}{c}" for row in range(1, 5) for c in "LMR"), "fallen"]
    assert list(ridge().states) == names
    assert WORLD.actions == ("left", "up", "right")
    terminal = {name for name, end in zip(names, WORLD.terminal, strict=True) if end}
    assert terminal == {"4L", "4M", "4R", "fallen"}
    assert WORLD.cells == ((0, 1), *((row, column) for row in range(1, 5) for column in range(3)))


def changed(name, index, value):
    tensor = getattr(WORLD, name).clone()
    tensor[index] = value
    return {name: tensor}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": WORLD.start[:-1]}, r"start has shape \(13,\), expected \(14,\)"),
        ({"transition": WORLD.transition[:, 0]}, r"transition has shape \(14, 14\), expected"),
        ({"reward": WORLD.reward[..., :1]}, r"reward has shape \(14, 3, 1\), expected"),
        ({"terminal": WORLD.terminal[None]}, r"terminal has shape \(1, 14\), expected \(14,\)"),
        ({"start": WORLD.start.float()}, r"start has dtype torch.float32, expected torch.float64"),
        ({"transition": WORLD.transition.float()}, "transition has dtype torch.float32, expected"),
        ({"reward": WORLD.reward.float()}, "reward has dtype torch.float32, expected"),
        (
            {"terminal": WORLD.terminal.long()},
            "terminal has dtype torch.int64, expected torch.bool",
        ),
        ({"start": WORLD.start / 2}, "start sums to 0.5, expected 1"),
        ({"start": WORLD.start * (1 + 1.5e-9)}, r"start sums to 1\.00000000\d+, expected 1"),
        (changed("start", slice(2), torch.tensor([1.5, -0.5])), "start holds a negative prob"),
        (changed("transition", (0, 0, 1), 0.7), r"\['start', 'left'\] sums to 0.89*.*, expected 1"),
        (changed("transition", (13, 0, 1), 1.0), r"\['fallen', 'left'\] sums to 1.*, expected 0"),
        (changed("transition", (0, 0, 1), -0.8), "transition holds a negative probability"),
        (changed("transition", (0, 0, 1), float("nan")), "transition holds a negative prob"),
        (changed("reward", (0, 0, 1), float("nan")), "reward holds a value that is not finite"),
        (changed("reward", (0, 0, 1), float("inf")), "reward holds a value that is not finite"),
        (changed("terminal", 13, False), r"\['fallen', 'left'\] sums to 0.*, expected 1"),
        (
            changed("transition", (1, 0), torch.eye(14, dtype=torch.float64)[0]),
            "lets a state be visited twice",
        ),
        (
            changed("transition", (1, 0), torch.eye(14, dtype=torch.float64)[1]),
            "lets a state be visited twice",
        ),
    ],
)
def test_a_world_that_is_none_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(WORLD, **change)


@pytest.mark.parametrize("slip", [-0.1, 1.1, float("nan")])
def test_a_slip_that_is_no_probability_is_refused(slip):
    with pytest.raises(ValueError, match=rf"slip is {slip}, expected a number in \[0, 1\]"):
        ridge(slip)


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize(
    "call",
    [
        lambda gamma: trajectory_returns(TRAJECTORIES, gamma),
        lambda gamma: expected_return(WORLD, uniform_policy(), gamma),
        lambda gamma: exact_values(WORLD, uniform_policy(), gamma),
        lambda gamma: state_visits(WORLD, uniform_policy(), gamma),
        lambda gamma: best_policy(WORLD, gamma),
    ],
)
def test_a_discount_outside_0_to_1_is_refused(call, gamma):
    with pytest.raises(ValueError, match=rf"gamma is {gamma}, expected a number in \[0, 1\]"):
        call(gamma)


@pytest.mark.parametrize("function", [exact_values, expected_return, state_visits])
def test_a_policy_of_another_shape_is_refused(function):
    message = r"policy has shape \(3, 14\), expected \(14, 3\)"
    with pytest.raises(ValueError, match=message):
        function(WORLD, uniform_policy().T, 0.9)

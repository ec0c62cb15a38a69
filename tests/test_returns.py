"""Returns and advantages, against their definitions written as plain loops, and exact values."""

import itertools

import pytest
import torch

from ppo_lib.exact.mdp import exact_values, list_trajectories, ridge, trajectory_probs
from ppo_lib.returns import discounted_return, gae, k_step_advantages, rewards_to_go, td_errors

GAMMAS = (0.0, 0.9, 1.0)
WORLD = ridge()
TRAJECTORIES = list_trajectories(WORLD)


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def random_case(seed, steps=9, envs=3):
    """Random inputs of `gae`; V(s_{t+1}) is the next row's V where the episode goes on."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values, last = torch.randn(
        3, steps, envs, generator=generator, dtype=torch.float64
    ).unbind()
    terminated, truncated = (torch.rand(2, steps, envs, generator=generator) < 0.2).unbind()
    ended = terminated | truncated
    assert terminated.any()
    assert (truncated & ~terminated).any()
    following = torch.cat([values[1:], last[-1:]])
    next_values = torch.where(ended, last, following)
    return rewards, values, next_values, terminated, truncated


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("seed", range(3))
def test_discounted_return_is_its_sum(gamma, seed):
    rewards = random_case(seed)[0]
    expected = sum(gamma**t * rewards[t] for t in range(9))
    assert_same(discounted_return(rewards, gamma=gamma), expected)


def test_discounted_return_of_a_literal():
    # Columns 1, 2, 4 and 8, 0, 0 with γ = 1/2: 1 + 1 + 1 and 8.
    rewards = torch.tensor([[1.0, 8.0], [2.0, 0.0], [4.0, 0.0]])
    assert discounted_return(rewards, gamma=0.5).tolist() == [3.0, 8.0]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("with_ends", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_rewards_to_go_are_their_sums(gamma, with_ends, seed):
    rewards, _, _, terminated, truncated = random_case(seed)
    ended = terminated | truncated
    expected = torch.zeros_like(rewards)
    for t, n in itertools.product(range(9), range(3)):
        for later in range(t, 9):
            expected[t, n] += gamma ** (later - t) * rewards[later, n]
            if with_ends and ended[later, n]:
                break
    assert_same(rewards_to_go(rewards, ended if with_ends else None, gamma=gamma), expected)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("seed", range(3))
def test_td_errors_are_their_definition(gamma, seed):
    rewards, values, next_values, terminated, _ = random_case(seed)
    found = td_errors(rewards, values, next_values, terminated, gamma=gamma)
    for t, n in itertools.product(range(9), range(3)):
        after = 0.0 if terminated[t, n] else next_values[t, n].item()
        expected = rewards[t, n].item() + gamma * after - values[t, n].item()
        assert found[t, n].item() == pytest.approx(expected, abs=1e-14)


def k_step(case, gamma, k, t, n):
    """k rewards, fewer where the episode or the tensor ends, then V unless the world ended."""
    rewards, values, next_values, terminated, truncated = case
    total = 0.0
    for j in range(k):
        row = t + j
        total += gamma**j * rewards[row, n].item()
        last = j == k - 1 or row == len(rewards) - 1
        if terminated[row, n]:
            break
        if truncated[row, n] or last:
            total += gamma ** (j + 1) * next_values[row, n].item()
            break
    return total - values[t, n].item()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("k", [1, 2, 3, 8, 9, 100])
@pytest.mark.parametrize("seed", range(2))
def test_k_step_advantages_are_k_rewards_then_the_value(gamma, k, seed):
    case = random_case(seed)
    found = k_step_advantages(*case, gamma=gamma, k=k)
    for t, n in itertools.product(range(9), range(3)):
        assert found[t, n].item() == pytest.approx(k_step(case, gamma, k, t, n), abs=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("gae_lambda", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_gae_is_the_sum_of_td_errors_cut_at_ends(gamma, gae_lambda, seed):
    rewards, values, next_values, terminated, truncated = case = random_case(seed)
    expected = torch.zeros_like(rewards)
    for t, n in itertools.product(range(9), range(3)):
        for b in range(9 - t):
            row = t + b
            after = 0.0 if terminated[row, n] else next_values[row, n]
            delta = rewards[row, n] + gamma * after - values[row, n]
            expected[t, n] += (gamma * gae_lambda) ** b * delta
            if terminated[row, n] or truncated[row, n]:
                break
    advantages, returns = gae(*case, gamma=gamma, gae_lambda=gae_lambda)
    assert_same(advantages, expected)
    assert_same(returns, expected + values)


def test_gae_of_a_literal_with_a_termination_and_a_time_limit_inside():
    # γ = λ = 1/2.  The world ends at step 1, a time limit cuts at step 3, the tensor at step 4.
    #   δ_0 = 1 + 3/2 - 4 = -3/2
    #   δ_1 = 2       - 3 = -1      nothing follows, whatever next_values says
    #   δ_2 = 3 + 4/2 - 8 = -3
    #   δ_3 = 4 + 6/2 - 4 =  3      the value 6 of the true last state
    #   δ_4 = 5 + 8/2 - 2 =  7
    # A_4 = 7; A_3 = 3; A_2 = -3 + 3/4 = -9/4; A_1 = -1; A_0 = -3/2 - 1/4 = -7/4.
    column = {
        "rewards": [1.0, 2.0, 3.0, 4.0, 5.0],
        "values": [4.0, 3.0, 8.0, 4.0, 2.0],
        "next_values": [3.0, 100.0, 4.0, 6.0, 8.0],
        "terminated": [False, True, False, False, False],
        "truncated": [False, False, False, True, False],
    }
    inputs = {name: torch.tensor(x)[:, None] for name, x in column.items()}
    advantages, returns = gae(**inputs, gamma=0.5, gae_lambda=0.5)
    assert advantages[:, 0].tolist() == [-1.75, -1.0, -2.25, 3.0, 7.0]
    assert returns[:, 0].tolist() == [2.25, 2.0, 5.75, 7.0, 9.0]


@pytest.mark.parametrize("seed", range(3))
def test_gae_with_lambda_0_is_the_td_error(seed):
    rewards, values, next_values, terminated, _ = case = random_case(seed)
    expected = rewards + 0.9 * torch.where(terminated, 0.0, next_values) - values
    assert_same(gae(*case, gamma=0.9, gae_lambda=0.0)[0], expected)


@pytest.mark.parametrize("seed", range(3))
def test_gae_with_lambda_1_is_the_return_less_the_value(seed):
    case = random_case(seed)
    found = gae(*case, gamma=0.9, gae_lambda=1.0)[0]
    for t, n in itertools.product(range(9), range(3)):
        assert found[t, n].item() == pytest.approx(k_step(case, 0.9, 9, t, n), abs=1e-12)


@pytest.mark.parametrize("gae_lambda", [0.3, 0.9])
@pytest.mark.parametrize("seed", range(2))
def test_gae_is_the_mixture_of_the_k_step_advantages(gae_lambda, seed):
    case = random_case(seed)
    found = gae(*case, gamma=0.9, gae_lambda=gae_lambda)[0]
    for t, n in itertools.product(range(9), range(3)):
        # From k = 9 on all are the same, so that the rest of the weights is λ^8.
        mixture = sum(
            (1 - gae_lambda) * gae_lambda ** (k - 1) * k_step(case, 0.9, k, t, n)
            for k in range(1, 9)
        )
        mixture += gae_lambda**8 * k_step(case, 0.9, 9, t, n)
        assert found[t, n].item() == pytest.approx(mixture, abs=1e-12)


def expected_gae(value_table, gamma, gae_lambda, policy):
    """E[Â_t | s_t = s, a_t = a] on the ridge over all trajectories, NaN where never visited."""
    world, listed = WORLD, TRAJECTORIES
    last = listed.mask & world.terminal[listed.states[:, 1:]]
    advantages, _ = gae(
        listed.rewards.T,
        value_table[listed.states[:, :-1]].T,
        value_table[listed.states[:, 1:]].T,
        last.T,
        torch.zeros_like(last.T),
        gamma=gamma,
        gae_lambda=gae_lambda,
    )
    probs = trajectory_probs(listed, policy)[:, None].expand_as(listed.mask)[listed.mask]
    pairs = (listed.states[:, :-1] * 3 + listed.actions)[listed.mask]
    mass = torch.zeros(14 * 3, dtype=torch.float64).index_add(0, pairs, probs)
    total = torch.zeros_like(mass).index_add(0, pairs, probs * advantages.T[listed.mask])
    return (total / mass).reshape(14, 3)[~world.terminal]


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_with_the_true_values_gae_is_unbiased_for_every_lambda(gamma, gae_lambda):
    generator = torch.Generator().manual_seed(7)
    policy = torch.randn(14, 3, generator=generator, dtype=torch.float64).softmax(-1)
    exact = exact_values(WORLD, policy, gamma)
    found = expected_gae(exact.v, gamma, gae_lambda, policy)
    assert_same(found, exact.advantage[~WORLD.terminal])


def test_with_other_values_gae_is_biased_unless_lambda_is_1():
    policy = torch.full((14, 3), 1 / 3, dtype=torch.float64)
    exact = exact_values(WORLD, policy, 0.9)
    alive = ~WORLD.terminal
    generator = torch.Generator().manual_seed(7)
    wrong = torch.randn(14, generator=generator, dtype=torch.float64) * alive
    expected = (exact.q - wrong[:, None])[alive]
    assert_same(expected_gae(wrong, 0.9, 1.0, policy), expected)
    assert (expected_gae(wrong, 0.9, 0.5, policy) - expected).abs().max() > 0.1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_the_value_after_a_termination_is_never_looked_at(value):
    rewards, values, next_values, terminated, truncated = random_case(0)
    junk = next_values.masked_fill(terminated, value)
    zero = next_values.masked_fill(terminated, 0.0)
    for found, expected in zip(
        gae(rewards, values, junk, terminated, truncated, gamma=0.9, gae_lambda=0.9),
        gae(rewards, values, zero, terminated, truncated, gamma=0.9, gae_lambda=0.9),
        strict=True,
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nothing_leaks_back_over_the_end_of_an_episode(value):
    # Three steps that pay 1, an end at the second, and a third that holds no number.
    rewards = torch.tensor([[1.0], [1.0], [value]])
    ended = torch.tensor([[False], [True], [False]])
    never, zeros = torch.zeros_like(ended), torch.zeros(3, 1)
    for flags in ((ended, never), (never, ended)):
        case = (rewards, zeros, zeros, *flags)
        found = gae(*case, gamma=0.5, gae_lambda=0.5)[0], k_step_advantages(*case, gamma=0.25, k=3)
        for advantages in found:
            assert advantages[:2, 0].tolist() == [1.25, 1.0]
    assert rewards_to_go(rewards, ended, gamma=0.5)[:2, 0].tolist() == [1.5, 1.0]


def test_inputs_stay_as_they_were_and_float32_stays_float32():
    case = tuple(x.float() if x.is_floating_point() else x for x in random_case(0))
    before = [x.clone() for x in case]
    results = [
        *gae(*case, gamma=0.9, gae_lambda=0.9),
        k_step_advantages(*case, gamma=0.9, k=3),
        td_errors(*case[:4], gamma=0.9),
        rewards_to_go(case[0], case[3], gamma=0.9),
        discounted_return(case[0], gamma=0.9),
    ]
    assert {result.dtype for result in results} == {torch.float32}
    assert all(torch.equal(x, y) for x, y in zip(case, before, strict=True))


# What a wrong argument does, the same for all functions: by name, function and good arguments.
_R, _V, _W, _TERM, _TRUNC = random_case(0)
_ALL = {
    "rewards": _R,
    "values": _V,
    "next_values": _W,
    "terminated": _TERM,
    "truncated": _TRUNC,
    "gamma": 0.9,
}
CALLS = {
    "discounted_return": (discounted_return, {"rewards": _R, "gamma": 0.9}),
    "rewards_to_go": (rewards_to_go, {"rewards": _R, "ended": _TERM, "gamma": 0.9}),
    "td_errors": (td_errors, {name: x for name, x in _ALL.items() if name != "truncated"}),
    "k_step_advantages": (k_step_advantages, {**_ALL, "k": 2}),
    "gae": (gae, {**_ALL, "gae_lambda": 0.9}),
}
TENSORS = [
    (call, name)
    for call, (_, arguments) in CALLS.items()
    for name, value in arguments.items()
    if isinstance(value, torch.Tensor)
]


@pytest.mark.parametrize(("call", "name"), TENSORS)
def test_a_wrong_shape_is_refused(call, name):
    function, arguments = CALLS[call]
    with pytest.raises(ValueError, match=r"has shape \(9, 3, 1\), expected|expected \(9, 3, 1\)"):
        function(**arguments | {name: arguments[name][..., None]})
    if name != "rewards":
        with pytest.raises(ValueError, match=rf"{name} has shape \(9, 1\), expected \(9, 3\)"):
            function(**arguments | {name: arguments[name][:, :1]})


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("shape", [(9,), (0, 3), (9, 0), (9, 3, 1)])
def test_rewards_that_are_not_time_major_are_refused(call, shape):
    function, arguments = CALLS[call]
    reshaped = {
        name: torch.zeros(shape, dtype=x.dtype) if isinstance(x, torch.Tensor) else x
        for name, x in arguments.items()
    }
    with pytest.raises(ValueError, match=r"rewards has shape .*, expected \[T, N\]"):
        function(**reshaped)


@pytest.mark.parametrize(("call", "name"), TENSORS)
def test_what_is_no_tensor_is_refused(call, name):
    function, arguments = CALLS[call]
    with pytest.raises(TypeError, match="ndarray"):
        function(**arguments | {name: arguments[name].numpy()})
    if "values" in arguments:
        with pytest.raises(TypeError, match=f"^{name} is a ndarray, expected a torch tensor"):
            function(**arguments | {name: arguments[name].numpy()})


@pytest.mark.parametrize(("call", "name"), TENSORS)
def test_a_wrong_dtype_is_refused(call, name):
    function, arguments = CALLS[call]
    wrong = arguments[name].long()
    message = "rewards has dtype torch.int64" if name == "rewards" else f"{name} has dtype"
    with pytest.raises(ValueError, match=rf"{message}.*, expected"):
        function(**arguments | {name: wrong})
    if name in ("values", "next_values"):
        with pytest.raises(ValueError, match=f"{name} has dtype torch.float32, expected"):
            function(**arguments | {name: arguments[name].float()})


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("gamma", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_discount_outside_0_to_1_is_refused(call, gamma):
    function, arguments = CALLS[call]
    with pytest.raises(ValueError, match=rf"gamma is {gamma}, expected a number in \[0, 1\]"):
        function(**arguments | {"gamma": gamma})


@pytest.mark.parametrize("gae_lambda", [-0.01, 1.01, float("nan")])
def test_a_lambda_outside_0_to_1_is_refused(gae_lambda):
    function, arguments = CALLS["gae"]
    message = rf"gae_lambda is {gae_lambda}, expected a number in \[0, 1\]"
    with pytest.raises(ValueError, match=message):
        function(**arguments | {"gae_lambda": gae_lambda})


@pytest.mark.parametrize("k", [0, -1, 1.5, float("nan")])
def test_a_k_that_is_no_count_is_refused(k):
    function, arguments = CALLS["k_step_advantages"]
    with pytest.raises(ValueError, match=f"k is {k}, expected an integer of at least 1"):
        function(**arguments | {"k": k})

"""The losses, against literals worked by hand and exact gradients of the ridge world."""

import inspect
import math

import pytest
import torch

from ppo_lib.exact.mdp import (
    exact_values,
    expected_return,
    list_trajectories,
    ridge,
    trajectory_probs,
    trajectory_returns,
)
from ppo_lib.objectives import (
    adapt_kl_coef,
    clipped_surrogate_loss,
    effective_sample_size,
    explained_variance,
    importance_ratio,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_penalty_loss,
    normalize_advantages,
    policy_gradient_loss,
    surrogate_loss,
    value_loss,
)

WORLD = ridge()
TRAJECTORIES = list_trajectories(WORLD)
GAMMA = 0.9


def tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def random_logits(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(14, 3, generator=generator, dtype=torch.float64).requires_grad_()


def exact_gradient(logits):
    return torch.autograd.grad(expected_return(WORLD, logits.softmax(-1), GAMMA), logits)[0]


def step_log_probs(logits):
    """log π(a_t | s_t) of all trajectories, [T, n]; 0 after the end."""
    taken = logits.log_softmax(-1)[TRAJECTORIES.states[:, :-1], TRAJECTORIES.actions]
    return (taken * TRAJECTORIES.mask).T


# ------------------------------------------------------------------ the policy gradient


def test_policy_gradient_loss_sums_over_time_and_averages_over_trajectories():
    # Column sums of w log π: -1 - 9 = -10 and -4 - 16 = -20; minus their mean is 15.
    log_probs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = policy_gradient_loss(log_probs, weights)
    assert loss.item() == 15.0
    loss.backward()
    assert log_probs.grad.tolist() == [[-0.5, -1.0], [-1.5, -2.0]]
    assert weights.grad is None


@pytest.mark.parametrize("seed", range(3))
def test_policy_gradient_loss_over_all_trajectories_has_minus_the_exact_gradient(seed):
    logits = random_logits(seed)
    # Each trajectory counts with its probability: n P(τ) undoes the mean over n columns.
    share = len(TRAJECTORIES.mask) * trajectory_probs(TRAJECTORIES, logits.softmax(-1))
    weights = (share * trajectory_returns(TRAJECTORIES, GAMMA)).expand(4, -1)
    loss = policy_gradient_loss(step_log_probs(logits), weights)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_same(gradient, -exact_gradient(logits))
    assert gradient.abs().max() > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_surrogate_loss_at_the_old_policy_has_minus_the_exact_gradient(seed):
    logits = random_logits(seed)
    log_probs = step_log_probs(logits)
    advantage = exact_values(WORLD, logits.softmax(-1), GAMMA).advantage
    share = log_probs.numel() * trajectory_probs(TRAJECTORIES, logits.softmax(-1))
    discount = GAMMA ** torch.arange(4, dtype=torch.float64)[:, None]
    weights = share * discount * advantage[TRAJECTORIES.states[:, :-1], TRAJECTORIES.actions].T
    expected = -exact_gradient(logits)
    losses = {
        "surrogate": surrogate_loss(log_probs, log_probs, weights),
        "clipped": clipped_surrogate_loss(log_probs, log_probs, weights, clip_range=0.2),
    }
    for loss in losses.values():
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert_same(gradient, expected)


# ------------------------------------------------------------------ ratio and surrogates


def test_importance_ratio_of_literals():
    # Probabilities 0.6 and 0.1 under the new policy, 0.3 and 0.2 under the old one.
    ratio = importance_ratio(tensor(0.6, 0.1).log(), tensor(0.3, 0.2).log())
    assert ratio.tolist() == pytest.approx([2.0, 0.5], rel=1e-15)
    same = tensor(-700.0, -1e-300)
    assert importance_ratio(same, same).tolist() == [1.0, 1.0]


def test_surrogate_loss_of_literals():
    # ρ = 2 and 1/2 with Â = 3 and -4: -(6 - 2) / 2 = -2.
    new = tensor(0.6, 0.1).log().requires_grad_()
    old = tensor(0.3, 0.2).log().requires_grad_()
    advantages = tensor(3.0, -4.0).requires_grad_()
    loss = surrogate_loss(new, old, advantages)
    assert loss.item() == pytest.approx(-2.0, rel=1e-15)
    loss.backward()
    # dρ / d log π = ρ, so that the gradient is -ρ Â / 2.
    assert new.grad.tolist() == pytest.approx([-3.0, 1.0], rel=1e-15)
    assert old.grad is advantages.grad is None


# ρ, Â, the loss -min(ρ Â, clip(ρ, 0.8, 1.2) Â) and its derivative by log π: -ρ Â or 0
CLIPPED = [
    (0.5, 2.0, -1.0, -1.0),
    (0.9, 2.0, -1.8, -1.8),
    (1.0, 2.0, -2.0, -2.0),
    (1.1, 2.0, -2.2, -2.2),
    (1.5, 2.0, -2.4, 0.0),
    (0.5, -2.0, 1.6, 0.0),
    (0.9, -2.0, 1.8, 1.8),
    (1.0, -2.0, 2.0, 2.0),
    (1.1, -2.0, 2.2, 2.2),
    (1.5, -2.0, 3.0, 3.0),
    (0.5, 0.0, 0.0, 0.0),
    (1.5, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient"), CLIPPED)
def test_clipped_surrogate_loss_piece_by_piece(ratio, advantage, loss, gradient):
    old = tensor(-0.7)
    new = (old + math.log(ratio)).requires_grad_()
    found = clipped_surrogate_loss(new, old, tensor(advantage), clip_range=0.2)
    found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-14)
    assert new.grad.item() == pytest.approx(gradient, abs=1e-14)


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("log_ratio", [0.25, -0.25])
def test_exactly_at_the_boundary_half_of_the_gradient_flows(advantage, log_ratio):
    log_probs = tensor(log_ratio).requires_grad_()
    ratio = log_probs.exp().item()
    # x - 1 has no rounding for x in [1/2, 2], so that this boundary is the ratio itself.
    clip_range = abs(ratio - 1)
    loss = clipped_surrogate_loss(log_probs, tensor(0.0), tensor(advantage), clip_range=clip_range)
    loss.backward()
    assert loss.item() == -ratio * advantage
    # At the corner between slope and flat the derivative is the mean of both sides'.
    share = 0.5 if log_ratio * advantage > 0 else 1.0
    assert log_probs.grad.item() == pytest.approx(-ratio * advantage * share, rel=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("log_ratio", [11.0, 20.0, 100.0, 200.0, 1000.0])
def test_far_past_a_binding_clip_the_gradient_is_0_and_not_nan(log_ratio, dtype):
    log_probs = torch.tensor([log_ratio, 0.0, log_ratio], dtype=dtype, requires_grad=True)
    advantages = torch.tensor([2.0, 1.0, 0.0], dtype=dtype)
    loss = clipped_surrogate_loss(
        log_probs, torch.zeros(3, dtype=dtype), advantages, clip_range=0.5
    )
    loss.backward()
    # 2 · 1.5, 1 and 0; only the second, whose ratio is 1, has a gradient.
    close = 4 * torch.finfo(dtype).eps
    assert loss.item() == pytest.approx(-4 / 3, rel=close)
    assert log_probs.grad.tolist() == pytest.approx([0.0, -1 / 3, 0.0], rel=close)


def test_a_clip_so_wide_that_it_does_not_bind_leaves_the_gradient():
    log_probs = tensor(50.0).requires_grad_()
    clipped_surrogate_loss(log_probs, tensor(0.0), tensor(1.0), clip_range=1e30).backward()
    assert log_probs.grad.item() == pytest.approx(-math.exp(50))


@pytest.mark.parametrize(("dtype", "last"), [(torch.float16, 11.08), (torch.float32, 88.7)])
def test_the_surrogate_has_its_range_where_it_is_said_to_end(dtype, last):
    for log_ratio, finite in {last: True, last + 0.05: False}.items():
        log_probs = torch.tensor([log_ratio], dtype=dtype, requires_grad=True)
        loss = surrogate_loss(log_probs, torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype))
        loss.backward()
        assert bool(loss.isfinite()) == bool(log_probs.grad.isfinite()) == finite


def test_far_past_a_clip_that_does_not_bind_the_loss_is_infinite_and_not_cut():
    loss = clipped_surrogate_loss(tensor(1000.0), tensor(0.0), tensor(-1.0), clip_range=0.5)
    assert loss.item() == math.inf


def test_clipped_surrogate_loss_averages_over_steps_and_detaches_the_rest():
    ratios, advantages, losses, gradients = (tensor(*x) for x in zip(*CLIPPED, strict=True))
    new = ratios.log().reshape(3, 4).requires_grad_()
    old = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    advantages = advantages.reshape(3, 4).requires_grad_()
    loss = clipped_surrogate_loss(new, old, advantages, clip_range=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(losses.mean().item(), abs=1e-14)
    assert_same(new.grad.flatten(), gradients / 12)
    assert old.grad is advantages.grad is None


def test_a_clip_range_without_an_end_is_refused():
    x = tensor(0.0)
    with pytest.raises(ValueError, match=r"^clip_range is inf, expected a number above 0$"):
        clipped_surrogate_loss(x, x, x, clip_range=math.inf)


@pytest.mark.parametrize("clip_range", [0.0, -0.1, float("nan")])
def test_a_clip_range_not_above_0_is_refused(clip_range):
    x = tensor(0.0)
    message = f"clip_range is {clip_range}, expected a number above 0"
    with pytest.raises(ValueError, match=message):
        clipped_surrogate_loss(x, x, x, clip_range=clip_range)
    with pytest.raises(ValueError, match=message):
        value_loss(x, x, x, clip_range=clip_range)


# ------------------------------------------------------------------ KL


def test_kl_penalty_loss_of_literals():
    # The surrogate above, -2, plus β = 3 times the mean 0.2 of the KLs.
    new, old = tensor(0.6, 0.1).log(), tensor(0.3, 0.2).log()
    kl = tensor(0.1, 0.3).requires_grad_()
    loss = kl_penalty_loss(new, old, tensor(3.0, -4.0), kl, kl_coef=3.0)
    assert loss.item() == pytest.approx(-1.4, rel=1e-14)
    loss.backward()
    assert kl.grad.tolist() == [1.5, 1.5]
    free = kl_penalty_loss(new, old, tensor(3.0, -4.0), kl, kl_coef=0)
    assert free.item() == pytest.approx(-2.0, rel=1e-14)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(0.0, 4.0), (1.99, 4.0), (2.0, 8.0), (3.0, 8.0), (4.5, 8.0), (4.51, 16.0), (100.0, 16.0)],
)
def test_adapt_kl_coef_halves_keeps_or_doubles(kl, expected):
    # The target is 3: below 3 / 1.5 = 2 it halves, above 3 · 1.5 = 4.5 it doubles.
    assert adapt_kl_coef(8.0, kl, kl_target=3.0) == expected


def test_a_kl_coef_comes_back_from_both_ends():
    low = high = 1.0
    for _ in range(2000):
        low, high = (adapt_kl_coef(b, kl, kl_target=1.0) for b, kl in ((low, 0.0), (high, 9.0)))
    assert (low, high) == (1e-6, 1e6)
    assert adapt_kl_coef(low, 9.0, kl_target=1.0) == 2e-6
    # What was given outside stays there, and 0 stays 0: no penalty.
    assert adapt_kl_coef(1e-9, 0.0, kl_target=1.0) == 1e-9
    assert adapt_kl_coef(0.0, 9.0, kl_target=1.0) == 0.0


@pytest.mark.parametrize("name", ["kl_coef", "kl", "kl_target"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_kl_numbers_out_of_range_are_refused(name, value):
    numbers = {"kl_coef": 1.0, "kl": 1.0, "kl_target": 1.0} | {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}, expected"):
        adapt_kl_coef(**numbers)
    if name == "kl_coef":
        x = tensor(0.0)
        with pytest.raises(ValueError, match=f"kl_coef is {value}, expected a number of at least"):
            kl_penalty_loss(x, x, x, x, kl_coef=value)


def test_a_divergence_may_be_below_0_by_rounding_and_no_further():
    assert adapt_kl_coef(8.0, -9e-7, kl_target=3.0) == 4.0
    for kl in (-1e-6, -1.5e-6):
        with pytest.raises(ValueError, match=f"^kl is {kl}, expected a number of at least 0$"):
            adapt_kl_coef(8.0, kl, kl_target=3.0)


@pytest.mark.parametrize("kl_coef", [math.inf, -math.inf])
def test_an_infinite_penalty_is_refused(kl_coef):
    x = tensor(0.0)
    message = f"^kl_coef is {kl_coef}, expected a number of at least 0$"
    with pytest.raises(ValueError, match=message):
        kl_penalty_loss(x, x, x, x, kl_coef=kl_coef)
    with pytest.raises(ValueError, match=message):
        adapt_kl_coef(kl_coef, 1.0, kl_target=1.0)


def test_a_kl_target_of_0_is_refused():
    with pytest.raises(ValueError, match="kl_target is 0, expected a number above 0"):
        adapt_kl_coef(1.0, 0.1, kl_target=0)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        # The old policy is (1/2, 1/2), the new one (1/4, 3/4); expectations over the old one.
        # k1: ½ log 2 + ½ log 2/3 = ½ log 4/3, the KL itself
        (kl_k1, 0.5 * math.log(4 / 3)),
        # k2: ½ (½ log² 2 + ½ log² 3/2), larger than the KL by 0.017
        (kl_k2, 0.25 * (math.log(2) ** 2 + math.log(1.5) ** 2)),
        # k3: the expectation of ρ - 1 is ½ (1/2 - 1) + ½ (3/2 - 1) = 0, which leaves k1
        (kl_k3, 0.5 * math.log(4 / 3)),
    ],
)
def test_kl_estimators_in_expectation_by_hand(estimator, expected):
    old, new = tensor(0.5, 0.5).log(), tensor(0.25, 0.75).log()
    assert (old.exp() @ estimator(new, old)).item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("seed", range(4))
def test_k1_and_k3_are_unbiased_k2_is_not_and_k2_and_k3_are_never_negative(seed):
    generator = torch.Generator().manual_seed(seed)
    old, new = torch.randn(2, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=old), torch.distributions.Categorical(logits=new)
    ).item()
    mean = {k: (old.exp() @ k(new, old)).item() for k in (kl_k1, kl_k2, kl_k3)}
    assert mean[kl_k1] == pytest.approx(kl, abs=1e-14)
    assert mean[kl_k3] == pytest.approx(kl, abs=1e-14)
    assert abs(mean[kl_k2] - kl) > 1e-3
    assert kl_k1(new, old).min() < 0
    assert kl_k2(new, old).min() >= 0
    assert kl_k3(new, old).min() >= 0


def test_k3_keeps_its_digits_where_policies_are_close():
    # ρ - 1 - log ρ = x²/2 + x³/6 + … for x = log ρ; by exp(x) - 1 - x all digits would be lost.
    assert kl_k3(tensor(1e-9), tensor(0.0)).item() == pytest.approx(0.5e-18, rel=1e-3, abs=0)


# ------------------------------------------------------------------ the critic


def test_value_loss_is_half_the_mean_squared_error():
    # Errors -1 and 2: ½ (1 + 4) / 2.
    values = tensor(1.0, 3.0).requires_grad_()
    returns = tensor(2.0, 1.0).requires_grad_()
    loss = value_loss(values, returns)
    assert loss.item() == 1.25
    loss.backward()
    assert values.grad.tolist() == [-0.5, 1.0]
    assert returns.grad is None


def test_value_loss_with_clipping_takes_the_larger_error():
    # V, old V and return, clipped to old V ± 1:
    #   1,   0,  4   inside: error -3, squared 9
    #   3,   0,  4   clipped to 1: max(1, 9) = 9, and no gradient
    #   5,   0,  0   clipped to 1: max(25, 1) = 25
    #   0.5, 0,  0   inside: 0.25
    # ½ (9 + 9 + 25 + 0.25) / 4 = 5.40625; gradients (V - return) / 4.
    values = tensor(1.0, 3.0, 5.0, 0.5).requires_grad_()
    old_values = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loss = value_loss(values, tensor(4.0, 4.0, 0.0, 0.0), old_values, clip_range=1.0)
    assert loss.item() == 5.40625
    loss.backward()
    assert values.grad.tolist() == [-0.75, 0.0, 1.25, 0.125]
    assert old_values.grad is None


def test_a_value_is_clipped_to_what_is_near_the_old_one():
    # From 4 it may move by 2: to 5 it has, with the squared error 25; of 1, 2 is left, and 4.
    values = tensor(5.0, 1.0)
    loss = value_loss(values, tensor(0.0, 0.0), tensor(4.0, 4.0), clip_range=2.0)
    assert loss.item() == 0.5 * (25 + 4) / 2


@pytest.mark.parametrize("half", [{"old_values": tensor(0.0)}, {"clip_range": 0.2}])
def test_value_loss_with_half_of_what_clipping_needs_is_refused(half):
    with pytest.raises(ValueError, match="old_values and clip_range go together"):
        value_loss(tensor(0.0), tensor(0.0), **half)


@pytest.mark.parametrize(
    ("values", "returns", "expected"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 1.0),
        ([6.0, 7.0, 8.0], [1.0, 2.0, 3.0], 1.0),  # a constant error has no variance
        ([5.0, 5.0, 5.0], [1.0, 2.0, 3.0], 0.0),
        ([-1.0, -2.0, -3.0], [1.0, 2.0, 3.0], -3.0),  # Var(2 R) = 4 Var(R)
        ([1.0, 2.0, 2.0], [1.0, 2.0, 3.0], 2 / 3),  # Var(0, 0, 1) = 1/3 and Var(1, 2, 3) = 1
    ],
)
def test_explained_variance_of_literals(values, returns, expected):
    found = explained_variance(tensor(*values), tensor(*returns))
    assert found == pytest.approx(expected, abs=1e-14)


def test_explained_variance_of_equal_returns_is_nan():
    assert math.isnan(explained_variance(tensor(1.0, 2.0), tensor(3.0, 3.0)))


def test_explained_variance_of_one_number_is_nan():
    assert math.isnan(explained_variance(tensor(1.0), tensor(1.0)))


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        *((scale, dtype) for scale in (1e20, 1e-30) for dtype in (torch.float32, torch.float64)),
        *((scale, torch.float64) for scale in (-1e-3, 1e200, 1e-200)),
    ],
)
def test_explained_variance_has_no_scale(scale, dtype):
    # Errors 0, 0 and 1/2 have the variance 1/12; 1, 2 and 3 have 1: 11/12.
    returns = torch.tensor([1.0, 2.0, 3.0], dtype=dtype) * scale
    values = torch.tensor([1.0, 2.0, 2.5], dtype=dtype) * scale
    assert explained_variance(values, returns) == pytest.approx(11 / 12, rel=1e-6)


def test_explained_variance_of_rows_that_are_alike_and_of_two_returns():
    # The two rows of [T, N] are equal, the returns are not: errors 0 and 1, a quarter of 0 and 2.
    returns, values = tensor(0.0, 2.0).repeat(2, 1), tensor(0.0, 1.0).repeat(2, 1)
    assert explained_variance(values, returns) == pytest.approx(0.75)
    # The largest of these returns is 0.
    assert explained_variance(tensor(-1.0, 0.0), tensor(-2.0, 0.0)) == pytest.approx(0.75)
    # Errors -1 and 2 have the variance 9/2, the returns 2 and 6 have 8.
    assert explained_variance(tensor(3.0, 4.0), tensor(2.0, 6.0)) == pytest.approx(1 - 4.5 / 8)


# ------------------------------------------------------------------ effective sample size


@pytest.mark.parametrize("scale", [1.0, 1e20, 1e-30, 1e38 / 3, 1e200, 1e-200])
def test_effective_sample_size_of_literals_whatever_their_scale(scale):
    dtype = torch.float32 if 1e-30 <= scale <= 1e38 else torch.float64
    # (1 + 2 + 3)² / (1 + 4 + 9) = 18/7; equal weights count fully, a lone one counts once.
    for weights, expected in (([1, 2, 3], 18 / 7), ([1, 1, 1, 1], 4), ([0, 0, 2], 1)):
        found = effective_sample_size(torch.tensor(weights, dtype=dtype) * scale)
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -0.5], "ratios holds a negative weight"),
        ([1.0, math.nan], "ratios holds a negative weight, or NaN"),
        ([0.0, 0.0], "ratios go up to 0.0, expected a number above 0"),
        ([], "ratios go up to 0.0, expected a number above 0"),
        ([1.0, math.inf], "ratios go up to inf, expected a number above 0"),
    ],
)
def test_weights_that_say_nothing_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        effective_sample_size(tensor(*weights))


# ------------------------------------------------------------------ advantages


def test_normalized_advantages_of_literals():
    # Mean 2 and standard deviation 1, with n - 1 below the sum.
    assert_close = pytest.approx([-1.0, 0.0, 1.0], abs=1e-7)
    assert normalize_advantages(tensor(1.0, 2.0, 3.0)).tolist() == assert_close
    grid = normalize_advantages(tensor(1.0, 2.0, 3.0, 4.0).reshape(2, 2))
    # Mean 5/2, variance (9/4 + 1/4 + 1/4 + 9/4) / 3 = 5/3 over all four numbers.
    expected = [[x / math.sqrt(5 / 3) for x in row] for row in ([-1.5, -0.5], [0.5, 1.5])]
    torch.testing.assert_close(grid, tensor(*expected), rtol=0, atol=1e-7)
    # Of two numbers 2 apart the variance is 2.
    assert normalize_advantages(tensor(1.0, 3.0)).tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])
    # A deviation of 1e-8 is doubled by what keeps the divisor from 0.
    apart = 1e-8 * 2**0.5
    expected = [-(0.5**0.5) / 2, 0.5**0.5 / 2]
    assert normalize_advantages(tensor(0.0, apart)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_advantage_alone_is_left_as_it_is(shape):
    alone = torch.full(shape, -3.5)
    assert torch.equal(normalize_advantages(alone), alone)


def test_equal_advantages_become_0_and_not_nan():
    assert normalize_advantages(tensor(2.0, 2.0, 2.0)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_advantages_of_half_precision_are_normalised_as_others(dtype):
    for numbers in ([1.0, 2.0, 6.0], [300.0, -500.0, 60_000.0], [1e-4, 2e-4, -5e-4], [7.0] * 5):
        half = torch.tensor(numbers, dtype=dtype)
        found, expected = normalize_advantages(half), normalize_advantages(half.double())
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_advantages_that_are_no_floats_are_refused(dtype):
    for size in (1, 3):
        with pytest.raises(ValueError, match=r"advantages has dtype torch\..*, expected a float"):
            normalize_advantages(torch.zeros(size, dtype=dtype))


@pytest.mark.parametrize("value", [0.1, 3.3, -0.7, 1e6 / 3, 1e-20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_advantages_are_not_normalised_from_the_noise_of_rounding(value, dtype):
    # In float32 the mean of seven 0.1 is another number, and the difference was divided by itself.
    assert normalize_advantages(torch.full((7,), value, dtype=dtype)).tolist() == [0.0] * 7


# ------------------------------------------------------------------ shapes

B, B1 = torch.zeros(4), torch.zeros(4, 1)
NUMBERS = {"clip_range": 0.2, "kl_coef": 1.0}
FUNCTIONS = [
    policy_gradient_loss,
    importance_ratio,
    surrogate_loss,
    clipped_surrogate_loss,
    kl_penalty_loss,
    value_loss,
    kl_k1,
    kl_k2,
    kl_k3,
    explained_variance,
]


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (function, name)
        for function in FUNCTIONS
        for name in inspect.signature(function).parameters
        if name not in NUMBERS
    ],
)
@pytest.mark.parametrize(("good", "bad"), [(B, B1), (B1, B), (B1, B1.T), (B, B[:1])])
def test_two_shapes_in_one_call_are_refused(function, name, good, bad):
    parameters = inspect.signature(function).parameters
    arguments = {p: NUMBERS.get(p, good) for p in parameters} | {name: bad}
    shapes = [str(tuple(x.shape)) for x in (good, bad)]
    with pytest.raises(ValueError, match=r"has shape .*, expected .* as \w+ has") as refusal:
        function(**arguments)
    assert all(shape in str(refusal.value) for shape in shapes)
    with pytest.raises(TypeError, match=f"^{name} is a ndarray, expected a torch tensor"):
        function(**arguments | {name: good.numpy()})


@pytest.mark.parametrize("x", [B, torch.zeros(2, 3, 1)])
def test_policy_gradient_loss_refuses_what_is_not_time_major(x):
    with pytest.raises(ValueError, match=r"log_probs has shape .*, expected \[T, N\]"):
        policy_gradient_loss(x, x)


@pytest.mark.parametrize(
    "function",
    [policy_gradient_loss, surrogate_loss, clipped_surrogate_loss, kl_penalty_loss, value_loss],
)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_a_loss_of_nothing_is_refused_and_not_nan(function, shape):
    parameters = inspect.signature(function).parameters
    arguments = {p: NUMBERS.get(p, torch.zeros(shape)) for p in parameters}
    if function is value_loss:
        arguments |= {"old_values": None, "clip_range": None}
    message = rf"^(log_probs|values) has shape \({shape[0]}, {shape[1]}\), expected at least one"
    with pytest.raises(ValueError, match=message):
        function(**arguments)

"""The pure functions on whatever comes: against plain loops over Python's own floats.

Shapes down to one number and to none, float32 and float64, tensors that lie scattered in memory,
tensors that ask for gradients, NaN, infinities and numbers of every size.  A function gives what
the loop gives, or a ValueError.
"""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_lib.distributions import Categorical, DiagonalGaussian
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
from ppo_lib.returns import (
    discounted_return,
    gae,
    k_step_advantages,
    rewards_to_go,
    td_errors,
)

NAN, INF = math.nan, math.inf
ORDINARY = st.floats(-3, 3, width=32)
HUGE = st.sampled_from([0.0, 1e-30, 1e12, -1e12])
ANYTHING = ORDINARY | HUGE | st.sampled_from([NAN, INF, -INF])
# Nothing between 0 and 1e-9: two such factors are 0 in float32 and more than 0 in Python.
UNIT = st.sampled_from([0.0, 0.3, 0.9, 1.0]) | st.floats(1e-9, 1)
FLAGS = "flags"
SIZES = st.integers(1, 4)
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)


@st.composite
def tensors(draw, shape, elements, dtype):
    """A tensor of the shape, of some dtype, laid out in memory in one of three ways."""
    count = math.prod(shape)
    kind = st.booleans() if elements is FLAGS else elements
    numbers = draw(st.lists(kind, min_size=count, max_size=count))
    dtype = torch.bool if elements is FLAGS else dtype
    x = torch.tensor(numbers, dtype=dtype).reshape(shape)
    layout = draw(st.sampled_from(["as it is", "transposed", "every second"]))
    if layout == "transposed":
        x = x.mT.contiguous().mT if x.ndim > 1 else x
    if layout == "every second":
        x = torch.stack([x, torch.zeros_like(x)], dim=-1)[..., 0]
    return x.requires_grad_() if x.is_floating_point() and draw(st.booleans()) else x


@st.composite
def several(draw, *kinds, ndim=None, empty=False):
    """Tensors of one shape and one dtype, one for each kind of elements."""
    dims = draw(st.integers(0, 3)) if ndim is None else ndim
    shape = tuple(draw(st.integers(0 if empty else 1, 4)) for _ in range(dims))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return [draw(tensors(shape, kind, dtype)) for kind in kinds]


def same(found, expected, *given, loose=1.0):
    """The same numbers, as far as the dtype goes on the scale of what was given."""
    dtype = found.dtype
    expected = torch.tensor(expected, dtype=dtype).reshape(found.shape)  # ∞ where it has no room
    sizes = [x.detach().double().flatten() for x in given if x.is_floating_point()]
    finite = torch.cat([*sizes, torch.ones(1, dtype=torch.float64)])
    scale = finite[finite.isfinite()].abs().max().item()
    close = loose * (1e-5 if dtype == torch.float32 else 1e-12)
    torch.testing.assert_close(
        found.detach(), expected, rtol=close, atol=close * scale, equal_nan=True
    )


def exp(x, dtype=torch.float64):
    return INF if x > math.log(torch.finfo(dtype).max) else math.exp(x)


def mean(xs):
    return sum(xs) / len(xs) if xs else NAN


def flat(*xs):
    return [x.flatten().tolist() for x in xs]


def least(*xs):
    return NAN if any(math.isnan(x) for x in xs) else min(xs)


# ------------------------------------------------------------------ returns


def summed(term, discount, ends):
    """Σ_l discount^l term_{t+l} up to and with the first end, in every column."""
    steps, columns = len(term), len(term[0])
    found = [[0.0] * columns for _ in range(steps)]
    for t, n in product(range(steps), range(columns)):
        weight = 1.0
        for later in range(t, steps):
            found[t][n] += weight * term[later][n]
            weight *= discount
            if ends[later][n] or weight == 0:
                break
    return found


def errors(r, v, w, dead, gamma):
    rows = range(len(r))
    return [
        [r[t][n] + gamma * (0.0 if dead[t][n] else w[t][n]) - v[t][n] for n in range(len(r[0]))]
        for t in rows
    ]


STEPS = several(ANYTHING, ANYTHING, ANYTHING, FLAGS, FLAGS, ndim=2)


@few
@given(STEPS, UNIT, UNIT, st.integers(1, 5))
def test_estimates_of_the_advantage(case, gamma, gae_lambda, k):
    r, v, w, dead, cut = (x.tolist() for x in case)
    delta = errors(r, v, w, dead, gamma)
    same(td_errors(*case[:4], gamma=gamma), delta, *case)
    ends = [[a or b for a, b in zip(*rows, strict=True)] for rows in zip(dead, cut, strict=True)]
    expected = summed(delta, gamma * gae_lambda, ends)
    advantages, returns = gae(*case, gamma=gamma, gae_lambda=gae_lambda)
    same(advantages, expected, *case, loose=4)
    plus = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(expected, v, strict=True)]
    same(returns, plus, *case, loose=4)
    short = [summed(delta[t : t + k], gamma, ends[t : t + k])[0] for t in range(len(delta))]
    same(k_step_advantages(*case, gamma=gamma, k=k), short, *case, loose=4)


@few
@given(several(ANYTHING, FLAGS, ndim=2), UNIT)
def test_rewards_to_go(case, gamma):
    rewards, ended = case
    r, ends = rewards.tolist(), ended.tolist()
    same(rewards_to_go(rewards, ended, gamma=gamma), summed(r, gamma, ends), rewards, loose=4)
    never = [[False] * len(r[0])] * len(r)
    same(discounted_return(rewards, gamma=gamma), summed(r, gamma, never)[0], rewards, loose=4)


@few
@given(several(ORDINARY, ORDINARY, ORDINARY, FLAGS, FLAGS, empty=True), st.integers(0, 4))
def test_what_is_not_a_rollout_is_refused(case, which):
    if case[0].ndim == 2 and case[0].numel():
        case[which] = case[which][..., None]  # one argument of another shape
    with pytest.raises(ValueError, match="expected"):
        gae(*case, gamma=0.9, gae_lambda=0.9)


# ------------------------------------------------------------------ losses

LOGS = st.floats(-5, 5, width=32) | st.sampled_from([-300.0, 200.0, -INF, NAN])
FINITE = ORDINARY | HUGE | st.just(NAN)


def only_the_first_learns(loss, first, *others):
    if loss.requires_grad:
        loss.backward()
    for x in others:
        assert x.grad is None
    assert first.grad is None or first.grad.shape == first.shape


@few
@given(several(LOGS, LOGS))
def test_ratio_and_kl_estimates(case):
    new, old = flat(*case)
    logs = [a - b for a, b in zip(new, old, strict=True)]
    same(importance_ratio(*case), [exp(x, case[0].dtype) for x in logs], *case, loose=50)
    same(kl_k1(*case), [-x for x in logs], *case)
    same(kl_k2(*case), [x * x / 2 for x in logs], *case, loose=300)
    same(kl_k3(*case), [exp(x, case[0].dtype) - 1 - x for x in logs], *case, loose=300)


@few
@given(several(LOGS, LOGS, FINITE), st.sampled_from([1e-3, 0.2, 1.0, 30.0]))
def test_surrogates(case, clip_range):
    new, old, advantages = flat(*case)
    plain, clipped = [], []
    for a, b, advantage in zip(new, old, advantages, strict=True):
        ratio = exp(a - b, case[0].dtype)
        term = ratio * advantage
        plain.append(term)
        # 0 times a ratio too large to be written is 0.
        term = 0.0 if advantage == 0 and ratio == INF else term
        held = NAN if math.isnan(ratio) else min(max(ratio, 1 - clip_range), 1 + clip_range)
        clipped.append(least(term, held * advantage))
    rest = {"loose": 1000}
    same(surrogate_loss(*case), -mean(plain), *case, **rest)
    loss = clipped_surrogate_loss(*case, clip_range=clip_range)
    same(loss, -mean(clipped), *case, **rest)
    only_the_first_learns(loss, *case)
    if all(map(math.isfinite, [*new, *old, *advantages])):
        gradient = case[0].grad
        assert gradient is None or loss.isinf() or not gradient.isnan().any()


@few
@given(several(st.floats(-5, 0), st.floats(-5, 0), FINITE, st.floats(0, 3)), st.floats(0, 9))
def test_the_penalty_is_added(case, kl_coef):
    expected = surrogate_loss(*case[:3]).item() + kl_coef * mean(flat(case[3])[0])
    same(kl_penalty_loss(*case, kl_coef=kl_coef), expected, *case, loose=20)


@few
@given(several(LOGS, FINITE, ndim=2))
def test_policy_gradient_loss(case):
    logs, weights = (x.tolist() for x in case)
    columns = [
        sum(row[n] * weight[n] for row, weight in zip(logs, weights, strict=True))
        for n in range(len(logs[0]))
    ]
    same(policy_gradient_loss(*case), -mean(columns), *case, loose=1000)


@few
@given(several(FINITE, FINITE, FINITE), st.none() | st.floats(0.1, 2))
def test_value_loss(case, clip_range):
    if clip_range is None:
        case = case[:2]
    terms = []
    for value, target, *old in zip(*flat(*case), strict=True):
        error = (value - target) ** 2
        for centre in old:
            moved = NAN if math.isnan(value - centre) else value - centre
            moved = moved if math.isnan(moved) else min(max(moved, -clip_range), clip_range)
            error = -least(-error, -((centre + moved - target) ** 2))
        terms.append(error)
    loss = value_loss(*case, clip_range=clip_range)
    same(loss, mean(terms) / 2, *case, loose=1e13)
    only_the_first_learns(loss, *case)


@few
@given(several(LOGS, LOGS, ORDINARY), st.integers(1, 2))
def test_two_shapes_are_never_broadcast(case, which):
    case[which] = case[which][None]
    for loss in (surrogate_loss, lambda *xs: clipped_surrogate_loss(*xs, clip_range=0.2)):
        with pytest.raises(ValueError, match="expected"):
            loss(*case)


# ------------------------------------------------------------------ statistics


@few
@given(several(ORDINARY | st.sampled_from([7.0, 1e6]), empty=True), ORDINARY, st.booleans())
def test_normalized_advantages(case, constant, equal):
    x = torch.full_like(case[0].detach(), constant) if equal else case[0]
    found = normalize_advantages(x)
    numbers = flat(x)[0]
    if len(numbers) < 2:
        assert torch.equal(found, x)
        return
    spread = math.sqrt(sum((a - mean(numbers)) ** 2 for a in numbers) / (len(numbers) - 1))
    expected = [0.0 if spread < 1e-12 else (a - mean(numbers)) / (spread + 1e-8) for a in numbers]
    large = max(map(abs, numbers)) / (spread + 1e-8)
    same(found, expected, loose=10 + (0 if equal else large))


@few
@given(several(FINITE, FINITE), st.sampled_from([1.0, 1e-20, 1e15]))
def test_explained_variance(case, scale):
    values, returns = (x.detach() * scale for x in case)
    found = explained_variance(values, returns)
    v, r = flat(values.double(), returns.double())
    numbers = [*v, *r]
    if len(r) < 2 or any(map(math.isnan, numbers)) or len(set(r)) == 1:
        assert math.isnan(found)
        return
    big = max(map(abs, r))
    gone = [(a - b) / big for a, b in zip(r, v, strict=True)]
    r = [a / big for a in r]
    left, all_of_it = (sum((a - mean(x)) ** 2 for a in x) for x in (gone, r))
    assert found == pytest.approx(1 - left / all_of_it, rel=1e-6, abs=1e-6)


@few
@given(several(st.floats(0, 3, width=32) | st.just(0.0)), st.sampled_from([1.0, 1e-35, 1e37]))
def test_effective_sample_size(case, scale):
    weights = case[0].detach() * scale
    numbers = flat(weights.double())[0]
    if max(numbers) == 0:
        with pytest.raises(ValueError, match="above 0"):
            effective_sample_size(weights)
        return
    w = [x / max(numbers) for x in numbers]
    expected = sum(w) ** 2 / sum(x * x for x in w)
    assert effective_sample_size(weights) == pytest.approx(expected, rel=1e-9)
    assert 1 - 1e-9 <= expected <= len(w) + 1e-9


@few
@given(st.floats(), st.floats(), st.floats())
def test_an_adapted_coefficient_is_finite_or_refused(kl_coef, kl, kl_target):
    if not (0 <= kl_coef < INF and kl > -1e-6 and kl_target > 0):
        with pytest.raises(ValueError, match="expected a number"):
            adapt_kl_coef(kl_coef, kl, kl_target=kl_target)
        return
    found = adapt_kl_coef(kl_coef, kl, kl_target=kl_target)
    assert 0 <= found < INF
    assert (found == 0) == (kl_coef == 0)


# ------------------------------------------------------------------ distributions

LOGITS = st.floats(-9, 9, width=32) | st.sampled_from([-INF, 500.0, -500.0])


def probabilities(row):
    top = max(row)
    weights = [exp(x - top) for x in row]
    return [w / sum(weights) for w in weights]


def surprise(p, q, log_p, log_q):
    return sum(a * (b - c) for a, b, c in zip(p, log_p, log_q, strict=True) if a > 0) if q else 0


def logs(row):
    top = max(row)
    size = math.log(sum(exp(x - top) for x in row))
    return [x - top - size for x in row]


@few
@given(several(LOGITS, LOGITS, ndim=2), st.data())
def test_categorical(case, data):
    old, new = (x.tolist() for x in case)
    if any(max(row) == -INF for row in [*old, *new]):
        return  # no action at all
    p, log_p, log_q = (
        [f(row) for row in rows] for f, rows in ((probabilities, old), (logs, old), (logs, new))
    )
    picked = [data.draw(st.integers(0, len(row) - 1)) for row in old]
    chosen = [row[a] for row, a in zip(log_p, picked, strict=True)]
    loose = {"loose": 20}
    same(Categorical.log_prob(case[0], torch.tensor(picked)), chosen, *case, **loose)
    entropies = [
        -sum(a * b for a, b in zip(*rows, strict=True) if a > 0)
        for rows in zip(p, log_p, strict=True)
    ]
    same(Categorical.entropy(case[0]), entropies, *case, **loose)
    apart = [
        sum(a * (b - c) for a, b, c in zip(*rows, strict=True) if a > 0)
        for rows in zip(p, log_p, log_q, strict=True)
    ]
    kl = Categorical.kl(*case)
    if all(math.isfinite(x) for x in apart):
        same(kl, apart, *case, **loose)
        total = kl.sum() + Categorical.entropy(case[1]).sum()
        if total.requires_grad:
            total.backward()
            assert all(x.grad is None or x.grad.isfinite().all() for x in case)
    drawn = Categorical.sample(case[0].detach(), torch.Generator().manual_seed(0))
    assert all(row[a] > 0 for row, a in zip(p, drawn.tolist(), strict=True))
    assert Categorical.mode(case[0]).tolist() == [row.index(max(row)) for row in old]


@few
@given(several(ORDINARY, ORDINARY, ORDINARY, ndim=2))
def test_diagonal_gaussian(case):
    old, new, drawn = case
    if old.shape[-1] % 2:
        with pytest.raises(ValueError, match="expected 2 D"):
            DiagonalGaussian.entropy(old)
        return
    size = old.shape[-1] // 2
    actions, rows = drawn[..., :size], []
    for a, b, x in zip(old.tolist(), new.tolist(), actions.tolist(), strict=True):
        density = entropy = kl = 0.0
        for mean_a, log_a, mean_b, log_b, at in zip(
            a[:size], a[size:], b[:size], b[size:], x, strict=True
        ):
            entropy += log_a + 0.5 * math.log(2 * math.pi * math.e)
            density += -0.5 * ((at - mean_a) / math.exp(log_a)) ** 2 - log_a
            density -= 0.5 * math.log(2 * math.pi)
            kl += log_b - log_a - 0.5
            kl += (math.exp(2 * log_a) + (mean_a - mean_b) ** 2) / (2 * math.exp(2 * log_b))
        rows.append((density, entropy, kl))
    density, entropy, kl = zip(*rows, strict=True)
    same(DiagonalGaussian.log_prob(old, actions), density, *case, loose=2000)
    same(DiagonalGaussian.entropy(old), entropy, *case, loose=5)
    same(DiagonalGaussian.kl(old, new), kl, *case, loose=90_000)
    assert torch.equal(DiagonalGaussian.mode(old), old[..., :size])

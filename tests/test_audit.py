"""The audit: right functions pass, each known mistake is called by its name, others by numbers."""

import inspect

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

from ppo_lib import audit
from ppo_lib.book import bugs

CATALOGUES = {
    audit.check_my_gae: audit.GAE_MISTAKES,
    audit.check_my_policy_loss: audit.POLICY_LOSS_MISTAKES,
    audit.check_my_value_loss: audit.VALUE_LOSS_MISTAKES,
    audit.check_my_kl: audit.KL_MISTAKES,
    audit.check_my_entropy: audit.ENTROPY_MISTAKES,
    audit.check_my_log_prob: audit.LOG_PROB_MISTAKES,
    audit.check_my_normalize: audit.NORMALIZE_MISTAKES,
}
KNOWN = [(check, name) for check, wrong in CATALOGUES.items() for name in wrong]


# ------------------------------------------------------------------ right functions


def numpy_gae(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    """As one writes it by hand, from the last step to the first."""
    advantages, later = np.zeros_like(rewards), 0.0
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * next_values[t] * (1 - terminated[t]) - values[t]
        later = delta + gamma * gae_lambda * (1 - (terminated[t] | truncated[t])) * later
        advantages[t] = later
    return advantages


def numpy_policy_loss(log_probs, old_log_probs, advantages, clip_range):
    total = 0.0
    for new, old, advantage in zip(log_probs, old_log_probs, advantages, strict=True):
        ratio = np.exp(new) / np.exp(old)
        total += min(ratio * advantage, min(max(ratio, 1 - clip_range), 1 + clip_range) * advantage)
    return -total / len(log_probs)


def numpy_kl(old, new):
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (old, new))
    return (p * np.log(p / q)).sum(-1)


def torch_log_prob(mean, log_std, actions):
    return torch.distributions.Normal(mean, log_std.exp()).log_prob(actions).sum(-1)


def cautious(advantages):
    if len(advantages) < 2:
        return advantages
    x = advantages - advantages[0]
    return (x - x.mean()) / (x.std() + 1e-8)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (audit.check_my_gae, "gae: right in all 6 cases"),
        (audit.check_my_policy_loss, "policy loss: right in all 3 cases"),
        (audit.check_my_value_loss, "value loss: right in all 4 cases"),
        (audit.check_my_kl, "KL: right in all 3 cases"),
        (audit.check_my_entropy, "entropy: right in all 3 cases"),
        (audit.check_my_log_prob, "log-probability: right in all 2 cases"),
        (audit.check_my_normalize, "normalisation: right in all 4 cases"),
        (audit.check_my_rollout, "rollout: right in all 2 cases"),
    ],
)
def test_the_library_passes(check, said):
    assert repr(check(bugs.LIBRARY[check.__name__])) == said


def given(check, arrays="numpy", f=None):
    """What a check hands to a function that is right, call by call."""
    calls, right = [], f or bugs.LIBRARY[check.__name__]

    def watched(*args):
        plain = [x.detach().numpy() if isinstance(x, torch.Tensor) else x for x in args]
        calls.append([np.copy(x) for x in plain])
        if arrays == "numpy":
            return right(*(torch.tensor(x) if isinstance(x, np.ndarray) else x for x in args))
        return right(*args)

    check(watched, arrays=arrays)
    return calls


def dice(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).round(1)


def equal(calls, expected):
    assert len(calls) == len(expected)
    for call, case in zip(calls, expected, strict=True):
        for x, y in zip(call, case, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-12)


def test_the_cases_whose_numbers_the_pages_show():
    assert audit.Walk.action_space.shape == (1,)
    assert audit.Probe.action_space == Discrete(2)
    assert (audit.Walk.action_space.low, audit.Walk.action_space.high) == pytest.approx((-0.1, 0.1))
    none = np.zeros((5, 2), dtype=bool)
    death, limit, last = none.copy(), none.copy(), none.copy()
    death[2, 0] = limit[1, 1] = last[4, 0] = True
    flags = [(none, none), (death, none), (none, limit), (death, limit), (last, limit)]
    flags.append((death, death))
    cases = [
        (*(dice((5, 2), 3 * i + j) for j in range(3)), *pair, 0.9, 0.8)
        for i, pair in enumerate(flags)
    ]
    equal(given(audit.check_my_gae), [cases[0], *cases])
    old = np.array([-0.7, -1.1, -0.4, -2.0, -0.9, -1.6])
    ratios = np.array([0.6, 0.6, -0.7, -0.7, 0.05, -0.1])
    a = np.array([1.5, -1.0, 2.0, -0.5, 0.8, -1.2])
    cases = [(old + ratios, old, a, 0.2), (old + ratios, old, -a, 0.3)]
    cases.append((old + 0.6, np.full(6, -0.7), a, 0.1))
    equal(given(audit.check_my_policy_loss, "torch"), [*cases, cases[0]])
    v, r = dice((6,), 1), dice((6,), 2)
    calls = given(audit.check_my_value_loss, f=lambda v, r: ((v.reshape(-1) - r) ** 2).mean())
    equal(calls, [(v, r), (v, r), (r, 2 * v), (v[:, None], r)])
    cases = [(dice((4, 3), i), dice((4, 3), i + 9)) for i in range(3)]
    equal(given(audit.check_my_kl), cases)
    equal(given(audit.check_my_entropy), [(2 * dice((4, 3), i),) for i in range(3)])
    cases = [
        (dice((4, 3), i), abs(dice((4, 3), i + 5) + 0.05), dice((4, 3), i + 9)) for i in (0, 1)
    ]
    equal(given(audit.check_my_log_prob), cases)
    x = 10 * dice((8,), 3)
    expected = [(x,), (x,), (x[:3],), (np.array([3.0]),), (np.full(7, np.float32(0.1)),)]
    equal(given(audit.check_my_normalize), expected)


def test_numbers_may_hang_on_parameters_and_differ_by_rounding():
    parameter = torch.zeros(1, requires_grad=True)
    right = bugs.LIBRARY["check_my_kl"]
    audit.check_my_kl(lambda p, q: right(p, q) + 0 * parameter)
    audit.check_my_kl(lambda p, q: right(p, q) * (1 + 5e-6))
    with pytest.raises(audit.BugFound, match="none of the 10 known mistakes"):
        audit.check_my_kl(lambda p, q: right(p, q) * (1 + 2e-5))
    audit.check_my_kl(lambda p, q: right(p, q) * (1 + 9e-6) + 9e-7)
    with pytest.raises(audit.BugFound, match="none of the 10 known mistakes"):
        audit.check_my_kl(lambda p, q: right(p, q) * (1 + 1e-5) + 1.5e-6)
    with pytest.raises(audit.BugFound, match="none of the 10 known mistakes"):
        audit.check_my_kl(lambda p, q: -right(p, q) * (1 + 2e-5))


def in_float32(f):
    """A function whose author has float32 in mind, as most have."""

    def single(*args):
        cast = [x.float() if getattr(x, "is_floating_point", bool)() else x for x in args]
        return f(*cast)

    return single


def test_right_functions_in_float32_pass():
    for check in CATALOGUES:
        check(in_float32(bugs.LIBRARY[check.__name__]))
    audit.check_my_gae(lambda *x: torch.zeros(5, 2).copy_(RIGHT_GAE(*x)))
    with pytest.raises(audit.BugFound) as found:
        audit.check_my_gae(in_float32(one_flag(0)))
    assert found.value.bug.endswith("and a time limit for a death")


def test_right_functions_of_other_hands_pass():
    audit.check_my_gae(numpy_gae, arrays="numpy")
    audit.check_my_gae(lambda *x: (a := numpy_gae(*x), a + x[1]), arrays="numpy")
    audit.check_my_policy_loss(numpy_policy_loss, arrays="numpy")
    audit.check_my_kl(numpy_kl, arrays="numpy")
    audit.check_my_log_prob(torch_log_prob)
    audit.check_my_entropy(lambda x: torch.distributions.Categorical(logits=x).entropy())
    audit.check_my_kl(
        lambda p, q: torch.distributions.kl_divergence(
            *(torch.distributions.Categorical(logits=x) for x in (p, q))
        )
    )
    audit.check_my_normalize(cautious, arrays="numpy")
    for half in (0.5, 1.0):
        loss = lambda v, r, half=half: half * ((v.reshape(-1) - r.detach()) ** 2).mean()  # noqa: E731
        assert repr(audit.check_my_value_loss(loss)) == "value loss: right in all 4 cases"


# ------------------------------------------------------------------ known mistakes


@pytest.mark.parametrize(("check", "name"), KNOWN, ids=lambda x: getattr(x, "__name__", x))
def test_a_known_mistake_is_called_by_its_name(check, name):
    with pytest.raises(audit.BugFound, match=r"yours .*right") as found:
        check(CATALOGUES[check][name], arrays="numpy")
    assert found.value.bug == name
    assert name in str(found.value)


def backwards(mask, stop, factor=lambda g, lam: g * lam, gamma_of_delta=lambda g: g):
    """Advantages from the last step to the first, by what ends the value and the recursion."""

    def gae(r, v, w, dead, cut, gamma, gae_lambda):
        flags, later, found = (dead.double(), cut.double()), 0.0, []
        for t in reversed(range(len(r))):
            ends, stops = (f(*(flag[t] for flag in flags)) for f in (mask, stop))
            later = factor(gamma, gae_lambda) * (1 - stops) * later
            later = later + r[t] + gamma_of_delta(gamma) * w[t] * (1 - ends) - v[t]
            found.append(later)
        return torch.stack(found[::-1])

    return gae


def death(dead, _):
    return dead


def either(dead, cut):
    return dead + cut - dead * cut


def nothing(dead, _):
    return 0 * dead


RIGHT_GAE = backwards(death, either)


def one_flag(ahead):
    """As in CleanRL, where one flag stands for both and ``values`` alone are kept."""

    def gae(r, v, w, dead, cut, gamma, gae_lambda):
        done, found, later = (dead | cut).float(), torch.zeros_like(r), 0.0
        for t in reversed(range(len(r))):
            last = t == len(r) - 1
            goes_on = 1 - done[t if last else t + ahead]
            delta = r[t] + gamma * (w[t] if last else v[t + 1]) * goes_on - v[t]
            found[t] = later = delta + gamma * gae_lambda * goes_on * later
        return found

    return gae


def standardised(x, correction=1):
    return (x - x.mean()) / (x.std(correction=correction) + 1e-8)


def step_after(flag):
    return torch.cat([flag[1:], flag[-1:]])


def surrogate(ratio=lambda new, old: new.exp() / old.exp(), pick=torch.minimum):
    def terms(new, old, advantages, clip_range):
        rho = ratio(new, old)
        return pick(rho * advantages, rho.clamp(1 - clip_range, 1 + clip_range) * advantages)

    return terms


def p_and_q(f):
    return lambda old, new: f(old.softmax(-1), new.softmax(-1))


def density(f):
    """Of log N(x; mean, std), each number by itself, and log std."""
    return lambda m, s, x: f(torch.distributions.Normal(m, s.exp()).log_prob(x), s)


def normal(std):
    return lambda m, s, x: torch.distributions.Normal(m, std(s)).log_prob(x).sum(-1)


#: The same mistakes, made by other hands.
OTHER_HANDS = {
    audit.check_my_gae: {
        "treats a time limit as a death": backwards(either, either),
        "ignores both flags": backwards(nothing, nothing),
        "looks at the value after a death": backwards(nothing, either),
        "lets the next episode leak in": backwards(death, nothing),
        "lets the next episode leak in after a time limit": backwards(death, death),
        "cuts the recursion only where both flags are set": backwards(
            death, lambda dead, cut: dead * cut
        ),
        "does not cut the recursion where both flags are set": backwards(
            death, lambda dead, cut: dead + cut - 2 * dead * cut
        ),
        "has lost γ in the recursion": backwards(death, either, factor=lambda _, lam: lam),
        "has lost λ in the recursion": backwards(death, either, factor=lambda g, _: g),
        "has lost γ in the TD error": backwards(death, either, gamma_of_delta=lambda _: 1),
        "reads its own entry in the recursion": backwards(death, either, factor=lambda *_: 0),
        "takes the flags of the step after": lambda r, v, w, dead, cut, *numbers: RIGHT_GAE(
            r, v, w, step_after(dead), step_after(cut), *numbers
        ),
        "takes the next row's value for the next state's": lambda r, v, w, *rest: RIGHT_GAE(
            r, v, torch.cat([v[1:], w[-1:]]), *rest
        ),
        # CleanRL's single flag and shifted values, with the flags as they are here and there.
        "takes the next row's value for the next state's, and a time limit for a death": one_flag(
            0
        ),
        "takes the next row's value and flags, and a time limit for a death": one_flag(1),
        "has swapped γ and λ": lambda r, v, w, dead, cut, lam, gamma: RIGHT_GAE(
            r, v, w, dead, cut, gamma, lam
        ),
        "has swapped the two flags": lambda r, v, w, cut, dead, *numbers: RIGHT_GAE(
            r, v, w, dead, cut, *numbers
        ),
        "has swapped rewards and values": lambda v, r, *rest: RIGHT_GAE(r, v, *rest),
        "gives the critic's targets first": lambda *x: (RIGHT_GAE(*x) + x[1], RIGHT_GAE(*x)),
        "standardises the advantages": lambda *x: standardised(RIGHT_GAE(*x)),
        "standardises the advantages, with the divisor B": lambda *x: standardised(
            RIGHT_GAE(*x), correction=0
        ),
        "takes the values for the critic's targets": lambda *x: (RIGHT_GAE(*x), x[1]),
        "takes the advantages for the critic's targets": lambda *x: (a := RIGHT_GAE(*x), a),
    },
    audit.check_my_policy_loss: {
        "has lost its minus sign": lambda *x: surrogate()(*x).mean(),
        "takes the larger term, max for min": lambda *x: -surrogate(pick=torch.maximum)(*x).mean(),
        "takes the smaller ratio before it multiplies": lambda new, old, a, c: (
            -((new - old).exp().clamp(max=1 + c) * a).mean()
        ),
        "divides the old probability by the new one": lambda *x: (
            -surrogate(lambda new, old: old.exp() / new.exp())(*x).mean()
        ),
        "compares the new policy with itself": lambda new, old, a, _: (
            -((new - new + old - old).exp() * a).mean()
        ),
        "takes log-probabilities for probabilities": lambda *x: (
            -surrogate(lambda new, old: new / old)(*x).mean()
        ),
        "does not clip": lambda new, old, a, _: -((new - old).exp() * a).mean(),
        "takes the clipped term alone": lambda new, old, a, c: (
            -((new - old).exp().clamp(1 - c, 1 + c) * a).mean()
        ),
        "sums over the minibatch": lambda *x: -surrogate()(*x).sum(),
        "averages before it takes the smaller term": lambda *x: (
            -surrogate(pick=lambda plain, clipped: min(plain.mean(), clipped.mean()))(*x)
        ),
        "clips from above alone": lambda new, old, a, c: torch.max(
            -a * (new - old).exp(), -a * (new - old).exp().clamp(max=1 + c)
        ).mean(),
        "clips from below alone": lambda new, old, a, c: torch.max(
            -a * (new - old).exp(), -a * (new - old).exp().clamp(min=1 - c)
        ).mean(),
        "clips the logarithm of the ratio": lambda new, old, a, c: torch.max(
            -a * (new - old).exp(), -a * (new - old).clamp(-c, c).exp()
        ).mean(),
        "takes the logarithm of the ratio for the ratio": lambda *x: (
            -surrogate(lambda new, old: new - old)(*x).mean()
        ),
        "holds every ratio against every advantage": lambda new, old, a, c: (
            -surrogate()(new[:, None], old[:, None], a, c).mean()
        ),
        "standardises the advantages": lambda new, old, a, c: (
            -surrogate()(new, old, standardised(a), c).mean()
        ),
        "standardises the advantages, with the divisor B": lambda new, old, a, c: (
            -surrogate()(new, old, standardised(a, correction=0), c).mean()
        ),
    },
    audit.check_my_value_loss: {
        "sums over the minibatch": lambda v, r: (v - r).square().sum(),
        "sums over the minibatch, with a half": lambda v, r: (v - r).square().sum() / 2,
        "takes the absolute error": lambda v, r: (v - r).abs().mean(),
        "takes the Huber loss": torch.nn.functional.smooth_l1_loss,
        "takes the absolute error, with a half": lambda v, r: (v - r).abs().mean() / 2,
        "holds every value against every return": lambda v, r: (v - r[:, None]).square().mean(),
        "holds the mean value against the mean return": lambda v, r: (v - r).mean() ** 2,
    },
    audit.check_my_kl: {
        "has swapped the two policies": p_and_q(lambda p, q: (q * (q / p).log()).sum(-1)),
        "has lost its sign": p_and_q(lambda p, q: (p * (q / p).log()).sum(-1)),
        "averages over the actions": p_and_q(lambda p, q: (p * (p / q).log()).mean(-1)),
        "counts in bits": p_and_q(lambda p, q: (p * (p / q).log2()).sum(-1)),
        "gives the cross-entropy": p_and_q(lambda p, q: -(p * q.log()).sum(-1)),
        "does not weigh by the probabilities": p_and_q(lambda p, q: (p / q).log().sum(-1)),
        "weighs by the new policy": p_and_q(lambda p, q: (q * (p / q).log()).sum(-1)),
        "takes logits for log-probabilities": lambda old, new: (
            (old.softmax(-1) * old).sum(-1) - (old.softmax(-1) * new).sum(-1)
        ),
        "takes the new logits for log-probabilities": lambda old, new: torch.nn.functional.kl_div(
            new, old.softmax(-1), reduction="none"
        ).sum(-1),
        "takes the softmax over the minibatch": lambda old, new: (
            old.softmax(0) * (old.softmax(0) / new.softmax(0)).log()
        ).sum(-1),
    },
    audit.check_my_entropy: {
        "has lost its minus sign": lambda x: (x.softmax(-1) * x.softmax(-1).log()).sum(-1),
        "averages over the actions": lambda x: -(x.softmax(-1) * x.log_softmax(-1)).mean(-1),
        "counts in bits": lambda x: -(x.softmax(-1) * x.softmax(-1).log2()).sum(-1),
        "takes the softmax twice": lambda x: torch.distributions.Categorical(
            logits=x.softmax(-1)
        ).entropy(),
        "does not weigh by the probabilities": lambda x: -x.softmax(-1).log().sum(-1),
        "takes logits for log-probabilities": lambda x: -(x.softmax(-1) * x).sum(-1),
        "takes the softmax over the minibatch": lambda x: (
            -(x.softmax(0) * x.log_softmax(0)).sum(-1)
        ),
    },
    audit.check_my_log_prob: {
        "averages over the action": density(lambda x, _: x.mean(-1)),
        "has lost the logarithm of the standard deviation": density(lambda x, s: (x + s).sum(-1)),
        "has lost the 2π": density(lambda x, _: (x + np.log((2 * np.pi) ** 0.5)).sum(-1)),
        "takes the logarithm for the standard deviation": normal(lambda s: s),
        "takes the standard deviation for the variance": normal(lambda s: s.exp().sqrt()),
        "takes the variance for the standard deviation": normal(lambda s: s.exp().square()),
        "has lost its minus sign": density(lambda x, _: -x.sum(-1)),
        "has lost the half of the square": lambda m, s, x: (
            -(((x - m) / s.exp()) ** 2 + s + np.log((2 * np.pi) ** 0.5)).sum(-1)
        ),
        "gives the density and not its logarithm": density(lambda x, _: x.exp().prod(-1)),
    },
    audit.check_my_normalize: {
        "does not subtract the mean": lambda x: x / x.std(correction=0),
        "does not divide by the standard deviation": lambda x: x - x.sum() / len(x),
        "divides by the variance": lambda x: (x - x.mean()) / x.var(correction=0),
        "divides by the range": lambda x: (x - x.mean()) / (x.max() - x.min()),
        "divides by the norm": lambda x: (x - x.mean()) / (x - x.mean()).norm(),
    },
}


def test_every_mistake_was_made_by_other_hands_too():
    for check, wrong in CATALOGUES.items():
        assert wrong.keys() <= OTHER_HANDS[check].keys()


@pytest.mark.parametrize(
    ("check", "name"),
    [(check, name) for check, wrong in OTHER_HANDS.items() for name in wrong],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_a_mistake_of_other_hands_is_called_by_its_name(check, name):
    with pytest.raises(audit.BugFound) as found:
        check(OTHER_HANDS[check][name])
    assert found.value.bug == name


def test_where_numbers_differ_is_told():
    # Advantages of 1 where they are right, but in the third step of the second column.
    def nearly(*x):
        advantages = RIGHT_GAE(*x)
        advantages[2, 1] += 1
        return advantages, advantages + x[1]

    right = RIGHT_GAE(*(torch.tensor(x) for x in audit._gae_cases()[0]))[2, 1].item()
    with pytest.raises(audit.BugFound) as found:
        audit.check_my_gae(nearly)
    said = f"case 1 differs in the advantage of step 2, column 1: yours {right + 1:.4g}, right "
    assert f"{said}{right:.4g}" in str(found.value)
    with pytest.raises(audit.BugFound, match="in the target of step 0, column 0"):
        audit.check_my_gae(lambda *x: (a := RIGHT_GAE(*x), a + x[1] + 1))
    with pytest.raises(audit.BugFound, match="case 1 differs at row 0: yours "):
        audit.check_my_kl(
            lambda p, q: (
                torch.distributions.kl_divergence(
                    *(torch.distributions.Categorical(logits=x) for x in (p, q))
                )
                + 1
            )
        )


def test_a_mistake_of_a_function_that_gives_targets_too_is_found():
    def death(r, v, w, dead, cut, *numbers):
        advantages = numpy_gae(r, v, w, dead | cut, cut, *numbers)
        return advantages, advantages + v

    with pytest.raises(audit.BugFound, match="step") as found:
        audit.check_my_gae(death, arrays="numpy")
    assert found.value.bug == "treats a time limit as a death"


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (
            lambda v, r: 0.5 * ((v - r.detach()) ** 2).mean(),
            "holds every value against every return",
        ),
        (lambda v, r: ((v.reshape(-1) - r) ** 2).mean(), "lets a gradient through to the targets"),
        (
            lambda v, r: ((v.reshape(-1) - torch.cat([r[:1], r[1:].detach()])) ** 2).mean(),
            "lets a gradient through to the targets",
        ),
        (
            lambda v, r: ((v - r.detach()) ** 2).mean() if v.ndim == 1 else r.sum() * 0,
            None,
        ),
    ],
)
def test_what_only_shapes_or_gradients_show_of_a_value_loss(loss, name):
    with pytest.raises(audit.BugFound) as found:
        audit.check_my_value_loss(loss)
    assert found.value.bug == name


def test_a_loss_whose_value_alone_is_right():
    right = bugs.LIBRARY["check_my_policy_loss"]
    with pytest.raises(audit.BugFound, match="lets no gradient through"):
        audit.check_my_policy_loss(lambda new, *rest: right(new.detach(), *rest))
    with pytest.raises(audit.BugFound, match="lets no gradient through"):
        audit.check_my_policy_loss(lambda *x: right(*x).item())
    with pytest.raises(audit.BugFound, match="lets no gradient through"):
        audit.check_my_value_loss(lambda v, r: ((v - r) ** 2).mean().item())
    with pytest.raises(audit.BugFound, match="a right value and a wrong gradient"):
        audit.check_my_policy_loss(lambda new, *x: right(new, *x) + new.sum() - new.sum().detach())


@pytest.mark.filterwarnings("ignore:std..:UserWarning")
@pytest.mark.parametrize(
    ("normalize", "name"),
    [
        (lambda x: (x - x.mean()) / (x.std() + 1e-8), "makes NaN of a single advantage"),
        (lambda x: (x - x.mean()) / (x.std(correction=0) + 1e-8), "makes 0 of a single advantage"),
        (
            lambda x: x if len(x) < 2 else (x - x.mean()) / (x.std() + 1e-8),
            "divides the rounding noise of equal advantages",
        ),
        (
            lambda x: x if len(x) < 2 else (x - x[0] - (x - x[0]).mean()) / x.sub(x[0]).std(),
            "makes NaN of equal advantages",
        ),
        (
            lambda x: (
                cautious(x) if len(x) != 7 else torch.where(torch.arange(7) == 3, torch.nan, 0.0)
            ),
            "makes NaN of equal advantages",
        ),
    ],
)
def test_what_only_small_minibatches_show_of_a_normalisation(normalize, name):
    with pytest.raises(audit.BugFound) as found:
        audit.check_my_normalize(normalize)
    assert found.value.bug == name


# ------------------------------------------------------------------ unknown ones


def test_an_unknown_mistake_is_told_by_its_numbers():
    # Twice the right advantages: none of the catalogue.
    with pytest.raises(audit.BugFound, match=r"none of the 23 known mistakes, but case 1") as found:
        audit.check_my_gae(lambda *x: 2 * numpy_gae(*x), arrays="numpy")
    assert found.value.bug is None
    words = str(found.value)
    yours, right = (float(words.split(f"{who} ")[1].split(",")[0]) for who in ("yours", "right"))
    assert yours == pytest.approx(2 * right, rel=1e-3)


def test_another_shape_is_told():
    with pytest.raises(audit.BugFound, match=r"gives shape \(\), expected \(4,\)"):
        audit.check_my_kl(lambda p, q: numpy_kl(p, q).mean(), arrays="numpy")


def test_what_gives_no_numbers_is_told():
    for gives, said in ((None, "None"), ((1.0, {"kl": 0.0}), r"\(1.0, {'kl': 0.0}\)")):
        with pytest.raises(TypeError, match=f"your function gives {said}, expected numbers"):
            audit.check_my_policy_loss(lambda *_, gives=gives: gives)


def test_an_error_of_ones_own_says_what_was_given():
    # A mask made by 1 - flag, which numpy allows and torch does not, and arrays of one dimension.
    with pytest.raises(RuntimeError, match="bool tensor") as found:
        audit.check_my_gae(lambda r, v, w, dead, *_: r + w * (1 - dead) - v)
    flags = ", ".join(["[5, 2] float64"] * 3 + ["[5, 2] bool"] * 2)
    (note,) = found.value.__notes__
    assert note.startswith(f"your gae was given {flags}, 0.9, 0.8 as torch tensors; ")
    with pytest.raises(ValueError, match="ambiguous") as found:
        audit.check_my_kl(lambda p, _: p if p[0] else 0, arrays="numpy")
    assert found.value.__notes__[0].startswith(
        "your KL was given [4, 3] float64, [4, 3] float64 as numpy arrays; "
    )


def test_arrays_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="arrays is 'jax', expected 'torch' or 'numpy'"):
        audit.check_my_kl(numpy_kl, arrays="jax")


def test_every_check_is_in_the_table_of_the_module():
    checks = {name for name, f in inspect.getmembers(audit) if name.startswith("check_my_")}
    assert checks == set(bugs.LIBRARY)
    assert all(f"\n{name} " in audit.__doc__ for name in checks)


# ------------------------------------------------------------------ rollouts and trainers


def rollout(change):
    """A right collection by hand, changed by a function of its rows."""

    def collect(make_env, num_steps):
        env, rows, draws = make_env(), [], np.random.default_rng(0)
        obs, _ = env.reset(seed=0)
        for _ in range(num_steps):
            action = draws.normal(size=1)
            after, reward, dead, cut, _ = env.step(action.clip(-0.1, 0.1))
            assert env.observation_space.contains(after)
            rows.append((obs, after, action, reward, dead, cut))
            obs = env.reset()[0] if dead or cut else after
        names = ("obs", "next_obs", "actions", "rewards", "terminated", "truncated")
        found = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
        return found | change(found)

    return collect


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda x: {"obs": x["next_obs"]}, "stores the observation after the step"),
        (
            lambda x: {"next_obs": np.append(x["obs"][1:], x["next_obs"][-1:], axis=0)},
            "takes the first observation after the reset",
        ),
        (lambda x: {"actions": x["actions"].clip(-0.1, 0.1)}, "stores the clipped action"),
        (lambda x: {"rewards": 0 * x["rewards"]}, "has lost a reward"),
        (
            lambda x: {"terminated": x["terminated"] | x["truncated"]},
            "takes a time limit for a death",
        ),
        (lambda x: {"terminated": np.roll(x["terminated"], 1)}, "has its flags at other steps"),
        (lambda x: {"truncated": ~x["truncated"]}, "has its flags at other steps"),
        (lambda x: {name: np.delete(x[name], 4, axis=0) for name in x}, "has lost a step"),
        (lambda x: {name: x[name][:2] for name in x}, "has lost a step"),
        (lambda x: {name: x[name][:1] for name in x}, "has lost a step"),
        (
            lambda x: {"next_obs": np.where(x["obs"] == 201, x["obs"], x["next_obs"])},
            "has lost a step",
        ),
        (
            # After the third row comes one that leads to the first observation.
            lambda x: (
                {name: np.insert(x[name], 3, x[name][3], axis=0) for name in x}
                | {
                    "obs": np.insert(x["obs"], 3, x["next_obs"][2], axis=0),
                    "next_obs": np.insert(x["next_obs"], 3, x["obs"][3], axis=0),
                }
            ),
            "holds a reset as if it were a step",
        ),
        (
            lambda x: dict.fromkeys(("terminated", "truncated"), x["terminated"] | x["truncated"]),
            "has one flag for deaths and time limits",
        ),
        (
            lambda x: {"next_obs": np.append(x["next_obs"][:-1], x["next_obs"][-1:] + 1, axis=0)},
            None,
        ),
    ],
)
def test_a_wrong_rollout_is_called_by_its_name(change, name):
    audit.check_my_rollout(rollout(lambda _: {}))
    with pytest.raises(audit.BugFound, match="your rollout") as found:
        audit.check_my_rollout(rollout(change))
    assert found.value.bug == name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda x: {"next_obs": np.append(x["obs"][1:], x["next_obs"][-1:], axis=0)},
            "takes the first observation after the reset: row 2 goes from 102 to 200, where the "
            "step led to 103 (episodes of three steps, ended by a death)",
        ),
        (
            lambda x: {"terminated": x["terminated"] | x["truncated"]},
            "takes a time limit for a death: row 2 goes from 102 to 103 (episodes of three "
            "steps, ended by a limit)",
        ),
        (
            lambda x: {"next_obs": np.append(x["next_obs"][:-1], x["next_obs"][-1:] + 1, axis=0)},
            "goes from 400 to 402 in row 9",
        ),
    ],
)
def test_the_first_wrong_row_is_told(change, words):
    with pytest.raises(audit.BugFound) as found:
        audit.check_my_rollout(rollout(change))
    assert str(found.value) == f"your rollout {words}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: {"rewards": x["rewards"][:-1]}, r"has \[10, 10, 10, 9, 10, 10\] rows of"),
        (lambda x: {"obs": np.append(x["obs"], x["obs"][:1], axis=0)}, r"has \[11, 10, 10, 10, "),
        (lambda x: {name: values[:0] for name, values in x.items()}, r"has \[0, 0, 0, 0, 0, 0\] "),
    ],
)
def test_a_rollout_has_as_many_rows_of_each(change, words):
    with pytest.raises(ValueError, match=words):
        audit.check_my_rollout(rollout(change))


def test_a_seed_reaches_the_random_numbers_of_a_world():
    # Which gymnasium asks of every environment, and which your own code may draw from.
    env = audit.Walk(limit=False)
    env.reset(seed=3)
    assert env.np_random.random() == np.random.default_rng(3).random()
    probe = audit.Probe(lambda *_: 1.0, length=1)
    signs = [probe.reset(seed=i)[0][0] for i in range(8)]
    assert signs == [np.random.default_rng(i).choice([-1, 1]) for i in range(8)]


def test_what_a_rollout_lacks_is_named():
    def one_flag(make_env, num_steps):
        rows = rollout(lambda _: {})(make_env, num_steps)
        rows["dones"] = rows.pop("terminated") | rows.pop("truncated")
        return rows

    with pytest.raises(ValueError, match=r"rollout has no \['terminated', 'truncated'\], expected"):
        audit.check_my_rollout(one_flag)


NO_PROBABILITIES = [[np.nan, np.nan], [-3.0, 3.0], [-0.5, 1.5], [0.9, 0.9], [0.9, 0.1015], [0, 0.9]]


@pytest.mark.parametrize("given", NO_PROBABILITIES)
def test_what_are_no_probabilities_is_told(given):
    def train(make_env, gamma):
        _, value = exact()(make_env, gamma)
        # The sign says which action pays; logits of them are large enough.
        return (lambda obs: np.array(given)[:: int(obs[0])]), value

    with pytest.raises(audit.BugFound, match=r"your trainer gives .*, expected two probabilities"):
        audit.check_my_trainer(train)


def played(env, action, seed=0):
    """Observations, rewards and ends of an episode in which one action is repeated."""
    seen, over = [(*env.reset(seed=seed)[0].tolist(), 0.0, False, False)], False
    while not over and len(seen) < 9:
        obs, *rest, _ = env.step(action)
        assert env.observation_space.contains(obs)
        seen.append((*obs.tolist(), *rest))
        over = any(rest[1:])
    return seen


def test_the_worlds_of_a_trainer_by_hand():
    worlds, asked = [], []

    def train(make_env, gamma):
        assert gamma == 0.9
        worlds.append(make_env)
        probabilities, value = exact()(make_env, gamma)

        def watched(f):
            return lambda obs: (asked.append((obs.dtype, obs.tolist())), f(obs))[1]

        return watched(probabilities), watched(value)

    assert repr(audit.check_my_trainer(train)) == "trainer: right in all 4 cases"
    assert asked == [
        *[(np.float32, [1, 0])] * 3,
        *[(np.float32, [sign, 0]) for sign in (-1, 1)],
    ]
    once, twice, ever, sign = worlds
    for action in (0, 1):
        s = played(once(), action)[0][0]
        assert played(once(), action) == [(s, 0, 0, False, False), (s, 1, 1, True, False)]
        assert played(twice(), action) == [
            (s, 0, 0, False, False),
            (s, 1, 0, False, False),
            (s, 2, 1, True, False),
        ]
        expected = [(s, 0, 0, False, False), *[(s, 0, 1, False, False)] * 4]
        assert played(ever(), action) == [*expected, (s, 0, 1, False, True)]
    seen = set()
    for seed in range(9):
        for action in (0, 1):
            (s, *_), (*_, reward, dead, cut) = played(sign(), action, seed)
            seen.add((s, action, reward, dead, cut))
    assert seen == {(s, a, s * (2 * a - 1), True, False) for s in (-1, 1) for a in (0, 1)}


def exact(value=None, probability=0.99):
    """A trainer that knows the answers, or says a value of its own."""

    def train(make_env, gamma):
        env = make_env()
        env.reset(seed=0)
        _, first, dead, *_ = env.step(0)
        right = 1.0 if dead else (1 / (1 - gamma) if first else gamma)
        said = right if value is None else value(right, gamma)

        def probabilities(obs):
            good = int(obs[0] > 0)
            return [probability if a == good else 1 - probability for a in (0, 1)]

        return probabilities, lambda _: said

    return train


@pytest.mark.parametrize(
    ("train", "name"),
    [
        (exact(lambda *_: 0.1), "has a critic that does not learn"),
        (exact(lambda *_: 9.9), "has learned values that go on after a death"),
        (exact(lambda right, g: 1.0 if right == g else right), "does not discount"),
        (exact(lambda right, g: 0.1 if right == g else right), "sees one step ahead only"),
        (exact(lambda right, _: min(right, 2.6)), "treats a time limit as a death"),
        (exact(lambda right, _: min(right, 4.2)), "treats a time limit as a death"),
        (exact(lambda right, _: min(right, 1.1)), "treats every step as a death"),
        (exact(lambda right, _: min(right, 6.0)), None),
        (exact(lambda right, _: min(right, 5.0)), None),
        (exact(lambda *_: 0.5), None),
        (exact(lambda right, _: 1.07 * right), None),
        (exact(lambda right, _: 0.93 * right), None),
        (exact(probability=0.73), "takes the softmax twice"),
        (exact(probability=0.63), "takes the softmax twice"),
        (exact(probability=0.75), "takes the softmax twice"),
        (exact(probability=0.61), "has a policy that does not learn"),
        (exact(probability=0.84), "has a policy that does not learn"),
        (exact(probability=0.77), "has a policy that does not learn"),
        (exact(probability=0.5), "has a policy that does not learn"),
        (exact(probability=0.31), "has a policy that does not learn"),
        (exact(probability=0.29), "takes the wrong way"),
        (exact(probability=0.02), "takes the wrong way"),
    ],
)
def test_a_wrong_trainer_is_called_by_its_name(train, name):
    assert "right" in repr(audit.check_my_trainer(exact()))
    audit.check_my_trainer(exact(probability=1.0))  # a policy may be sure of an action
    for close in (lambda right, _: 0.95 * right, lambda right, _: 1.05 * right):
        audit.check_my_trainer(exact(close, probability=0.86))
    with pytest.raises(audit.BugFound, match=name or "has learned another value") as found:
        audit.check_my_trainer(train)
    assert str(found.value).startswith("your trainer ")
    assert found.value.bug == name


def test_a_function_that_writes_into_its_arguments_is_not_passed():
    def f(new, old, advantages, clip_range):
        advantages -= advantages.mean()
        ratio = (new - old).exp()
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        return -torch.minimum(ratio * advantages, clipped * advantages).mean()

    with pytest.raises(audit.BugFound):
        audit.check_my_policy_loss(f)


@pytest.mark.parametrize("detached", ["values", "targets", "neither"])
def test_gradients_of_a_value_loss_that_refuses_two_shapes_are_seen(detached):
    def f(values, returns):
        assert values.shape == returns.shape
        values = values.detach() if detached == "values" else values
        returns = returns.detach() if detached == "targets" else returns
        return ((values - returns) ** 2).mean()

    if detached == "targets":
        assert repr(audit.check_my_value_loss(f)) == "value loss: right in all 4 cases"
    else:
        where = {"values": "no gradient through to the values", "neither": "targets"}[detached]
        with pytest.raises(audit.BugFound, match=where):
            audit.check_my_value_loss(f)

"""The audit: right functions pass, each known mistake is called by its name, others by numbers."""

import inspect

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("check", [*CATALOGUES, audit.check_my_rollout])
def test_the_library_passes(check):
    assert "right in all" in repr(check(bugs.LIBRARY[check.__name__]))


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
        audit.check_my_value_loss(loss)


# ------------------------------------------------------------------ known mistakes


@pytest.mark.parametrize(("check", "name"), KNOWN, ids=lambda x: getattr(x, "__name__", x))
def test_a_known_mistake_is_called_by_its_name(check, name):
    with pytest.raises(audit.BugFound, match=r"yours .*right") as found:
        check(CATALOGUES[check][name], arrays="numpy")
    assert found.value.bug == name
    assert name in str(found.value)


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
    ],
)
def test_what_only_small_minibatches_show_of_a_normalisation(normalize, name):
    with pytest.raises(audit.BugFound) as found:
        audit.check_my_normalize(normalize)
    assert found.value.bug == name


# ------------------------------------------------------------------ unknown ones


def test_an_unknown_mistake_is_told_by_its_numbers():
    # Twice the right advantages: none of the catalogue.
    with pytest.raises(audit.BugFound, match=r"none of the 15 known mistakes, but case 1") as found:
        audit.check_my_gae(lambda *x: 2 * numpy_gae(*x), arrays="numpy")
    assert found.value.bug is None
    words = str(found.value)
    yours, right = (float(words.split(f"{who} ")[1].split(",")[0]) for who in ("yours", "right"))
    assert yours == pytest.approx(2 * right, rel=1e-3)


def test_another_shape_is_told():
    with pytest.raises(audit.BugFound, match=r"gives shape \(\), expected \(4,\)"):
        audit.check_my_kl(lambda p, q: numpy_kl(p, q).mean(), arrays="numpy")


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
    ],
)
def test_a_wrong_rollout_is_called_by_its_name(change, name):
    assert "right" in repr(audit.check_my_rollout(rollout(lambda _: {})))
    with pytest.raises(audit.BugFound, match="your rollout") as found:
        audit.check_my_rollout(rollout(change))
    assert found.value.bug == name


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
        (exact(lambda right, _: min(right, 2.6)), "treats a time limit as a death"),
        (exact(probability=0.73), "takes the softmax twice"),
        (exact(probability=0.5), "has a policy that does not learn"),
        (exact(probability=0.02), "takes the wrong way"),
    ],
)
def test_a_wrong_trainer_is_called_by_its_name(train, name):
    assert "right" in repr(audit.check_my_trainer(exact()))
    with pytest.raises(audit.BugFound, match="your trainer") as found:
        audit.check_my_trainer(train)
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
        audit.check_my_value_loss(f)
    else:
        with pytest.raises(audit.BugFound, match="gradient"):
            audit.check_my_value_loss(f)

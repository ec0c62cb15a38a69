"""The trainer's own steps against the formulas, written out with plain operations."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit

import ppo_lib.ppo
from ppo_lib import PPO, PPOConfig
from ppo_lib.objectives import adapt_kl_coef

SMALL = PPOConfig(
    total_steps=96, num_envs=4, num_steps=8, minibatch_size=32, num_epochs=2, hidden_sizes=(8,)
)
CHANGES = [
    {},
    {"loss": "kl"},
    {"normalize_obs": True},
    {"normalize_rewards": True},
    {"loss": "kl", "normalize_obs": True},
]


class Watched(PPO):
    """Keeps what each gradient step is given and finds: the public seam of an update."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.minibatches, self.networks, self.gradients = [], [], []

    def gradient(self, minibatch):
        self.minibatches.append(minibatch)
        self.networks.append(in_float64(self))
        step = super().gradient(minibatch)
        self.gradients.append(flat_gradient(self))
        return step


def make(env_id="CartPole-v1", cls=Watched, **changes):
    return cls(env_id, dataclasses.replace(SMALL, **changes))


def flat_gradient(trainer):
    """What `PPO.gradient` has left in the parameters, in one vector."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainer.parameters]
    return torch.cat([part.detach().clone().flatten() for part in parts])


def vector(trainer):
    """A copy of all parameters, in one vector."""
    return torch.cat([p.detach().clone().flatten() for p in trainer.parameters])


def in_float64(trainer):
    """Copies of actor and critic as they are now."""
    return tuple(copy.deepcopy(x).double() for x in (trainer.policy, trainer.critic))


def distribution(params, discrete):
    """π as torch's own distribution."""
    if discrete:
        return torch.distributions.Categorical(logits=params)
    mean, log_std = params.chunk(2, -1)
    normal = torch.distributions.Normal(mean, log_std.exp())
    return torch.distributions.Independent(normal, 1)


def of_batch(policy, batch):
    return distribution(policy(batch.obs.double()), batch.actions.ndim == 1)


def ratios(networks, batch):
    """ρ of a minibatch's steps, in float64."""
    with torch.no_grad():
        log_probs = of_batch(networks[0], batch).log_prob(batch.actions)
    return (log_probs - batch.log_probs.double()).exp()


def flat(loss, *networks):
    """The gradient of a scalar by the parameters of some networks, in one vector."""
    parameters = [p for network in networks for p in network.parameters()]
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True, retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in gradients])


def assert_close(found, expected):
    """Within 2e-5 of the length of the gradient, which float32 sums of 32 terms stay below."""
    found, expected = found.double(), expected.double()
    assert expected.norm() > 1e-3
    assert (found - expected).norm() < 2e-5 * expected.norm()


both_worlds = pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])


@both_worlds
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_ratio_is_1_on_the_first_minibatch_of_every_update(env_id, changes):
    # log π is a sum of a few float32 numbers below 10: rounding leaves its error below 1e-5.
    trainer = make(env_id, minibatch_size=16, **changes)
    trainer.learn()
    seen = zip(trainer.networks, trainer.minibatches, strict=True)
    errors = [(ratios(networks, mb) - 1).abs().max() for networks, mb in seen]
    # Three updates of two epochs of two minibatches.
    assert len(errors) == 12
    assert max(errors[::4]) < 1e-5
    assert all(error > 1e-4 for i, error in enumerate(errors) if i % 4)


@both_worlds
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_at_the_old_policy_the_gradient_is_the_policy_gradient(env_id, changes):
    # -mean(Â ∇log π), a step at a time; KL(π_θ' ‖ π_θ) is smallest there and adds nothing.
    trainer = make(env_id, vf_coef=0.0, normalize_advantages=False, **changes)
    trainer.learn(lambda _: True)
    trainer.update(trainer.collect())
    # The first minibatch of the second update, and the networks as they were then.
    batch, networks, gradient = trainer.minibatches[2], trainer.networks[2], trainer.gradients[2]
    log_probs = of_batch(networks[0], batch).log_prob(batch.actions)
    expected = sum(
        -weight * flat(log_probs[i], *networks) / 32
        for i, weight in enumerate(batch.advantages.tolist())
    )
    assert len(batch.obs) == 32
    assert_close(gradient, expected)


def written_out(networks, batch, advantages, *, loss="clip", clip_values=None):
    """eq-ppo-loss, or with eq-e12, of a minibatch: ε = 0.2, β = 3, c_V = 0.7, c_H = 0.1."""
    policy, critic = networks
    pi, values = of_batch(policy, batch), critic(batch.obs.double())
    ratio = (pi.log_prob(batch.actions) - batch.log_probs.double()).exp()
    if loss == "clip":
        gain = torch.minimum(ratio * advantages, ratio.clip(0.8, 1.2) * advantages)
    else:
        old = distribution(batch.dist_params.double(), batch.actions.ndim == 1)
        gain = ratio * advantages - 3 * torch.distributions.kl_divergence(old, pi)
    error = (values - batch.returns) ** 2
    if clip_values is not None:
        near = batch.values + (values - batch.values).clip(-clip_values, clip_values)
        error = torch.maximum(error, (near - batch.returns) ** 2)
    return (-gain + 0.7 / 2 * error - 0.1 * pi.entropy()).sum() / len(advantages)


@both_worlds
@pytest.mark.parametrize("loss", ["clip", "kl"])
@pytest.mark.parametrize("clip_values", [None, 0.1])
@pytest.mark.parametrize("normalized", [True, False])
def test_the_gradient_is_that_of_the_whole_loss_written_out(env_id, loss, clip_values, normalized):
    trainer = make(
        env_id,
        loss=loss,
        minibatch_size=16,
        ent_coef=0.1,
        vf_coef=0.7,
        value_clip_range=clip_values,
        normalize_advantages=normalized,
    )
    trainer.learn(lambda _: True)
    old = trainer.minibatches[0]
    assert len(old.obs) == 16
    # Old numbers so far from the new ones that every limit binds at some steps, not at others.
    apart, noise = (
        torch.linspace(-0.5, 0.5, 16),
        torch.randn(old.dist_params.shape, generator=trainer.generator),
    )
    old = old._replace(
        log_probs=old.log_probs + apart,
        dist_params=old.dist_params + 0.3 * noise,
        values=old.values + apart.flip(0),
    )
    assert 0.2 < ((apart.exp() - 1).abs() > 0.2).double().mean() < 0.8
    trainer.kl_coef = 3.0  # as if adapted, from 1
    trainer.gradient(old)
    advantages, networks = old.advantages.double(), in_float64(trainer)
    expected = flat(
        written_out(networks, old, advantages, loss=loss, clip_values=clip_values), *networks
    )
    assert_close(trainer.gradients[-1], expected)
    if clip_values is not None:
        free = flat(written_out(networks, old, advantages, loss=loss), *networks)
        assert (free - expected).norm() > 1e-3 * expected.norm()


def test_the_advantages_of_each_minibatch_are_standardised_by_themselves():
    raw, standardised = (
        make(minibatch_size=10, num_epochs=1, normalize_advantages=wanted)
        for wanted in (False, True)
    )
    for trainer in (raw, standardised):
        trainer.learn(lambda _: True)
    assert [len(mb.obs) for mb in raw.minibatches] == [10, 10, 10, 2]
    for a, b in zip(raw.minibatches, standardised.minibatches, strict=True):
        assert all(
            torch.equal(getattr(a, name), getattr(b, name))
            for name in a._fields
            if name != "advantages"
        )
        x = a.advantages.tolist()
        mean = sum(x) / len(x)
        deviation = math.sqrt(sum((each - mean) ** 2 for each in x) / (len(x) - 1))
        expected = [(each - mean) / (deviation + 1e-8) for each in x]
        assert b.advantages.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("shift", "sign", "moves"), [(1, 1, False), (-1, -1, False), (1, -1, True), (-1, 1, True)]
)
def test_where_the_clip_says_so_the_policy_has_no_gradient(shift, sign, moves):
    trainer = make(vf_coef=0.0)
    trainer.learn(lambda _: True)
    batch = trainer.minibatches[0]
    # Ratios of about e^{±1}: far outside [0.8, 1.2] on the side of the shift.
    far = batch._replace(
        log_probs=batch.log_probs - shift, advantages=torch.full((32,), float(sign))
    )
    trainer.gradient(far)
    ratio = ratios(in_float64(trainer), far)
    assert ratio.min() > 1.2 if shift > 0 else ratio.max() < 0.8
    assert bool((trainer.gradients[-1] != 0).any()) == moves


@pytest.mark.parametrize("gae_lambda", [0.0, 1.0])
def test_both_ends_of_lambda_by_a_sum_over_the_rollout(gae_lambda):
    # λ = 0: the TD error.  λ = 1: the discounted rewards to the end of the episode or of the
    # rollout, and γ^k V of where that stopped unless the world had ended, less V.
    config = dataclasses.replace(
        SMALL,
        gae_lambda=gae_lambda,
        num_steps=30,
        total_steps=120,
        minibatch_size=120,
        num_epochs=1,
        normalize_advantages=False,
    )
    trainer = Watched("CartPole-v1", config, wrappers=[(TimeLimit, {"max_episode_steps": 14})])
    rollout = trainer.collect()
    _, critic = in_float64(trainer)
    with torch.no_grad():
        v = critic(rollout.obs.double()).tolist()
        next_v = critic(rollout.next_obs.double()).tolist()
    trainer.update(rollout)
    (batch,) = trainer.minibatches
    # The minibatch is the whole batch in random order; no two observations are the same.
    row = {tuple(obs): i for i, obs in enumerate(batch.obs.tolist())}
    assert len(row) == 120
    died, ended = rollout.terminated, rollout.terminated | rollout.truncated
    assert died.any()
    assert (ended & ~died).any()
    for n in range(4):
        for t in range(30):
            total, weight = 0.0, 1.0
            for i in range(t, 30):
                total += weight * rollout.rewards[i, n].item()
                weight *= 0.98
                if gae_lambda == 0 or ended[i, n] or i == 29:
                    total += weight * next_v[i][n] * (not died[i, n])
                    break
            place = row[tuple(rollout.obs[t, n].tolist())]
            assert batch.advantages[place].item() == pytest.approx(total - v[t][n], abs=1e-4)
            assert batch.returns[place].item() == pytest.approx(total, abs=1e-4)
            assert batch.values[place].item() == pytest.approx(v[t][n], abs=1e-5)


def test_a_minibatch_of_one_teaches_with_its_advantage_as_it_is():
    trainer = make(minibatch_size=1, vf_coef=0.0, max_grad_norm=1e9)
    start = vector(trainer)
    trainer.learn(lambda _: True)
    assert len(trainer.minibatches) == 64
    batch, networks = trainer.minibatches[0], trainer.networks[0]
    assert batch.advantages.abs().item() > 0.1
    log_prob = of_batch(networks[0], batch).log_prob(batch.actions)[0]
    assert_close(trainer.gradients[0], -batch.advantages[0].double() * flat(log_prob, *networks))
    assert trainer.history["gradient_steps"].tolist() == [64]
    assert (vector(trainer) != start).any()


# ------------------------------------------------------------------ restraints and schedules


def test_an_update_ends_before_the_step_that_shows_too_large_a_divergence():
    config = {"num_epochs": 10, "minibatch_size": 8, "learning_rate": 2e-2}
    free, loose, strict = (make(**config, target_kl=target) for target in (None, 1e9, 1e-12))
    for trainer in (free, loose, strict):
        trainer.learn()
    assert torch.equal(vector(free), vector(loose))
    assert free.history["gradient_steps"].tolist() == [40, 40, 40]
    assert strict.history["gradient_steps"].tolist() == [1, 1, 1]
    middle = make(**config, target_kl=0.01)
    middle.learn(lambda _: True)
    found = [ratios(*seen) for seen in zip(middle.networks, middle.minibatches, strict=True)]
    kl = [(ratio - 1 - ratio.log()).mean().item() for ratio in found]
    taken = int(middle.history["gradient_steps"][0])
    assert 1 < taken < 40
    assert max(kl[:taken]) <= 0.01 < kl[taken]
    assert len(kl) == taken + 1


def test_one_gradient_step_is_taken_however_large_the_divergence():
    # The first minibatch shows only rounding, or what several ranks make of it.
    trainer = make(target_kl=0.01)
    rollout, start = trainer.collect(), vector(trainer)
    row = trainer.update(rollout._replace(log_probs=rollout.log_probs - 2))
    assert row["approx_kl"] > 1
    assert row["gradient_steps"] == 1
    assert not torch.equal(vector(trainer), start)


def test_history_holds_the_means_over_the_rows_of_all_minibatches():
    # 32 rows in minibatches of 12, 12 and 8: a mean over minibatches would be another number.
    trainer = make(minibatch_size=12, num_epochs=1, ent_coef=0.1, vf_coef=0.7)
    row = trainer.learn(lambda _: True).rows[0]
    seen = list(zip(trainer.minibatches, trainer.networks, trainer.gradients, strict=True))
    assert [len(batch.obs) for batch, _, _ in seen] == [12, 12, 8]
    sums = dict.fromkeys(("policy_loss", "value_loss", "entropy", "approx_kl"), 0.0)
    for batch, (policy, critic), _ in seen:
        pi, rho = of_batch(policy, batch), ratios((policy, critic), batch)
        A, n = batch.advantages.double(), len(batch.obs)
        gain = torch.minimum(rho * A, rho.clip(0.8, 1.2) * A)
        errors = (critic(batch.obs.double()) - batch.returns) ** 2
        sums["policy_loss"] -= gain.mean().item() * n
        sums["value_loss"] += errors.mean().item() / 2 * n
        sums["entropy"] += pi.entropy().mean().item() * n
        sums["approx_kl"] += (rho - 1 - rho.log()).mean().item() * n
    for name, total in sums.items():
        assert row[name] == pytest.approx(total / 32, rel=1e-4, abs=1e-6), name
    norms = [gradient.norm().item() for _, _, gradient in seen]
    assert row["grad_norm"] == pytest.approx(sum(norms) / 3, rel=1e-5)


def test_the_clip_fraction_is_the_share_of_rows_outside_the_range_of_its_update():
    trainer = make(
        minibatch_size=8, num_epochs=4, learning_rate=2e-2, clip_range=0.3, anneal_clip_range=True
    )
    trainer.learn()
    found = [ratios(*seen) for seen in zip(trainer.networks, trainer.minibatches, strict=True)]
    expected, at_first = [], []
    for i, clip_range in enumerate([0.3, 0.2, 0.1]):
        apart = (torch.cat(found[16 * i : 16 * (i + 1)]) - 1).abs()
        expected.append((apart > clip_range).double().mean().item())
        at_first.append((apart > 0.3).double().mean().item())
    assert trainer.history["clip_fraction"].tolist() == pytest.approx(expected, abs=1e-6)
    # A range that stays would show another share of the second update.
    assert 0 < expected[0] < expected[1]
    assert abs(expected[1] - at_first[1]) > 0.02


def test_the_explained_variance_is_of_the_values_before_the_update():
    trainer = make(vf_coef=5.0, learning_rate=1e-2)
    trainer.learn()
    # Each update's first minibatch holds all its steps.
    for row, batch in zip(trainer.history.rows, trainer.minibatches[::2], strict=True):
        values, returns = batch.values.double().numpy(), batch.returns.double().numpy()
        expected = 1 - np.var(returns - values, ddof=1) / np.var(returns, ddof=1)
        assert row["explained_variance"] == pytest.approx(expected, abs=1e-4)
    assert np.ptp(trainer.history["explained_variance"]) > 0.01


@pytest.mark.parametrize("total_steps", [96, 100, 127])
def test_learning_rate_and_clip_range_fall_linearly_or_stay(total_steps, monkeypatch):
    # What is left of the updates counts, whatever rest of steps does not make one.
    given, loss = [], ppo_lib.ppo.clipped_surrogate_loss

    def spy(*arguments, clip_range):
        given.append(clip_range)
        return loss(*arguments, clip_range=clip_range)

    monkeypatch.setattr(ppo_lib.ppo, "clipped_surrogate_loss", spy)
    more = {"clip_range": 0.3, "learning_rate": 3e-3, "total_steps": total_steps}
    falls = make(anneal_clip_range=True, **more)
    stays = make(anneal_learning_rate=False, **more)
    rates = []
    for trainer in (falls, stays):
        trainer.learn(lambda t: rates.append(t.optimizer.param_groups[0]["lr"]))
    assert falls.history["clip_range"].tolist() == pytest.approx([0.3, 0.2, 0.1])
    assert falls.history["learning_rate"].tolist() == pytest.approx([3e-3, 2e-3, 1e-3])
    assert stays.history["clip_range"].tolist() == [0.3] * 3
    # And it is what the loss and Adam are given, in two gradient steps an update.
    assert given == pytest.approx([0.3, 0.3, 0.2, 0.2, 0.1, 0.1] + [0.3] * 6)
    assert rates == pytest.approx([3e-3, 2e-3, 1e-3] + [3e-3] * 3)


def test_beta_is_adapted_once_an_update(monkeypatch):
    told = iter([0.199, 0.201, 0.3, 0.449, 0.451, 9.0])

    def adapt(kl_coef, _, *, kl_target):
        return adapt_kl_coef(kl_coef, next(told), kl_target=kl_target)

    monkeypatch.setattr(ppo_lib.ppo, "adapt_kl_coef", adapt)
    trainer = make(loss="kl", kl_coef=1.0, adaptive_kl_target=0.3, total_steps=32 * 6)
    trainer.learn()
    # Below 0.3 / 1.5 = 0.2 it is halved, between it stays, above 0.3 × 1.5 = 0.45 it is doubled.
    assert trainer.history["kl_coef"].tolist() == [1.0, 0.5, 0.5, 0.5, 0.5, 1.0]
    assert trainer.kl_coef == 2.0
    assert list(told) == []


@both_worlds
def test_the_divergence_that_beta_follows_is_the_mean_over_the_states(env_id, monkeypatch):
    found = []

    def adapt(kl_coef, kl, **_):
        found.append(kl)
        return kl_coef

    monkeypatch.setattr(ppo_lib.ppo, "adapt_kl_coef", adapt)
    trainer = make(env_id, loss="kl", learning_rate=1e-2)
    rollout = trainer.collect()
    trainer.update(rollout)
    discrete = rollout.actions.ndim == 2
    old = distribution(rollout.dist_params.double(), discrete)
    with torch.no_grad():
        new = distribution(in_float64(trainer)[0](rollout.obs.double()), discrete)
    expected = torch.distributions.kl_divergence(old, new).mean().item()
    assert expected > 1e-5
    assert found == [pytest.approx(expected, rel=1e-3, abs=1e-7)]


def test_without_a_weight_the_entropy_changes_no_bit():
    class WithZeroTimesEntropy(PPO):
        def loss(self, minibatch):
            total, step = super().loss(minibatch)
            pi = distribution(self.policy(minibatch.obs), discrete=True)
            return total - 0.0 * pi.entropy().mean(), step

    without, zero, some = make(), make(cls=WithZeroTimesEntropy), make(ent_coef=0.1)
    for trainer in (without, zero, some):
        trainer.learn()
    assert torch.equal(vector(without), vector(zero))
    assert not torch.equal(vector(without), vector(some))


# ------------------------------------------------------------------ the optimizer


@pytest.mark.parametrize("max_grad_norm", [0.3, 1e9])
def test_parameters_move_by_adam_on_the_scaled_gradients_written_out(max_grad_norm):
    trainer = make(minibatch_size=8, learning_rate=3e-3, max_grad_norm=max_grad_norm)
    x = vector(trainer).double().numpy()
    trainer.learn()
    m, v = np.zeros_like(x), np.zeros_like(x)
    lengths = []
    # Two epochs of four minibatches an update; the rate falls by a third of itself each time.
    assert len(trainer.gradients) == 24
    for i, gradient in enumerate(trainer.gradients):
        g = gradient.double().numpy()
        lengths.append(np.linalg.norm(g))
        g = g * min(1.0, max_grad_norm / lengths[-1])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = 3e-3 * (1 - (i // 8) / 3)
        root = np.sqrt(v / (1 - 0.999 ** (i + 1)))
        x = x - rate * m / (1 - 0.9 ** (i + 1)) / (root + 1e-5)
    assert min(lengths) > 0.3  # so that the smaller limit binds
    np.testing.assert_allclose(vector(trainer), x, rtol=0, atol=2e-6)
    means = np.reshape(lengths, (3, 8)).mean(1)
    assert trainer.history["grad_norm"].tolist() == pytest.approx(means.tolist(), rel=1e-5)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused_and_changes_nothing(number):
    trainer = make()
    rollout, start = trainer.collect(), vector(trainer)
    with pytest.raises(ValueError, match=r"gradient has length (nan|inf), expected a finite one"):
        trainer.update(rollout._replace(rewards=rollout.rewards + number))
    assert torch.equal(vector(trainer), start)
    assert not trainer.optimizer.state


def test_a_gradient_belongs_to_its_minibatch_alone():
    # Nothing of an earlier one is left in it, and only `grad` is changed.
    trainer = make()
    trainer.learn(lambda _: True)
    before = vector(trainer)
    for i in (0, 1, 0):
        trainer.gradient(trainer.minibatches[i])
    first, _, again = trainer.gradients[-3:]
    assert torch.equal(first, again)
    assert torch.equal(vector(trainer), before)


# ------------------------------------------------------------------ elsewhere


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_first_update_is_the_same():
    cpu, gpu = make(normalize_obs=True), make(normalize_obs=True, device="cuda")
    for trainer in (cpu, gpu):
        trainer.learn(lambda _: True)
    np.testing.assert_allclose(vector(gpu).cpu(), vector(cpu), atol=1e-4)

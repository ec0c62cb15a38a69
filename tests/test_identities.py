"""The trainer's own steps against the formulas, written out with plain operations."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit

import ppo_lib.ppo
from ppo_lib import PPO, PPOConfig
from ppo_lib.optimizer import Adam

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


def make(env_id="CartPole-v1", **changes):
    return PPO(env_id, dataclasses.replace(SMALL, **changes))


def spied(trainer, name, calls):
    """Record the arguments of a method of the trainer, and let it work."""
    method = getattr(trainer, name)

    def spy(*arguments, **keywords):
        result = method(*arguments, **keywords)
        calls.append((arguments, result))
        return result

    setattr(trainer, name, spy)


def before(trainer, name, look):
    """Call ``look`` with the arguments of a method, before it works."""
    method = getattr(trainer, name)

    def spy(*arguments):
        look(*arguments)
        return method(*arguments)

    setattr(trainer, name, spy)


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


def ratios(trainer, batch, index):
    """ρ of a minibatch's steps, in float64."""
    policy, _ = in_float64(trainer)
    with torch.no_grad():
        log_probs = of_batch(policy, batch).log_prob(batch.actions)
    return (log_probs - batch.log_probs.double()).exp()[index]


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


def first_batch(trainer):
    """What the first update hands to its gradient steps: the batch, and the advantages."""
    calls = []
    spied(trainer, "_descend", calls)
    trainer.learn(lambda _: True)
    return calls[0][0]


both_worlds = pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])


@both_worlds
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_ratio_is_1_on_the_first_minibatch_of_every_update(env_id, changes):
    # log π is a sum of a few float32 numbers below 10: rounding leaves its error below 1e-5.
    trainer, errors = make(env_id, minibatch_size=16, **changes), []
    before(
        trainer,
        "_gradient",
        lambda batch, index, _: errors.append((ratios(trainer, batch, index) - 1).abs().max()),
    )
    trainer.learn()
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
    rollout = trainer.collector.collect(trainer.policy, 8, trainer.generator)
    networks, calls = in_float64(trainer), []
    spied(trainer, "_gradient", calls)
    trainer._update(rollout)
    (batch, index, weights), (gradient, _) = calls[0]
    # The networks were copied before the update, in which the normaliser is still the same.
    log_probs = of_batch(networks[0], batch).log_prob(batch.actions)
    expected = sum(
        -weight * flat(log_probs[i], *networks) / 32
        for i, weight in zip(index.tolist(), weights.tolist(), strict=True)
    )
    assert sorted(index.tolist()) == list(range(32))
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
    old, advantages = first_batch(trainer)
    # Old numbers so far from the new ones that every limit binds at some steps, not at others.
    apart, noise = (
        torch.linspace(-0.5, 0.5, 32),
        torch.randn(old.dist_params.shape, generator=trainer.generator),
    )
    old = old._replace(
        log_probs=old.log_probs + apart,
        dist_params=old.dist_params + 0.3 * noise,
        values=old.values + apart.flip(0),
    )
    trainer.kl_coef = 3.0  # as if adapted, from 1
    calls, networks = [], in_float64(trainer)
    spied(trainer, "_gradient", calls)
    trainer._descend(old, advantages)
    (batch, index, _), (found, _) = calls[0]
    assert len(index) == 16
    part = batch._replace(**{name: getattr(batch, name)[index] for name in batch._fields})
    advantages = advantages[index].double()
    if normalized:
        mean = advantages.sum() / 16
        variance = ((advantages - mean) ** 2).sum() / 15
        advantages = (advantages - mean) / (variance.sqrt() + 1e-8)
    assert 0.2 < ((apart[index].exp() - 1).abs() > 0.2).double().mean() < 0.8
    expected = flat(
        written_out(networks, part, advantages, loss=loss, clip_values=clip_values), *networks
    )
    assert_close(found, expected)
    if clip_values is not None:
        free = flat(written_out(networks, part, advantages, loss=loss), *networks)
        assert (free - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize(
    ("shift", "sign", "moves"), [(1, 1, False), (-1, -1, False), (1, -1, True), (-1, 1, True)]
)
def test_where_the_clip_says_so_the_policy_has_no_gradient(shift, sign, moves):
    trainer = make(vf_coef=0.0)
    batch, _ = first_batch(trainer)
    # Ratios of about e^{±1}: far outside [0.8, 1.2] on the side of the shift.
    far = batch._replace(log_probs=batch.log_probs - shift)
    gradient, seen = trainer._gradient(far, torch.arange(32), torch.full((32,), float(sign)))
    ratio = (seen.log_probs - seen.old_log_probs).exp()
    assert ratio.min() > 1.2 if shift > 0 else ratio.max() < 0.8
    assert bool((gradient != 0).any()) == moves


@pytest.mark.parametrize("gae_lambda", [0.0, 1.0])
def test_both_ends_of_lambda_by_a_sum_over_the_rollout(gae_lambda):
    # λ = 0: the TD error.  λ = 1: the discounted rewards to the end of the episode or of the
    # rollout, and γ^k V of where that stopped unless the world had ended, less V.
    config = dataclasses.replace(SMALL, gae_lambda=gae_lambda, num_steps=30, total_steps=120)
    trainer = PPO("CartPole-v1", config, wrappers=[lambda env: TimeLimit(env, 14)])
    rollout = trainer.collector.collect(trainer.policy, 30, trainer.generator)
    _, critic = in_float64(trainer)
    with torch.no_grad():
        v = critic(rollout.obs.double()).tolist()
        next_v = critic(rollout.next_obs.double()).tolist()
    calls = []
    spied(trainer, "_descend", calls)
    trainer._update(rollout)
    (((batch, advantages), _),) = calls
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
            assert advantages[4 * t + n].item() == pytest.approx(total - v[t][n], abs=1e-4)
            assert batch.returns[4 * t + n].item() == pytest.approx(total, abs=1e-4)


def test_a_minibatch_of_one_teaches_with_its_advantage_as_it_is():
    trainer = make(minibatch_size=1, vf_coef=0.0, max_grad_norm=1e9)
    networks, calls, start = in_float64(trainer), [], trainer.optimizer.vector.clone()
    spied(trainer, "_gradient", calls)
    batch, advantages = first_batch(trainer)
    assert len(calls) == 64
    (_, index, _), (gradient, _) = calls[0]
    log_prob = of_batch(networks[0], batch).log_prob(batch.actions)[index.item()]
    assert_close(gradient, -advantages[index].double() * flat(log_prob, *networks))
    assert trainer.history["gradient_steps"].tolist() == [64]
    assert (trainer.optimizer.vector != start).any()


# ------------------------------------------------------------------ restraints and schedules


def test_an_update_ends_before_the_step_that_shows_too_large_a_divergence():
    config = {"num_epochs": 10, "minibatch_size": 8, "learning_rate": 2e-2}
    free, loose, strict = (
        make(**config),
        make(**config, target_kl=1e9),
        make(**config, target_kl=1e-12),
    )
    for trainer in (free, loose, strict):
        trainer.learn()
    assert torch.equal(free.optimizer.vector, loose.optimizer.vector)
    assert free.history["gradient_steps"].tolist() == [40, 40, 40]
    assert strict.history["gradient_steps"].tolist() == [1, 1, 1]
    middle, kl = make(**config, target_kl=0.01), []

    def look(batch, index, _):
        ratio = ratios(middle, batch, index)
        kl.append((ratio - 1 - ratio.log()).mean().item())

    before(middle, "_gradient", look)
    middle.learn(lambda _: True)
    taken = int(middle.history["gradient_steps"][0])
    assert 1 < taken < 40
    assert max(kl[:taken]) <= 0.01 < kl[taken]
    assert len(kl) == taken + 1


def test_one_gradient_step_is_taken_however_large_the_divergence():
    # The first minibatch shows only rounding, or what several ranks make of it.
    trainer = make(target_kl=0.01)
    trainer._approx_kl = lambda _: 1.0
    assert trainer.learn()["gradient_steps"].tolist() == [1, 1, 1]


def test_the_clip_range_falls_linearly_or_stays(monkeypatch):
    given, loss = [], ppo_lib.ppo.clipped_surrogate_loss

    def spy(*arguments, clip_range):
        given.append(clip_range)
        return loss(*arguments, clip_range=clip_range)

    monkeypatch.setattr(ppo_lib.ppo, "clipped_surrogate_loss", spy)
    falls, stays = make(anneal_clip_range=True, clip_range=0.3), make(clip_range=0.3)
    for trainer in (falls, stays):
        trainer.learn()
    assert falls.history["clip_range"].tolist() == pytest.approx([0.3, 0.2, 0.1])
    assert stays.history["clip_range"].tolist() == [0.3] * 3
    # And it is what the loss is given, in two gradient steps an update.
    assert given == pytest.approx([0.3, 0.3, 0.2, 0.2, 0.1, 0.1] + [0.3] * 6)


def test_beta_is_adapted_once_an_update():
    trainer = make(loss="kl", kl_coef=1.0, adaptive_kl_target=0.3, total_steps=32 * 6)
    told = iter([0.199, 0.201, 0.3, 0.449, 0.451, 9.0])
    trainer._kl = lambda _: next(told)
    trainer.learn()
    # Below 0.3 / 1.5 = 0.2 it is halved, between it stays, above 0.3 × 1.5 = 0.45 it is doubled.
    assert trainer.history["kl_coef"].tolist() == [1.0, 0.5, 0.5, 0.5, 0.5, 1.0]
    assert trainer.kl_coef == 2.0
    assert list(told) == []


@both_worlds
def test_the_divergence_that_beta_follows_is_the_mean_over_the_states(env_id):
    trainer = make(env_id, loss="kl", learning_rate=1e-2)
    batch, _ = first_batch(trainer)
    old = distribution(batch.dist_params.double(), batch.actions.ndim == 1)
    with torch.no_grad():
        new = of_batch(in_float64(trainer)[0], batch)
    expected = torch.distributions.kl_divergence(old, new).mean().item()
    assert expected > 1e-5
    assert trainer._kl(batch) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_without_a_weight_the_entropy_changes_no_bit():
    without, zero, some = make(), make(), make(ent_coef=0.1)
    loss = zero._loss

    def with_zero_times_entropy(batch, index, advantages):
        total, seen = loss(batch, index, advantages)
        pi = distribution(zero.policy(batch.obs[index]), discrete=True)
        return total - 0.0 * pi.entropy().mean(), seen

    zero._loss = with_zero_times_entropy
    for trainer in (without, zero, some):
        trainer.learn()
    assert torch.equal(without.optimizer.vector, zero.optimizer.vector)
    assert not torch.equal(without.optimizer.vector, some.optimizer.vector)


# ------------------------------------------------------------------ the optimizer


def network():
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    for p in net.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    return net


def test_adam_on_one_vector_is_torchs_adam_with_clipping():
    one, other = network(), network()
    ours, theirs = Adam(one.parameters()), torch.optim.Adam(other.parameters(), eps=1e-5)
    sizes = [p.numel() for p in other.parameters()]
    generator = torch.Generator().manual_seed(1)
    for i in range(20):
        # Lengths of about 0.06 to 60: some are scaled down to 2 and some are not.
        gradient = torch.randn(sum(sizes), generator=generator) * 10.0 ** (i % 4 - 2)
        rate = 0.1 / (i + 1)
        norm = ours.step(gradient, learning_rate=rate, max_norm=2.0)
        theirs.param_groups[0]["lr"] = rate
        for p, part in zip(other.parameters(), gradient.split(sizes), strict=True):
            p.grad = part.view_as(p).clone()
        expected = torch.nn.utils.clip_grad_norm_(other.parameters(), 2.0)
        theirs.step()
        assert norm == pytest.approx(expected.item(), rel=1e-6)
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@both_worlds
def test_the_networks_parameters_are_views_of_one_vector(env_id):
    trainer = make(env_id, normalize_obs=True)
    vector, place = trainer.optimizer.vector, 0
    for p in (*trainer.policy.parameters(), *trainer.critic.parameters()):
        assert p.data_ptr() == vector[place:].data_ptr()
        place += p.numel()
    assert place == len(vector)
    # What a step writes there, the modules compute with: no weights, no output.
    with torch.no_grad():
        vector.zero_()
        obs = torch.ones(2, trainer.envs.single_observation_space.shape[0])
        assert not trainer.policy(obs).any()
        assert not trainer.critic(obs).any()


def test_the_gradient_by_the_vector_is_autograds_by_the_parameters():
    net, x = network(), torch.arange(6.0).view(2, 3)
    found = Adam(net.parameters()).gradient((net(x) ** 2).sum())
    (net(x) ** 2).sum().backward()
    assert torch.equal(found, torch.cat([p.grad.flatten() for p in net.parameters()]))


def test_adam_goes_on_from_its_state():
    whole, first = network(), network()
    a, b = Adam(whole.parameters()), Adam(first.parameters())
    steps = [torch.full_like(a.vector, float(i)) for i in range(1, 5)]
    for g in steps:
        a.step(g, learning_rate=0.1, max_norm=1.0)
    for g in steps[:2]:
        b.step(g, learning_rate=0.1, max_norm=1.0)
    second = network()
    second.load_state_dict(first.state_dict())
    c = Adam(second.parameters())
    c.load_state_dict(b.state_dict())
    for g in steps[2:]:
        c.step(g, learning_rate=0.1, max_norm=1.0)
    assert torch.equal(a.vector, c.vector)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused_and_changes_nothing(number):
    adam = Adam(network().parameters())
    start, gradient = adam.vector.clone(), torch.ones_like(adam.vector)
    gradient[3] = number
    with pytest.raises(ValueError, match=f"gradient has length {number}, expected a finite one"):
        adam.step(gradient, learning_rate=0.1, max_norm=1.0)
    assert torch.equal(adam.vector, start)
    assert not any(x.any() for x in adam.state_dict().values())


def test_adam_of_nothing_is_refused():
    with pytest.raises(ValueError, match="parameters is empty"):
        Adam([])


# ------------------------------------------------------------------ elsewhere


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_first_update_is_the_same():
    cpu, gpu = make(normalize_obs=True), make(normalize_obs=True, device="cuda")
    for trainer in (cpu, gpu):
        trainer.learn(lambda _: True)
    np.testing.assert_allclose(gpu.optimizer.vector.cpu(), cpu.optimizer.vector, atol=1e-4)

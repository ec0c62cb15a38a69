"""The trainer's own steps against the formulas, written out with plain operations."""

import copy
import dataclasses

import pytest
import torch
from gymnasium.wrappers import TimeLimit

import ppo_lib.ppo
from ppo_lib import PPO, PPOConfig

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


def watched(trainer):
    """A list that every gradient step adds to: its minibatch, the networks before, the gradient."""
    seen, gradient = [], trainer.gradient

    def watch(minibatch):
        networks = in_float64(trainer)
        step = gradient(minibatch)
        parameters = trainer.parameters
        found = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        seen.append((minibatch, networks, found))
        return step

    trainer.gradient = watch
    return seen


def in_float64(trainer):
    """Copies of actor and critic as they are now."""
    return tuple(copy.deepcopy(x).double() for x in (trainer.policy, trainer.critic))


def weights(trainer):
    return torch.nn.utils.parameters_to_vector(trainer.parameters).detach().clone()


def distribution(params, discrete):
    """π as torch's own distribution."""
    if discrete:
        return torch.distributions.Categorical(logits=params)
    mean, log_std = params.chunk(2, -1)
    normal = torch.distributions.Normal(mean, log_std.exp())
    return torch.distributions.Independent(normal, 1)


def of_batch(policy, batch):
    return distribution(policy(batch.obs.double()), batch.actions.ndim == 1)


def ratios(policy, batch):
    """ρ of a minibatch's steps, in float64."""
    with torch.no_grad():
        log_probs = of_batch(policy, batch).log_prob(batch.actions)
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


def standardised(advantages):
    mean = advantages.sum() / len(advantages)
    variance = ((advantages - mean) ** 2).sum() / (len(advantages) - 1)
    return (advantages - mean) / (variance.sqrt() + 1e-8)


both_worlds = pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])


@both_worlds
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_ratio_is_1_on_the_first_minibatch_of_every_update(env_id, changes):
    # log π is a sum of a few float32 numbers below 10: rounding leaves its error below 1e-5.
    trainer = make(env_id, minibatch_size=16, **changes)
    seen = watched(trainer)
    trainer.learn()
    errors = [(ratios(networks[0], batch) - 1).abs().max() for batch, networks, _ in seen]
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
    seen = watched(trainer)
    trainer.update(trainer.collect())
    batch, networks, gradient = seen[0]
    assert len(batch.obs) == 32
    log_probs = of_batch(networks[0], batch).log_prob(batch.actions)
    expected = sum(
        -advantage * flat(log_prob, *networks) / 32
        for log_prob, advantage in zip(log_probs, batch.advantages.tolist(), strict=True)
    )
    assert_close(gradient, expected)


def written_out(networks, batch, *, loss="clip", clip_values=None):
    """eq-ppo-loss, or with eq-e12, of a minibatch: ε = 0.2, β = 3, c_V = 0.7, c_H = 0.1."""
    policy, critic = networks
    advantages = batch.advantages.double()
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
def test_the_gradient_is_that_of_the_whole_loss_written_out(env_id, loss, clip_values):
    changes = {"ent_coef": 0.1, "vf_coef": 0.7, "value_clip_range": clip_values}
    trainer = make(env_id, loss=loss, **changes)
    seen = watched(trainer)
    trainer.learn(lambda _: True)
    batch = seen[0][0]
    # Old numbers so far from the new ones that every limit binds at some steps, not at others.
    apart = torch.linspace(-0.5, 0.5, 32)
    noise = torch.randn(batch.dist_params.shape, generator=trainer.generator)
    batch = batch._replace(
        log_probs=batch.log_probs + apart,
        dist_params=batch.dist_params + 0.3 * noise,
        values=batch.values + apart.flip(0),
    )
    trainer.kl_coef = 3.0  # as if adapted, from 1
    assert 0.2 < ((apart.exp() - 1).abs() > 0.2).double().mean() < 0.8
    trainer.gradient(batch)
    _, networks, found = seen[-1]
    expected = flat(written_out(networks, batch, loss=loss, clip_values=clip_values), *networks)
    assert_close(found, expected)
    if clip_values is not None:
        free = flat(written_out(networks, batch, loss=loss), *networks)
        assert (free - expected).norm() > 1e-3 * expected.norm()


def test_advantages_are_standardised_in_each_minibatch_or_left():
    for normalized in (True, False):
        trainer = make(minibatch_size=8, normalize_advantages=normalized, num_epochs=1)
        seen, rollout = watched(trainer), trainer.collect()
        _, critic = in_float64(trainer)
        trainer.update(rollout)
        every = torch.cat([batch.advantages for batch, _, _ in seen]).double()
        raw = torch.cat([batch.returns - batch.values for batch, _, _ in seen]).double()
        expected = torch.cat([standardised(x) for x in raw.split(8)]) if normalized else raw
        torch.testing.assert_close(every, expected, rtol=1e-4, atol=1e-4)
        # And what is called V is the critic's, at the same steps.
        for batch, _, _ in seen:
            torch.testing.assert_close(batch.values.double(), critic(batch.obs.double()).detach())


@pytest.mark.parametrize(
    ("shift", "sign", "moves"), [(1, 1, False), (-1, -1, False), (1, -1, True), (-1, 1, True)]
)
def test_where_the_clip_says_so_the_policy_has_no_gradient(shift, sign, moves):
    trainer = make(vf_coef=0.0)
    seen = watched(trainer)
    trainer.learn(lambda _: True)
    batch = seen[0][0]
    # Ratios of about e^{±1}: far outside [0.8, 1.2] on the side of the shift.
    far = batch._replace(
        log_probs=batch.log_probs - shift, advantages=torch.full((32,), float(sign))
    )
    step = trainer.gradient(far)
    ratio = (step.log_probs - step.old_log_probs).exp()
    assert ratio.min() > 1.2 if shift > 0 else ratio.max() < 0.8
    assert bool((seen[-1][2] != 0).any()) == moves


@pytest.mark.parametrize("gae_lambda", [0.0, 1.0])
def test_both_ends_of_lambda_by_a_sum_over_the_rollout(gae_lambda):
    # λ = 0: the TD error.  λ = 1: the discounted rewards to the end of the episode or of the
    # rollout, and γ^k V of where that stopped unless the world had ended, less V.
    config = dataclasses.replace(
        SMALL, gae_lambda=gae_lambda, num_steps=30, total_steps=120, minibatch_size=120
    )
    config = dataclasses.replace(config, num_epochs=1, normalize_advantages=False)
    trainer = PPO("CartPole-v1", config, wrappers=[(TimeLimit, {"max_episode_steps": 14})])
    rollout = trainer.collect()
    _, critic = in_float64(trainer)
    with torch.no_grad():
        v = critic(rollout.obs.double()).tolist()
        next_v = critic(rollout.next_obs.double()).tolist()
    seen = watched(trainer)
    trainer.update(rollout)
    batch = seen[0][0]
    # The minibatch is the whole batch in another order: its rows are found by what was observed.
    place = {tuple(row): i for i, row in enumerate(batch.obs.tolist())}
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
            row = place[tuple(rollout.obs[t, n].tolist())]
            assert batch.advantages[row].item() == pytest.approx(total - v[t][n], abs=1e-4)
            assert batch.returns[row].item() == pytest.approx(total, abs=1e-4)


def test_a_minibatch_of_one_teaches_with_its_advantage_as_it_is():
    trainer = make(minibatch_size=1, vf_coef=0.0, max_grad_norm=1e9)
    start = weights(trainer)
    seen = watched(trainer)
    trainer.learn(lambda _: True)
    assert len(seen) == 64
    batch, networks, gradient = seen[0]
    log_prob = of_batch(networks[0], batch).log_prob(batch.actions)
    advantage = (batch.returns - batch.values).double()
    assert_close(gradient, flat(-(advantage * log_prob).sum(), *networks))
    assert trainer.history["gradient_steps"].tolist() == [64]
    assert (weights(trainer) != start).any()


def test_history_holds_the_means_over_the_rows_of_all_minibatches():
    # 32 rows in minibatches of 12, 12 and 8: a mean over minibatches would be another number.
    trainer = make(minibatch_size=12, num_epochs=1, ent_coef=0.1, vf_coef=0.7)
    seen = watched(trainer)
    row = trainer.learn(lambda _: True).rows[0]
    assert [len(batch.obs) for batch, _, _ in seen] == [12, 12, 8]
    sums = dict.fromkeys(("policy_loss", "value_loss", "entropy", "approx_kl"), 0.0)
    for batch, (policy, critic), _ in seen:
        pi, rho = of_batch(policy, batch), ratios(policy, batch)
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
    assert torch.equal(weights(free), weights(loose))
    assert free.history["gradient_steps"].tolist() == [40, 40, 40]
    assert strict.history["gradient_steps"].tolist() == [1, 1, 1]
    middle = make(**config, target_kl=0.01)
    seen = watched(middle)
    middle.learn(lambda _: True)
    rho = [ratios(networks[0], batch) for batch, networks, _ in seen]
    kl = [(x - 1 - x.log()).mean().item() for x in rho]
    taken = int(middle.history["gradient_steps"][0])
    assert 1 < taken < 40
    assert max(kl[:taken]) <= 0.01 < kl[taken]
    assert len(kl) == taken + 1
    # The step that showed it was not taken.
    torch.testing.assert_close(
        weights(middle).double(),
        torch.cat([p.flatten() for n in seen[-1][1] for p in n.parameters()]),
    )


def test_one_gradient_step_is_taken_however_large_the_divergence(monkeypatch):
    # The first minibatch shows only rounding, or what several ranks make of it.
    monkeypatch.setattr(ppo_lib.ppo, "kl_k3", lambda log_probs, _: torch.ones_like(log_probs))
    assert make(target_kl=0.01).learn()["gradient_steps"].tolist() == [1, 1, 1]


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


def test_beta_is_adapted_once_an_update_to_the_divergence_over_all_its_states():
    trainer = make(loss="kl", kl_coef=1.0, adaptive_kl_target=2e-3, total_steps=32 * 12)
    betas = []
    while trainer.env_steps < 32 * 12:
        rollout, before = trainer.collect(), copy.deepcopy(trainer.policy).double()
        betas.append(trainer.kl_coef)
        trainer.update(rollout)
        trainer.env_steps += 32
        with torch.no_grad():
            old, new = (
                distribution(policy(rollout.obs.double()), discrete=True)
                for policy in (before, copy.deepcopy(trainer.policy).double())
            )
        kl = torch.distributions.kl_divergence(old, new).mean().item()
        factor = 0.5 if kl < 2e-3 / 1.5 else 2.0 if kl > 2e-3 * 1.5 else 1.0
        assert trainer.kl_coef == betas[-1] * factor
    assert len(set(betas)) > 2


def test_without_a_weight_the_entropy_changes_no_bit():
    without, zero, some = make(), make(), make(ent_coef=0.1)
    loss = zero.loss

    def with_zero_times_entropy(batch):
        total, step = loss(batch)
        pi = distribution(zero.policy(batch.obs), discrete=True)
        return total - 0.0 * pi.entropy().mean(), step

    zero.loss = with_zero_times_entropy
    for trainer in (without, zero, some):
        trainer.learn()
    assert torch.equal(weights(without), weights(zero))
    assert not torch.equal(weights(without), weights(some))


def test_a_step_is_adams_after_the_gradient_was_scaled_down():
    # Adam by its formulas (arXiv:1412.6980), with ε = 1e-5, on gradients no longer than 0.5.
    trainer = make(minibatch_size=8, learning_rate=1e-2, anneal_learning_rate=False)
    seen, start = watched(trainer), weights(trainer).double()
    trainer.learn()
    first, second = torch.zeros_like(start), torch.zeros_like(start)
    for t, (_, _, gradient) in enumerate(seen, start=1):
        g = gradient.double()
        g = g * min(1.0, 0.5 / (g.norm() + 1e-6))
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        step = first / (1 - 0.9**t) / ((second / (1 - 0.999**t)).sqrt() + 1e-5)
        start = start - 1e-2 * step
    assert len(seen) == 24
    assert max(gradient.norm() for _, _, gradient in seen) > 0.5
    assert (weights(trainer) - start).norm() < 1e-4 * start.norm()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused_and_changes_nothing(number):
    trainer = make()
    gradient = trainer.gradient

    def broken(minibatch):
        step = gradient(minibatch)
        trainer.parameters[0].grad[0] = number
        return step

    trainer.gradient = broken
    start = weights(trainer)
    with pytest.raises(ValueError, match=f"the gradient has length {number}, expected a finite"):
        trainer.learn()
    assert torch.equal(weights(trainer), start)
    assert trainer.env_steps == 0 == len(trainer.history)


# ------------------------------------------------------------------ elsewhere


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_first_update_is_the_same():
    cpu, gpu = make(normalize_obs=True), make(normalize_obs=True, device="cuda")
    for trainer in (cpu, gpu):
        trainer.learn(lambda _: True)
    torch.testing.assert_close(weights(gpu).cpu(), weights(cpu), rtol=0, atol=1e-4)

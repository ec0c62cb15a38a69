"""Normalisers: moments against numpy over all rows at once, scales against loops over episodes."""

import dataclasses
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch

from ppo_lib import PPO, PPOConfig, evaluate
from ppo_lib.normalizers import ObsNormalizer, RewardNormalizer, RunningMoments
from ppo_lib.returns import gae

SMALL = PPOConfig(
    total_steps=96,
    num_envs=4,
    num_steps=8,
    minibatch_size=8,
    num_epochs=2,
    hidden_sizes=(8,),
    normalize_obs=True,
    normalize_rewards=True,
)


class Once(gym.Env):
    """Copies show the offset less 1 and the offset plus 1 in turn; a step pays 1, and ends."""

    observation_space = gym.spaces.Box(-2000, 2000, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, offset=0.0, dies=True):
        self.offset, self.dies = offset, dies

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        if seed is not None:
            self.place = np.array([self.offset + (-1) ** seed], dtype=np.float32)
        return self.place.copy(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self.place.copy(), 1.0, self.dies, False, {}


def batches(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def all_rows(parts):
    return np.concatenate([part.numpy().reshape(-1, part.shape[-1]) for part in parts])


def learn_and_watch(config=SMALL, env_id="Pendulum-v1"):
    """A trainer that has learned, and the rollouts that it saw."""
    rollouts = []

    class Watched(PPO):
        def collect(self):
            rollouts.append(super().collect())
            return rollouts[-1]

    trainer = Watched(env_id, config)
    trainer.learn()
    return trainer, rollouts


def counted(rollouts):
    """The rows that the statistics are of: the first observations, and then all of a rollout."""
    return all_rows([rollouts[0].obs[0].double(), *(rollout.obs.double() for rollout in rollouts)])


# ------------------------------------------------------------------ running moments


@pytest.mark.parametrize(
    ("offset", "tolerance"),
    # Squares of 1e4 leave 8 of 16 digits to a variance of 1.
    [(0.0, 1e-12), (1e4, 1e-7)],
)
def test_moments_of_batches_are_those_of_all_rows_at_once(offset, tolerance):
    parts = [offset + 3 * x for x in batches([(5, 2, 3), (1, 3), (100, 3), (7, 1, 2, 3)])]
    moments = RunningMoments(3)
    for i, part in enumerate(parts):
        moments.update(part)
        rows = all_rows(parts[: i + 1])
        assert moments.count.item() == len(rows)
        np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(moments.var, rows.var(0), rtol=tolerance, atol=tolerance)


def test_moments_follow_rows_whose_mean_moves():
    parts = [x + 1000.0 * i for i, x in enumerate(batches([(20, 2)] * 10))]
    moments = RunningMoments(2)
    for part in parts:
        moments.update(part)
    np.testing.assert_allclose(moments.mean, all_rows(parts).mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.var, all_rows(parts).var(0), rtol=1e-12)


def test_moments_of_float32_rows_are_summed_in_float64():
    rows = torch.full((1_000_000, 1), 0.1, dtype=torch.float32)
    moments = RunningMoments(1)
    moments.update(rows)
    assert moments.mean.dtype == moments.var.dtype == moments.count.dtype == torch.float64
    # The mean of one number is this number; a sum in float32 would miss it in the fifth digit.
    assert moments.mean.item() == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_before_the_first_row_the_mean_is_0_and_the_variance_1():
    moments = RunningMoments(2)
    assert moments.count.item() == 0
    assert moments.mean.tolist() == [0, 0]
    assert moments.var.tolist() == [1, 1]


def test_one_row_is_its_own_mean_and_has_no_variance():
    moments = RunningMoments(2)
    moments.update(torch.tensor([3.0, -4.0]))
    assert moments.count.item() == 1
    assert moments.mean.tolist() == [3, -4]
    assert moments.var.tolist() == [0, 0]


@pytest.mark.parametrize("number", [0.0, 0.1, 0.3, 7.7, 1e4, -12345.678])
def test_a_constant_column_has_no_variance_and_never_a_negative_one(number):
    moments = RunningMoments(2)
    for part in batches([(3, 1), (7, 1), (1, 1), (33, 1)]):
        moments.update(torch.cat([torch.full_like(part, number), part], dim=-1))
        assert moments.var[0].item() >= 0
    assert moments.mean[0].item() == pytest.approx(number, rel=1e-14)
    assert moments.var[0].item() == pytest.approx(0, abs=1e-15 * max(1, number**2))


def test_moments_do_not_change_the_rows_they_count():
    (rows,) = batches([(4, 3)])
    copy = rows.clone()
    RunningMoments(3).update(rows)
    assert torch.equal(rows, copy)


@pytest.mark.parametrize("size", [0, -1])
def test_rows_without_a_number_are_refused(size):
    for kind in (RunningMoments, ObsNormalizer):
        with pytest.raises(ValueError, match=f"^size is {size}, expected at least 1$"):
            kind(size)


# ------------------------------------------------------------------ observations


def test_before_the_first_row_observations_stay_as_they_are():
    obs = torch.tensor([[0.1, -9.99], [10.0, 1e-6]])
    assert torch.equal(ObsNormalizer(2)(obs), obs)


def test_observations_are_standardised_by_numpys_mean_and_deviation():
    normalizer = ObsNormalizer(3)
    parts = [50 + 4 * x for x in batches([(30, 3), (8, 4, 3)])]
    for part in parts:
        normalizer.update(part.float())
    rows = all_rows(parts)
    obs = torch.tensor(rows[:10], dtype=torch.float32)
    expected = (rows[:10] - rows.mean(0)) / rows.std(0)
    assert normalizer(obs).dtype == torch.float32
    np.testing.assert_allclose(normalizer(obs), expected, atol=1e-5)
    np.testing.assert_allclose(normalizer(obs.view(2, 5, 3)), expected.reshape(2, 5, 3), atol=1e-5)


def test_observations_are_cut_at_ten_deviations():
    normalizer = ObsNormalizer(1)
    normalizer.update(torch.tensor([[-1.0], [1.0]]))
    obs = torch.tensor([[-1e9], [-10.1], [-9.5], [9.5], [10.1], [1e9]])
    assert normalizer(obs).flatten().tolist() == pytest.approx([-10, -10, -9.5, 9.5, 10, 10])


@pytest.mark.parametrize("number", [0.3, 7.7, -12345.678])
def test_a_feature_that_has_never_varied_is_centred_and_not_scaled(number):
    normalizer = ObsNormalizer(1)
    for rows in (7, 1, 128):
        normalizer.update(torch.full((rows, 1), number))
    assert normalizer(torch.tensor([number])).item() == 0
    assert normalizer(torch.tensor([number + 0.5])).item() == pytest.approx(0.5, abs=1e-3)


def test_a_feature_that_has_hardly_varied_is_scaled_up_to_a_limit():
    # A variance of 1e-8 is doubled by what is added to it.
    normalizer = ObsNormalizer(1)
    normalizer.update(torch.tensor([[-1e-4], [1e-4]], dtype=torch.float64))
    assert normalizer(torch.tensor([1e-4])).item() == pytest.approx(0.5**0.5)


def test_looking_at_observations_does_not_count_them():
    normalizer = ObsNormalizer(2)
    normalizer(torch.ones(5, 2))
    assert normalizer.count.item() == 0


def test_actor_and_critic_look_through_one_normaliser_that_both_save():
    trainer = PPO("Pendulum-v1", SMALL)
    normalizer = trainer.policy.net[0]
    assert isinstance(normalizer, ObsNormalizer)
    assert trainer.critic.net[0] is normalizer
    trainer.learn()
    for network in (trainer.policy, trainer.critic):
        state = network.state_dict()
        # The first observations of four environments, and then every step's.
        assert state["net.0.count"].item() == 4 + 96
        for name in ("mean", "var", "center", "scale"):
            assert torch.equal(state[f"net.0.{name}"], getattr(normalizer, name))


def test_statistics_are_nothing_that_is_trained():
    # 3 features, 8 hidden units, 1 action or value; the Gaussian has a width of its own.
    policy, critic = 3 * 8 + 8 + 8 + 1 + 1, 3 * 8 + 8 + 8 + 1
    sizes = [p.numel() for p in PPO("Pendulum-v1", SMALL).parameters]
    assert sum(sizes) == policy + critic


def test_without_being_asked_for_nothing_is_normalised():
    plain = dataclasses.replace(SMALL, normalize_obs=False, normalize_rewards=False)
    trainer, rollouts = learn_and_watch(plain)
    for network in (trainer.policy, trainer.critic):
        assert not any(isinstance(module, ObsNormalizer) for module in network.modules())
    assert trainer.reward_normalizer is None
    obs = rollouts[0].obs
    first, _, last = trainer.policy.net
    by_hand = torch.tanh(obs @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(trainer.policy(obs)[..., :1], by_hand)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_statistics_are_those_of_all_observations_collected(env_id):
    trainer, rollouts = learn_and_watch(env_id=env_id)
    rows, normalizer = counted(rollouts), trainer.policy.net[0]
    assert len(rows) == 100 == normalizer.count.item()
    np.testing.assert_allclose(normalizer.mean, rows.mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(normalizer.var, rows.var(0), rtol=1e-10)


def test_the_statistics_change_only_between_two_updates():
    trainer, seen = PPO("Pendulum-v1", SMALL), []
    for network in (trainer.policy, trainer.critic):
        network.register_forward_pre_hook(
            lambda *_: seen.append((trainer.env_steps, trainer.policy.net[0].count.item()))
        )
    trainer.learn()
    # An update looks 8 times to act, twice for the values, and twice at each of 8 minibatches.
    assert seen == [(steps, 4 + steps) for steps in (0, 32, 64) for _ in range(8 + 2 + 16)]


def test_evaluation_looks_through_the_normaliser_too():
    trainer, rollouts = learn_and_watch(
        dataclasses.replace(SMALL, learning_rate=0.3, max_grad_norm=50.0)
    )
    rows = counted(rollouts)
    hidden, last = (
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in (trainer.policy.net[1], trainer.policy.net[3])
    )

    def play(mean, std):
        env, total, over = gym.make("Pendulum-v1"), 0.0, False
        obs, _ = env.reset(seed=7)
        while not over:
            seen = ((obs - mean) / std).clip(-10, 10)
            action = last[0] @ np.tanh(hidden[0] @ seen + hidden[1]) + last[1]
            obs, reward, terminated, truncated, _ = env.step(action.clip(-2, 2).astype(np.float32))
            total, over = total + reward, terminated or truncated
        return total

    earned = evaluate(trainer.policy, "Pendulum-v1", num_episodes=1, seed=7).item()
    assert earned == pytest.approx(play(rows.mean(0), rows.std(0)), rel=1e-4)
    assert earned != pytest.approx(play(0, 1), rel=1e-2)


def test_first_observations_centre_and_scale_down_but_never_up():
    # Deviations of 200, 0.02 and 0 around 1000, 5 and 7.
    normalizer = ObsNormalizer(3)
    normalizer.start(torch.tensor([[800.0, 4.98, 7.0], [1200.0, 5.02, 7.0]]))
    found = normalizer(torch.tensor([[1400.0, 5.5, 9.0]]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.5, 2.0]]))
    # Later rows count with them, and then as always.
    normalizer.update(torch.tensor([[1000.0, 5.0, 7.0]] * 2))
    expected = torch.tensor([[400 / 2e4**0.5, 0.5 / 2e-4**0.5, 2.0]]).clamp(-10, 10)
    torch.testing.assert_close(normalizer(torch.tensor([[1400.0, 5.5, 9.0]])), expected)


@pytest.mark.parametrize("offset", [-1000.0, 1000.0])
def test_the_first_rollout_already_tells_far_observations_apart(offset):
    trainer = PPO(lambda: Once(offset, dies=False), SMALL)
    seen = []
    hook = trainer.policy.net[1].register_forward_pre_hook(lambda _, x: seen.append(x[0].clone()))
    trainer.collect()
    hook.remove()
    assert len(seen) == 8
    for obs in seen:
        assert sorted(obs.flatten().tolist()) == pytest.approx([-1, -1, 1, 1], abs=1e-4)


def test_one_observation_before_is_enough_for_a_normaliser_to_have_begun():
    normalizer = ObsNormalizer(1)
    normalizer.update(torch.tensor([[3.0]]))
    normalizer.start(torch.tensor([[5.0], [9.0]]))
    assert (normalizer.count.item(), normalizer.mean.item()) == (1, 3)


def test_an_experienced_normaliser_that_is_handed_over_keeps_its_scale():
    first, _ = learn_and_watch(env_id="CartPole-v1")
    normalizer = first.policy.net[0]
    scale = normalizer.scale.clone()
    assert (scale > 1).any()
    second = PPO("CartPole-v1", SMALL, policy=first.policy)
    assert torch.equal(second.policy.net[0].scale, scale)


# ------------------------------------------------------------------ rewards


class Paid(NamedTuple):
    """What of a rollout a normaliser looks at."""

    rewards: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    mask: torch.Tensor


def paid(rewards, terminated, truncated):
    return Paid(rewards, terminated, truncated, torch.ones_like(terminated))


def scale(normalizer, rollout):
    return normalizer(rollout.rewards, rollout.terminated | rollout.truncated, rollout.mask)


def forward_sums(rewards, ended, gamma):
    """Σ_k γ^k r_{t-k} over the steps of t's episode, by a loop over episodes; [T, N]."""
    sums = np.zeros(rewards.shape)
    for column in range(rewards.shape[1]):
        start = 0
        for t in range(rewards.shape[0]):
            weights = gamma ** np.arange(t - start, -1, -1.0)
            sums[t, column] = weights @ rewards[start : t + 1, column]
            if ended[t, column]:
                start = t + 1
    return sums


# Column 0 ends by the world, column 1 by a time limit, column 2 by both, column 3 never; of the
# rollouts' six steps, an end at the last one must not be carried over either.
ENDS = {
    "terminated": [[(1, 0), (3, 0), (5, 2)], [(0, 0), (5, 0)]],
    "truncated": [[(2, 1), (5, 2)], [(4, 1), (2, 2)]],
}


def two_rollouts(offset):
    rewards = [offset + x.float() for x in batches([(6, 4), (6, 4)], seed=3)]
    flags = {name: [torch.zeros(6, 4, dtype=torch.bool) for _ in range(2)] for name in ENDS}
    for name, both in ENDS.items():
        for flag, places in zip(flags[name], both, strict=True):
            for place in places:
                flag[place] = True
    return [paid(*fields) for fields in zip(rewards, *flags.values(), strict=True)]


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_rewards_are_divided_by_the_deviation_of_their_discounted_sums(gamma):
    rollouts = two_rollouts(offset=2.0)
    rewards = np.concatenate([rollout.rewards.double().numpy() for rollout in rollouts])
    ended = np.concatenate([(r.terminated | r.truncated).numpy() for r in rollouts])
    sums = forward_sums(rewards, ended, gamma)
    normalizer = RewardNormalizer(4, gamma=gamma)
    for i, rollout in enumerate(rollouts):
        scaled = scale(normalizer, rollout)
        deviation = sums[: 6 * (i + 1)].std()
        assert scaled.dtype == torch.float32
        expected = (rollout.rewards / deviation).clip(-10, 10)
        np.testing.assert_allclose(scaled, expected, rtol=1e-5)
    assert normalizer.count.item() == 48
    assert normalizer.mean.item() == pytest.approx(sums.mean(), rel=1e-6)


def test_sums_begin_anew_after_an_end_and_go_on_over_a_rollouts_edge():
    # γ = 1/2 and rewards of 1: 1, 1.5 and, over the edge, 1.75; but 1 after an end.
    ones, no = torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool)
    last = torch.tensor([[False, False], [True, False]])
    for ends in ((last, no), (no, last), (last, last)):
        normalizer = RewardNormalizer(2, gamma=0.5)
        scale(normalizer, paid(ones, *ends))
        assert normalizer.mean.item() == pytest.approx((1 + 1.5 + 1 + 1.5) / 4)
        scale(normalizer, paid(ones, no, no))
        after_an_end, going_on = 1 + 1.5, 1.75 + 1.875
        assert normalizer.mean.item() == pytest.approx((5 + after_an_end + going_on) / 8)


def test_rewards_are_scaled_but_not_shifted():
    (rollout, _) = two_rollouts(offset=0.0)
    scaled = scale(RewardNormalizer(4, gamma=0.9), rollout)
    assert torch.equal(scaled.sign(), rollout.rewards.sign())
    nothing = paid(torch.zeros(6, 4), rollout.terminated, rollout.truncated)
    assert scale(RewardNormalizer(4, gamma=0.9), nothing).tolist() == torch.zeros(6, 4).tolist()


@pytest.mark.parametrize("gamma", [-0.01, 1.01, float("nan")])
def test_a_discount_out_of_range_is_refused(gamma):
    with pytest.raises(ValueError, match=r"^gamma is .*, expected a number in \[0, 1\]$"):
        RewardNormalizer(4, gamma=gamma)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_the_trainer_learns_from_scaled_rewards_and_reports_them_as_paid(env_id, monkeypatch):
    given = []

    def watched(rewards, *args, **kwargs):
        given.append(rewards)
        return gae(rewards, *args, **kwargs)

    monkeypatch.setattr("ppo_lib.ppo.gae", watched)
    config = dataclasses.replace(SMALL, num_steps=208, total_steps=3 * 832)
    trainer, rollouts = learn_and_watch(config, env_id)
    rewards = np.concatenate([rollout.rewards.double().numpy() for rollout in rollouts])
    ended = np.concatenate([(r.terminated | r.truncated).numpy() for r in rollouts])
    sums = forward_sums(rewards, ended, config.gamma)
    assert ended.any()
    for i, rollout in enumerate(rollouts):
        deviation = sums[: 208 * (i + 1)].std()
        expected = (rollout.rewards / deviation).clip(-10, 10)
        np.testing.assert_allclose(given[i], expected, rtol=1e-5, atol=1e-7)
    returns = [r for rollout in rollouts for r in rollout.episode_returns.tolist()]
    assert [r for _, r, _ in trainer.history.episodes] == returns
    whole = rewards[: np.argmax(ended[:, 0]) + 1, 0].sum()
    assert any(r == pytest.approx(whole, rel=1e-6) for r in returns)


def test_rewards_without_spread_are_bounded():
    # One step an episode that pays 1: the sums are 1, 1, 1, …, and 1 / √(0 + 1e-8) is 10,000.
    ends = torch.ones(6, 4, dtype=torch.bool)
    for sign in (1, -1):
        normalizer = RewardNormalizer(4, gamma=0.9)
        scaled = scale(normalizer, paid(sign * torch.ones(6, 4), ends, torch.zeros_like(ends)))
        assert scaled.unique().tolist() == [10 * sign]


class Far(gym.Env):
    """One step an episode, which pays 20 or 21, by the action."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 20.0 + float(action), True, False, {}


class Below(Far):
    """The same, which pays -20 or -21."""

    def step(self, action):
        obs, reward, *rest = super().step(action)
        return obs, -reward, *rest


def test_the_share_of_rewards_that_were_cut_is_in_the_history():
    # Their deviation is at most 0.5, so that 20 and 21 are at least 40 deviations: all are cut.
    config = dataclasses.replace(SMALL, normalize_rewards=True)
    for env in (Far, Below):
        cut = PPO(env, config).learn()["reward_clip_fraction"]
        assert cut.tolist() == [1.0] * config.num_updates
    history = PPO(Far, dataclasses.replace(config, normalize_rewards=False)).learn()
    assert "reward_clip_fraction" not in history.rows[0]
    # Of CartPole's rewards, all 1 in long episodes, none is near 10 deviations.
    assert PPO("CartPole-v1", config).learn()["reward_clip_fraction"].max() == 0


def test_rewards_with_hardly_any_spread_are_scaled_up_to_a_limit():
    # A variance of 1e-8 is doubled by what is added to it.
    rewards, no = torch.tensor([[1e-4, -1e-4]]), torch.zeros(1, 2, dtype=torch.bool)
    scaled = scale(RewardNormalizer(2, gamma=0.0), paid(rewards, no, no))
    assert scaled.tolist() == [pytest.approx([0.5**0.5, -(0.5**0.5)])]


@pytest.mark.parametrize("env", ["one step of CartPole", "one step an episode"])
def test_no_value_explodes_where_rewards_have_no_spread(env):
    steps = 1 if env == "one step of CartPole" else 8
    changes = {"num_steps": steps, "minibatch_size": 4, "total_steps": 40 * steps}
    config = dataclasses.replace(SMALL, **changes)
    history = PPO("CartPole-v1" if steps == 1 else Once, config).learn()
    # Half of (10 - V)² and not of (10,000 - V)².
    assert history["value_loss"].max() < 1000


def test_the_sums_of_running_episodes_are_none_of_a_normalizers_numbers():
    kept = RewardNormalizer(3, gamma=0.9).state_dict()
    assert "mean" in kept
    assert "sums" not in kept  # another trainer has as many as its environments


def test_sums_begin_anew_where_all_episodes_do():
    trainer = PPO("Pendulum-v1", SMALL)
    trainer.learn(lambda _: True)
    assert trainer.reward_normalizer.sums.all()
    trainer.start_episodes()
    assert not trainer.reward_normalizer.sums.any()


def test_a_row_in_which_an_environment_resets_itself_is_not_counted():
    ends = torch.tensor([[False], [True], [False], [False]])
    rollout = paid(torch.tensor([[1.0], [1.0], [0.0], [1.0]]), ends, torch.zeros_like(ends))
    rollout = rollout._replace(mask=torch.tensor([[True], [True], [False], [True]]))
    normalizer = RewardNormalizer(1, gamma=0.5)
    scale(normalizer, rollout)
    # The sums are 1 and 1.5, and 1 in the next episode.
    assert normalizer.count.item() == 3
    assert normalizer.mean.item() == pytest.approx(3.5 / 3)


def test_rows_of_another_width_and_no_rows_are_refused():
    normalizer = ObsNormalizer(3)
    with pytest.raises(ValueError, match=r"^obs has shape \(3, 1\), expected \(\.\.\., 3\)"):
        normalizer(torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"^rows has shape \(0, 3\), expected at least one row"):
        normalizer.update(torch.zeros(0, 3))
    for wrong in ([[1.0], [3.0]], [2.0] * 4, 5.0):
        with pytest.raises(ValueError, match=r"^rows has shape \(.*\), expected \(\.\.\., 3\)"):
            normalizer.update(torch.tensor(wrong))
    assert (normalizer.count, normalizer.mean.tolist()) == (0, [0, 0, 0])


@pytest.mark.parametrize("name", ["ended", "mask"])
def test_a_mask_of_another_shape_than_the_rewards_is_refused(name: str) -> None:
    masks = {"ended": torch.zeros(3, 2, dtype=torch.bool), "mask": torch.ones(3, 2).bool()}
    masks[name] = masks[name][:, :1]
    with pytest.raises(
        ValueError, match=rf"^{name} has shape \(3, 1\), expected \(3, 2\) as rewards has"
    ):
        RewardNormalizer(2, gamma=0.9)(torch.ones(3, 2), **masks)

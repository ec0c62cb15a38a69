"""The fleet against gymnasium's worlds, torch's Adam and `PPO`."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from ppo_lib import PPO, PPOConfig
from ppo_lib.book import climbs, worlds
from ppo_lib.book.fleet import Adam, Fleet, Rollout, earned


@pytest.mark.parametrize("climb", climbs.CLIMBS.values(), ids=str)
def test_a_world_moves_as_gymnasium_s_does(climb: climbs.Climb) -> None:
    world, dice = climb.world, np.random.default_rng(0)
    with gym.make(world.env_id) as made:
        env = made.unwrapped
        assert world.limit() == made.spec.max_episode_steps
        env.reset(seed=0)
        for _ in range(4):
            states = world.starts(50, dice)
            states *= dice.choice([1, 4, 20, 60, 400], states.shape)
            states[-2, -10:], states[-1, -10:] = np.linspace(0.2086, 0.2100, 10), 0  # nearly 12°
            if world is worlds.Pendulum:
                actions = list(dice.uniform(-4, 4, (50, 1)))  # beyond the bounds, too
            else:
                states[:2] = np.clip(states[:2], -3.1, 3.1)  # angles as gymnasium keeps them
                actions = [int(x) for x in dice.integers(env.action_space.n, size=50)]
            moved, rewards, died = world.moves(states, np.stack(actions))
            assert died.dtype == bool
            for i, action in enumerate(actions):
                env.state, env.steps_beyond_terminated = states[:, i].copy(), None
                obs, reward, terminated, _, _ = env.step(action)
                np.testing.assert_allclose(moved[:, i], env.state, atol=1e-12)
                np.testing.assert_allclose(world.sees(moved)[i], obs, atol=1e-6)
                # The torque is float32, and so is its square, a thousandth of which is paid.
                assert rewards[i] == pytest.approx(float(reward), abs=1e-8)
                assert died[i] == terminated


def test_a_world_has_to_say_how_it_moves_and_what_it_sees() -> None:
    with pytest.raises(NotImplementedError):
        worlds.World.moves(np.zeros((4, 1)), np.zeros(1))
    with pytest.raises(NotImplementedError):
        worlds.World.sees(np.zeros((4, 1)))


def test_episodes_start_where_gymnasium_s_do() -> None:
    for climb in climbs.CLIMBS.values():
        with gym.make(climb.world.env_id) as env:
            seen = []
            for seed in range(200):
                env.reset(seed=seed)
                seen.append(env.unwrapped.state)
        starts = climb.world.starts(200, np.random.default_rng(0))
        assert np.abs(starts).max(1) == pytest.approx(np.abs(seen).max(0), rel=0.1)


def test_copies_are_stepped_cut_and_reset_one_by_one() -> None:
    envs = worlds.Copies(worlds.Acrobot, 3)
    envs.reset(seed=5)
    first = envs.states.copy()
    with gym.make("Acrobot-v1").unwrapped as alone:
        alone.reset()
        alone.state = first[:, 1]
        seen, reward, *_ = alone.step(2)
    envs.counts[2] = 499
    obs, rewards, terminated, truncated, _ = envs.step(np.array([0, 2, 1]))
    np.testing.assert_allclose(obs[1], seen, atol=1e-6)
    assert rewards.tolist() == [reward] * 3 == [-1.0] * 3
    assert not terminated.any()
    assert truncated.tolist() == [False, False, True]
    before = envs.states.copy()
    envs.reset(options={"reset_mask": truncated})
    assert (envs.states[:, :2] == before[:, :2]).all()
    assert (envs.states[:, 2] != before[:, 2]).all()
    assert envs.counts.tolist() == [1, 1, 0]
    assert np.abs(envs.states[:, 2]).max() <= 0.1
    envs.reset(seed=5)
    assert (envs.states == first).all()


def test_adam_is_torch_s_and_who_sits_out_stays() -> None:
    torch.manual_seed(0)
    params = {"w": torch.randn(2, 3, 4, requires_grad=True)}
    twins = [p.clone().detach().requires_grad_() for p in params["w"]]
    adam = Adam(2)
    rates = (1e-2, 3e-3)
    theirs = [torch.optim.Adam([p], lr=r, eps=1e-5) for p, r in zip(twins, rates, strict=True)]
    for i in range(5):
        acts = torch.tensor([True, i % 2 == 0])
        params["w"].grad = torch.randn(2, 3, 4)
        adam.step(params, torch.tensor(rates), acts)
        for p, other, act, grad in zip(twins, theirs, acts, params["w"].grad, strict=True):
            p.grad = grad.clone()
            if act:
                other.step()
    for p, twin in zip(params["w"], twins, strict=True):
        torch.testing.assert_close(p, twin, rtol=1e-5, atol=1e-7)


def flat(params: dict[str, Tensor], agent: int) -> Tensor:
    return torch.cat([p[agent].detach().flatten() for p in params.values()])


def weights(module: torch.nn.Module) -> Tensor:
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def pair(seed: int, rung: str, **numbers: float) -> tuple[PPO, climbs.Learner]:
    """A `PPO` and a fleet of two whose second agent starts as it does."""
    config = PPOConfig(seed=seed, minibatch_size=512, **numbers)
    ppo = PPO("CartPole-v1", config)
    learner = climbs.Learner(Fleet(worlds.CartPole, config, (seed + 1, seed)), climbs.RUNGS[rung])
    learner.acts = torch.tensor([True, True])
    learner.rates = torch.full((2,), config.learning_rate)
    return ppo, learner


def both(ppo: PPO) -> tuple[Rollout, object]:
    """A rollout of the trainer's, and the same for both agents of a fleet."""
    rollout = ppo.collect()
    columns = {"dist_params", "obs", "actions", "rewards", "next_obs", "terminated", "truncated"}
    twice = {name: torch.stack([getattr(rollout, name)] * 2, dim=1) for name in columns}
    return Rollout(**twice), rollout


@pytest.mark.parametrize("rung", ["reuse", "kl", "clip", "ppo"])
def test_an_agent_of_a_fleet_takes_the_steps_of_ppo(rung: str) -> None:
    restraint = {
        "reuse": {"loss": "kl", "kl_coef": 0.0},
        "kl": {"loss": "kl", "kl_coef": 1.0, "adaptive_kl_target": 1e-4},
        "clip": {},
        "ppo": {},
    }[rung]
    limit = {} if rung == "ppo" else {"max_grad_norm": 1e9}
    ppo, learner = pair(3, rung, **restraint, **limit, learning_rate=1e-2)
    fleet = learner.fleet
    assert torch.equal(flat(fleet.actor, 1), weights(ppo.policy))
    assert torch.equal(flat(fleet.critic, 1), weights(ppo.critic))
    before = weights(ppo.policy)
    for _ in range(2):
        twice, rollout = both(ppo)
        counts = torch.ones_like(twice.terminated)
        with torch.no_grad():
            estimates = learner.estimates(twice, counts)
        learner.update((twice, *estimates, counts))
        ppo.update(rollout)
    moved = weights(ppo.policy) - before
    torch.testing.assert_close(
        flat(fleet.actor, 1), weights(ppo.policy), rtol=0, atol=2e-3 * float(moved.abs().max())
    )
    torch.testing.assert_close(flat(fleet.critic, 1), weights(ppo.critic), rtol=0, atol=1e-3)
    assert learner.kl_coef[1] == pytest.approx(ppo.kl_coef) or rung in ("clip", "ppo")
    assert not torch.equal(flat(fleet.actor, 0), flat(fleet.actor, 1))


def test_nothing_passes_between_agents() -> None:
    alone, beside = (Fleet(worlds.CartPole, PPOConfig(), seeds) for seeds in ((5,), (5, 6, 7)))
    obs = torch.randn(3, 10, 4)
    for fleet, seen in ((alone, obs[:1]), (beside, obs)):
        acts = torch.ones(fleet.size, dtype=torch.bool)
        target = torch.arange(10.0)
        loss = (fleet.value(seen) - target).square().mean(dim=1)
        fleet.descend(loss, torch.full((fleet.size,), 1e-2), acts, max_norm=0.5)
    torch.testing.assert_close(flat(alone.critic, 0), flat(beside.critic, 0))


def test_a_gradient_is_scaled_down_to_its_limit_and_never_up() -> None:
    obs, acts = torch.randn(2, 10, 4), torch.tensor([True, True])

    def norms(max_norm: float | None) -> list[float]:
        fleet = Fleet(worlds.CartPole, PPOConfig(), (5, 6))
        loss = fleet.value(obs).square().mean(dim=1) + fleet.policy(obs).square().mean(dim=(1, 2))
        fleet.descend(loss, torch.zeros(2), acts, max_norm)
        # Adam keeps a tenth of its first gradient.
        kept = [10 * m.flatten(1) for adam in fleet.adams for m, _ in adam.moments.values()]
        return torch.cat(kept, dim=1).norm(dim=1).tolist()

    whole = norms(None)
    assert norms(1.5 * max(whole)) == pytest.approx(whole)
    assert norms(0.5 * min(whole)) == pytest.approx([0.5 * min(whole)] * 2, rel=1e-4)


def test_minibatches_hold_each_row_once_and_those_of_no_step_last() -> None:
    fleet = Fleet(worlds.CartPole, PPOConfig(minibatch_size=4), (0, 1))
    rows = torch.stack([torch.arange(10), torch.arange(10, 20)])
    absent = torch.zeros(2, 10, dtype=torch.bool)
    absent[1, :7] = True
    drawn = torch.cat([mb[0] for mb in fleet.minibatches((rows,), absent)], dim=1)
    assert drawn.sort(dim=1).values.tolist() == rows.tolist()
    assert set(drawn[1, :3].tolist()) == {17, 18, 19}
    assert drawn[0].tolist() != rows[0].tolist()
    assert not any(x.requires_grad for x in fleet.snapshot().values())
    again = Fleet(worlds.CartPole, PPOConfig(minibatch_size=4), (0, 1))
    assert (
        drawn.tolist()
        == torch.cat([mb[0] for mb in again.minibatches((rows,), absent)], dim=1).tolist()
    )


def test_rollouts_go_on_and_episodes_are_whole() -> None:
    fleet = Fleet(worlds.CartPole, PPOConfig(num_envs=3), (0, 1))
    rollout = fleet.collect()
    assert rollout.obs.shape == (64, 2, 3, 4)
    ended = rollout.terminated | rollout.truncated
    assert ended.any()
    same = (rollout.next_obs[:-1] == rollout.obs[1:]).all(-1)
    assert torch.equal(same, ~ended[:-1])
    assert (rollout.obs[1:][ended[:-1]].abs() <= 0.05).all()
    assert (rollout.next_obs[rollout.terminated][:, 2].abs() > 0.2).any()
    since = torch.zeros(2, 3, dtype=torch.int64)
    for ends in ended:
        since = (since + 1) * ~ends
    assert fleet.counts.tolist() == since.flatten().tolist()
    fleet.counts[:] = 400
    fleet.counts[[0, 4]] = 499, 498
    fleet.states = fleet._starts()  # from where no one falls in two steps
    cut = fleet.collect().truncated[:2].view(2, 6)
    assert cut.nonzero().tolist() == [[0, 0], [1, 4]]
    episodes = fleet.collect(np.array([True, False]))
    assert (episodes.obs[0].abs() <= 0.05).all()
    assert episodes.terminated[:, 0].any(dim=0).all()
    assert episodes.terminated[-1, 0].any()


@pytest.mark.parametrize("world", [worlds.CartPole, worlds.Pendulum])
def test_a_fleet_s_networks_are_those_of_each_agent_and_a_snapshot_stays(world) -> None:
    fleets = [Fleet(world, PPOConfig(), seeds) for seeds in ((5,), (6,), (5, 6))]
    obs = fleets[2].collect().obs[0]
    policies, critics = zip(*(fleet.modules for fleet in fleets[:2]), strict=True)
    for found, networks in ((fleets[2].policy(obs), policies), (fleets[2].value(obs), critics)):
        expected = torch.stack([f(x) for f, x in zip(networks, obs, strict=True)])
        torch.testing.assert_close(found, expected)
    kept = fleets[2].snapshot()
    before = flat(kept, 1)
    for param in fleets[2].actor.values():
        param.data += 1
    assert torch.equal(flat(kept, 1), before)


def test_what_a_policy_earns_is_what_its_episodes_pay() -> None:
    fleet = Fleet(worlds.CartPole, replace(PPOConfig(), seed=0), (0, 1))
    names = dict(fleet.modules[0].named_parameters())
    for name, param in names.items():
        fleet.actor[name].data[0] = 0.0 * param  # the first action always
    earned_by = earned(fleet, fleet.snapshot(), 30, np.random.default_rng(0))
    assert 8 < float(earned_by[0]) < 11  # it falls after about nine steps

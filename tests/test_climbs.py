"""The ladder: one change a rung, each gradient against sums written out here, and its data."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ppo_lib import PPOConfig
from ppo_lib.book import climbs, worlds
from ppo_lib.book.climbs import Learner, Rung
from ppo_lib.book.evidence import chance
from ppo_lib.book.fleet import Fleet

DATA = Path(__file__).resolve().parents[1] / "book" / "_data"
GAMMA, LAMBDA = 0.98, 0.95


# -- the rungs -----------------------------------------------------------------------------


def test_every_rung_changes_one_thing_of_an_earlier_one() -> None:
    names = list(climbs.RUNGS)
    assert names[0] == "return"
    for name, (below, changes) in climbs.STEPS.items():
        assert names.index(below) < names.index(name)
        assert len(changes) == 1
        differ = {
            field.name
            for field in fields(Rung)
            if getattr(climbs.RUNGS[name], field.name) != getattr(climbs.RUNGS[below], field.name)
        }
        assert differ == set(changes)


class Plain(Learner):
    """A learner whose actor takes the gradient itself as its step, and whose critic stays."""

    def __init__(self, rung: str) -> None:
        super().__init__(Fleet(worlds.CartPole, PPOConfig(), (1, 2)), climbs.RUNGS[rung])
        self.fleet.descend = self.keep
        self.gradients: list[Tensor] = []

    def keep(self, loss: Tensor, *_: object) -> None:
        """The first gradient of each network, ``[S, …]`` flattened."""
        loss.sum().backward()
        for network in (self.fleet.actor, self.fleet.critic):
            grads = [param.grad for param in network.values()]
            if grads[0] is not None:
                self.gradients.append(torch.cat([grad.flatten(1) for grad in grads], dim=1))
            for param in network.values():
                param.grad = None


def score(agent: Fleet, s: int, obs: Tensor, action: int) -> Tensor:
    """∇ log π_θ(a | s) of a single step of agent s, in float64."""
    actor = {name: param[s] for name, param in agent.actor.items()}
    logits = torch.func.functional_call(agent.modules[0], actor, (obs,))
    grads = torch.autograd.grad(logits.log_softmax(-1)[action], list(agent.actor.values()))
    return torch.cat([grad[s].flatten() for grad in grads]).double()


@pytest.mark.parametrize("rung", ["return", "causal", "reward_to_go", "baseline"])
def test_gradient_of_episodes_is_the_sum_over_steps(rung: str) -> None:
    learner = Plain(rung)
    agent, (rollout, *rest) = learner.fleet, learner.collect()
    values = learner._values(rollout.obs)
    expected = torch.zeros(agent.actor["net.0.weight"].shape[0], 0)
    sums = []
    lengths = rollout.terminated.float().argmax(dim=0) + 1
    assert len(set(lengths.flatten().tolist())) > 1, "no episode is padded"
    for s in range(2):
        total = 0.0
        for n in range(8):
            length = int(lengths[s, n])
            r = rollout.rewards[:length, s, n].tolist()
            for t in range(length):
                first = 0 if rung == "return" else t
                weight = sum(GAMMA ** (i - first) * r[i] for i in range(first, length))
                weight *= GAMMA**t if rung == "causal" else 1
                if rung == "baseline":
                    weight -= values[t, s, n].item()
                action = int(rollout.actions[t, s, n])
                total = total + weight * score(agent, s, rollout.obs[t, s, n], action) / 8
        sums.append(total)
    learner.update((rollout, *rest))
    expected = -torch.stack(sums)
    found = learner.gradients[0].double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max())
    assert learner.env_steps.tolist() == lengths.sum(dim=1).tolist()
    assert (len(learner.gradients) > 1) == (rung == "baseline")


@pytest.mark.parametrize("rung", ["pieces", "one_step", "gae", "targets", "standardise"])
def test_gradient_of_pieces_is_the_mean_over_steps(rung: str) -> None:
    learner = Plain(rung)
    agent, (rollout, weights, targets, counts) = learner.fleet, learner.collect()
    ended = rollout.terminated | rollout.truncated
    assert ended.any(), "no episode ends in the rollout"
    v, next_v = learner._values(rollout.obs), learner._values(rollout.next_obs)
    delta = rollout.rewards + GAMMA * next_v * ~rollout.terminated - v

    def summed(decay: float) -> Tensor:
        later, rows = torch.zeros_like(v[0]), []
        for t in reversed(range(64)):
            later = delta[t] + GAMMA * decay * later * ~ended[t]
            rows.append(later)
        return torch.stack(rows[::-1])

    actor = {"pieces": 1.0, "one_step": 0.0}.get(rung, LAMBDA)
    critic = LAMBDA if rung in ("targets", "standardise") else 1.0
    torch.testing.assert_close(weights, summed(actor), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(targets, summed(critic) + v, rtol=1e-4, atol=1e-5)
    learner.update((rollout, weights, targets, counts))
    w = weights[:, 1]
    if rung == "standardise":
        w = (w - w.mean()) / w.std()
    steps = ((t, n) for t in range(64) for n in range(8))
    expected = -sum(
        w[t, n] * score(agent, 1, rollout.obs[t, 1, n], int(rollout.actions[t, 1, n]))
        for t, n in steps
    )
    found = learner.gradients[0][1].double()
    torch.testing.assert_close(
        found, expected / 512, rtol=1e-4, atol=1e-4 * float(expected.abs().max()) / 512
    )


def test_run_evaluates_on_the_way_and_learns() -> None:
    runs = climbs.run("ppo", range(4), total_steps=6000)
    assert (runs.rung, runs.seeds) == ("ppo", (0, 1, 2, 3))
    assert runs.steps.tolist() == [0, 938, 1877, 2816, 3754, 4693, 5632]
    assert runs.returns.shape == (4, 7)
    assert runs.finals.mean() > 3 * runs.returns[:, 0].mean() or runs.finals.mean() > 100


def test_every_agent_learns_until_its_budget_is_spent(monkeypatch) -> None:
    learners = []

    class Watched(Learner):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            learners.append(self)

    monkeypatch.setattr(climbs, "Learner", Watched)
    climbs.run("return", range(12), total_steps=1024)
    (learner,) = learners
    assert len(set(learner.env_steps.tolist())) > 1
    assert learner.env_steps.min() >= 1024


def test_what_is_evaluated_is_what_an_agent_was_at_each_step(monkeypatch) -> None:
    agents, asked = [], []

    class Watched(Learner):
        def update(self, data: tuple) -> None:
            agents.append(self.fleet.snapshot()["net.0.weight"])
            super().update(data)

    def earned(fleet: Fleet, actors: dict, episodes: int, dice: np.random.Generator) -> Tensor:
        asked.append((actors["net.0.weight"].clone(), episodes, dice.bit_generator.state))
        agents.append(fleet.snapshot()["net.0.weight"])
        return torch.zeros(len(asked[-1][0]))

    monkeypatch.setattr(climbs, "Learner", Watched)
    monkeypatch.setattr(climbs, "earned", earned)
    runs = climbs.run("gae", (4, 5), total_steps=2048)
    assert runs.steps.tolist() == [0, 341, 682, 1024, 1365, 1706, 2048]
    # Updates of 512 steps: how many were over at each of these.
    (every, few, state), (last, many, _) = asked
    for i, over in enumerate([0, 0, 1, 2, 2, 3, 4]):
        assert torch.equal(every[2 * i : 2 * i + 2], agents[over]), i
    assert torch.equal(last, agents[4])
    assert len(agents) == 4 + 2
    assert (few, many) == (5, 20)
    assert state == np.random.default_rng(1_000_004).bit_generator.state


def test_who_has_no_step_in_a_minibatch_of_the_critic_sits_it_out() -> None:
    learner = Learner(Fleet(worlds.CartPole, PPOConfig(), (1, 2)), climbs.RUNGS["baseline"])
    assert learner.learning_rates.tolist() == pytest.approx([2e-3] * 2)
    learner.acts, learner.rates, who = torch.tensor([True, True]), torch.ones(2), []
    losses = []
    learner.fleet.descend = lambda loss, _, acts: (losses.append(loss.tolist()), who.append(acts))
    learner.fleet.value = lambda x: torch.ones(x.shape[:2])
    counts = torch.zeros(2, 256, dtype=torch.bool)
    counts[0, :129] = counts[1, :100] = True
    learner._fit_critic(torch.zeros(2, 256, 4), torch.full((2, 256), 3.0), counts)
    # Four passes over minibatches of 128; in the second one step is left, and none.
    assert [acts.tolist() for acts in who] == [[True, True], [True, False]] * 4
    assert losses == [[2.0, 2.0], [2.0, 0.0]] * 4


def test_the_rate_falls_linearly_to_0_over_the_budget_of_each_agent() -> None:
    for anneal, expected in ((True, [0.4, 0.4, 0.0]), (False, [0.4, 0.8, 0.8])):
        config = PPOConfig(total_steps=1024, anneal_learning_rate=anneal)
        learner = Learner(
            Fleet(worlds.CartPole, config, (1, 2, 3)), climbs.RUNGS["gae"], [0.4, 0.8, 0.8]
        )
        learner.env_steps = np.array([0, 512, 1024])
        learner.collect()
        assert learner.rates.tolist() == pytest.approx(expected)
        assert learner.acts.tolist() == [True, True, False]


def test_run_is_the_same_twice_and_rates_are_each_agent_s_own() -> None:
    first = climbs.run("return", (0, 1), total_steps=600)
    again = climbs.run("return", (0, 1), total_steps=600, learning_rate=2e-3)
    assert first.finals.tolist() == again.finals.tolist()
    rates = climbs.run("pieces", (0, 0), total_steps=600, learning_rate=[1e-3, 1e-1])
    assert rates.returns[0, 0] == rates.returns[1, 0] or rates.returns[0, 0] > 5
    assert rates.finals[0] != rates.finals[1]
    assert climbs.run("gae", total_steps=512).seeds == (0,)


@pytest.mark.parametrize(
    ("rung", "numbers", "message"),
    [
        ("actor", {}, "rung is 'actor', expected one of return, causal, .*ppo"),
        ("gae", {"climb": "hill"}, "climb is 'hill', expected one of cartpole"),
        ("gae", {"total_steps": 0}, "total_steps is 0, expected an integer of at least 1"),
        ("return", {"total_steps": 511}, "total_steps is 511, expected at least .* = 512"),
        ("clip", {"seeds": (-1,)}, "seed is -1, expected an integer from 0 to"),
        ("clip", {"learning_rate": 0.0}, r"learning_rate is 0\.0, expected numbers above 0"),
        (
            "clip",
            {"seeds": (0, 1), "learning_rate": [1e-3, 0.0]},
            r"learning_rate is \[0\.001, 0\.0\], expected numbers above 0",
        ),
    ],
)
def test_wrong_arguments_are_refused(rung: str, numbers: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        climbs.run(rung, **numbers)


# -- what is stored --------------------------------------------------------------------------


def test_the_climbs_are_those_whose_runs_are_stored() -> None:
    found = {name: tuple(climb) for name, climb in climbs.CLIMBS.items()}
    assert found == {
        "cartpole": (worlds.CartPole, 15_360, 0.98, 6, 20),
        "acrobot": (worlds.Acrobot, 30_720, 0.99, 5, 20),
        "pendulum": (worlds.Pendulum, 61_440, 0.9, 5, 20),
    }
    assert climbs.HIDDEN_SIZES == (32, 32)


@pytest.mark.parametrize("climb", climbs.CLIMBS)
def test_stored_runs_are_complete_and_the_rates_were_chosen_on_others(climb: str) -> None:
    stored = climbs.load(DATA / f"ladder-{climb}.json")
    where = climbs.CLIMBS[climb]
    assert list(stored) == list(climbs.RUNGS)
    seeds = stored["ppo"].runs.seeds
    assert len(seeds) >= (50 if climb == "cartpole" else 5)
    for rung, s in stored.items():
        assert s.runs.rung == rung
        assert s.runs.seeds == seeds == tuple(range(len(seeds)))
        assert s.runs.steps.tolist() == where.steps.tolist()
        assert s.runs.returns.shape == (len(seeds), len(where.steps))
        assert tuple(s.tried) == climbs.RATES
        assert {len(areas) for areas in s.tried.values()} == {3}
        assert s.learning_rate == climbs.best(s.tried)


@pytest.mark.parametrize("climb", climbs.CLIMBS)
def test_the_second_climb_has_the_rates_of_the_first_and_other_seeds(climb: str) -> None:
    first, again = (climbs.load(DATA / f"ladder-{climb}{ending}.json") for ending in ("", "-again"))
    assert list(again) == list(first)
    for rung, s in again.items():
        assert s.learning_rate == first[rung].learning_rate
        assert s.runs.seeds == tuple(range(200, 200 + len(first[rung].runs.seeds)))
        assert s.runs.steps.tolist() == first[rung].runs.steps.tolist()


def test_a_step_compares_a_rung_with_the_one_that_it_changes() -> None:
    stored = climbs.load(DATA / "ladder-cartpole.json")
    clip, reuse, kl = (stored[rung].runs.finals for rung in ("clip", "reuse", "kl"))
    assert climbs.step(stored, "clip").share == np.mean(
        [(a > b) + 0.5 * (a == b) for a in clip for b in reuse]
    )
    assert climbs.step(stored, "kl") == chance(kl, reuse, comparisons=12)
    text = climbs.table(stored, ("return", "clip"))
    assert [line.count("|") for line in text.splitlines()] == [5] * 4
    assert f"| `reuse` | {climbs.step(stored, 'clip')} |" in text
    with pytest.raises(ValueError, match="rung is 'return', expected one of causal, "):
        climbs.step(stored, "return")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make climbs"):
        climbs.load(tmp_path / "ladder.json")

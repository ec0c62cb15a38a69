"""The best agent so far: when it is looked for, and which of several is kept."""

from types import SimpleNamespace

import pytest
import torch

from ppo_lib import best


@pytest.fixture
def trained(monkeypatch):
    """Train for six updates of ten steps, in which evaluations give these; what was written."""

    def run(means, every):
        left, written, asked = iter(means), [], []

        def evaluate(policy, env, **more):
            asked.append((policy, env, more))
            return torch.tensor([0.0, 2.0]) + next(left) - 1

        monkeypatch.setattr(best, "evaluate", evaluate)
        monkeypatch.setattr(best, "write_checkpoint", lambda _, state: written.append(state))
        trainer = SimpleNamespace(
            config=SimpleNamespace(batch_size=10, num_updates=6),
            history=SimpleNamespace(rows=[]),
            policy="the policy",
            env_steps=0,
        )
        trainer.state_dict = lambda: {"env_steps": trainer.env_steps}
        callback = best.KeepBest("a.pt", every, env="an id", num_episodes=3, seed=5)
        for steps in range(10, 70, 10):
            trainer.env_steps = steps
            trainer.history.rows.append({"env_steps": steps})
            assert callback(trainer) is None
        assert asked == [("the policy", "an id", {"num_episodes": 3, "seed": 5})] * len(asked)
        return trainer.history, [state["env_steps"] for state in written]

    return run


def test_an_agent_is_written_where_it_is_better_than_all_before_and_not_where_as_good(
    trained,
):
    history, written = trained([3.0, 3.0, 5.0, 4.0, 5.0, 6.0], every=10)
    assert written == [10, 30, 60]
    assert best.best_evaluation(history) == (60, 6.0)
    assert [row["evaluation"] for row in history.rows] == [3, 3, 5, 4, 5, 6]


def test_of_equally_good_agents_the_first_is_the_best(trained):
    history, written = trained([-2.0, -1.0, -1.0, -2.0, -1.0, -3.0], every=1)
    assert written == [10, 20]
    assert best.best_evaluation(history) == (20, -1.0)


@pytest.mark.parametrize(
    ("every", "steps"),
    [(10, [10, 20, 30, 40, 50, 60]), (20, [20, 40, 60]), (25, [30, 50, 60]), (99, [60])],
)
def test_evaluations_come_when_their_steps_are_passed_and_at_the_end(every, steps, trained):
    history, _ = trained(map(float, range(6)), every=every)
    assert [row["env_steps"] for row in history.rows if "evaluation" in row] == steps


def test_without_an_evaluation_there_is_no_best():
    assert best.best_evaluation(SimpleNamespace(rows=[{"env_steps": 10}])) is None


def test_numbers_below_1_are_refused():
    for every, episodes in ((1, 1), (2, 20)):
        best.KeepBest("a.pt", every, num_episodes=episodes)
    with pytest.raises(ValueError, match=r"^every is 0, expected at least 1$"):
        best.KeepBest("a.pt", 0)
    with pytest.raises(ValueError, match=r"^num_episodes is 0, expected at least 1$"):
        best.KeepBest("a.pt", 1, num_episodes=0)

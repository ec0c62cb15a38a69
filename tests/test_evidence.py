"""The statistics of runs: numbers by hand, and every way of drawing a few runs again."""

from itertools import combinations, product

import numpy as np
import pytest

from ppo_lib.book import evidence
from ppo_lib.book.evidence import Chance, chance, interval, middle, permutation_p


def test_middle_by_hand() -> None:
    assert middle(np.array([100.0, 0, 1, 2, 3, 4, 5, 6])) == (2 + 3 + 4 + 5) / 4
    assert middle(np.array([7.0, 1, 4, 2, 9])) == (2 + 4 + 7) / 3
    assert middle(np.array([5.0])) == 5
    columns = np.array([[0.0, 9], [1, 8], [5, 7], [100, 6]])
    assert middle(columns).tolist() == [3.0, 7.5]


def test_interval_is_that_of_all_ways_to_draw_four_runs_again() -> None:
    runs = np.array([1.0, 2.0, 4.0, 8.0])
    every = np.array(list(product(runs, repeat=4)))
    middles = np.sort(every, axis=1)[:, 1:3].mean(axis=1)
    assert interval(runs) == pytest.approx(np.quantile(middles, [0.025, 0.975]), abs=0.5)
    curves = np.stack([runs, -runs], axis=1)
    assert interval(curves)[:, 0].tolist() == interval(runs).tolist()
    assert interval(curves)[:, 1].tolist() == (-interval(runs)[::-1]).tolist()


def test_bootstraps_draw_as_often_as_the_stored_intervals_were_found_with() -> None:
    assert (evidence.DRAWS, evidence.DRAWS_OF_TAILS) == (4000, 10_000)


def test_chance_counts_pairs_and_ties_as_halves() -> None:
    assert chance(np.array([3.0, 5.0, 5.0]), np.array([4.0, 5.0])).share == 0.5
    assert chance(np.array([1.0]), np.array([0.0])).share == 1
    assert chance(np.array([3.0, 6.0]), np.array([4.0, 5.0, 7.0])).share == 2 / 6
    assert chance(np.arange(9.0) + 9, np.arange(9.0))[:3] == pytest.approx((1, 1, 1))


def test_interval_of_a_chance_is_that_of_all_ways_to_draw_the_runs_again() -> None:
    first, second = np.array([1.0, 3.0, 6.0]), np.array([2.0, 3.0, 4.0])
    again = [
        np.mean([(a > b) + 0.5 * (a == b) for a, b in product(x, y)])
        for x in product(first, repeat=3)
        for y in product(second, repeat=3)
    ]
    found = chance(first, second)
    assert (found.low, found.high) == pytest.approx(np.quantile(again, [0.025, 0.975]), abs=0.06)
    wider = chance(first, second, comparisons=12)
    assert wider.share == found.share
    assert chance(first, second, comparisons=1) == found
    assert wider.low <= found.low <= found.high <= wider.high


def test_an_interval_of_95_percent_leaves_out_a_fortieth_at_each_end() -> None:
    first, second = np.arange(40.0) + 10, np.arange(40.0)
    wins, rng = first[:, None] > second, np.random.default_rng(9)
    draws = (rng.integers(0, 40, (2, 40)) for _ in range(8000))
    again = [
        wins[np.ix_(x, y)].mean() + 0.5 * (first[x][:, None] == second[y]).mean() for x, y in draws
    ]
    found = chance(first, second)
    # The standard error of the share is 0.05, and an end at 5% would be a third of it away.
    assert (found.low, found.high) == pytest.approx(np.quantile(again, [0.025, 0.975]), abs=0.006)


def test_a_word_is_said_only_where_one_half_is_left_out() -> None:
    assert Chance(0.7, 0.51, 0.8).word == "more"
    assert Chance(0.3, 0.2, 0.49).word == "less"
    assert Chance(0.7, 0.5, 0.8).word == Chance(0.4, 0.2, 0.6).word == "undecided"
    assert Chance(0.3, 0.2, 0.5).word == "undecided"
    assert str(Chance(0.7, 0.514, 0.8)) == "0.70 (0.51 to 0.80), more"
    assert Chance(0.7, 0.51, 0.8, p=0.05).word == "more"
    assert Chance(0.7, 0.51, 0.8, p=0.06).word == "undecided"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1.0, 5.0, 6.0, 7.5, 9.0], [0.0, 2.0, 3.0, 4.0]),
        ([1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 2.0, 8.0, 8.0, 9.0]),  # with ties
        ([3.0, 3.0], [3.0, 3.0, 3.0]),
    ],
)
def test_p_counts_every_way_to_share_out_the_runs(first: list, second: list) -> None:
    runs, n = np.array(first + second), len(first)

    def apart(mine: tuple[int, ...]) -> float:
        others = [i for i in range(len(runs)) if i not in mine]
        wins = [np.sign(runs[i] - runs[j]) for i in mine for j in others]
        return abs(sum(wins))

    ways = [apart(mine) for mine in combinations(range(len(runs)), n)]
    share = np.mean([way >= apart(tuple(range(n))) for way in ways])
    assert permutation_p(np.array(first), np.array(second)) == pytest.approx(share)


def test_p_of_runs_that_are_all_above_the_others() -> None:
    low, high = np.arange(10.0), 20 + np.arange(10.0)
    assert permutation_p(low, high) == pytest.approx(2 / 184_756)  # 20 over 10
    assert chance(high, low, comparisons=5).p == pytest.approx(10 / 184_756)
    assert chance(high[:3], low[:3]).word == "undecided"  # two of twenty ways: one in ten


def test_wrong_arguments_are_refused() -> None:
    runs = np.zeros(3)
    with pytest.raises(ValueError, match=r"second has the shape \(0,\), expected one of"):
        chance(runs, np.zeros(0))
    with pytest.raises(ValueError, match=r"first has the shape \(3, 1\), expected one of"):
        chance(runs[:, None], runs)
    with pytest.raises(ValueError, match="comparisons is 0, expected at least 1"):
        chance(runs, runs, comparisons=0)


def test_area_is_the_mean_return_over_the_budget() -> None:
    curves = np.array([[1.0, 3.0, 99.0], [2.0, 2.0, 0.0]])
    assert evidence.area(np.array([0, 10, 40]), curves).tolist() == [2.5, 2.0]
    assert evidence.area(np.array([0, 10, 40]), curves[0]) == 2.5


def test_what_is_stored_is_read_and_who_writes_it_is_told(tmp_path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}')
    assert evidence.read_runs(tmp_path / "a.json", "make a") == {"x": 1}
    with pytest.raises(FileNotFoundError, match=r"b\.json, where no file is; `make b` writes it"):
        evidence.read_runs(tmp_path / "b.json", "make b")

"""Estimates beside real returns: what is said about them, by hand."""

import csv

import pytest

from momalit.studies.estimates import Judged, estimates_table, remarks, write_estimates


def team(run, estimate, real=None, outside=0.0, half=1.0, fitted_q=None):
    return Judged(run, "last", estimate, (estimate - half, estimate + half), outside, fitted_q, real, 0.0)


def test_without_real_returns_only_guesses_are_remarked_on():
    assert remarks([team("a", 1.0), team("b", 2.0)]) == []
    (sentence,) = remarks([team("a", 1.0, outside=0.3), team("b", 2.0)])
    assert sentence.startswith("1 of 2 teams are outside the data in more than 10 % of their steps")
    weak = team("a", 1.0)
    weak.reward_explained = 0.8
    assert remarks([weak])[0].startswith("The world model explains only 80% of the rewards' variance on held-out data")
    table = estimates_table([team("a", 1.0)])
    assert list(table.header) == ["team", "estimate", "95 % interval", "outside the data"]


def test_estimates_are_compared_with_real_returns():
    teams = [
        team("a", 10.0, 10.5, fitted_q=3.0),
        team("a", 12.0, 9.0, fitted_q=2.0),
        team("b", 20.0, 20.0, fitted_q=1.0),
        team("b", 19.0, 18.0, fitted_q=4.0),
    ]
    covered, rank, fitted, chosen = remarks(teams)
    assert covered == "3 of 4 intervals contain the real return"
    assert rank == "rank correlation with the real return: 0.80"
    assert fitted == "rank correlation of fitted-Q evaluation: -0.20"
    assert chosen == (
        "in 1 of 2 runs with several checkpoints, the one with the highest estimate is within 5 % of the best one;"
        " at worst 14 % less"
    )


@pytest.mark.parametrize("known", [True, False])
def test_files(known, tmp_path):
    write_estimates(tmp_path / "out", [team("a", 1.0, 1.5 if known else None), team("b", 2.0, 3.0 if known else None)])
    with (tmp_path / "out/estimates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["low"] for row in rows] == ["0.0", "1.0"]
    assert [row["real"] for row in rows] == (["1.5", "3.0"] if known else ["", ""])
    assert (tmp_path / "out/estimates.svg").is_file() is known


def test_equal_values_share_their_rank_and_constants_have_none():
    def correlation(estimates, real):
        found = remarks([team(str(i), e, r) for i, (e, r) in enumerate(zip(estimates, real, strict=True))])
        return [sentence for sentence in found if sentence.startswith("rank correlation")]

    assert correlation([1.0, 2.0, 3.0], [5.0, 5.0, 5.0]) == []
    # Ranks 1, 2.5, 2.5 and 1, 2, 3: covariance 1.5 over the root of 1.5 times 2.
    assert correlation([1.0, 2.0, 2.0], [5.0, 6.0, 7.0]) == ["rank correlation with the real return: 0.87"]

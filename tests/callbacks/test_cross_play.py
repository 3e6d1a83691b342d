"""Cross-play: which teams are stitched."""

import pytest

from callbacks.cross_play import team_assignments


def test_all_teams_where_they_are_few():
    teams = team_assignments(3, 2, 9)
    assert teams[:3] == [(0, 0), (1, 1), (2, 2)]
    assert sorted(teams) == [(a, b) for a in range(3) for b in range(3)]


def test_different_teams_are_drawn_where_they_are_many():
    teams = team_assignments(3, 4, 25)
    assert len(teams) == len(set(teams)) == 25
    assert teams[:3] == [(number,) * 4 for number in range(3)]
    assert all(len(set(team)) > 1 for team in teams[3:])
    assert teams == team_assignments(3, 4, 25)
    assert teams != team_assignments(3, 4, 25, seed=1)


@pytest.mark.parametrize("most", [1, 3])
def test_own_teams_are_always_there_and_one_stitched_one(most):
    assert len(team_assignments(3, 4, most)) == 4

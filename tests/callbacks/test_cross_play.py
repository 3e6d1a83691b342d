"""Cross-play: the selection of teams."""

import pytest

from callbacks.cross_play import team_assignments


def test_a_small_number_of_teams_is_enumerated():
    teams = team_assignments(3, 2, 9)
    assert teams[:3] == [(0, 0), (1, 1), (2, 2)]
    assert sorted(teams) == [(a, b) for a in range(3) for b in range(3)]


def test_a_large_number_of_teams_is_sampled_without_duplicates():
    teams = team_assignments(3, 4, 25)
    assert len(teams) == len(set(teams)) == 25
    assert teams[:3] == [(run,) * 4 for run in range(3)]
    assert all(len(set(team)) > 1 for team in teams[3:])
    assert teams == team_assignments(3, 4, 25)
    assert teams != team_assignments(3, 4, 25, seed=1)


@pytest.mark.parametrize("most", [1, 3])
def test_there_are_always_all_same_seed_teams_and_one_cross_play_team(most):
    assert len(team_assignments(3, 4, most)) == 4

"""Teams whose agents have different observations and actions."""

import pytest
import torch

from momalit.core.team import AgentSpec, TeamSpec


@pytest.fixture(autouse=True)
def seed():
    """Seeds the global generator before every test."""
    torch.manual_seed(0)


@pytest.fixture
def mixed_team():
    """Agent a observes columns 3, 1 and has one action component; b observes 0, 2, 4 and has two, with other bounds."""
    agents = (
        AgentSpec("a", (3, 1), 1, (-1.0,), (1.0,)),
        AgentSpec("b", (0, 2, 4), 2, (-2.0, 0.0), (2.0, 10.0)),
    )
    return TeamSpec("toy", agents, 5, False, 20, tuple(("state", i) for i in range(5)))


@pytest.fixture
def discrete_team():
    """Agent a has two actions, always legal; b has three, with their legality in columns 2..4 of the state."""
    agents = (AgentSpec("a", (0,), 2), AgentSpec("b", (0, 1), 3, legal=(2, 3, 4)))
    return TeamSpec("toy", agents, 5, True, 20, tuple(("state", i) for i in range(5)))

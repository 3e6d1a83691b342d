"""Teams whose agents differ in what they see and do."""

import pytest
import torch

from momalit.core.team import AgentSpec, TeamSpec


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every run."""
    torch.manual_seed(0)


@pytest.fixture
def mixed_team():
    """Agent a sees columns 3, 1 and has one action component; b sees 0, 2, 4 and has two, with other bounds."""
    agents = (
        AgentSpec("a", (3, 1), 1, (-1.0,), (1.0,)),
        AgentSpec("b", (0, 2, 4), 2, (-2.0, 0.0), (2.0, 10.0)),
    )
    return TeamSpec("toy", agents, 5, False, 20, tuple(("state", i) for i in range(5)))


@pytest.fixture
def choosing_team():
    """Agent a has two choices, always legal; b has three, whose legality columns 2..4 of the state give."""
    agents = (AgentSpec("a", (0,), 2), AgentSpec("b", (0, 1), 3, legal=(2, 3, 4)))
    return TeamSpec("toy", agents, 5, True, 20, tuple(("state", i) for i in range(5)))

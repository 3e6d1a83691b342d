"""``compiled`` changes how fast networks are, and nothing else."""

from __future__ import annotations

import pytest
import torch

from momalit.nn.ensemble import EnsembleNetwork
from tests.tiny import fit, weights


@pytest.mark.parametrize("kind", ["world_model", "moma_ppo"])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_switch_compiles_the_world_models_network_alone(kind, compiled, tiny_world_model, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: asked.append(type(self)))
    fit(kind, 1, tiny_world_model, compiled=compiled)
    assert asked == [EnsembleNetwork] * compiled


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler uses parts of Python that are about to go
@pytest.mark.parametrize("kind", ["world_model", "moma_ppo"])
def test_a_compiled_network_trains_like_a_plain_one_and_is_saved_like_it(kind, tiny_world_model):
    compiled, plain = (fit(kind, 2, tiny_world_model, compiled=which) for which in (True, False))
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(weights(compiled), weights(plain), rtol=1e-2, atol=1e-3)

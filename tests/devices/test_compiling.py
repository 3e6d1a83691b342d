"""``compiled`` changes the speed of networks but not their results."""

from __future__ import annotations

import pytest
import torch

from momalit.nn.ensemble import EnsembleNetwork
from tests.tiny import fit, flat_weights


@pytest.mark.parametrize("kind", ["world_model", "moma_ppo"])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_option_compiles_only_the_world_models_network(kind, compiled, tiny_world_model, monkeypatch):
    compiled_types = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled_types.append(type(self)))
    fit(kind, 1, tiny_world_model, compiled=compiled)
    assert compiled_types == [EnsembleNetwork] * compiled


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler uses deprecated parts of Python
@pytest.mark.parametrize("kind", ["world_model", "moma_ppo"])
def test_a_compiled_network_has_the_same_training_and_state_dict_as_an_uncompiled_one(kind, tiny_world_model):
    compiled, uncompiled = (fit(kind, 2, tiny_world_model, compiled=option) for option in (True, False))
    assert compiled.state_dict().keys() == uncompiled.state_dict().keys()
    torch.testing.assert_close(flat_weights(compiled), flat_weights(uncompiled), rtol=1e-2, atol=1e-3)

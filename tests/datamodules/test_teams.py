"""Episodes of trained teams as datasets."""

from __future__ import annotations

import pytest
import torch

from datamodules import OfflineDataModule, collect
from datamodules.builders.teams import TrainedTeams
from momalit.core.errors import UserError
from tests.tiny import fit


@pytest.fixture(scope="module")
def teams(tmp_path_factory, tiny_world_model):
    """Two teams of the coordination game: one that nearly always chooses 0, one that nearly always chooses 1."""
    paths = []
    for choice in (0, 1):
        folder = tmp_path_factory.mktemp("teams") / f"run{choice}"
        module = fit("moma_ppo", 1, tiny_world_model)
        with torch.no_grad():
            module.actor.head.weight.zero_()
            module.actor.head.bias.zero_()
            module.actor.head.bias[..., choice] = 4.0
        (folder / "checkpoints").mkdir(parents=True)
        module.trainer.strategy.connect(module)
        module.trainer.save_checkpoint(folder / "checkpoints/last.ckpt")
        paths.append(folder)
    return paths


def test_each_team_plays_an_equal_share_with_sampled_actions(teams, tmp_path):
    path = collect("icg", transitions=400, output=tmp_path / "data", teams=teams)
    data = OfflineDataModule(str(path))
    whole = data.trajectories
    assert len(whole.lengths) == 40
    choices = whole.action.argmax(-1)
    first, second = (choices[: len(choices) // 2], choices[len(choices) // 2 :])
    assert 0.0 < float(first.float().mean()) < 0.1
    assert 0.9 < float(second.float().mean()) < 1.0
    generator = data.provenance["generator"]
    assert generator["behaviour"] == "teams"
    assert [str(team / "checkpoints/last.ckpt") for team in teams] == generator["checkpoints"]


def test_the_same_seed_gives_the_same_episodes(teams, tmp_path):
    found = [
        OfflineDataModule(str(collect("icg", transitions=100, seed=seed, output=tmp_path / name, teams=teams[:1])))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert torch.equal(found[0].trajectories.action, found[1].trajectories.action)
    assert not torch.equal(found[0].trajectories.action, found[2].trajectories.action)


def test_agents_of_the_dataset_may_observe_something_else(teams, tmp_path):
    path = collect("icg", {"observability": "all"}, 100, output=tmp_path / "data", teams=teams[:1])
    assert len(OfflineDataModule(str(path)).spec.agents[0].observes) == 4


def test_mistakes(teams, tmp_path):
    with pytest.raises(UserError, match="output: found none, expected a new directory for what the teams do"):
        collect("icg", teams=teams)
    with pytest.raises(UserError, match="--policy: found one and --team, too, expected one of them"):
        collect("icg", policy="examples.own_policies:x", teams=teams, output=tmp_path / "x")
    with pytest.raises(UserError, match=r"does not fit the environment of reacher: its task is 'icg'"):
        collect("reacher", teams=teams, output=tmp_path / "x")
    with pytest.raises(UserError, match=r"data\.behaviour: found .* but recorded policies have no settings"):
        collect("icg", teams=teams, output=tmp_path / "x", behaviour={"mixed": 0.2})
    with pytest.raises(UserError, match=r"nothing.ckpt"):
        collect("icg", teams=[tmp_path / "nothing.ckpt"], output=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_path_is_a_checkpoint_or_a_run(teams):
    assert TrainedTeams(OfflineDataModule("icg/unfavourable", transitions=100).spec, teams).paths == [
        team / "checkpoints/last.ckpt" for team in teams
    ]

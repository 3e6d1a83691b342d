"""Tests the shipped policies and the datasets that they generate."""

import subprocess
import sys

import pytest
import torch

from datamodules.builders.actuators import actuators_of
from datamodules.builders.snapshots import (
    KINDS,
    POLICY_DIRECTORY,
    Snapshot,
    run_mixture,
    save_snapshot,
    select_snapshots,
)
from momalit.envs import make_env, team_spec


def spec_of(**settings):
    env = make_env("ant", **settings)
    try:
        return team_spec(env, "ant", settings)
    finally:
        env.close()


@pytest.fixture(scope="module")
def first() -> Snapshot:
    """The first and weakest snapshot, whose episodes are short."""
    return select_snapshots("ant", "full-replay")[0]


def test_snapshots_improve_over_training_and_are_small():
    snapshots = select_snapshots("ant", "full-replay")
    returns = [snapshot.metadata["return_sampled"] for snapshot in snapshots]
    steps = [snapshot.metadata["steps"] for snapshot in snapshots]
    assert steps == sorted(steps)
    assert returns[0] < 0.2 * max(returns)
    assert sum(snapshot.path.stat().st_size for snapshot in snapshots) < 8e6


def test_dataset_kinds_select_the_same_policies_as_d4rl():
    found = {kind: select_snapshots("ant", kind) for kind in KINDS}
    best = found["expert"][0].metadata["return_sampled"]
    assert best == max(snapshot.metadata["return_sampled"] for snapshot in found["full-replay"])
    assert found["medium"][0].metadata["return_sampled"] == pytest.approx(best / 2, rel=0.25)
    assert found["medium-expert"] == [*found["medium"], *found["expert"]]
    assert found["medium-replay"] == found["full-replay"][: len(found["medium-replay"])]
    assert found["medium-replay"][-1] == found["medium"][0]
    assert select_snapshots("reacher", "expert-mix") == select_snapshots("ant", "random") == []


def test_data_is_independent_of_the_number_of_processes(first):
    spec = spec_of()
    one_process = run_mixture(spec, [first], 300, seed=3, label="", workers=1)
    two_processes = run_mixture(spec, [first], 300, seed=3, label="", workers=2)
    other_seed = run_mixture(spec, [first], 300, seed=4, label="", workers=1)
    assert len(one_process) >= 300
    assert torch.equal(one_process.state, two_processes.state)
    assert torch.equal(one_process.action, two_processes.action)
    assert not torch.equal(one_process.state[: len(other_seed.state)], other_seed.state[: len(one_process.state)])


def test_another_factoring_gives_the_same_robot_actions(first):
    four, two = spec_of(), spec_of(factoring="2x4d")
    four_data = run_mixture(four, [first], 1, seed=0, label="", workers=1)
    two_data = run_mixture(two, [first], 1, seed=0, label="", workers=1)
    assert torch.equal(four_data.state, two_data.state)
    robot_actions = []
    for spec, data in ((four, four_data), (two, two_data)):
        merged = torch.zeros(len(data), 8)
        for i, actuators in enumerate(actuators_of(spec)):
            merged[:, actuators] = data.action[:, i]
        robot_actions.append(merged)
    assert torch.equal(*robot_actions)


def test_saved_policy_is_equal_up_to_half_precision(first, tmp_path):
    actor = first.actor()
    save_snapshot(actor, tmp_path / "0.safetensors", first.metadata)
    loaded = Snapshot.read(tmp_path / "0.safetensors")
    assert loaded.metadata == first.metadata
    assert POLICY_DIRECTORY in first.path.parents
    for name, value in loaded.actor().state_dict().items():
        torch.testing.assert_close(value, actor.state_dict()[name])


def test_script_without_main_guard_gets_a_hint(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from datamodules.builders.snapshots import run_mixture, select_snapshots\n"
        "snapshot = select_snapshots('ant', 'medium')[0]\n"
        "run_mixture(snapshot.spec, [snapshot], 1, seed=0, label='', workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "must run its code under `if __name__" in done.stderr.splitlines()[-1]

"""The policies that ship, and the data they make."""

import subprocess
import sys

import pytest
import torch

from datamodules.builders.actuators import actuators_of
from datamodules.builders.snapshots import FOLDER, KINDS, Snapshot, mixture, play_mixture, save_snapshot
from momalit.envs import make_env, team_spec


def spec_of(**settings):
    env = make_env("ant", **settings)
    try:
        return team_spec(env, "ant", settings)
    finally:
        env.close()


@pytest.fixture(scope="module")
def first() -> Snapshot:
    """The weakest, whose episodes are short."""
    return mixture("ant", "full-replay")[0]


def test_what_ships_goes_from_poor_to_good_and_is_small():
    members = mixture("ant", "full-replay")
    returns = [member.facts["return_sampled"] for member in members]
    steps = [member.facts["steps"] for member in members]
    assert steps == sorted(steps)
    assert returns[0] < 0.2 * max(returns)
    assert sum(member.path.stat().st_size for member in members) < 8e6


def test_the_kinds_are_d4rls():
    found = {kind: mixture("ant", kind) for kind in KINDS}
    best = found["expert"][0].facts["return_sampled"]
    assert best == max(member.facts["return_sampled"] for member in found["full-replay"])
    assert found["medium"][0].facts["return_sampled"] == pytest.approx(best / 2, rel=0.25)
    assert found["medium-expert"] == [*found["medium"], *found["expert"]]
    assert found["medium-replay"] == found["full-replay"][: len(found["medium-replay"])]
    assert found["medium-replay"][-1] == found["medium"][0]
    assert mixture("reacher", "expert-mix") == mixture("ant", "random") == []


def test_the_number_of_processes_does_not_change_the_data(first):
    spec = spec_of()
    alone = play_mixture(spec, [first], 300, seed=3, label="", workers=1)
    together = play_mixture(spec, [first], 300, seed=3, label="", workers=2)
    other = play_mixture(spec, [first], 300, seed=4, label="", workers=1)
    assert len(alone) >= 300
    assert torch.equal(alone.state, together.state)
    assert torch.equal(alone.action, together.action)
    assert not torch.equal(alone.state[: len(other.state)], other.state[: len(alone.state)])


def test_another_factoring_shares_out_the_same_actuators(first):
    four, two = spec_of(), spec_of(factoring="2x4d")
    a = play_mixture(four, [first], 1, seed=0, label="", workers=1)
    b = play_mixture(two, [first], 1, seed=0, label="", workers=1)
    assert torch.equal(a.state, b.state)
    for name, spec, found in (("four", four, a), ("two", two, b)):
        flat = torch.zeros(len(found), 8)
        for i, slots in enumerate(actuators_of(spec)):
            flat[:, slots] = found.action[:, i]
        if name == "four":
            expected = flat
    assert torch.equal(flat, expected)


def test_a_saved_policy_is_the_same_up_to_half_precision(first, tmp_path):
    actor = first.actor()
    save_snapshot(actor, tmp_path / "0.safetensors", first.facts)
    again = Snapshot.read(tmp_path / "0.safetensors")
    assert again.facts == first.facts
    assert FOLDER in first.path.parents
    for name, value in again.actor().state_dict().items():
        torch.testing.assert_close(value, actor.state_dict()[name])


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from datamodules.builders.snapshots import mixture, play_mixture\n"
        "member = mixture('ant', 'medium')[0]\n"
        "play_mixture(member.spec, [member], 1, seed=0, label='', workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "must begin its work under `if __name__" in done.stderr.splitlines()[-1]

import json
import time

import h5py
import minari
import pytest
import torch

from datamodules import OfflineDataModule, collect, read_dataset
from datamodules.names import builtin_names, dataset_id, datasets_root
from momalit.core.errors import UserError


def test_explicit_default_settings_give_the_same_dataset(momalit_home):
    plain = collect("icg/favourable", None, 100)
    assert collect("icg/favourable", {"n_agents": 2, "observability": "all"}, 100) == plain
    assert collect("icg/favourable", {"n_agents": 3}, 100) != plain


def test_same_seed_gives_same_contents(tmp_path):
    datasets = [read_dataset(collect("reacher/expert-mix", {}, 200, seed, tmp_path / name))
            for name, seed in (("a", 3), ("b", 3), ("c", 4))]  # fmt: skip
    assert datasets[0].sha256 == datasets[1].sha256 != datasets[2].sha256


def test_files_contain_no_time_stamps(tmp_path):
    collect("icg/favourable", {}, 20, 0, tmp_path / "a")
    time.sleep(1.1)  # HDF5 time stamps have a resolution of one second
    collect("icg/favourable", {}, 20, 0, tmp_path / "b")
    for name in ("main_data.hdf5", "metadata.json"):
        assert (tmp_path / "a/data" / name).read_bytes() == (tmp_path / "b/data" / name).read_bytes()


@pytest.mark.parametrize("name", builtin_names())
def test_builtin_datasets_have_the_requested_size_and_provenance(name, tmp_path):
    data = read_dataset(collect(name, {}, 200, 0, tmp_path / "x"))
    found = data.trajectories
    assert len(found) >= 200
    assert int((found.truncated | found.terminated).sum()) == len(found.lengths)
    if not name.startswith("ant/"):  # episodes of the other tasks have a fixed length
        assert len(found) == 200
        assert not found.terminated.any()
    provenance = data.provenance
    assert (provenance["dataset"], provenance["seed"], provenance["sha256"]) == (name, 0, data.sha256)
    assert set(provenance["versions"]) == {"python", "numpy", "torch", "mujoco", "gymnasium", "pettingzoo", "minari"}
    assert provenance["generator"].get("behaviour") in (
        "conventions",
        "conflicting",
        "inverse-kinematics",
        "random",
        None,
    )
    assert ("snapshots" in provenance["generator"]) == (name.startswith("ant/") and name != "ant/random")


def convention_per_episode(name, tmp_path, **env):
    """Most frequent action of each episode, and all actions by episode."""
    data = read_dataset(collect(name, env, 2000, 0, tmp_path / "x"))
    choice = data.trajectories.action.argmax(-1).reshape(len(data.trajectories.lengths), -1)
    return choice.mode(1).values, choice


def test_favourable_follows_one_convention_in_80_percent_of_episodes(tmp_path):
    convention, choice = convention_per_episode("icg/favourable", tmp_path, n_actions=3)
    assert torch.bincount(convention).tolist() == [160, 20, 20]
    slipped = (choice != convention[:, None]).float().mean()
    assert float(slipped) == pytest.approx(0.05 * 2 / 3, abs=0.01)  # a random action can equal the convention's


def test_unfavourable_follows_all_conventions_equally_often(tmp_path):
    convention, _ = convention_per_episode("icg/unfavourable", tmp_path, n_actions=4)
    assert torch.bincount(convention).tolist() == [50] * 4


def test_uncoordinated_acts_uniformly_at_random(tmp_path):
    _, choice = convention_per_episode("icg/uncoordinated", tmp_path)
    assert float(choice.float().mean()) == pytest.approx(0.5, abs=0.03)


def test_interrupted_write_leaves_no_files(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("datamodules.writer._write_episodes", fail)
    with pytest.raises(KeyboardInterrupt):
        collect("icg/favourable", {}, 20, 0, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_existing_dataset_is_reused(icg):
    directory = icg.path.parent.parent
    before = icg.path.stat().st_mtime_ns
    assert collect("icg/unfavourable", {}, 1000, 0) == directory
    assert icg.path.stat().st_mtime_ns == before


def test_minari_loads_generated_datasets(icg, reacher, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets_root()))
    for data in (icg, reacher):
        name = json.loads((data.path.parent / "metadata.json").read_text())["dataset_id"]
        loaded = minari.load_dataset(name)
        trajectories, spec = data.trajectories, data.spec
        assert loaded.total_episodes == len(trajectories.lengths)
        assert loaded.total_steps == len(trajectories)
        row = step = 0
        for episode in loaded.iterate_episodes():
            length = len(episode.rewards)
            state = trajectories.state[row : row + length + 1].numpy()
            assert (episode.observations["state"] == state).all()
            for i, agent in enumerate(spec.agents):
                assert (episode.observations[agent.name] == state[:, list(agent.observes)]).all()
                action = trajectories.action[step : step + length, i].numpy()
                assert (episode.actions[agent.name] == (action.argmax(-1) if spec.discrete else action)).all()
            assert (episode.rewards == trajectories.reward[step : step + length].numpy()).all()
            assert episode.truncations.tolist() == [False] * (length - 1) + [True]
            assert loaded.action_space.contains({k: v[0] for k, v in episode.actions.items()})
            row, step = row + length + 1, step + length


def test_dataset_ids_are_valid_for_minari_and_unique_per_settings():
    from minari.dataset.minari_dataset import parse_dataset_id

    settings = [{}, {"n_agents": 3}, {"convention_payoff": [1.0, 2.0]}, {"convention_payoff": [1.0, 20]}]
    names = [dataset_id("icg", "favourable", each, 10, 0) for each in settings]
    names.append(dataset_id("my.module:Make", "random", {}, 10, 0))
    assert len(set(names)) == len(names)
    for name in names:
        parse_dataset_id(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("icg/favorable",), r"found 'icg/favorable'.*icg/uncoordinated.*did you mean icg/favourable\?"),
        (("sprad/random",), r"found 'sprad/random'.*tag/random.*did you mean spread/random\?"),
        (("tag/randm",), r"did you mean tag/random\?"),
        (("icg/favourable", {"n_agent": 3}), r"env\.n_agent: not a setting of icg"),
        (("icg/favourable", {}, 0), r"data\.transitions: found 0"),
        (
            ("icg/conflicting", {}, 20, 0, None, None, {"mixd": 0.3}),
            r"data\.behaviour\.mixd: no such key; did you mean mixed",
        ),
        (
            ("icg/conflicting", {}, 20, 0, None, None, {"mixed": "x"}),
            r"data\.behaviour\.mixed: found 'x', expected a number from 0 to 1",
        ),
        (
            ("reacher/expert-mix", {}, 50, 0, None, None, {"noises": 1}),
            r"data\.behaviour\.noises: found 1, expected a list",
        ),
        (("icg/uncoordinated", {}, 20, 0, None, None, {"mixed": 0.3}), r"icg/uncoordinated does has no settings"),
        (("ant/medium", {}, 20, 0, None, None, {"mixed": 0.3}), r"policies of ant/medium have no settings"),
    ],
)
def test_invalid_arguments_are_reported(arguments, message):
    with pytest.raises(UserError, match=message):
        collect(*arguments)


def test_output_must_be_new(tmp_path):
    with pytest.raises(UserError, match=r"output: .* exists, expected a new directory"):
        collect("icg/favourable", {}, 20, 0, tmp_path)


def test_file_contains_only_minaris_layout(icg):
    with h5py.File(icg.path) as file:
        assert set(file) == {f"episode_{i}" for i in range(100)}
        assert set(file["episode_7"]) == {"observations", "actions", "rewards", "terminations", "truncations"}


def test_a_datasets_behaviour_can_be_changed(tmp_path):
    usual = OfflineDataModule("icg/conflicting", transitions=2_000)
    agreeing = OfflineDataModule("icg/conflicting", transitions=2_000, behaviour={"mixed": 0.1})
    assert float(usual.trajectories.reward.mean()) == pytest.approx(0.4, abs=0.05)
    assert float(agreeing.trajectories.reward.mean()) == pytest.approx(0.9, abs=0.05)
    assert agreeing.provenance["behaviour"] == {"mixed": 0.1}
    assert agreeing.provenance["generator"]["mixed"] == 0.1
    assert agreeing.fingerprint != usual.fingerprint
    rare = {"first_share": 0.95, "slip": 0.0}
    data = OfflineDataModule("icg/unfavourable", transitions=1_000, behaviour=rare).trajectories
    assert data.action[..., 1].mean(0).tolist() == pytest.approx([0.05, 0.05])
    with pytest.raises(UserError, match=r"data\.behaviour: found .* beside the file .*expected none"):
        _ = OfflineDataModule(str(usual.path), behaviour=rare).contents


@pytest.mark.parametrize(("agents", "actions"), [(2, 2), (3, 2), (4, 3)])
def test_conflicting_misleads_those_who_learn_alone_and_those_who_imitate(agents, actions, tmp_path):
    env = {"n_agents": agents, "n_actions": actions}
    data = read_dataset(collect("icg/conflicting", env, 5_000, 0, tmp_path / "x")).trajectories
    choice, reward = data.action.argmax(2), data.reward
    agree = (choice == choice[:, :1]).all(1)
    assert torch.equal(reward, agree.float())
    assert float(agree.float().mean()) == pytest.approx(0.4 if agents == 2 else 0.3, abs=0.03)
    alone = [max(range(actions), key=lambda a: float(reward[choice[:, i] == a].mean())) for i in (0, agents - 1)]
    assert alone == [actions - 1, 0]
    usual = [int(choice[:, i].bincount().argmax()) for i in (0, agents - 1)]
    assert usual == [0, actions - 1]

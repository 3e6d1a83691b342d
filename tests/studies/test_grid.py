"""The study file: the runs that it describes, and error messages for invalid files."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from momalit.cli import configs
from momalit.cli.commands.study import load_study
from momalit.core.errors import UserError
from momalit.studies.grid import Study, read_study

PLAIN: dict[str, Any] = {
    "config": "overlays/quick.yaml",
    "options": {"model.lr": 0.1, "data.env": {"n_agents": 4}},
    "seeds": [3, 5],
    "tasks": {"icg": {"config": "icg.yaml"}},
    "datasets": {"one": {"options": {"data.dataset": "icg/favourable"}}, "two": None},
    "methods": {"MOMA-PPO": None, "ITD3+BC": "baselines/itd3_bc.yaml"},
    "settings": {"a": {"options": {"model.lr": 0.2}}, "b": {}},
}


def study(tmp_path: Path, **changes: Any) -> Study:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}, sort_keys=False))
    return read_study(path, configs.read(path))


def test_the_grid_is_every_combination_with_seeds_changing_fastest(tmp_path):
    cells = study(tmp_path).cells
    assert len(cells) == len({cell.folder for cell in cells}) == 1 * 2 * 2 * 2 * 2
    assert [cell.seed for cell in cells[:4]] == [3, 5, 3, 5]
    assert [cell.method for cell in cells[:4]] == ["MOMA-PPO", "MOMA-PPO", "ITD3+BC", "ITD3+BC"]
    assert cells[3].folder == Path("runs/icg-one-a-itd3_bc/seed-5")
    assert cells[3].name == "icg-one-a-itd3_bc, seed 5"


def test_the_arguments_of_a_run_have_common_settings_first(tmp_path):
    cell = study(tmp_path).cells[2]
    assert cell.arguments == (
        *("--config", "overlays/quick.yaml", "--config", "icg.yaml", "--config", "baselines/itd3_bc.yaml"),
        *("--model.lr=0.1", '--data.env={"n_agents": 4}', "--data.dataset=icg/favourable", "--model.lr=0.2"),
        "--seed_everything=3",
    )


def test_absent_axes_are_not_in_folder_names(tmp_path):
    cells = study(tmp_path, datasets=None, settings=None, seeds=2).cells
    assert [cell.seed for cell in cells] == [0, 1, 0, 1]
    assert cells[0].folder == Path("runs/icg-moma_ppo/seed-0")
    assert cells[0].dataset == cells[0].setting == ""


def test_runs_that_match_all_axes_of_a_skip_entry_are_left_out(tmp_path):
    cells = study(tmp_path, skip=[{"setting": "b", "method": ["ITD3+BC"]}]).cells
    assert len(cells) == 16 - 4
    assert {cell.setting for cell in cells if cell.method == "ITD3+BC"} == {"a"}


def test_the_runs_of_a_group_differ_only_in_their_seed(tmp_path):
    groups = study(tmp_path).groups
    assert len(groups) == 8
    assert all([cell.seed for cell in cells] == [3, 5] for cells in groups.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {}}, r"mine.yaml: method: no such key; did you mean methods\?"),
        ({"methods": {}}, r"methods: found {}, expected a mapping"),
        ({"tasks": None}, r"tasks: found nothing, expected a mapping"),
        ({"tasks": {"icg": 3}}, r"tasks.icg: found 3, expected a mapping with config and options"),
        ({"tasks": {"icg": {"option": {}}}}, r"tasks.icg.option: no such key; did you mean options\?"),
        ({"tasks": {"icg": {"options": [1]}}}, r"tasks.icg.options: found \[1\], expected a mapping"),
        ({"seeds": 0}, r"seeds: found 0, expected the number of seeds"),
        ({"seeds": [1, 1]}, r"seeds: found \[1, 1\], expected the number of seeds or a list of distinct seeds"),
        ({"seeds": [-1]}, r"seeds: found \[-1\]"),
        ({"skip": [{"setting": "c"}]}, r"skip\[0\].setting: found 'c', expected a or b"),
        ({"skip": [{"settings": "a"}]}, r"skip\[0\].settings: no such key; did you mean setting\?"),
        ({"skip": [{"task": "icg"}]}, r"skip: found no remaining runs"),
        ({"x_axis": "method"}, r"x_axis: found 'method', expected one of task, dataset, setting"),
        ({"reach": 99}, r"reach: found 99, expected a number above 0 and up to 1"),
        ({"skip": 3}, r"mine.yaml: skip: found 3, expected a list of mappings"),
        (
            {"methods": {"M": {"config": 3}}},
            r"mine.yaml: methods.M.config: found 3, expected a config's name or a list",
        ),
        ({"methods": {"M": {"config": [3]}}}, r"methods.M.config: found \[3\], expected a config's name or a list"),
        ({"config": 3}, r"mine.yaml: config: found 3, expected a config's name or a list"),
        ({"cross_play": [["M"]]}, r"cross_play: found \[\['M'\]\], expected a list of methods"),
        ({"cross_play": ["BC"]}, r"cross_play: found \['BC'\], expected a list of methods from MOMA-PPO, ITD3\+BC"),
        ({"claims": {"mean": 3}}, r"claims: found {'mean': 3}, expected a list"),
        (
            {"claims": [{"method": "MOMA-PPO"}]},
            r"claims\[0\]: found .*, expected names of axes and at least one of mean",
        ),
        ({"claims": [{"method": "BC", "mean": 3}]}, r"claims\[0\].method: found 'BC', expected MOMA-PPO or ITD3"),
        ({"claims": [{"mean": "high"}]}, r"claims\[0\].mean: found 'high', expected a number"),
        ({"claims": [{"least": 3, "mean": 3}]}, r"claims\[0\].least: no such key; expected one of task"),
        ({"settings": {"a b": None, "a-b": None}}, r"found two runs with the folder"),
    ],
)
def test_error_messages_have_the_key(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        study(tmp_path, **changes)


@pytest.mark.parametrize("name", configs.studies())
def test_all_included_studies_can_be_read(name):
    found = load_study(name)
    content = configs.read(configs.directory() / name)
    assert {"title", "description", "budget"} <= set(content)
    assert f"study {name}" in found.text

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from momalit.cli import configs
from momalit.cli.error_messages import class_settings
from momalit.core.errors import UserError

NAMES = configs.names()
OVERLAYS = ("baselines/", "overlays/")
BASES = [name for name in NAMES if not name.startswith(OVERLAYS)]


def lines_of(name: str) -> list[str]:
    return (configs.shipped() / name).read_text(encoding="utf-8").splitlines()


def content(name: str) -> dict[str, Any]:
    return configs.read(configs.shipped() / name)


def test_the_promised_configurations_ship():
    assert {"icg.yaml", "reacher.yaml", "overlays/quick.yaml", "baselines/bc.yaml"} <= set(NAMES)
    assert {f"{kind}/{task}.yaml" for kind in ("world_model", "mappo") for task in ("icg", "reacher")} <= set(NAMES)


@pytest.mark.parametrize("name", BASES)
def test_every_configuration_fits_the_real_signatures(name, momalit, capsys):
    from momalit.cli import main

    for overlay in ([], ["--config", "overlays/quick.yaml"]):
        assert main(["fit", "--config", name, *overlay, "--print_config"]) == 0
        printed = yaml.safe_load(capsys.readouterr().out)
        assert printed["trainer"]["max_epochs"] == (3 if overlay else content(name)["trainer"]["max_epochs"])


@pytest.mark.parametrize(
    ("overlay", "key", "value"),
    [("paper", "world_model.hidden_sizes", [1024] * 4), ("full_view", "model.init_args.pessimism.lambda_all", 60)],
)
def test_an_overlay_of_ant_changes_what_it_says(overlay, key, value, momalit, capsys):
    from momalit.cli import main

    assert main(["fit", "--config", "ant.yaml", "--config", f"overlays/{overlay}.yaml", "--print_config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    for part in key.split("."):
        found = found[part]
    assert found == value


@pytest.mark.parametrize("name", ["icg.yaml", "reacher.yaml", "ant.yaml"])
@pytest.mark.parametrize("baseline", [name for name in NAMES if name.startswith("baselines/")])
def test_a_baseline_lies_over_any_offline_configuration(name, baseline, momalit, capsys):
    from momalit.cli import main

    assert main(["fit", "--config", name, "--config", baseline, "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"] == content(baseline)["model"]["class_path"]
    assert set(printed["model"]["init_args"]) - {"spec"} == set(content(baseline)["model"]["init_args"])
    assert (
        printed["data"]["init_args"]["dataset"]
        == yaml.safe_load("\n".join(lines_of(name)))["data"]["init_args"]["dataset"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_commented(name):
    lines = lines_of(name)
    for number, line in enumerate(lines):
        key = re.match(r"^(?:  |    )\s*(\w+): ?\S*", line)
        if key is None or key.group(1) in ("class_path", "init_args"):
            continue
        assert lines[number - 1].strip().startswith("#"), f"{name}:{number + 1}: {line.strip()} has no comment above it"


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("overlays/")])
def test_every_setting_of_a_class_is_there_and_its_default_is_told(name):
    settings = content(name)
    text = "\n".join(lines_of(name))
    for group in ("model", "data"):
        if group not in settings:
            continue
        class_path, given = settings[group]["class_path"], settings[group]["init_args"]
        assert set(given) == set(class_settings(class_path)), f"{name}: {group}"
        parser = ArgumentParser(exit_on_error=False)
        module, _, kind = class_path.rpartition(".")
        parser.add_class_arguments(getattr(__import__(module, fromlist=[kind]), kind), skip={"spec"})
        for key, default in vars(parser.get_defaults()).items():
            if isinstance(default, bool | int | float | str) and key != "dataset":
                told = _told_default(text, key)
                assert told is None or yaml.safe_load(_number(told)) == default, f"{name}: {group}.{key}: {told}"


def _told_default(text: str, key: str) -> str | None:
    """What the comment above ``key`` inside ``init_args`` says; None where the default is not a plain value."""
    comment = re.search(rf"((?:^    # .*\n)+)    {key}: ", text, re.MULTILINE)
    assert comment, key
    plain = " ".join(line.strip(" #") for line in comment.group(1).splitlines())
    match = re.search(r"default: ([^)]*)\)$", plain)
    return match.group(1) if match else None


def _number(text: str) -> str:
    return re.sub(r"^(\d+)e", r"\1.0e", text)


def test_a_file_where_you_stand_comes_first(momalit, tmp_path: Path):
    assert configs.find("icg.yaml") == configs.shipped() / "icg.yaml"
    (tmp_path / "icg.yaml").write_text("{}")
    assert configs.find("icg.yaml") == tmp_path / "icg.yaml"


@pytest.mark.parametrize("name", ["reacher", "reacher.yaml", "configs/reacher.yaml", "./configs/reacher.yaml"])
def test_shipped_names_are_found_from_another_folder(name, momalit):
    assert configs.find(name) == configs.shipped() / "reacher.yaml"


def test_unknown_names_are_answered_with_the_nearest(momalit):
    with pytest.raises(UserError, match=r"found no file 'reachr.yaml'.*nearest: reacher.yaml"):
        configs.find("reachr.yaml")
    with pytest.raises(UserError, match=r"nearest: baselines/bc.yaml$"):
        configs.find("bc.yaml")


def test_configurations_are_told_from_options(momalit, tmp_path: Path):
    files, others = configs.split(["--model.lr", "1", "--config", "icg.yaml", "--config=overlays/quick.yaml", "--x=2"])
    assert [file.name for file in files] == ["icg.yaml", "quick.yaml"]
    assert others == ["--model.lr", "1", "--x=2"]


def test_a_broken_file_is_named_with_its_line(momalit, tmp_path: Path):
    (tmp_path / "broken.yaml").write_text("trainer:\n  max_epochs: 3\n wrong: [\n")
    with pytest.raises(UserError, match=r"broken.yaml, line \d+: is not valid YAML"):
        configs.split(["--config", "broken.yaml"])
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match=r"list.yaml: found a list"):
        configs.split(["--config", "list.yaml"])

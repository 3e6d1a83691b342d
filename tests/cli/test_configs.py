"""The built-in configurations are valid, complete and commented, and are found by name."""

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


def read_lines(name: str) -> list[str]:
    return (configs.directory() / name).read_text(encoding="utf-8").splitlines()


def read_config(name: str) -> dict[str, Any]:
    return configs.read(configs.directory() / name)


def test_built_in_configurations_exist():
    assert {"icg.yaml", "reacher.yaml", "overlays/quick.yaml", "baselines/bc.yaml"} <= set(NAMES)
    assert {f"{kind}/{task}.yaml" for kind in ("world_model", "mappo") for task in ("icg", "reacher")} <= set(NAMES)


@pytest.mark.parametrize("name", BASES)
def test_configuration_is_accepted_by_fit(name, momalit, capsys):
    from momalit.cli import main

    for overlay in ([], ["--config", "overlays/quick.yaml"]):
        assert main(["fit", "--config", name, *overlay, "--print_config"]) == 0
        printed = yaml.safe_load(capsys.readouterr().out)
        assert printed["trainer"]["max_epochs"] == (3 if overlay else read_config(name)["trainer"]["max_epochs"])


@pytest.mark.parametrize(
    ("base", "overlay", "key", "value"),
    [
        ("ant", "paper", "world_model.width", 1024),
        ("ant", "full_view", "data.init_args.env.observability", "full"),
        ("ant", "long", "trainer.max_epochs", 900),
        ("ant", "long", "world_model.max_epochs", 12),
        ("mappo/ant", "online", "data.init_args.settings.observability", "partial"),
    ],
)
def test_overlay_of_ant_overrides_settings(base, overlay, key, value, momalit, capsys):
    from momalit.cli import main

    assert main(["fit", "--config", f"{base}.yaml", "--config", f"overlays/{overlay}.yaml", "--print_config"]) == 0
    setting = yaml.safe_load(capsys.readouterr().out)
    for part in key.split("."):
        setting = setting[part]
    assert setting == value


def test_a_team_trains_on_in_the_real_ant_with_the_settings_of_ant():
    online, offline = (read_config(name)["model"]["init_args"] for name in ("overlays/online.yaml", "ant.yaml"))
    base = read_config("mappo/ant.yaml")["model"]["init_args"]
    assert {**base, **online}.items() <= {**base, **offline}.items()


@pytest.mark.parametrize("name", ["icg.yaml", "reacher.yaml", "ant.yaml"])
@pytest.mark.parametrize("baseline", [name for name in NAMES if name.startswith("baselines/")])
def test_baseline_overlays_any_offline_configuration(name, baseline, momalit, capsys):
    from momalit.cli import main

    assert main(["fit", "--config", name, "--config", baseline, "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"] == read_config(baseline)["model"]["class_path"]
    assert set(printed["model"]["init_args"]) - {"spec"} == set(read_config(baseline)["model"]["init_args"])
    assert printed["data"]["init_args"]["dataset"] == read_config(name)["data"]["init_args"]["dataset"]


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_a_comment(name):
    lines = read_lines(name)
    for number, line in enumerate(lines):
        key = re.match(r"^(?:  |    )\s*(\w+): ?\S*", line)
        if key is None or key.group(1) in ("class_path", "init_args"):
            continue
        assert lines[number - 1].strip().startswith("#"), f"{name}:{number + 1}: {line.strip()} has no comment above it"


@pytest.mark.parametrize("name", [n for n in NAMES if not n.startswith("overlays/")])
def test_configuration_has_every_setting_and_comments_have_the_defaults(name):
    settings = read_config(name)
    text = "\n".join(read_lines(name))
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
                documented = _documented_default(text, key)
                assert documented is None or yaml.safe_load(_yaml_number(documented)) == default, (
                    f"{name}: {group}.{key}: {documented}"
                )


def _documented_default(text: str, key: str) -> str | None:
    """Returns the default in the comment above ``key`` inside ``init_args``, or None if the comment has none."""
    comment = re.search(rf"((?:^    # .*\n)+)    {key}: ", text, re.MULTILINE)
    assert comment, key
    plain = " ".join(line.strip(" #") for line in comment.group(1).splitlines())
    match = re.search(r"default: ([^)]*)\)$", plain)
    return match.group(1) if match else None


def _yaml_number(text: str) -> str:
    """Inserts ``.0`` before an exponent, because YAML reads ``1e-3`` as a string."""
    return re.sub(r"^(\d+)e", r"\1.0e", text)


def test_files_in_the_working_directory_precede_built_in_ones(momalit, tmp_path: Path):
    assert configs.find("icg.yaml") == configs.directory() / "icg.yaml"
    (tmp_path / "icg.yaml").write_text("{}")
    assert configs.find("icg.yaml") == tmp_path / "icg.yaml"


@pytest.mark.parametrize("name", ["reacher", "reacher.yaml", "configs/reacher.yaml", "./configs/reacher.yaml"])
def test_built_in_configurations_are_found_from_any_folder(name, momalit):
    assert configs.find(name) == configs.directory() / "reacher.yaml"


def test_unknown_names_are_rejected_with_the_nearest_ones(momalit):
    with pytest.raises(UserError, match=r"found no file 'reachr.yaml'.*nearest: reacher.yaml"):
        configs.find("reachr.yaml")
    with pytest.raises(UserError, match=r"nearest: baselines/bc.yaml$"):
        configs.find("bc.yaml")


def test_configurations_are_separated_from_other_options(momalit, tmp_path: Path):
    files, others = configs.split_arguments(
        ["--model.lr", "1", "--config", "icg.yaml", "--config=overlays/quick.yaml", "--x=2"]
    )
    assert [file.name for file in files] == ["icg.yaml", "quick.yaml"]
    assert others == ["--model.lr", "1", "--x=2"]


def test_errors_for_invalid_files_have_path_and_line(momalit, tmp_path: Path):
    (tmp_path / "broken.yaml").write_text("trainer:\n  max_epochs: 3\n wrong: [\n")
    with pytest.raises(UserError, match=r"broken.yaml, line \d+: is not valid YAML"):
        configs.split_arguments(["--config", "broken.yaml"])
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match=r"list.yaml: found a list"):
        configs.split_arguments(["--config", "list.yaml"])

"""A user's mistake gives one line on standard error and exit code 2, and creates no files."""

from __future__ import annotations

from pathlib import Path

import pytest

FIT = ("fit", "--config", "tiny.yaml")

MISTAKES = [
    (("fitt",), "command: found 'fitt', did you mean fit?"),
    (("train",), "command: found 'train', expected one of fit"),
    (("fit",), "--config: found none, expected e.g. fit --config icg.yaml"),
    (("fit", "--config"), "--config: found no value, expected a name or path"),
    (("fit", "--config", "tinny.yaml"), "--config: found no file 'tinny.yaml'"),
    ((*FIT, "--model.lrr", "3"), "model.lrr: momalit.MOMAPPOModule has no such setting; did you mean lr?"),
    (
        (*FIT, "--model.pessimism.lambda_al", "3"),
        "model.pessimism.lambda_al: momalit.Pessimism has no such setting",
    ),
    (
        ("fit", "--config", "baselines/bc.yaml", "--data.dataset", "icg/unfavourable"),
        "data.dataset: found it without a class for data, expected the configuration of a dataset first",
    ),
    ((*FIT, "--modl.n_rollouts", "3"), "--modl.n_rollouts: no such setting; did you mean model.n_rollouts?"),
    ((*FIT, "--trainer.max_epoch", "3"), "--trainer.max_epoch: no such setting; did you mean trainer.max_epochs?"),
    (
        (*FIT, "--world_model.n_block", "3"),
        "world_model.n_block: world_model has no such setting; did you mean n_blocks?",
    ),
    (
        (*FIT, "--model.pessimism.threshold", "lots"),
        "model.pessimism.threshold: found 'lots', expected float or auto",
    ),
    ((*FIT, "--model.n_rollouts", "many"), "model.n_rollouts: found 'many', expected int"),
    ((*FIT, "--trainer.max_epochs", "x"), "trainer.max_epochs: found 'x', expected int or null"),
    ((*FIT, "--model.pessimism.lambda_all", "x"), "model.pessimism.lambda_all: found 'x', expected float"),
    ((*FIT, "--data.transitions", "2.5"), "data.transitions: found '2.5', expected int or null"),
    ((*FIT, "--model.n_minibatches", "9"), "model.n_minibatches: found 9, expected at most n_rollouts = 4"),
    ((*FIT, "--warm_start.window", "0"), "warm_start.window: found 0, expected at least 1"),
    ((*FIT, "--model.gru_size", "-1"), "model.gru_size: found -1, expected at least 0"),
    ((*FIT, "--data.dataset", "icg/unfavorable"), "did you mean icg/unfavourable?"),
    ((*FIT, "--data.env.observabilty", "own"), "env.observabilty: not a setting of icg"),
    ((*FIT, "--model.class_path", "momalit.Foo"), "model.class_path: found 'momalit.Foo', which cannot be used"),
    (
        (*FIT, "--model.world_model", "gone.ckpt"),
        "model.world_model: found no file 'gone.ckpt'",
    ),
    ((*FIT, "surplus"), "surplus: unexpected"),
    ((*FIT, "--trainer.strategy", "fsdp"), "trainer.strategy: found fsdp, expected ddp; it shards"),
    ((*FIT, "--trainer.strategy", "deepspeed_stage_2"), "trainer.strategy: found deepspeed_stage_2, expected ddp"),
    (
        (*FIT, "--trainer.strategy", "lightning.pytorch.strategies.ModelParallelStrategy"),
        "ModelParallelStrategy, expected ddp",
    ),
    ((*FIT, "--trainer.strategy", "ddp_spawn"), "trainer.strategy: found ddp_spawn, expected ddp; its processes end"),
    ((*FIT, "--trainer.strategy", "dpp"), "trainer: You selected an invalid strategy name"),
    ((*FIT, "--trainer.precision", "bf16-true"), "trainer.precision: found bf16-true, expected one of 32-true"),
    ((*FIT, "--trainer.precision", "16-mixed"), "trainer.precision: found 16-mixed, expected bf16-mixed or 32-true"),
    (
        (*FIT, "--trainer.precision", "fp16"),
        "trainer.precision: found 'fp16', expected 64, 32, 16 or transformer-engine",
    ),
    ((*FIT, "--trainer.devices", "0"), "trainer: "),
    ((*FIT, "--trainer.devices", "two"), "trainer: `devices` selected with `CPUAccelerator` should be an int > 0"),
    (
        (*FIT, "--trainer.strategy", "ddp", "--trainer.devices", "4"),
        "model.n_minibatches: found 2, expected at most the 1 rollouts of each of 4 processes",
    ),
    (
        (*FIT, "--trainer.gradient_clip_val", "1.0"),
        "trainer.gradient_clip_val: found 1.0, expected none: actors and critic are clipped separately",
    ),
    ((*FIT, "--seed_everything", "x"), "seed_everything: found 'x', expected bool or int"),
    ((*FIT, "--ckpt_path", "gone.ckpt"), "--ckpt_path: found no file 'gone.ckpt'"),
    ((*FIT, "--ckpt_path", "lsat"), "did you mean last?"),
    ((*FIT, "--ckpt_path", "last"), "--ckpt_path: found 'last' without a run, expected --run_dir DIR as well"),
    (("test", "--config", "tiny.yaml"), "test: found no checkpoint, expected --ckpt_path PATH or --run_dir DIR"),
    (("test", "--run_dir", "gone"), "--run_dir gone contains no config.yaml of a run"),
    (("collect",), "dataset: missing, a value is required"),
    (("collect", "icg/unfavorable"), "did you mean icg/unfavourable?"),
    (("collect", "icg/unfavourable", "--transition", "3"), "--transition: no such setting; did you mean transitions?"),
    (("collect", "icg/unfavourable", "--transitions", "x"), "transitions: found 'x', expected int or null"),
]


@pytest.mark.parametrize(
    ("arguments", "expected"), MISTAKES, ids=[" ".join(arguments[-2:]) for arguments, _ in MISTAKES]
)
def test_one_line_on_stderr_and_exit_code_2(arguments, expected, momalit, tmp_path: Path):
    outcome = momalit(*arguments)
    last = outcome.stderr.splitlines()[-1]
    assert outcome.code == 2
    assert last.startswith("error: ")
    assert expected in last
    assert "Traceback" not in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


NOT_NULL = [
    *("model.width", "model.gru_size", "model.lr", "model.ppo_epochs", "model.n_rollouts", "model.horizon"),
    *("model.discount", "model.min_std", "model.reset_fraction", "model.clip_epsilon"),
    *("model.entropy_coefficient", "model.mixer", "model.burn_in"),
    *("world_model.n_members", "world_model.n_elites", "world_model.lr", "world_model.weight_decay"),
    *("warm_start.window", "warm_start.lr", "data.validation_fraction", "data.split_seed", "data.dataset_seed"),
]


@pytest.mark.parametrize("setting", NOT_NULL)
def test_settings_that_null_cannot_switch_off(setting: str, momalit, tmp_path: Path):
    outcome = momalit("fit", "--config", "own.yaml", "--data.dataset", "icg/unfavourable", f"--{setting}", "null")
    assert outcome.code == 2
    last = outcome.stderr.splitlines()[-1]
    assert last.startswith(f"error: {setting}: found null, expected ")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("setting", ["model.lr", "world_model.lr", "warm_start.lr", "model.critic_lr"])
def test_a_wrong_learning_rate_is_found_before_the_dataset_is_collected(
    setting: str, momalit, tmp_path: Path, momalit_home: Path
):
    outcome = momalit(*FIT, f"--{setting}", "-1", "--data.dataset_seed", "99")
    assert outcome.code == 2
    assert outcome.stderr.splitlines()[-1] == f"error: {setting}: found -1.0, expected a number above 0"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
    assert not list(momalit_home.rglob("*-s99-*"))


def test_unknown_keys_in_a_file_are_rejected(momalit, tmp_path: Path):
    (tmp_path / "wrong.yaml").write_text((tmp_path / "tiny.yaml").read_text().replace("max_epochs: 2", "max_epoch: 2"))
    assert (
        "trainer.max_epoch: no such setting; did you mean trainer.max_epochs?"
        in momalit("fit", "--config", "wrong.yaml").stderr
    )


def test_other_exceptions_are_not_caught(momalit, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("momalit.cli.training_cli.run_stages", fail)
    with pytest.raises(ZeroDivisionError):
        momalit(*FIT, "--run_dir", "run")


def test_help_lists_every_command(momalit, capsys):
    from momalit.cli import main

    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict", "collect"):
        assert f"\n  {command} " in text
    assert main([]) == 2


@pytest.mark.parametrize("command", ["fit", "collect"])
def test_help_of_a_command(command, momalit, capsys):
    from momalit.cli import main

    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert ("--run_dir" if command == "fit" else "--transitions") in text
    assert ":class:" not in text


def test_missing_packages_are_reported(momalit, monkeypatch):
    monkeypatch.setattr("momalit.cli.find_spec", lambda name: None if name == "rich" else object())
    done = momalit("fit", "--config", "icg.yaml")
    assert done.code == 2
    assert "found no package rich, expected a Python that has momalit's packages: run make setup" in done.stderr
    assert done.stderr.count("\n") == 1

"""``fit`` with its stages, run directories, resuming and configurations, and the evaluation of its checkpoints."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

FIT = ("fit", "--config", "tiny.yaml")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_contents_of_a_run_directory(momalit, tmp_path: Path):
    assert momalit(*FIT).code == 0
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    assert run.name.endswith("-0")
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 0
    assert len(record["dataset"]["fingerprint"]) == 64
    assert record["dataset"]["provenance"]["seed"] == 0
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]  # +cpu or not
    assert record["command"][0] == "fit"
    assert {row["epoch"] for row in rows(run / "metrics.csv")} == {"0", "1"}
    assert "eval/return" in rows(run / "metrics.csv")[0]
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt", "previous.ckpt"}
    assert "<h1>MOMAPPO on icg/unfavourable, seed 0</h1>" in (run / "report.html").read_text()
    assert json.loads((run / "results.json").read_text())["episodes"] == 3
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["n_rollouts"] == 4
    for stage in ("world_model", "warm_start"):
        assert record["stages"][stage]["from"] in ("training", "cache")


def test_equal_seeds_give_equal_metrics_files(momalit, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))  # a cache without files of other tests
    assert momalit(*FIT, "--run_dir", "one").code == 0
    second = momalit(*FIT, "--run_dir", "two")
    assert "world model: found in the cache" in second.stderr
    assert "warm start: found in the cache" in second.stderr
    assert (tmp_path / "one/world_model/checkpoints/last.ckpt").is_file()
    assert not (tmp_path / "two/world_model").exists()
    assert (tmp_path / "one/metrics.csv").read_bytes() == (tmp_path / "two/metrics.csv").read_bytes()
    other = momalit(*FIT, "--run_dir", "three", "--seed_everything", "1")
    assert "world model: training" in other.stderr
    assert (tmp_path / "one/metrics.csv").read_bytes() != (tmp_path / "three/metrics.csv").read_bytes()
    stages = json.loads((tmp_path / "two/run.json").read_text())["stages"]
    assert {stage["from"] for stage in stages.values()} == {"cache"}


def test_changed_settings_train_a_new_world_model(momalit, tmp_path: Path):
    momalit(*FIT, "--run_dir", "one")
    changed = momalit(*FIT, "--run_dir", "two", "--world_model.lr", "2e-3", "--warm_start", "null")
    assert "world model: training" in changed.stderr
    assert "warm start" not in changed.stderr


def test_configured_world_model_checkpoint_is_used(momalit, tmp_path: Path):
    momalit(*FIT, "--run_dir", "one", "--seed_everything", "5")
    checkpoint = "one/world_model/checkpoints/last.ckpt"
    assert momalit(*FIT, "--run_dir", "two", "--model.world_model", checkpoint).stderr.count(checkpoint) == 1


def test_resumed_run_equals_an_uninterrupted_one(momalit, tmp_path: Path):
    whole = momalit(*FIT, "--run_dir", "whole", "--trainer.max_epochs", "4", "--model.final_lr_fraction", "1")
    assert whole.code == 0
    assert momalit(*FIT, "--run_dir", "part", "--trainer.max_epochs", "2", "--model.final_lr_fraction", "1").code == 0
    with (tmp_path / "part/metrics.csv").open("a") as file:  # a row after the last checkpoint
        file.write(file.name and "2,9" + "," * (len(rows(tmp_path / "part/metrics.csv")[0]) - 2) + "\n")
    assert momalit("fit", "--run_dir", "part", "--ckpt_path", "last", "--trainer.max_epochs", "4").code == 0
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "part/metrics.csv").read_bytes()
    a, b = (torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True) for run in ("whole", "part"))
    for name, value in a["state_dict"].items():
        torch.testing.assert_close(value, b["state_dict"][name], rtol=0, atol=0)


def test_interrupted_stage_is_resumed(momalit, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    command = (*FIT, "--run_dir", "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("momalit.training.stages._keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert momalit(*command).code == 130  # 128 and SIGINT's number
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "interrupted"
    assert momalit(*command).code == 2
    resumed = momalit("fit", "--run_dir", "run", "--ckpt_path", "last")
    assert resumed.code == 0
    assert "world model: continuing training" in resumed.stderr


def test_a_stage_with_other_settings_is_trained_anew(momalit, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("momalit.training.stages._keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert momalit(*FIT, "--run_dir", "run").code == 130
    changed = momalit("fit", "--run_dir", "run", "--ckpt_path", "last", "--world_model.lr", "0.002")
    assert changed.code == 0
    assert (
        "world model: its settings have changed since run/world_model/checkpoints/last.ckpt was saved" in changed.stderr
    )
    (cached,) = (tmp_path / "home/world_models").glob("*.ckpt")
    saved = torch.load(cached, weights_only=True)
    assert saved["hyper_parameters"]["lr"] == saved["lr_schedulers"][0]["base_lrs"][0] == 0.002


def test_fit_rejects_a_directory_with_another_run(momalit):
    momalit(*FIT, "--run_dir", "run")
    rejected = momalit(*FIT, "--run_dir", "run")
    assert rejected.code == 2
    assert "run_dir: run contains another run (finished); continue it with --ckpt_path last" in rejected.stderr


def test_command_line_overrides_checkpoint_and_checkpoint_overrides_files(momalit, tmp_path: Path):
    momalit(*FIT, "--run_dir", "run", "--model.lr", "1e-3", "--model.width", "16")
    outcome = momalit(
        *FIT, "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3", "--model.lr", "1e-5"
    )
    assert outcome.code == 0
    assert "model.lr: 1e-05 from the command line (checkpoint: 0.001)" in outcome.stderr.splitlines()
    assert "model.width: 16 from the checkpoint (configuration: 8)" in outcome.stderr.splitlines()
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["lr"] == 1e-5
    assert {group["initial_lr"] for group in saved["optimizer_states"][0]["param_groups"]} == {1e-5}
    assert float(rows(tmp_path / "run/metrics.csv")[-1]["policy/lr"]) < 1e-5


def test_validate_test_and_predict(momalit, tmp_path: Path):
    momalit(*FIT, "--run_dir", "run")
    assert momalit("test", "--run_dir", "run", "--ckpt_path", "best").code == 0
    tested = json.loads((tmp_path / "run/test.json").read_text())
    assert tested["checkpoint"] == "run/checkpoints/best.ckpt"
    assert tested["metrics"]["test/return"] == json.loads((tmp_path / "run/results.json").read_text())["return_best"]
    assert momalit("validate", "--ckpt_path", "run/checkpoints/last.ckpt").code == 0
    assert "eval/return" in json.loads((tmp_path / "run/validate.json").read_text())["metrics"]
    assert momalit("predict", "--run_dir", "run").code == 0
    with np.load(tmp_path / "run/predictions.npz") as predictions:
        assert predictions["action"].shape == (100, 2, 2)  # a tenth of the transitions, agents, action components
    mismatch = momalit("test", "--run_dir", "run", "--model.width", "4")
    assert mismatch.code == 2
    assert "does not fit the configured MOMAPPOModule" in mismatch.stderr


def test_fit_of_a_world_model(momalit, tmp_path: Path):
    arguments = ("--config", "overlays/quick.yaml", "--data.transitions", "1000", "--model.width", "8")
    assert momalit("fit", "--config", "world_model/icg.yaml", *arguments, "--run_dir", "run").code == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert {"val/error", "test/error"} <= set(results["metrics"])
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()
    wrong = momalit("test", "--config", "tiny.yaml", "--ckpt_path", "run/checkpoints/best.ckpt")
    assert wrong.code == 2
    assert "is a checkpoint of another method, which has" in wrong.stderr


def test_behaviour_cloning_and_online_ppo(momalit, tmp_path: Path):
    quick = (
        "--config",
        "overlays/quick.yaml",
        "--trainer.max_epochs",
        "1",
        "--model.width",
        "8",
        "--model.gru_size",
        "8",
    )
    cloned = momalit(
        "fit", "--config", "icg.yaml", "--config", "baselines/bc.yaml", *quick, "--data.transitions", "1000"
    )
    assert cloned.code == 0
    assert momalit("fit", "--config", "mappo/icg.yaml", *quick, "--model.n_rollouts", "4").code == 0
    assert len(list((tmp_path / "runs").rglob("results.json"))) == 2
    assert list((tmp_path / "runs/mappo/icg").iterdir())


@pytest.mark.filterwarnings("ignore:Total length of")  # a warning of Lightning
def test_predict_needs_test_trajectories(momalit):
    arguments = ("--config", "world_model/icg.yaml", "--trainer.max_epochs", "1", "--data.transitions", "1000")
    assert momalit("fit", *arguments, "--data.test_fraction", "0", "--run_dir", "run").code == 0
    assert momalit("test", "--run_dir", "run").code == 0
    predicted = momalit("predict", "--run_dir", "run")
    assert predicted.code == 2
    assert "data.test_fraction: found 0 test trajectories" in predicted.stderr


@pytest.mark.filterwarnings("ignore:Total length of")  # a warning of Lightning
def test_predict_of_a_team_needs_test_trajectories(momalit):
    assert momalit(*FIT, "--data.test_fraction", "0", "--run_dir", "run").code == 0
    predicted = momalit("predict", "--run_dir", "run")
    assert predicted.code == 2
    assert "data.test_fraction: found 0 test trajectories" in predicted.stderr


@pytest.mark.parametrize(("method", "title"), [("iql", "IQL"), ("maiql", "MAIQL"), ("icql", "ICQL")])
def test_fit_of_a_baseline(method, title, momalit, tmp_path: Path):
    tiny = (
        "--model.width",
        "8",
        "--model.steps_per_epoch",
        "3",
        "--trainer.max_epochs",
        "2",
        "--data.transitions",
        "1000",
    )
    arguments = (
        "--config",
        "icg.yaml",
        "--config",
        f"baselines/{method}.yaml",
        "--config",
        "overlays/quick.yaml",
        *tiny,
    )
    assert momalit("fit", *arguments, "--run_dir", "run").code == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["method"] == title
    assert results["episodes"] == 8
    assert {"train/critic", "train/policy", "eval/return"} <= set(rows(tmp_path / "run/metrics.csv")[0])
    continued = ("--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3")
    assert momalit("fit", *continued).code == 0
    assert momalit("test", "--run_dir", "run", "--ckpt_path", "best").code == 0
    assert momalit("predict", "--run_dir", "run").code == 0


@pytest.mark.parametrize("method", ["itd3_bc", "iomar"])
def test_methods_for_continuous_actions_reject_discrete_ones(method, momalit, tmp_path: Path):
    rejected = momalit("fit", "--config", "icg.yaml", "--config", f"baselines/{method}.yaml")
    assert rejected.code == 2
    assert "for the discrete actions of icg, expected a method that supports them" in rejected.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
    tiny = ("--model.width", "8", "--model.gru_size", "4", "--model.steps_per_epoch", "2", "--trainer.max_epochs", "1")
    arguments = ("--config", "reacher.yaml", "--config", f"baselines/{method}.yaml", "--config", "overlays/quick.yaml")
    assert momalit("fit", *arguments, *tiny, "--data.transitions", "1000", "--run_dir", "run").code == 0
    assert json.loads((tmp_path / "run/results.json").read_text())["return_last"] < 0
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "2").code == 0


def test_fit_uses_the_task_settings_of_a_collected_dataset(momalit):
    arguments = ("--env.observability", "own", "--transitions", "300", "--seed", "3", "--output", "mine")
    collected = momalit("collect", "icg/unfavourable", *arguments)
    assert collected.code == 0
    assert "--data.dataset mine" in collected.stderr
    fit = momalit(*FIT, "--data.dataset", "mine", "--data.transitions", "null", "--run_dir", "run")
    assert fit.code == 0
    assert json.loads(Path("run/results.json").read_text())["env"]["observability"] == "own"
    assert momalit("collect", "icg/unfavourable", *arguments).code == 2


@pytest.mark.parametrize(
    "setting", [("fast_dev_run", "true"), ("enable_checkpointing", "false")], ids=lambda each: each[0]
)
def test_runs_without_checkpoints(setting, momalit, tmp_path: Path):
    assert momalit(*FIT, "--run_dir", "run", f"--trainer.{setting[0]}", setting[1]).code == 0
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize(
    ("settings", "default_checkpoints"),
    [
        ("filename: mine", ["best.ckpt", "last.ckpt", "previous.ckpt"]),
        ("filename: mine, monitor: eval/return, mode: max", ["last.ckpt", "previous.ckpt"]),
    ],
    ids=["another", "another best"],
)
def test_configured_checkpoints(settings, default_checkpoints, momalit, tmp_path: Path):
    """A checkpoint with a monitored metric replaces best.ckpt, others are added. last.ckpt is always saved."""
    (tmp_path / "own.yaml").write_text(
        "trainer:\n  logger: false\n  callbacks:\n  - class_path: lightning.pytorch.callbacks.ModelCheckpoint\n"
        f"    init_args: {{dirpath: own, {settings}}}\n"
    )
    assert momalit(*FIT, "--config", "own.yaml", "--run_dir", "run").code == 0
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["mine.ckpt"]
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == default_checkpoints
    assert not (tmp_path / "run/metrics.csv").exists()
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3").code == 0


def test_checkpoints_of_no_folder_are_kept_in_the_runs(momalit, tmp_path: Path):
    (tmp_path / "own.yaml").write_text(
        "trainer:\n  callbacks:\n  - class_path: lightning.pytorch.callbacks.ModelCheckpoint\n"
        "    init_args: {filename: 'epoch={epoch}', auto_insert_metric_name: false, save_top_k: -1}\n"
    )
    assert momalit(*FIT, "--config", "own.yaml", "--run_dir", "run").code == 0
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("epoch=*"))
    assert kept == ["epoch=0.ckpt", "epoch=1.ckpt"]
    teams = [str(tmp_path / "run/checkpoints" / name) for name in kept]
    assert momalit("collect", "icg", "--team", *teams, "--transitions", "100", "--output", "data").code == 0
    assert momalit("inspect", "data").code == 0


def test_no_progress_lines_without_a_progress_bar(momalit):
    done = momalit("fit", "--config", "tiny.yaml", "--trainer.enable_progress_bar", "false", "--run_dir", "quiet")
    assert done.code == 0, done.stderr
    assert "epoch" not in done.stderr


def test_a_configured_logger_takes_tensorboards_place_and_metrics_stay(momalit, tmp_path: Path):
    logger = ("--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", "logs")
    assert momalit("fit", "--config", "tiny.yaml", "--run_dir", "run", *logger).code == 0
    assert (tmp_path / "run/metrics.csv").is_file()
    assert not (tmp_path / "run/tensorboard").exists()
    assert list((tmp_path / "logs").glob("**/metrics.csv"))


def test_a_resumed_run_takes_learning_rates_of_the_command_line_and_counts_its_time(momalit, tmp_path: Path):
    assert momalit(*FIT, "--run_dir", "run", "--model.lr", "0.002").code == 0
    record = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**record, "seconds": 1000.0}))
    resumed = momalit(
        "fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3", "--model.critic_lr", "0.001"
    )
    assert resumed.code == 0, resumed.stderr
    assert json.loads((tmp_path / "run/results.json").read_text())["wall_clock_seconds"] > 1000
    assert json.loads((tmp_path / "run/run.json").read_text())["seconds"] > 1000
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert [group["initial_lr"] for group in saved["optimizer_states"][0]["param_groups"]] == [0.002, 0.001]
    assert saved["lr_schedulers"][0]["base_lrs"] == [0.002, 0.001]

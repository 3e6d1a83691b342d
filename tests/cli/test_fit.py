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


def test_a_run_directory_holds_what_is_promised(momalit, tmp_path: Path):
    assert momalit(*FIT).code == 0
    (run,) = (tmp_path / "runs" / "tiny").iterdir()
    assert run.name.endswith("-0")
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 0
    assert len(record["dataset"]["fingerprint"]) == 64
    assert record["dataset"]["provenance"]["seed"] == 0
    assert record["versions"]["torch"] == torch.__version__
    assert record["command"][0] == "fit"
    assert {row["epoch"] for row in rows(run / "metrics.csv")} == {"0", "1"}
    assert "eval/return" in rows(run / "metrics.csv")[0]
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert json.loads((run / "results.json").read_text())["episodes"] == 3
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["n_rollouts"] == 4
    for stage in ("world_model", "warm_start"):
        assert record["stages"][stage]["from"] in ("training", "cache")


def test_the_same_seed_gives_the_same_file_and_another_seed_another(momalit, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))  # nothing is found in the cache of another test
    assert momalit(*FIT, "--run_dir", "one").code == 0
    found = momalit(*FIT, "--run_dir", "two")
    assert "world model: found in the cache" in found.said
    assert "warm start: found in the cache" in found.said
    assert (tmp_path / "one/world_model/checkpoints/last.ckpt").is_file()
    assert not (tmp_path / "two/world_model").exists()
    assert (tmp_path / "one/metrics.csv").read_bytes() == (tmp_path / "two/metrics.csv").read_bytes()
    other = momalit(*FIT, "--run_dir", "three", "--seed_everything", "1")
    assert "world model: training" in other.said
    assert (tmp_path / "one/metrics.csv").read_bytes() != (tmp_path / "three/metrics.csv").read_bytes()
    stages = json.loads((tmp_path / "two/run.json").read_text())["stages"]
    assert {stage["from"] for stage in stages.values()} == {"cache"}


def test_other_settings_train_another_world_model(momalit, tmp_path: Path):
    momalit(*FIT, "--run_dir", "one")
    changed = momalit(*FIT, "--run_dir", "two", "--world_model.lr", "2e-3", "--warm_start", "null")
    assert "world model: training" in changed.said
    assert "warm start" not in changed.said


def test_a_given_world_model_is_used(momalit, tmp_path: Path):
    momalit(*FIT, "--run_dir", "one", "--seed_everything", "5")
    checkpoint = "one/world_model/checkpoints/last.ckpt"
    assert momalit(*FIT, "--run_dir", "two", "--model.world_model", checkpoint).said.count(checkpoint) == 1


def test_an_interrupted_run_continues_where_it_was(momalit, tmp_path: Path):
    whole = momalit(*FIT, "--run_dir", "whole", "--trainer.max_epochs", "4", "--model.final_lr_fraction", "1")
    assert whole.code == 0
    assert momalit(*FIT, "--run_dir", "part", "--trainer.max_epochs", "2", "--model.final_lr_fraction", "1").code == 0
    with (tmp_path / "part/metrics.csv").open("a") as file:  # begun after the last checkpoint, and lost
        file.write(file.name and "2,9" + "," * (len(rows(tmp_path / "part/metrics.csv")[0]) - 2) + "\n")
    assert momalit("fit", "--run_dir", "part", "--ckpt_path", "last", "--trainer.max_epochs", "4").code == 0
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "part/metrics.csv").read_bytes()
    a, b = (torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True) for run in ("whole", "part"))
    for name, value in a["state_dict"].items():
        torch.testing.assert_close(value, b["state_dict"][name], rtol=0, atol=0)


def test_a_stage_that_was_interrupted_continues(momalit, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MOMALIT_HOME", str(tmp_path / "home"))
    words = (*FIT, "--run_dir", "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("momalit.training.stages.copy_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            momalit(*words)
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "interrupted"
    assert momalit(*words).code == 2
    resumed = momalit("fit", "--run_dir", "run", "--ckpt_path", "last")
    assert resumed.code == 0
    assert "world model: training goes on" in resumed.said


def test_a_directory_with_a_run_is_refused(momalit):
    momalit(*FIT, "--run_dir", "run")
    refused = momalit(*FIT, "--run_dir", "run")
    assert refused.code == 2
    assert "run_dir: run holds another run (finished); continue it with --ckpt_path last" in refused.said


def test_the_command_line_wins_over_the_checkpoint_and_the_checkpoint_over_files(momalit, tmp_path: Path):
    momalit(*FIT, "--run_dir", "run", "--model.lr", "1e-3", "--model.width", "16")
    outcome = momalit(
        *FIT, "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3", "--model.lr", "1e-5"
    )
    assert outcome.code == 0
    assert "model.lr: 1e-05 from the command line (checkpoint: 0.001)" in outcome.said.splitlines()
    assert "model.width: 16 from the checkpoint (configuration: 8)" in outcome.said.splitlines()
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["lr"] == 1e-5
    assert {group["initial_lr"] for group in saved["optimizer_states"][0]["param_groups"]} == {1e-5}
    assert float(rows(tmp_path / "run/metrics.csv")[-1]["policy/lr"]) < 1e-5


def test_evaluating_and_predicting(momalit, tmp_path: Path):
    momalit(*FIT, "--run_dir", "run")
    assert momalit("test", "--run_dir", "run", "--ckpt_path", "best").code == 0
    tested = json.loads((tmp_path / "run/test.json").read_text())
    assert tested["checkpoint"] == "run/checkpoints/best.ckpt"
    assert tested["metrics"]["test/return"] == json.loads((tmp_path / "run/results.json").read_text())["return_best"]
    assert momalit("validate", "--ckpt_path", "run/checkpoints/last.ckpt").code == 0
    assert "eval/return" in json.loads((tmp_path / "run/validate.json").read_text())["metrics"]
    assert momalit("predict", "--run_dir", "run").code == 0
    with np.load(tmp_path / "run/predictions.npz") as predictions:
        assert predictions["action"].shape == (100, 2, 2)  # a tenth of the transitions, agents, choices
    misfit = momalit("test", "--run_dir", "run", "--model.width", "4")
    assert misfit.code == 2
    assert "does not fit the configured MOMAPPOModule" in misfit.said


def test_a_world_model_alone(momalit, tmp_path: Path):
    words = ("--config", "overlays/quick.yaml", "--data.transitions", "1000", "--model.hidden_sizes", "[8]")
    assert momalit("fit", "--config", "world_model/icg.yaml", *words, "--run_dir", "run").code == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert {"val/error", "test/error"} <= set(results["metrics"])
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()
    wrong = momalit("test", "--config", "tiny.yaml", "--ckpt_path", "run/checkpoints/best.ckpt")
    assert wrong.code == 2
    assert "is of another method than MOMAPPOModule" in wrong.said


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


@pytest.mark.filterwarnings("ignore:Total length of")  # as Lightning says
def test_a_log_of_which_nothing_is_held_out_for_tests(momalit):
    words = ("--config", "world_model/icg.yaml", "--trainer.max_epochs", "1", "--data.transitions", "1000")
    assert momalit("fit", *words, "--data.test_fraction", "0", "--run_dir", "run").code == 0
    assert momalit("test", "--run_dir", "run").code == 0
    predicted = momalit("predict", "--run_dir", "run")
    assert predicted.code == 2
    assert "data.test_fraction: holds out 0 trajectories" in predicted.said


@pytest.mark.parametrize(("method", "title"), [("iql", "IQL"), ("maiql", "MAIQL"), ("icql", "ICQL")])
def test_a_baseline_ends_with_results_like_any_other(method, title, momalit, tmp_path: Path):
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
    words = ("--config", "icg.yaml", "--config", f"baselines/{method}.yaml", "--config", "overlays/quick.yaml", *tiny)
    assert momalit("fit", *words, "--run_dir", "run").code == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["method"] == title
    assert results["episodes"] == 8
    assert {"train/critic", "train/policy", "eval/return"} <= set(rows(tmp_path / "run/metrics.csv")[0])
    continued = ("--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3")
    assert momalit("fit", *continued).code == 0
    assert momalit("test", "--run_dir", "run", "--ckpt_path", "best").code == 0
    assert momalit("predict", "--run_dir", "run").code == 0


@pytest.mark.parametrize("method", ["itd3_bc", "iomar"])
def test_a_method_for_continuous_actions_refuses_a_team_that_chooses(method, momalit, tmp_path: Path):
    refused = momalit("fit", "--config", "icg.yaml", "--config", f"baselines/{method}.yaml")
    assert refused.code == 2
    assert "needs continuous actions, found the discrete ones of icg; expected e.g." in refused.said.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
    tiny = ("--model.width", "8", "--model.gru_size", "4", "--model.steps_per_epoch", "2", "--trainer.max_epochs", "1")
    words = ("--config", "reacher.yaml", "--config", f"baselines/{method}.yaml", "--config", "overlays/quick.yaml")
    assert momalit("fit", *words, *tiny, "--data.transitions", "1000", "--run_dir", "run").code == 0
    assert json.loads((tmp_path / "run/results.json").read_text())["return_last"] < 0
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "2").code == 0


def test_a_dataset_of_ones_own_names_its_own_settings(momalit):
    words = ("--env.observability", "own", "--transitions", "300", "--seed", "3", "--output", "mine")
    made = momalit("collect", "icg/unfavourable", *words)
    assert made.code == 0
    assert "--data.dataset mine" in made.said
    own = momalit(*FIT, "--data.dataset", "mine", "--data.transitions", "null", "--run_dir", "run")
    assert own.code == 0
    assert json.loads(Path("run/results.json").read_text())["env"]["observability"] == "own"
    assert momalit("collect", "icg/unfavourable", *words).code == 2


@pytest.mark.parametrize(
    "setting", [("fast_dev_run", "true"), ("enable_checkpointing", "false")], ids=lambda each: each[0]
)
def test_runs_without_checkpoints(setting, momalit, tmp_path: Path):
    assert momalit(*FIT, "--run_dir", "run", f"--trainer.{setting[0]}", setting[1]).code == 0
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ("filename: mine", ["best.ckpt", "last.ckpt"]),
        ("filename: mine, monitor: eval/return, mode: max", ["last.ckpt"]),
    ],
    ids=["another", "another best"],
)
def test_checkpoints_of_ones_own(settings, kept, momalit, tmp_path: Path):
    """They are added; what watches a metric takes the place of our best, and the last is there to go on from."""
    (tmp_path / "own.yaml").write_text(
        "trainer:\n  logger: false\n  callbacks:\n  - class_path: lightning.pytorch.callbacks.ModelCheckpoint\n"
        f"    init_args: {{dirpath: own, {settings}}}\n"
    )
    assert momalit(*FIT, "--config", "own.yaml", "--run_dir", "run").code == 0
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["mine.ckpt"]
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == kept
    assert not (tmp_path / "run/metrics.csv").exists()
    assert momalit("fit", "--run_dir", "run", "--ckpt_path", "last", "--trainer.max_epochs", "3").code == 0


def test_without_a_progress_bar(momalit):
    done = momalit("fit", "--config", "tiny.yaml", "--trainer.enable_progress_bar", "false", "--run_dir", "quiet")
    assert done.code == 0, done.said
    assert "epoch" not in done.said

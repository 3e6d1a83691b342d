"""TrainingCLI: LightningCLI with run directories and stages, where the command line overrides checkpoints."""

from __future__ import annotations

import logging
import os
import time
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import Evaluation
from datamodules.names import is_name
from momalit.cli import COMMANDS, checkpoint_settings, configs
from momalit.cli.error_messages import class_settings, one_line
from momalit.cli.help_text import simplify_help
from momalit.cli.own_runs import require_own
from momalit.cli.run_record import recorded_run
from momalit.cli.run_results import dataset_record, evaluate_and_save, save_metrics, save_predictions
from momalit.cli.stage_settings import (
    WARM_START,
    WORLD_MODEL,
    WarmStartSettings,
    WorldModelSettings,
    run_stages,
    wanted_stages,
)
from momalit.cli.trainer_defaults import (
    default_callbacks,
    default_loggers,
    drop_replaced,
    monitor_of,
    require_devices,
)
from momalit.core.errors import UserError
from momalit.core.team import TeamSpec
from momalit.policies.ppo import PPOModule
from momalit.policies.team_policy import TeamPolicyModule
from momalit.training.checkpoints import BEST, LAST, CheckpointFiles
from momalit.training.cpu import configure_cpu
from momalit.training.forked_ddp import ForkedDDP
from momalit.training.forks import free_processes
from momalit.training.resumable import ResumableModule
from momalit.training.run_directory import INHERITED, RunDirectory, externally_launched
from momalit.training.trainer_checks import precision_for, require_launcher, require_precision, require_strategy
from momalit.world_model.member_share import useful_processes
from momalit.world_model.module import WorldModelModule

logger = logging.getLogger(__name__)

TRAINING = ("fit", "validate", "test", "predict")
TRAINER_DEFAULTS = {"enable_model_summary": False, "num_sanity_val_steps": 0}


class TrainingCLI(LightningCLI):
    """Runs a training or evaluation command. Constructing the object runs the command.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        files: configuration files; later ones override. The first one gives the run its name.
        arguments: the other command-line arguments, which override the files.
    """

    def __init__(self, command: str, files: Sequence[Path], arguments: Sequence[str]) -> None:
        self.command, self.files, self.arguments = command, list(files), list(arguments)
        self.started = time.time()
        self.run: RunDirectory
        shared = {"allow_abbrev": False, "exit_on_error": False}
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # RunDirectory.begin saves the configuration
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # the modules save their hyper-parameters themselves
            parser_kwargs={
                "prog": "momalit",
                **shared,
                **{c: {**shared, "description": COMMANDS[c]} for c in TRAINING},
            },
            args=[command, *(f"--config={path}" for path in self.files), *self.arguments],
        )

    @classmethod
    def start(cls, command: str, arguments: Sequence[str]) -> None:
        """Runs a command. Without ``--config`` it uses the configuration of ``--run_dir`` or ``--ckpt_path``.

        Raises:
            UserError: an argument, file or setting is invalid.
        """
        configure_cpu()
        files, others = configs.split_arguments(arguments)
        if not files and not {"-h", "--help"} & set(others):
            files = [_config_of_run(command, others)]
        cls(command, files, others)

    # --- parsing ---------------------------------------------------------------------------------------------------
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that LightningCLI does not have: run directory, stages and evaluation."""
        parser.add_argument(
            "--run_dir", type=str | None, default=None, help="directory of the run; if null, runs/CONFIG/TIME-SEED"
        )
        parser.add_argument(
            "--parallel",
            type=str | None,
            default=None,
            help="auto: world model, PPO and evaluation use more than one core of this machine; off: one; null:"
            " $MOMALIT_PARALLEL, or else auto. Results do not depend on it",
        )
        for stage, kind in ((WORLD_MODEL, WorldModelSettings), (WARM_START, WarmStartSettings)):
            parser.add_argument(
                f"--{stage.key}", type=kind | None, default=kind(), help=f"settings of the {stage.title} stage"
            )
        parser.add_lightning_class_args(Evaluation, "evaluation")
        parser.link_arguments("data.spec", "model.init_args.spec", compute_fn=TeamSpec.to_dict, apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        simplify_help(parser, subcommand)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments.

        Raises:
            UserError: an argument or key is invalid.
        """
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise UserError(one_line(error.message, self._known_keys())) from error

    def _known_keys(self) -> list[str]:
        keys = [action.dest for action in self._subcommand_parsers[self.command]._actions]
        for group in ("model", "data"):
            for path in self.files:
                class_path = (configs.read(path).get(group) or {}).get("class_path")
                keys += [f"{group}.{name}" for name in class_settings(class_path or "")]
        return keys

    def _parse_ckpt_path(self) -> None:
        """Finds the checkpoint and merges its settings. Unlike in Lightning, the command line overrides them."""
        config = self.config[self.command]
        run_dir = config.get("run_dir") or os.environ.get(INHERITED)
        run, path = (RunDirectory(Path(run_dir)) if run_dir else None), config["ckpt_path"]
        if path is None and self.command != "fit":
            if run is None:
                raise UserError(f"{self.command}: found no checkpoint, expected --ckpt_path PATH or --run_dir DIR")
            path = BEST if run.checkpoint(BEST).is_file() else LAST
        self.resuming, self.new_learning_rates = path is not None, False
        if path is None:
            return
        config["ckpt_path"] = checkpoint_settings.resolve_checkpoint(path, run, may_be_missing=self.command == "fit")
        if config["ckpt_path"] is None:
            return
        if run is None and (around := RunDirectory.around(config["ckpt_path"])) is not None and self.command != "fit":
            config["run_dir"] = str(around.path)
        model = config["model"]
        stored = checkpoint_settings.stored_settings(config["ckpt_path"], model["class_path"])
        configured = model["init_args"].as_dict()
        given = checkpoint_settings.given_on_command_line(self.arguments)
        changes = checkpoint_settings.overrides(configured, stored, given)
        self.new_learning_rates = checkpoint_settings.changes_learning_rates(configured, stored, given)
        if changes:
            update = {"class_path": model["class_path"], "init_args": changes}
            try:
                self.config = self.parser.parse_object({self.command: {"model": update}}, self.config)
            except ArgumentError as error:
                raise UserError(f"--ckpt_path: {one_line(error.message)}") from error

    # --- instantiation ---------------------------------------------------------------------------------------------
    def before_instantiate_classes(self) -> None:
        config = self.config[self.command]
        self._drop_env_of_other_dataset(config["data"]["init_args"])
        starts = self.command == "fit" and not self.resuming  # later the files may be gone
        for stage, kind in ((WORLD_MODEL, "world model"), (WARM_START, "team")):
            given = config["model"]["init_args"].get(stage.key)
            if starts and given is not None and not Path(given).is_file():
                raise UserError(f"model.{stage.key}: found no file '{given}', expected the checkpoint of a {kind}")
        require_strategy(_class_path(config["trainer"]["strategy"]))
        require_launcher(_class_path(config["trainer"]["strategy"]))
        require_precision(config["trainer"]["precision"])
        seed = config["seed_everything"]
        self.seed = None if seed is False else int(seed)
        self.run = RunDirectory.choose(config["run_dir"], _run_name(self.files), self.seed)
        if self.command == "fit" and not self.resuming and INHERITED not in os.environ:
            self.run.require_free()
        if self.command == "fit" and self.resuming:  # a run's time is that of all its commands
            self.started -= float(self.run.record.get("seconds") or 0)
        self.processes = free_processes(config["parallel"])
        device = require_devices(config["trainer"])
        insisted = "precision" in checkpoint_settings.given_on_command_line(self.arguments, "trainer")
        config["trainer"]["precision"] = precision_for(device, config["trainer"]["precision"], insisted)

    def _drop_env_of_other_dataset(self, data: Any) -> None:
        """Drops the configuration's ``data.env`` if the command line names a dataset file, which has its own."""
        given = checkpoint_settings.given_on_command_line(self.arguments, "data")
        if "dataset" not in given or "env" in given or not data.get("env") or is_name(data["dataset"]):
            return
        dropped = {name: value for name, value in data["env"].items() if f"env.{name}" not in given}
        if dropped and Path(data["dataset"]).expanduser().exists():  # else an error follows
            logger.info("data.env: ignoring %s; %s has its own settings", dropped, data["dataset"])
        data["env"] = {name: value for name, value in data["env"].items() if name not in dropped} or None

    def instantiate_classes(self) -> None:
        """Makes data module, model and trainer.

        Raises:
            UserError: a class rejects its settings. jsonargparse wraps this exception in others.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            raise cause from None
        if self.trainer.world_size > 1 or self.trainer.strategy.root_device.type != "cpu" or externally_launched():
            self.processes = 1
        evaluation: Evaluation = self._get(self.config_init, "evaluation")
        evaluation.use_cores(self.processes)
        if isinstance(self.model, TeamPolicyModule):
            evaluation.require_worlds(self.model)
        if isinstance(self.model, PPOModule):
            self.model.use_cores(self.processes)
        if isinstance(self.model, ResumableModule):  # checked now, before the stages are trained
            self.model.require_trainer(self.trainer, fitting=self.command == "fit")

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Makes the trainer, with default checkpoints and progress bar unless the configuration has others.

        ``metrics.csv`` is always written, unless ``trainer.logger`` is false; other loggers replace TensorBoard's.
        """
        config = self._get(self.config_init, "trainer")
        fit = self.command == "fit"
        if config["logger"] in (None, True):
            config["logger"] = default_loggers(self.run) if fit else False
        elif config["logger"] and fit:  # reports and studies read metrics.csv
            loggers = config["logger"] if isinstance(config["logger"], list) else [config["logger"]]
            config["logger"] = [*loggers, *default_loggers(self.run)[:1]]
        if config["default_root_dir"] is None:
            config["default_root_dir"] = str(self.run.path)
        if fit:
            configured = config["callbacks"] or []
            configured = configured if isinstance(configured, list) else [configured]
            for callback in configured:
                if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                    callback.dirpath = str(self.run.checkpoints)
            title = type(self.model).__name__.removesuffix("Module")
            progress, save = (config[f"enable_{what}"] is not False for what in ("progress_bar", "checkpointing"))
            evaluation: Evaluation = self._get(self.config_init, "evaluation")
            plays = isinstance(self.model, TeamPolicyModule) and evaluation.plays(self.model)
            defaults = default_callbacks(self.run, title, monitor_of(self.model, plays), progress, save)
            if self.new_learning_rates:
                defaults.append(checkpoint_settings.ReplaceLearningRates())
            config["callbacks"] = [*configured, *drop_replaced(configured, defaults)]
            plugins = config["plugins"] or []
            plugins = plugins if isinstance(plugins, list) else [plugins]
            if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
                config["plugins"] = [*plugins, CheckpointFiles()]
            if (processes := self._processes_of_world_model(config)) > 1:
                config["strategy"], config["devices"] = ForkedDDP(processes), processes
        elif config["enable_progress_bar"] is None:
            config["enable_progress_bar"] = False
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError) as error:
            raise UserError(f"trainer: {error}") from error

    def _processes_of_world_model(self, trainer: Any) -> int:
        """How many processes train the model if it is a world model and the configuration leaves it to us; else 1."""
        free = trainer["strategy"] == "auto" and trainer["devices"] == "auto" and trainer["num_nodes"] == 1
        if not free or not isinstance(self.model, WorldModelModule) or externally_launched() or trainer["fast_dev_run"]:
            return 1
        samples = len(self.datamodule.train) * max(trainer["max_epochs"] or 1, 1)
        return useful_processes(self.model.network, samples, self.processes)

    # --- running ---------------------------------------------------------------------------------------------------
    def fit(self, model: pl.LightningModule, datamodule: Any, ckpt_path: str | None = None, **kwargs: Any) -> None:
        """Runs the stages, trains the model, evaluates it and writes the results."""
        config = self.config[self.command]
        stages = [] if ckpt_path else wanted_stages(model, datamodule, config)  # a mistake leaves no directory
        with self._run_record(datamodule):
            run_stages(stages, model, datamodule, config, self.run, ckpt_path, self.processes)
            with checkpoint_settings.explain_load_errors(ckpt_path, model):
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, **kwargs)
            if not config["trainer"]["fast_dev_run"]:
                evaluate_and_save(self.trainer, model, datamodule, self.run, self.seed, self.started)

    def validate(self, model: pl.LightningModule, datamodule: Any, **kwargs: Any) -> None:
        """Evaluates on the validation seeds."""
        self._evaluate("validate", model, datamodule, kwargs)

    def test(self, model: pl.LightningModule, datamodule: Any, **kwargs: Any) -> None:
        """Evaluates on the test seeds."""
        self._evaluate("test", model, datamodule, kwargs)

    def predict(self, model: pl.LightningModule, datamodule: Any, **kwargs: Any) -> None:
        """Writes ``predictions.npz`` to the run directory."""
        kwargs.pop("return_predictions", None)
        with checkpoint_settings.explain_load_errors(kwargs["ckpt_path"], model):
            outputs: Any = self.trainer.predict(model, datamodule=datamodule, return_predictions=True, **kwargs)
        if self.trainer.is_global_zero:
            logger.info("the predictions are in %s", save_predictions(outputs or [], self.run))

    def _evaluate(self, command: str, model: pl.LightningModule, datamodule: Any, kwargs: dict[str, Any]) -> None:
        kwargs["verbose"] = False
        with checkpoint_settings.explain_load_errors(kwargs["ckpt_path"], model):
            per_dataloader = getattr(self.trainer, command)(model, datamodule=datamodule, **kwargs)
        if self.trainer.is_global_zero:
            metrics = {name: value for part in per_dataloader for name, value in part.items()}
            logger.info("the results are in %s", save_metrics(command, metrics, kwargs["ckpt_path"], self.run))

    def _run_record(self, datamodule: Any) -> AbstractContextManager[None]:
        """The run's directory and record, which the first process keeps."""
        if not self.trainer.is_global_zero:
            return nullcontext()
        config = self.config[self.command].clone()
        for key in ("config", "run_dir", "ckpt_path", "parallel"):
            config.pop(key, None)
        command = [self.command, *(f"--config={path}" for path in self.files), *self.arguments]
        record: dict[str, Any] = {"command": command, "seed": self.seed, "threads": torch.get_num_threads()}
        record["dataset"] = dataset_record(datamodule)
        config_text = self._parser(self.command).dump(config, skip_unset=False)
        return recorded_run(self.run, record, config_text, self.resuming, self.started)


def _class_path(setting: Any) -> str:
    """Returns a setting as a string; if it configures a class, the class path."""
    return str(setting["class_path"]) if isinstance(setting, Namespace) else str(setting)


def _run_name(files: Sequence[Path]) -> str:
    """Returns the folder in ``runs/`` for the first configuration, e.g. ``reacher`` or ``world_model/reacher``."""
    first = files[0]
    built_in = first.is_relative_to(configs.directory())
    return (first.relative_to(configs.directory()).with_suffix("") if built_in else Path(first.stem)).as_posix()


def _config_of_run(command: str, arguments: Sequence[str]) -> Path:
    """Returns the configuration file of the run that ``--run_dir`` or ``--ckpt_path`` names.

    Raises:
        UserError: no run is given, or it has no ``config.yaml``.
    """
    run_dir = checkpoint_settings.option_value(arguments, "run_dir")
    ckpt_path = checkpoint_settings.option_value(arguments, "ckpt_path")
    run = RunDirectory(Path(run_dir).expanduser()) if run_dir else RunDirectory.around(ckpt_path) if ckpt_path else None
    if run is not None and run.config.is_file():
        require_own(run.config)
        return run.config.resolve()
    if run_dir:
        raise UserError(f"--config: found none, and --run_dir {run_dir} contains no config.yaml of a run")
    known = ", ".join(configs.names())
    raise UserError(f"--config: found none, expected e.g. {command} --config icg.yaml; available: {known}")

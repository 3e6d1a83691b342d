"""The command ``completion``: prints a script with which a shell completes momalit's commands and options."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentParser

from momalit.cli import COMMANDS, NON_TRAINING_COMMANDS, configs
from momalit.cli.error_messages import class_settings, parse_arguments
from momalit.core.checks import require_choice
from momalit.core.errors import UserError

PATHS = ("--run_dir", "--ckpt_path", "--output", "--layout", "--data.dataset")  # options whose values are paths
GROUPS = ("model", "data")  # whose settings depend on a class


def run_completion(arguments: list[str]) -> None:
    """Prints the script.

    Args:
        arguments: the command-line arguments after ``completion``.

    Raises:
        UserError: the shell is unknown, or shtab is not installed.
    """
    options = parse_arguments(_parser(), arguments)
    try:
        import shtab
    except ImportError:
        raise UserError("completion: found no package shtab, expected it (pip install shtab)") from None
    require_choice("completion", options.shell, shtab.SUPPORTED_SHELLS)
    sys.stdout.write(shtab.complete(_plain_parser(shtab.FILE), options.shell) + "\n")


def _plain_parser(path: dict[str, Any]) -> argparse.ArgumentParser:
    """All commands with their options, as a parser that shtab can read. Paths are completed by ``path``."""
    training = _training_options()
    completers = {**dict.fromkeys(PATHS, path), "--config": _config(path)}
    root = argparse.ArgumentParser("momalit", allow_abbrev=False)
    commands = root.add_subparsers()
    for name, text in COMMANDS.items():
        parser = commands.add_parser(name, help=_text(text), add_help=False)
        if name in training:
            options = training[name]
        else:
            module = import_module(f"momalit.cli.commands.{NON_TRAINING_COMMANDS[name][0]}")
            actions = module._parser()._actions
            options = {action.option_strings[-1]: action.help for action in actions if action.option_strings}
            for action in actions:
                if not action.option_strings:
                    parser.add_argument(action.dest, nargs="*").complete = path  # type: ignore[attr-defined]
        for option, description in options.items():
            added = parser.add_argument(option, help=_text(description))
            if option in completers:
                added.complete = completers[option]  # type: ignore[attr-defined]
    return root


def _training_options() -> dict[str, dict[str, str]]:
    """Options and descriptions of the training commands, with those of every class in a built-in configuration."""
    from momalit.cli.training_cli import TRAINING, TrainingCLI

    class Found(Exception):  # noqa: N818
        pass

    class Options(TrainingCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:  # the parsers are complete, nothing else is done
            raise Found(self._subcommand_parsers)

    try:
        Options("fit", [], [])
    except Found as found:
        parsers = found.args[0]
    settings: dict[str, str] = {}
    for config in map(configs.find, configs.names()):
        for group in GROUPS:
            class_path = (configs.read(config).get(group) or {}).get("class_path", "")
            settings |= {f"--{group}.{name}": "" for name in class_settings(class_path)}
    listed = {
        command: {action.option_strings[-1]: action.help for action in parsers[command]._actions}
        for command in TRAINING
    }
    return {command: dict(sorted((options | settings).items())) for command, options in listed.items()}


def _config(path: dict[str, Any]) -> dict[str, Any]:
    """Completes ``--config`` by the names of built-in configurations, and by paths."""
    names = " ".join(configs.names())
    return {
        **path,
        "bash": "_momalit_config",
        "zsh": f"{{_values configuration {names}; _files -g '*.yaml'}}",
        "fish": f"(printf '%s\\n' {names}; __fish_complete_path (commandline -ct))",
        "preamble": {"bash": f'_momalit_config() {{ compgen -W "{names}" -- $1; compgen -f -- $1; }}'},
    }


def _text(description: str | None) -> str:
    return " ".join((description or "").replace("%", "%%").split())


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="momalit completion",
        usage="momalit completion SHELL",
        description="Prints a script with which a shell completes the commands and options of an installed momalit.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("shell", type=str, metavar="SHELL", help="bash, zsh, fish, ...")
    return parser

"""Shortens ``COMMAND --help``: Lightning's descriptions are paragraphs of reStructuredText."""

from __future__ import annotations

import re

from lightning.pytorch.cli import LightningArgumentParser

DESCRIPTIONS = {  # replace those of Lightning
    "config": "configuration: a file or the name of a built-in one; if there are several, later ones override",
    "seed_everything": "random seed",
    "model": "the method: a class path; its settings are --model.NAME VALUE",
    "data": "the data module: a class path; its settings are --data.NAME VALUE",
    "ckpt_path": (
        "a checkpoint's path, or last, best or previous in --run_dir; fit resumes from it, other commands evaluate it"
    ),
    "weights_only": "load tensors and plain values only",
    "verbose": "ignored; the command always shows its results",
    "return_predictions": "ignored; the predictions are always saved",
}
TITLES = {"trainer": "trainer", "model": "model", "data": "data", "evaluation": "evaluation in the real environment"}


def simplify_help(parser: LightningArgumentParser, command: str) -> None:
    """Shortens the description of every trainer option to one sentence, and replaces the ``DESCRIPTIONS``."""
    parser.usage = f"python main.py {command} [--config NAME_OR_FILE ...] [--KEY VALUE ...]"
    for action in parser._actions:
        if action.dest in DESCRIPTIONS:
            action.help = DESCRIPTIONS[action.dest]
        elif isinstance(action.help, str) and action.dest.startswith("trainer."):
            action.help = _first_sentence(action.help)
    for group in parser._action_groups:
        name = next((action.dest.partition(".")[0] for action in group._group_actions), "")
        if group.title == "options":
            continue
        group.title = TITLES.get(name, "checkpoint" if name == "ckpt_path" else group.title)


def _first_sentence(text: str) -> str:
    plain = re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "")
    return re.split(r"(?<=[.\)])\s+(?=[A-Z`])", " ".join(plain.split()))[0]

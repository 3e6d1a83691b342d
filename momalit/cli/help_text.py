"""Makes ``COMMAND --help`` readable: Lightning's descriptions are paragraphs of reStructuredText."""

from __future__ import annotations

import re

from lightning.pytorch.cli import LightningArgumentParser

# What a line of our own says better.
OWN_WORDS = {
    "config": "a configuration: a file, or the name of one that ships; later ones win",
    "seed_everything": "seed of everything random",
    "model": "the method: a class path, and its settings as --model.NAME VALUE",
    "data": "what is learnt from: a class path, and its settings as --data.NAME VALUE",
    "ckpt_path": "a checkpoint, or last or best of --run_dir; fit goes on from it, the others evaluate it",
    "weights_only": "load tensors and plain values only",
    "verbose": "show the results",
    "return_predictions": "always so here: the predictions are saved",
}
TITLES = {"trainer": "trainer", "model": "model", "data": "data", "evaluation": "evaluation in the real environment"}


def tidy(parser: LightningArgumentParser, command: str) -> None:
    """Gives every option of a command's parser a description of one sentence."""
    parser.usage = f"python main.py {command} [--config NAME_OR_FILE ...] [--KEY VALUE ...]"
    for action in parser._actions:
        if action.dest in OWN_WORDS:
            action.help = OWN_WORDS[action.dest]
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

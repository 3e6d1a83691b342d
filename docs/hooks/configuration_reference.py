"""Writes the configuration reference: every option of every class that a configuration names, from its signature.

A page holds lines such as ``<!-- options: momalit.MOMAPPOModule model -->``; each is replaced by a definition list of
the class's constructor arguments, under the key given last.
"""

from __future__ import annotations

import re
from typing import Any

from jsonargparse import ArgumentParser

from momalit.core.imports import import_by_path

MARKER = re.compile(r"^<!-- options: (?P<path>[\w.]+) (?P<key>[\w.]+)(?P<skip>( -\w+)*) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """MkDocs calls this with the source of every page."""
    return MARKER.sub(lambda found: options(found["path"], found["key"], re.findall(r"\w+", found["skip"])), markdown)


def options(path: str, key: str, skip: list[str]) -> str:
    """The options of the class ``path`` as Markdown: key, type, default, meaning."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(import_by_path(path), key, skip=set(skip))
    entries = []
    for action in parser._actions:
        name = action.dest.removeprefix(f"{key}.")
        if name == action.dest or name.endswith(".help"):
            continue
        kind = _type_name(getattr(action, "_typehint", None) or action.type)
        default = "required" if action.required else f"default `{_literal(action.default)}`"
        meaning = " ".join((action.help or "").replace("``", "`").split())
        if meaning[:1].isascii():  # Greek letters are symbols
            meaning = meaning[:1].upper() + meaning[1:]
        entries.append(f"`{name}`{{ #{key}.{name} }} · `{kind}` · {default}\n:   {meaning}\n")
    return "\n".join(entries)


def _type_name(kind: Any) -> str:
    text = str(kind) if "|" in str(kind) or "[" in str(kind) else getattr(kind, "__name__", str(kind))
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text).replace("NoneType", "None")
    return re.sub(r"^Optional\[(.*)\]$", r"\1 | None", text)


def _literal(value: Any) -> str:
    """A default as YAML writes it."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)

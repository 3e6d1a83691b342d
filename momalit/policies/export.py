"""Exports a team: each agent as ONNX and as ``torch.export``, with everything that is needed to run it elsewhere."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from momalit.core.errors import UserError
from momalit.core.files import replacing
from momalit.core.team import TeamSpec
from momalit.nn.actors import TeamActor
from momalit.nn.agent_policy import AgentPolicy
from momalit.training.run_directory import versions, write_json, write_text

FORMATS = ("onnx", "torch")
RUNNER = Path(__file__).with_name("run_team.py")


def export_team(
    actor: TeamActor, output: Path, facts: Mapping[str, Any], formats: Sequence[str] = FORMATS
) -> list[AgentPolicy]:
    """Writes ``team.json``, a network per agent and format, ``policies.safetensors``, a runner and a model card.

    Args:
        actor: the team's policies, on the CPU.
        output: a directory that exists.
        facts: what the model card says about the training, by name.
        formats: which of ``onnx`` and ``torch`` to write.

    Returns:
        the agents that were exported.

    Raises:
        UserError: a package for a format is missing.
    """
    agents = [AgentPolicy(actor, i) for i in range(actor.spec.n_agents)]
    files = [re.sub(r"[^\w.-]+", "_", agent.name) for agent in agents]
    if len(set(files)) < len(files):
        files = [f"{i}_{name}" for i, name in enumerate(files)]
    for agent, name in zip(agents, files, strict=True):
        arguments, axes = _example(agent)
        with _quiet():
            if "torch" in formats:
                with replacing(output / f"{name}.pt2") as partial:
                    torch.export.save(torch.export.export(agent, arguments, dynamic_shapes=axes), partial)
            if "onnx" in formats:
                with replacing(output / f"{name}.onnx") as partial:
                    _write_onnx(agent, arguments, axes, partial)
    with replacing(output / "policies.safetensors") as partial:
        save_file({name: value.contiguous() for name, value in actor.state_dict().items()}, partial)
    described = [_description(actor.spec, i, agents[i], files[i], formats) for i in range(len(agents))]
    team = {"task": actor.spec.task, "horizon": actor.spec.horizon, "agents": described, "spec": actor.spec.to_dict()}
    write_json(output / "team.json", {**team, "network": actor.sizes, "versions": versions()})
    if "onnx" in formats:
        write_text(output / RUNNER.name, RUNNER.read_text(encoding="utf-8"))
    write_text(output / "README.md", _card(actor, described, facts, formats))
    return agents


def _example(agent: AgentPolicy) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """Arguments of the right sizes, and which of their axes may have any size."""
    sizes = [agent.observation_size, agent.action_size, agent.hidden_size]
    sizes += [agent.action_size] * agent.has_mask
    rows = torch.export.Dim("rows")
    return tuple(torch.zeros(2, size) for size in sizes), ({0: rows},) * len(sizes)


def _write_onnx(agent: AgentPolicy, arguments: tuple[Tensor, ...], axes: tuple[Any, ...], path: Path) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--formats: onnx needs the package {error.name}: pip install 'momalit[export]', or --formats torch"
        ) from error
    names = ["observation", "previous_action", "hidden", "legal"][: len(arguments)]
    torch.onnx.export(
        agent, arguments, path, input_names=names, output_names=["action", "next_hidden"], dynamic_shapes=axes,
        dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters, which report their progress and packages that they do not need."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx")]
    levels = [one.level for one in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for one in loggers:
            one.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for one, level in zip(loggers, levels, strict=True):
                one.setLevel(level)


def _description(spec: TeamSpec, i: int, agent: AgentPolicy, file: str, formats: Sequence[str]) -> dict[str, Any]:
    own = spec.agents[i]
    return {
        "name": agent.name,
        **({"onnx": f"{file}.onnx"} if "onnx" in formats else {}),
        **({"torch": f"{file}.pt2"} if "torch" in formats else {}),
        "observation_size": agent.observation_size,
        "observation": [f"{spec.sources[column][0]}[{spec.sources[column][1]}]" for column in own.observes],
        "action_size": agent.action_size,
        "discrete": agent.discrete,
        "low": list(own.low),
        "high": list(own.high),
        "hidden_size": agent.hidden_size,
        "legal": agent.has_mask,
    }


CARD = """\
# A team for {task}

Trained by [momalit](https://arxiv.org/abs/2305.17198) from a dataset.

## Training

{facts}

## Agents

| agent | observation | action | hidden state |
|---|---|---|---|
{agents}

Every agent acts on its own observation, its previous action and its hidden state. The last two are zero at the first
step of an episode. Observations and actions are in the task's own units: standardisation is part of the networks.
Actions are deterministic. `team.json` has the columns of each observation, sizes and bounds.

## Use

{use}
"""
USE = {
    "onnx": """\
`run_team.py` needs onnxruntime and numpy alone:

```python
from run_team import Team

team = Team()
team.reset()  # at the beginning of every episode
actions = team.act({"NAME": observation})  # with the observation of every agent
```""",
    "torch": "`torch.export.load(FILE).module()` gives an agent's network.",
}


def _card(
    actor: TeamActor, agents: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], formats: Sequence[str]
) -> str:
    rows = []
    for agent in agents:
        actions = "choices" if agent["discrete"] else f"in {_bounds(agent)}"
        cells = (agent["name"], agent["observation_size"], f"{agent['action_size']} {actions}", agent["hidden_size"])
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return CARD.format(
        task=actor.spec.task,
        facts="\n".join(f"- {name}: {value}" for name, value in facts.items()),
        agents="\n".join(rows),
        use="\n\n".join(USE[name] for name in FORMATS if name in formats),
    )


def _bounds(agent: Mapping[str, Any]) -> str:
    pairs = dict.fromkeys(zip(agent["low"], agent["high"], strict=True))
    return ", ".join(f"[{low:g}, {high:g}]" for low, high in pairs)

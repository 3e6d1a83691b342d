"""What is in a dataset: sizes, returns, columns, actions, conventions, and what that means for learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.readers.team_dataset import Dataset
from momalit.core.team import AgentSpec, who_is_there

MOST_ROWS = 200_000  # used for the regression of actions, which would take long on all rows
ROWS_PER_COLUMN = 10  # fewest of that regression: with fewer, it would fit actions that have no cause
AT_BOUND = 1e-6  # share of the range within which an action is at a bound
MOST_JOINT_ACTIONS = 12  # shown
OFTEN = 30  # steps in which a joint action must occur before anything is said about it
DETERMINISTIC = 0.995  # share of an action's variance explained by a linear map of the observation


@dataclass(frozen=True)
class Section:
    """A table of the inspection.

    Args:
        title: its title.
        header: names of the columns.
        rows: formatted cells.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Inspection:
    """The result of an inspection.

    Args:
        sections: the tables.
        verdict: sentences on what to expect.
        returns: return of every episode ``(E,)``.
        lengths: number of steps of every episode ``(E,)``.
    """

    sections: tuple[Section, ...]
    verdict: tuple[str, ...]
    returns: np.ndarray
    lengths: np.ndarray


def inspect(data: Dataset) -> Inspection:
    """Inspects a dataset."""
    trajectories, spec = data.trajectories, data.spec
    returns, lengths = trajectories.returns.double().numpy(), trajectories.lengths.numpy()
    verdict: list[str] = []
    sections = [_overview(data, returns, lengths, verdict), _columns(data, verdict), _actions(data, verdict)]
    if spec.discrete:
        sections.append(_joint_actions(data, verdict))
    if not verdict:
        verdict.append("Nothing unusual was found.")
    return Inspection(tuple(sections), tuple(verdict), returns, lengths)


def _overview(data: Dataset, returns: np.ndarray, lengths: np.ndarray, verdict: list[str]) -> Section:
    trajectories, spec = data.trajectories, data.spec
    reward = trajectories.reward.double().numpy()
    terminated = int(trajectories.terminated.sum())
    top = np.sort(returns)[-max(round(len(returns) / 10), 1) :].mean()
    rows = [
        ("agents", ", ".join(spec.names)),
        ("environment", str((spec.env or {}).get("name", "none named"))),
        ("episodes, transitions", f"{len(lengths):,}, {len(reward):,}"),
        ("steps of an episode", f"{lengths.min()} to {lengths.max()}, median {int(np.median(lengths))}"),
        ("episodes terminated, truncated", f"{terminated:,}, {len(lengths) - terminated:,}"),
        ("return", f"{_number(returns.min())} to {_number(returns.max())}, mean {_number(returns.mean())}"),
        ("mean return of the best tenth", _number(top)),
        ("reward of a step", f"{_number(reward.min())} to {_number(reward.max())}, mean {_number(reward.mean())}"),
    ]
    if len(lengths) < 20:
        verdict.append(f"Only {len(lengths)} episodes: held-out errors and intervals say little.")
    if not terminated:
        verdict.append("No episode terminates, so the world model never ends one either.")
    if reward.std() == 0:
        verdict.append("All rewards are equal: there is nothing to learn.")
    elif (share := float((reward != np.median(reward)).mean())) < 0.02:
        verdict.append(
            f"Rewards are sparse: {share:.1%} of the steps have another one than {_number(np.median(reward))}."
        )
    if returns.std() > 0 and (top - returns.mean()) < 0.1 * returns.std():
        verdict.append("The best tenth of the episodes is hardly better than the mean.")
    return Section("Dataset", ("what", "found"), tuple(rows))


def _columns(data: Dataset, verdict: list[str]) -> Section:
    spec = data.spec
    state = data.trajectories.state.numpy()
    mean, std = state.mean(0, dtype=np.float64), state.std(0, dtype=np.float64)
    low, high = state.min(0), state.max(0)
    constant = low == high
    seen = {column for agent in spec.agents for column in (*agent.observes, *agent.legal)}
    rows = []
    for i, (key, column) in enumerate(spec.sources):
        observers = [agent.name for agent in spec.agents if i in agent.observes]
        who = "all" if len(observers) == spec.n_agents else ", ".join(observers)
        masks = [agent.name for agent in spec.agents if i in agent.legal]
        who = who or (f"mask of {', '.join(masks)}" if masks else "nobody")
        note = "constant" if constant[i] else ""
        known = data.provenance.get("columns", {}).get(key)  # the names in an imported table
        label = f"{known[column]} ({key})" if known else f"{key}[{column}]"
        numbers = (_number(low[i]), _number(mean[i]), _number(high[i]), _number(std[i]))
        rows.append((label, *numbers, who, note))
    if constant.any():
        verdict.append(f"{int(constant.sum())} of {len(constant)} state columns are constant and carry no information.")
    if hidden := sum(not constant[i] for i in range(len(constant)) if i not in seen):
        verdict.append(
            f"{hidden} of {len(spec.sources)} state columns are observed by no agent; only the world model uses them."
        )
    partial = [agent.name for agent in spec.agents if set(agent.observes) < set(range(spec.state_size))]
    if partial and spec.n_agents > 1:
        verdict.append(
            f"{', '.join(partial)} observe a part of the state: their policies need memory (model.gru_size)."
        )
    header = ("column", "least", "mean", "largest", "deviation", "observed by", "note")
    width = len(header) if constant.any() else len(header) - 1
    return Section("State", header[:width], tuple(row[:width] for row in rows))


def _actions(data: Dataset, verdict: list[str]) -> Section:
    spec, trajectories = data.spec, data.trajectories
    rows, repeated = [], []
    there, row = _there(data), trajectories.row.numpy()
    for i, agent in enumerate(spec.agents):
        action = trajectories.action.numpy()[there[:, i], i, : agent.action_size]
        if agent.discrete:
            shares = action.mean(0, dtype=np.float64)
            rows.append((agent.name, f"{agent.action_size} choices", "", ", ".join(f"{share:.0%}" for share in shares)))
            if (shares == 0).any():
                never = ", ".join(map(str, np.flatnonzero(shares == 0)))
                verdict.append(f"{agent.name} never chooses {never}: what these choices do cannot be learnt.")
            continue
        at_bound, used = _use_of_range(agent, action)
        if (used == 0).any():
            never = ", ".join(map(str, np.flatnonzero(used == 0)))
            verdict.append(f"{agent.name} never varies the action component {never}: what it does cannot be learnt.")
        least, most = f"{used.min():.0%}", f"{used.max():.0%}"
        how = f"{least if least == most else f'{least} to {most}'} of the range"
        sample = _sample(len(action))
        observation = trajectories.state.numpy()[row[there[:, i]][sample]][:, list(agent.observes)]
        explained = _explained(observation, action[sample].astype(np.float64))
        if explained is not None:
            how += f", {explained:.0%} linear in its observation"
            if explained > DETERMINISTIC:
                repeated.append(agent.name)
        rows.append((agent.name, _bounds(agent), f"{at_bound:.0%}", how))
    if repeated:
        verdict.append(
            f"Actions of {', '.join(repeated)} follow from the observation: the log hardly tries anything else, so the"
            " world model cannot know what other actions do."
        )
    return Section("Actions", ("agent", "actions", "at a bound", "used"), tuple(rows))


def _there(data: Dataset) -> np.ndarray:
    """Whether each agent is there at each step, bool ``(N, A)``. The actions of others are zeros that nobody chose."""
    index = data.spec.present_index()
    if index is None:
        return np.ones((len(data.trajectories), data.spec.n_agents), bool)
    return who_is_there(data.trajectories.state, index)[data.trajectories.row].numpy()


def _use_of_range(agent: AgentSpec, action: np.ndarray) -> tuple[float, np.ndarray]:
    """Share of an agent's actions ``(N, U)`` that are at a bound, and the share of its range each component uses."""
    low, high = (np.array(bound, np.float32).astype(np.float64) for bound in (agent.low, agent.high))
    near = AT_BOUND * (high - low)
    at_bound = ((action <= low + near) | (action >= high - near)).mean()
    return float(at_bound), (action.max(0).astype(np.float64) - action.min(0)) / (high - low)


def _sample(n: int) -> np.ndarray:
    """At most ``MOST_ROWS`` of ``n`` rows, in order. A fixed stride could hit the same phase of a periodic log."""
    if n <= MOST_ROWS:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).choice(n, MOST_ROWS, replace=False))


def _joint_actions(data: Dataset, verdict: list[str]) -> Section:
    """Joint actions and their mean rewards; adds to the verdict what follows for agents that learn alone.

    Steps count in which all agents are there.
    """
    there = _there(data).all(1)
    choice = data.trajectories.action.argmax(-1).numpy()[there]
    reward = data.trajectories.reward.double().numpy()[there]
    joint, inverse, count = np.unique(choice, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    mean = np.bincount(inverse, reward, len(joint)) / count
    order = np.argsort(-count, kind="stable")[:MOST_JOINT_ACTIONS]
    rows = [(_tuple(joint[i]), f"{count[i] / len(reward):.1%}", _number(mean[i])) for i in order]
    often = count >= OFTEN
    if often.any():
        error = np.sqrt(((reward - mean[inverse]) ** 2).mean() / count)
        own = [_mean_by_choice(choice[:, i], reward, agent.action_size) for i, agent in enumerate(data.spec.agents)]
        played = set(map(tuple, joint.tolist()))
        _judge_agreement(joint[often], mean[often], 3 * error[often], own, played, verdict)
    title = "Joint actions" if there.all() else "Joint actions while all agents are there"
    return Section(title, ("joint action", "share of steps", "mean reward"), tuple(rows))


def _judge_agreement(
    joint: np.ndarray,
    mean: np.ndarray,
    noise: np.ndarray,
    own: list[np.ndarray],
    played: set[tuple[int, ...]],
    verdict: list[str],
) -> None:
    """Whether agents that each look at their own action alone would choose well together.

    Args:
        joint: joint actions that occur often ``(J, A)``.
        mean: their mean rewards ``(J,)``.
        noise: how far these may be off ``(J,)``.
        own: the mean reward with each choice of each agent.
        played: all joint actions that occur.
        verdict: sentences, to which this adds.
    """
    spread, best = mean.max() - mean.min(), int(mean.argmax())
    alone = tuple(int(np.nanargmax(values)) for values in own)
    found = np.flatnonzero((joint == alone).all(1))
    if spread > 0 and max(np.nanmax(values) - np.nanmin(values) for values in own) < 0.02 * spread:
        verdict.append(
            "Agents that look at their own action alone see no difference between them, though joint actions differ:"
            " learners that do not model each other cannot choose here (as far as actions can be judged without the"
            " state)."
        )
    elif spread > noise[best] and (
        alone not in played or (len(found) and _clearly_less(found[0], best, mean, noise, 0.05 * spread))
    ):
        says = f"has a mean reward of {_number(mean[found[0]])}" if len(found) else "never occurs"
        verdict.append(
            f"Agents that each prefer what went well with their own action would choose {_tuple(alone)}, which {says};"
            f" {_tuple(joint[best])} has {_number(mean[best])}. Learners that do not model each other are misled here"
            " (as far as actions can be judged without the state)."
        )
    common = [i for i in range(len(joint)) if mean[i] > mean[best] - 0.05 * spread]
    if len(common) > 1 and all((joint[i] != joint[j]).all() for i in common for j in common if i != j):
        verdict.append(
            f"Several conventions are equally good ({', '.join(_tuple(joint[i]) for i in common[:3])}) and exclude each"
            " other: agents that imitate or learn alone may pick different ones."
        )


def _clearly_less(one: int, other: int, mean: np.ndarray, noise: np.ndarray, least: float) -> bool:
    return bool(mean[other] - mean[one] > max(least, noise[one] + noise[other]))


def _mean_by_choice(choice: np.ndarray, reward: np.ndarray, n: int) -> np.ndarray:
    """Mean reward ``(n,)`` with each of an agent's choices; NaN for one that never occurs."""
    count = np.bincount(choice, minlength=n)
    return np.where(count > 0, np.bincount(choice, reward, n) / np.maximum(count, 1), np.nan)


def _explained(observation: np.ndarray, action: np.ndarray) -> float | None:
    """Share of the actions' variance that a linear map of the observation explains; 1 for constant actions.

    It is the adjusted coefficient of determination, at least 0: about 0 for actions that have nothing to do with the
    observation. None if there are too few rows for the number of columns.
    """
    if len(observation) < ROWS_PER_COLUMN * observation.shape[1]:
        return None
    centred = action - action.mean(0)
    total = float((centred**2).sum())
    if total == 0:
        return 1.0
    inputs = (observation - observation.mean(0)).astype(np.float64)
    solution, _, rank, _ = np.linalg.lstsq(inputs, centred, rcond=None)
    left = float(((centred - inputs @ solution) ** 2).sum()) / total
    return max(1 - left * (len(inputs) - 1) / (len(inputs) - 1 - int(rank)), 0.0)


def _bounds(agent: AgentSpec) -> str:
    pairs = dict.fromkeys(zip(agent.low, agent.high, strict=True))
    return f"{agent.action_size} in " + ", ".join(f"[{low:g}, {high:g}]" for low, high in pairs)


def _tuple(values: Sequence[int] | np.ndarray) -> str:
    return f"({', '.join(str(int(value)) for value in values)})"


def _number(value: float) -> str:
    return f"{float(value):.4g}"

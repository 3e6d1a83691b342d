"""Tables of a made-up team are imported exactly as recorded, in every layout, and mistakes are named."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from datamodules import OfflineDataModule
from datamodules.builders.import_table import import_table
from momalit.core.errors import UserError

LENGTHS = [6, 4, 5]  # rows of each episode
TERMINATED = [False, True, False]
WIDE = """\
episode: day
step: hour
reward: profit
terminated: bankrupt
agents:
  buyer: {observations: [price, stock], actions: [order]}
  seller: {observations: [price, demand, season], actions: [offer, discount]}
"""
LONG = """\
episode: flight
step: t
agent: drone
observations: [x, y]
actions: [ax]
reward: score
terminated: crashed
"""


def market(seed: int = 0) -> dict[str, np.ndarray]:
    """Columns of a market with two agents, one row per step."""
    rng, rows = np.random.default_rng(seed), sum(LENGTHS)
    numbers = ("price", "stock", "demand", "season", "order", "offer", "discount", "profit")
    columns = {name: rng.normal(size=rows).astype(np.float32) for name in numbers}
    columns["day"] = np.repeat([7, 3, 12], LENGTHS)
    columns["hour"] = np.concatenate([np.arange(n) for n in LENGTHS])
    columns["bankrupt"] = np.zeros(rows, bool)
    columns["bankrupt"][np.cumsum(LENGTHS)[np.array(TERMINATED)] - 1] = True
    columns["comment"] = np.array(["not used"] * rows)
    return columns


def write(folder: Path, columns: dict[str, np.ndarray], suffix: str = ".csv", layout: str = WIDE) -> tuple[Path, Path]:
    path = folder / f"table{suffix}"
    table = pa.table(columns)
    if suffix == ".parquet":
        pa.parquet.write_table(table, path)
    else:
        options = pa.csv.WriteOptions(delimiter="\t" if suffix == ".tsv" else ",")
        with gzip.open(path, "wb") if suffix.endswith(".gz") else path.open("wb") as sink:
            pa.csv.write_csv(table, sink, options)
    (folder / "layout.yaml").write_text(layout)
    return path, folder / "layout.yaml"


def imported(
    folder: Path, columns: dict[str, np.ndarray], suffix: str = ".csv", layout: str = WIDE
) -> OfflineDataModule:
    return OfflineDataModule(str(import_table(*write(folder, columns, suffix, layout), output=folder / "out")))


def refused(folder: Path, columns: dict[str, np.ndarray], layout: str = WIDE) -> str:
    path, layout_file = write(folder, columns, layout=layout)
    with pytest.raises(UserError) as error:
        import_table(path, layout_file, output=folder / "out")
    assert not (folder / "out").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".parquet"])
def test_a_table_of_the_team_is_imported_as_recorded(suffix: str, tmp_path: Path) -> None:
    columns = market()
    data = imported(tmp_path, columns, suffix)
    spec, trajectories = data.spec, data.trajectories
    assert spec.names == ("buyer", "seller")
    assert (spec.state_size, spec.horizon, spec.env, spec.task) == (4, 5, None, "table")
    # The step after the last row is unknown in two episodes; the terminated one keeps all its steps.
    assert trajectories.lengths.tolist() == [5, 4, 4]
    assert trajectories.terminated.nonzero().flatten().tolist() == [8]
    assert trajectories.truncated.nonzero().flatten().tolist() == [4, 12]
    kept = np.array([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13])
    assert (trajectories.reward.numpy() == columns["profit"][kept]).all()
    assert (trajectories.action[:, 0, 0].numpy() == columns["order"][kept]).all()
    assert (trajectories.action[:, 1].numpy() == np.stack([columns["offer"], columns["discount"]], 1)[kept]).all()
    state = np.stack([columns[name] for name in ("price", "stock", "demand", "season")], 1)
    last = 2 * state[9].astype(np.float64) - state[8]
    expected = np.concatenate([state[:10], last[None].astype(np.float32), state[10:]])
    assert (trajectories.state.numpy() == expected).all()
    assert [agent.observes for agent in spec.agents] == [(0, 1), (0, 2, 3)]
    assert data.provenance["columns"] == {"buyer": ["price", "stock"], "seller": ["price", "demand", "season"]}
    assert spec.agents[0].low == (columns["order"][kept].min(),)


def test_last_rows_without_actions_are_last_observations(tmp_path: Path) -> None:
    columns = market()
    last = np.cumsum(LENGTHS) - 1
    for name in ("order", "offer", "discount", "profit"):
        columns[name] = columns[name].copy()
        columns[name][last] = np.nan
    for name, flagged in (("step", last - 1), ("observation", last)):  # either row may have the flag
        columns["bankrupt"] = np.isin(np.arange(sum(LENGTHS)), flagged) & np.repeat(TERMINATED, LENGTHS)
        (tmp_path / name).mkdir()
        data = imported(tmp_path / name, columns)
        assert data.trajectories.lengths.tolist() == [5, 3, 4]
        assert data.trajectories.terminated.nonzero().flatten().tolist() == [7]
        assert len(data.trajectories.state) == sum(LENGTHS)


@pytest.mark.parametrize("key", ["terminated", "truncated"])
def test_an_episode_does_not_go_on_after_its_end(key: str, tmp_path: Path) -> None:
    columns = market()
    columns["bankrupt"] = np.arange(sum(LENGTHS)) == 3
    found = refused(tmp_path, columns, WIDE.replace("terminated", key))
    assert "step 4 of the recording: found an end (terminated or truncated), expected it in the last row" in found


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    columns = market()
    mixed = np.random.default_rng(1).permutation(sum(LENGTHS))
    mixed = np.concatenate(
        [[0, 6, 10], mixed[~np.isin(mixed, [0, 6, 10])]]
    )  # episodes keep the order of their first rows
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = imported(tmp_path / "a", columns).trajectories
    other = imported(tmp_path / "b", {name: column[mixed] for name, column in columns.items()}).trajectories
    assert (one.state == other.state).all()
    assert (one.action == other.action).all()


def swarm() -> dict[str, np.ndarray]:
    """Columns of three drones, one row per step and drone; the third has no second observation."""
    rng, steps, names = np.random.default_rng(0), sum(LENGTHS), np.array(["a", "b", "c"])
    columns = {name: rng.normal(size=(steps, 3)).astype(np.float32) for name in ("x", "y", "ax", "score")}
    columns["y"][:, 2] = np.nan
    columns["flight"] = np.repeat(np.repeat([0, 1, 2], LENGTHS)[:, None], 3, 1)
    columns["t"] = np.repeat(np.concatenate([np.arange(n) for n in LENGTHS])[:, None], 3, 1)
    columns["crashed"] = np.zeros((steps, 3), bool)
    columns["drone"] = np.tile(names, (steps, 1))
    return {name: column.reshape(-1) for name, column in columns.items()}


def test_a_table_with_a_row_per_agent_is_imported_as_recorded(tmp_path: Path) -> None:
    columns = swarm()
    data = imported(tmp_path, columns, layout=LONG)
    assert data.spec.names == ("a", "b", "c")
    assert [len(agent.observes) for agent in data.spec.agents] == [2, 2, 1]
    assert data.trajectories.lengths.tolist() == [5, 3, 4]
    score = columns["score"].reshape(-1, 3).astype(np.float64).mean(1)
    assert data.trajectories.reward[:5].numpy() == pytest.approx(score[:5], rel=1e-6)
    x = columns["x"].reshape(-1, 3)
    assert (data.trajectories.state[:, 0].numpy() == x[:, 0]).all()


@pytest.mark.parametrize(
    ("how", "wide", "long"),
    [("mean", 4.5, 4.5), ("sum", 9.0, 27.0), ("order", 5.0, None), ("b", None, 4.5)],
)  # fmt: skip
def test_several_rewards_are_combined_as_asked(
    how: str, wide: float | None, long: float | None, tmp_path: Path
) -> None:
    columns = {**market(), "profit": np.full(sum(LENGTHS), 4.0), "order": np.full(sum(LENGTHS), 5.0)}
    long_columns = swarm()
    ones = np.ones(len(long_columns["score"]))
    long_columns |= {"score": 4 * ones, "bonus": 5 * ones}
    for name, table, layout, expected in [
        ("wide", columns, WIDE.replace("reward: profit", "reward: [profit, order]"), wide),
        ("long", long_columns, LONG.replace("reward: score", "reward: [score, bonus]"), long),
    ]:
        (tmp_path / name).mkdir()
        path, layout_file = write(tmp_path / name, table, layout=layout)
        if expected is None:
            with pytest.raises(UserError, match=rf"^--reward: found {how}, expected mean, sum or one of table\.csv's "):
                import_table(path, layout_file, tmp_path / name / "out", how)
        else:
            data = OfflineDataModule(str(import_table(path, layout_file, tmp_path / name / "out", how)))
            assert set(data.trajectories.reward.tolist()) == {expected}


def test_discrete_actions_are_numbers_of_choices(tmp_path: Path) -> None:
    columns = swarm()
    columns["ax"] = np.random.default_rng(0).integers(3, size=len(columns["ax"]))
    data = imported(tmp_path, columns, layout=LONG + "choices: 4\n")
    assert data.spec.discrete
    assert data.spec.action_size == 4
    assert (data.trajectories.action.argmax(-1)[0].numpy() == columns["ax"][:3]).all()


def without(name: str) -> dict[str, np.ndarray]:
    return {other: column for other, column in market().items() if other != name}


def changed(name: str, row: int, value: object) -> dict[str, np.ndarray]:
    columns = market()
    columns[name] = columns[name].astype(object if isinstance(value, str) else np.float64)
    if isinstance(value, str):
        columns[name] = np.array([str(entry) for entry in columns[name]])
        columns[name] = columns[name].astype("U20")
    columns[name][row] = value
    return columns


@pytest.mark.fault("table with a mistake", "columns, cells, steps, agents", "one line with file, column and row")
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (without("price"), r"column price is missing, found stock, .*"),
        (without("day"), r"column day is missing"),
        (changed("price", 3, "cheap"), r"table.csv: price( in line 5)?: found 'cheap', expected a number"),
        (changed("price", 3, 1e300), r"observations of buyer, column 1: found a number beyond 3.4e38"),
        (changed("profit", 3, 1e39), r"reward: found a number beyond 3.4e38, expected one of 32 bits in another unit"),
        (changed("profit", 3, 1e20), r"rewards have a standard deviation of .*e\+19, expected 1e-06 to 1e\+15"),
        (changed("hour", 2, np.nan), r"hour in data row 3: found an empty cell, expected a number"),
        (changed("hour", 2, np.inf), r"hour in data row 3: found inf, expected a number"),
        (changed("price", 3, np.nan), r"observation of buyer in step 4 of the recording: found an empty cell"),
        (changed("price", 3, np.inf), r"observation of buyer in step 4 of the recording: found inf"),
        (changed("profit", 2, np.nan), r"reward in step 3 of the recording: found an empty cell"),
        (changed("order", 2, np.nan), r"step 3 of the recording: found actions of some agents only"),
        (changed("bankrupt", 2, "maybe"), r"bankrupt in data row 3: found 'maybe', expected true or false"),
        (changed("hour", 2, 1.0), r"found hour 1 of day 7 twice"),
        ({name: column[:1] for name, column in market().items()}, r"no episode of two or more rows"),
        ({name: column[:0] for name, column in market().items()}, r"found no rows"),
    ],
)
def test_mistakes_in_a_table_are_named(columns, message, tmp_path: Path) -> None:
    assert re.search(message, refused(tmp_path, columns))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["drone"].__setitem__(4, "a"), r"flight 0, t 1 has 2 rows of a, expected one"),
        (lambda c: c["t"].__setitem__(slice(0, 3), 9), r"$"),
        (lambda c: c["drone"].__setitem__(4, "d"), r"flight 0, t 0 has no row of d, expected one of each agent"),
    ],
)
def test_incomplete_teams_are_named(change, message, tmp_path: Path) -> None:
    columns = swarm()
    change(columns)
    if message == "$":
        imported(tmp_path, columns, layout=LONG)
        return
    assert re.search(message, refused(tmp_path, columns, LONG))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("[1]", r"found list, expected keys such as episode and reward"),
        ("episode: {", r"is not valid YAML"),
        (WIDE.replace("episode:", "episodes:"), r"episodes: no such key; did you mean episode\?"),
        (WIDE.replace("reward: profit\n", ""), r"reward: missing, expected the name of a column"),
        (WIDE.replace("reward: profit", "reward: true"), r"reward: found True, expected a column"),
        (
            WIDE.replace("actions: [order]", "action: [order]"),
            r"agents.buyer.action: no such key; did you mean actions\?",
        ),
        (
            WIDE.replace("actions: [order]", "actions: []"),
            r"agents.buyer.actions: found none, expected at least one column",
        ),
        (WIDE + "observations: [price]\n", r"observations: found it without agent"),
        (LONG + "agents: {a: {}}\n", r"agents: found it beside agent"),
        (LONG.replace("step: t\n", ""), r"step: missing, expected a column"),
        (WIDE + "bounds: [1, -1]\n", r"bounds: found \[1, -1\], expected two numbers"),
        (WIDE + "bounds: [-0.1, 0.1]\n", r"buyer has actions from .* expected -0.1 to 0.1 \(bounds\)"),
        (WIDE + "choices: 1\n", r"choices: found 1, expected an integer of at least 2"),
        (WIDE + "discrete: true\n", r"(has the action|has 2 action columns)"),
        (WIDE.replace("buyer", "team/a"), r"team.agents: found the name 'team/a', expected one without '/'"),
        (WIDE.replace("buyer", "state"), r"team.agents: found the name 'state'"),
        (WIDE.replace("buyer", "null"), r"agents: found the name None, expected a text"),
        ("reward: r\nepisode: e\n", r"agents: found None, expected each agent's observations and actions"),
    ],
)
def test_mistakes_in_a_layout_are_named(layout: str, message: str, tmp_path: Path) -> None:
    assert re.search(message, refused(tmp_path, market(), layout))


@pytest.mark.fault("table cut short or garbled", "truncated Parquet, bytes that are no text", "one line with the file")
@pytest.mark.parametrize("suffix", [".parquet", ".csv.gz", ".csv"])
def test_broken_tables_are_refused(suffix: str, tmp_path: Path) -> None:
    path, layout = write(tmp_path, market(), suffix)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2] + b"\xff\xfe\x00", b"\x00" * 100):
        path.write_bytes(content)
        with pytest.raises(UserError) as error:
            import_table(path, layout, output=tmp_path / "out")
        assert "\n" not in str(error.value)
        assert path.name in str(error.value)


def without(columns: dict, rows: list[int]) -> dict:
    return {name: np.delete(np.asarray(column), rows) for name, column in columns.items()}


def test_agents_may_leave_a_table_before_the_others(tmp_path: Path) -> None:
    columns = swarm()
    flight, t, drone = (np.asarray(columns[name]) for name in ("flight", "t", "drone"))
    gone = np.flatnonzero((flight == flight[0]) & (t >= 2) & (drone == "b"))
    data = imported(tmp_path, without(columns, gone.tolist()), layout=LONG)
    spec, trajectories = data.spec, data.trajectories
    number = spec.names.index("b")
    there = trajectories.state[trajectories.row, spec.agents[number].present].bool()
    first = int(trajectories.lengths[0])
    assert there[:2].all()
    assert not there[2:first].any()
    assert there[first:].all()
    assert not trajectories.action[2:first, number].any()
    seen = trajectories.state[:, list(spec.agents[number].observes)]
    assert (seen[2 : first + 1] == seen[1]).all()


def test_actions_of_agents_that_have_left_are_none(tmp_path: Path) -> None:
    columns = {name: np.asarray(column) for name, column in swarm().items()}
    columns["ax"] = 5.5 + 0.1 * np.tanh(columns["ax"])
    flight, t, drone = (columns[name] for name in ("flight", "t", "drone"))
    gone = (flight == flight[0]) & (t >= 2) & (drone == "b")
    left = without(columns, np.flatnonzero(gone).tolist())
    least = float(left["ax"][left["drone"] == "b"].min())
    for name, more in (("inferred", ""), ("given", "bounds: [5, 6]\n")):
        (tmp_path / name).mkdir()
        data = imported(tmp_path / name, left, layout=LONG + more)
        agent = data.spec.agents[data.spec.names.index("b")]
        assert agent.low[0] == (5 if more else pytest.approx(least, abs=0.05))
        assert agent.low[0] > 1
        absent = data.trajectories.state[data.trajectories.row, agent.present] == 0
        assert not data.trajectories.action[absent, data.spec.names.index("b")].any()


def test_an_agent_that_leaves_ends_nothing(tmp_path: Path) -> None:
    columns = {name: np.asarray(column) for name, column in swarm().items()}
    flight, t, drone = (columns[name] for name in ("flight", "t", "drone"))
    here = flight == flight[0]
    columns["crashed"] = here & (((t == 1) & (drone == "b")) | (t == t[here].max()))
    gone = np.flatnonzero(here & (t >= 2) & (drone == "b"))
    data = imported(tmp_path, without(columns, gone.tolist()), layout=LONG).trajectories
    assert data.terminated.nonzero().flatten().tolist() == [int(data.lengths[0]) - 1]


def test_numbers_that_32_bits_cannot_tell_apart_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "datamodules"):
        imported(tmp_path, {**market(), "stock": 1.7e9 + 100 * np.arange(sum(LENGTHS))})
    assert "observations of buyer, column 2: from 1.7e+09 to 1.70000141e+09, which 32-bit floats can" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0], r"flight 0, t 0 has no row of a, expected one of each agent .* may leave, but not join later"),
        ([4], r"flight 0, t 2 has a row of b, which has none in the step before"),
    ],
)
def test_agents_do_not_join_a_table_later(rows: list[int], message: str, tmp_path: Path) -> None:
    columns = swarm()
    order = np.lexsort([np.asarray(columns[name]) for name in ("drone", "t", "flight")])
    columns = {name: np.asarray(column)[order] for name, column in columns.items()}
    assert re.search(message, refused(tmp_path, without(columns, rows), LONG))


def test_agents_of_a_table_may_differ_in_kind(tmp_path: Path) -> None:
    columns = market()
    columns["order"] = np.arange(sum(LENGTHS)) % 3
    data = imported(tmp_path, columns, layout=WIDE + "discrete: [buyer]\n")
    buyer, seller = data.spec.agents
    assert (buyer.discrete, buyer.action_size, seller.discrete, seller.action_size) == (True, 3, False, 2)
    first = data.trajectories.action[0]
    assert first[0].tolist() == [1, 0, 0]
    assert first[1, :2].tolist() == [columns["offer"][0], columns["discount"][0]]


def test_discrete_names_known_agents(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"discrete: found broker, expected agents of buyer, seller"):
        imported(tmp_path, market(), layout=WIDE + "discrete: [broker]\n")

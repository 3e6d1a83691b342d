"""Reads the columns of a CSV or Parquet file, batch by batch, into arrays of numbers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.readers.hdf5_file import require_memory
from momalit.core.errors import UserError

PARQUET = (".parquet", ".pq")
SUFFIXES = (".csv", ".csv.gz", ".tsv", *PARQUET)
TRUE, FALSE = ("true", "yes", "1", "1.0", "t"), ("false", "no", "0", "0.0", "f", "")
NULLS = ["", "NA", "N/A", "nan", "NaN", "null", "None"]


@dataclass(frozen=True)
class TableColumns:
    """The columns of R rows.

    Args:
        numbers: ``(R,)`` float64 by column; NaN where a cell is empty.
        flags: ``(R,)`` bool by column; an empty cell is False.
        codes: ``(R,)`` int64 by column with names: the position of each row's name in ``names``.
        names: the names of each such column, in the order in which they first occur.
    """

    numbers: dict[str, np.ndarray]
    flags: dict[str, np.ndarray]
    codes: dict[str, np.ndarray]
    names: dict[str, list[str]]


def is_table(source: str | Path) -> bool:
    """Whether a path names a CSV or Parquet file."""
    return str(source).lower().endswith(SUFFIXES)


def read_columns(path: Path, numbers: Sequence[str], flags: Sequence[str], names: Sequence[str]) -> TableColumns:
    """Reads columns of numbers, of yes or no, and of names. Other columns are skipped.

    Raises:
        UserError: the file cannot be read, a column is missing, or a cell is not what it should be.
    """
    wanted = [*numbers, *flags, *names]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    positions: dict[str, dict[str, int]] = {name: {} for name in names}
    row = 0
    for batch in _batches(path, numbers, [*flags, *names]):
        require_memory(path, "the table", 8 * len(wanted) * row)
        for name in numbers:
            parts[name].append(batch.column(name).to_numpy(zero_copy_only=False).astype(np.float64))
        for name in flags:
            parts[name].append(_flags(path, name, batch.column(name).to_pylist(), row))
        for name in names:
            values = batch.column(name).to_pylist()
            if None in values:
                raise UserError(f"{path}: {name} in data row {row + values.index(None) + 1}: found nothing")
            known = positions[name]
            parts[name].append(np.array([known.setdefault(value, len(known)) for value in values], np.int64))
        row += batch.num_rows
    if not row:
        raise UserError(f"{path}: found no rows, expected at least two of an episode")
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return TableColumns(
        {name: joined[name] for name in numbers},
        {name: joined[name] for name in flags},
        {name: joined[name] for name in names},
        {name: list(positions[name]) for name in names},
    )


def _batches(path: Path, numbers: Sequence[str], texts: Sequence[str]) -> Iterator[Any]:
    """Yields record batches with the columns ``numbers`` as float64 and ``texts`` as strings."""
    try:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: tables need the package pyarrow: pip install 'momalit[tables]'") from error
    if not path.is_file():
        raise UserError(f"source: found no file {str(path)!r}, expected a CSV or Parquet file")
    header: list[str] = []
    types = {**dict.fromkeys(numbers, pa.float64()), **dict.fromkeys(texts, pa.string())}
    try:
        if str(path).lower().endswith(PARQUET):
            with pa.parquet.ParquetFile(path) as file:
                _require_columns(path, types, file.schema_arrow.names)
                for batch in file.iter_batches(columns=list(types)):
                    yield _cast(path, pa, batch, types)
            return
        separator = pa.csv.ParseOptions(delimiter="\t" if ".tsv" in path.name.lower() else ",")
        header = _header(path, pa, separator)
        _require_columns(path, types, header)
        convert = pa.csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=NULLS, strings_can_be_null=True
        )
        with pa.csv.open_csv(path, parse_options=separator, convert_options=convert) as reader:
            yield from reader
    except (pa.ArrowInvalid, pa.ArrowException, OSError, EOFError) as error:
        message = " ".join(str(error).split())
        if cell := re.fullmatch(r"In CSV column #(\d+): (?:Row #(\d+): )?.*to double: invalid value '(.*)'", message):
            line = f" in line {cell[2]}" if cell[2] else ""
            message = f"{header[int(cell[1])]}{line}: found {cell[3]!r}, expected a number"
        raise UserError(f"{path}: {message}") from error


def _header(path: Path, pa: Any, separator: Any) -> list[str]:
    with pa.csv.open_csv(path, parse_options=separator) as reader:
        try:
            return list(reader.schema.names)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: the first line is no UTF-8 text ({error.reason})") from error


def _cast(path: Path, pa: Any, batch: Any, types: dict[str, Any]) -> Any:
    columns = []
    for name, wanted in types.items():
        try:
            columns.append(batch.column(name).cast(wanted))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(f"{path}: {name} has type {batch.column(name).type}, expected {wanted}") from error
    return pa.record_batch(columns, list(types))


def _require_columns(path: Path, wanted: Sequence[str] | dict[str, Any], present: Sequence[str]) -> None:
    for name in wanted:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            shown = ", ".join(present[:20]) + (", ..." if len(present) > 20 else "")
            raise UserError(f"{path}: column {name} is missing, found {shown}{hint}")
        if list(present).count(name) > 1:
            raise UserError(f"{path}: column {name} occurs {list(present).count(name)} times, expected once")


def _flags(path: Path, name: str, values: Sequence[str | None], first: int) -> np.ndarray:
    found = np.empty(len(values), bool)
    for i, value in enumerate(values):
        text = (value or "").strip().lower()
        if text not in TRUE and text not in FALSE:
            raise UserError(f"{path}: {name} in data row {first + i + 1}: found {value!r}, expected true or false")
        found[i] = text in TRUE
    return found

"""Objects that settings name."""

from pathlib import Path

import pytest

from momalit.core.errors import UserError
from momalit.core.imports import import_by_name


def test_a_named_object() -> None:
    assert import_by_name("pathlib:Path", "data.symmetries", "module:name") is Path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "data.symmetries: found 'nothing', expected module:name"),
        (
            "no.such:name",
            r"found 'no\.such:name', which cannot be imported \(No module named 'no'\), expected module:name",
        ),
        ("pathlib:", r"found 'pathlib:', which cannot be imported \(.*\), expected module:name"),
        ("half_written:name", r"cannot be imported \(.*half_written\.py, line 1\)\), expected module:name"),
    ],
)
def test_mistakes_are_named(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_written.py").write_text("def name(:\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message):
        import_by_name(name, "data.symmetries", "module:name")

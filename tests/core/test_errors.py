from momalit.core.errors import UserError


def test_a_message_is_one_printable_line() -> None:
    assert str(UserError("file: found 'a\nb\x1b[31mé ü'")) == r"file: found 'a\nb\x1b[31mé ü'"

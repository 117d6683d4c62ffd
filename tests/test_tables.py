"""Tables written as CSV, read back by Python's own reader."""

from __future__ import annotations

import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrim.errors import shown, utf8_text
from spectrim.tables import csv_text, plain_cell, spreadsheet_cell, table_csv

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=4))
def test_cells_come_back_as_they_were_whatever_is_in_them(rows: list[list[str]]) -> None:
    assert list(csv.reader(io.StringIO(csv_text(rows, exact=True), newline=""), strict=True)) == rows
    read = csv.reader(io.StringIO(csv_text(rows), newline=""), strict=True)
    assert [[plain_cell(cell) for cell in row] for row in read] == rows


ODD = st.text(st.sampled_from(list("=+-@'; \t\r\nx\uff1d")), max_size=8)


@given(ODD)
def test_no_cell_or_part_of_one_begins_like_a_formula(text: str) -> None:
    cell = spreadsheet_cell(text)
    assert plain_cell(cell) == text
    for separator in ("\0", ";", "\t", "\n", "\r"):
        assert not any(part.strip(" \t\r\n").startswith(tuple("=+-@\uff1d")) for part in cell.split(separator))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=cmd|'/C calc'!A0", "'=cmd|'/C calc'!A0"),
        ("a;=1+1", "a;'=1+1"),
        ("'=x", "''=x"),
        (" @x", "' @x"),
        ("dog", "dog"),
        ("'tis", "'tis"),
        ("a=b", "a=b"),
        (-0.5, -0.5),
        (None, None),
    ],
)
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(value: object, cell: object) -> None:
    assert spreadsheet_cell(value) == cell


def test_bytes_of_a_name_that_are_no_utf8_are_written_out() -> None:
    name = os.fsdecode(b"caf\xe9 \xc3\xa9\x80.wav")
    assert utf8_text(name) == "caf\\xe9 é\\x80.wav" == shown(name)
    assert table_csv([{"clip": name, name: 1}]) == "clip,caf\\xe9 é\\x80.wav\ncaf\\xe9 é\\x80.wav,1\n"
    assert csv_text([[name]], exact=True) == f"{name}\n"


def test_columns_are_those_of_all_rows_and_what_a_row_lacks_is_empty() -> None:
    assert table_csv([{"a": 1, "b": None}, {"b": 0.1, "c": "x,y"}]) == 'a,b,c\n1,,\n,0.1,"x,y"\n'

"""Tables written as CSV, read back by Python's own reader."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from spectrim.tables import csv_text, table_csv

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=4))
def test_cells_come_back_as_they_were_whatever_is_in_them(rows: list[list[str]]) -> None:
    assert list(csv.reader(io.StringIO(csv_text(rows), newline=""), strict=True)) == rows


def test_columns_are_those_of_all_rows_and_what_a_row_lacks_is_empty() -> None:
    assert table_csv([{"a": 1, "b": None}, {"b": 0.1, "c": "x,y"}]) == 'a,b,c\n1,,\n,0.1,"x,y"\n'

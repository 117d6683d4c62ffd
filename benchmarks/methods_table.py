"""The table of methods at equal MACs in docs/performance.md, from the JSON of benchmarks/methods.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Any]


def origin(results: Results) -> str:
    """Machine, versions, rounds and load."""
    place, rows = results["environment"], results["rows"]
    versions = ", ".join(f"{name} {place['versions'][name]}" for name in ("spectrim", "torch", "transformers", "numpy"))
    load = max(row["load_average_before"] for row in rows)
    counts = {row["batch_size"]: row["repeats"] for row in rows}
    rounds = ", ".join(f"{count} at batch {size}" for size, count in counts.items())
    return (
        f"{place['processor']} ({place['instructions']}), {place['cores']} cores, {place['torch_threads']} thread(s); "
        f"Python {place['python']}; {versions}. Timed rounds: {rounds}. Load average before, largest: {load:.1f}: "
        "other programs ran beside, so read the ratios, which are of the same rounds, and not the milliseconds."
    )


def times(results: Results) -> tuple[list[str], list[list[str]]]:
    """A row a method and number of MACs, with each batch size beside the other."""
    sizes = sorted({row["batch_size"] for row in results["rows"]})
    rows = {(row["batch_size"], row["method"], row["macs_of_rate"]): row for row in results["rows"]}
    lines = []
    for name, wanted in dict.fromkeys((name, wanted) for _, name, wanted in rows):
        first = rows[sizes[0], name, wanted]
        line = [name, f"{first['keep_rate']:.3g}", f"{first['macs'] / 1e9:.1f}", f"{first['promised']:.2f}×"]
        for size in sizes:
            row = rows.get((size, name, wanted))
            if row is None:  # these MACs were not met at this batch size
                line += ["–"] * 3
                continue
            ms, low, high = (row[key] / size for key in ("median_ms", "q1_ms", "q3_ms"))
            line.append(f"{ms:.0f} [{low:.0f}, {high:.0f}]")
            line += ["", ""] if wanted is None else [speed(row), f"{row['speed_up'] / row['promised']:.0%}"]
        lines.append(line)
    header = ["AST-B/16, 10 s", "keep rate", "G MACs", "promised"]
    for size in sizes:
        header += [f"batch {size}: ms a clip", "speed-up", "reached"]
    return header, lines


def speed(row: Mapping[str, Any]) -> str:
    """Times as fast as dense, with quartiles; in words too where three quarters of the rounds do not say so."""
    ends = f" [{row['speed_up_q1']:.2f}, {row['speed_up_q3']:.2f}]"
    return f"{row['speed_up']:.2f}×{ends}" + ("" if row["speed_up_q1"] > 1.0 else ", **not faster**")

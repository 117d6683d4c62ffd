"""Tables of docs/ray.md from benchmarks/results/ray_engine.json and ray_large.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]

ROLES = ("driver", "decoding", "models")

HOURS = 1_000_000
WINDOW_SECONDS = 10.24
"""From one window's start to the next, of a model of 1024 frames."""

MACHINES, CORES = 100, 32
PRICE = 0.04
"""An assumption: US dollars that an hour of a core costs."""


def origin(results: Results) -> str:
    """Machine, versions and repeats in a sentence."""
    place = results["environment"]
    names = ("torch", "ray", "pyarrow")
    versions = ", ".join(f"{name} {place['versions'][name]}" for name in names if name in place["versions"])
    return (
        f"{place['processor']} ({place['instructions']}), {place['cores']} cores; {versions}. Medians of "
        f"{results['repeats']} runs at keep rate {results['keep_rate']:g}, least and most in brackets."
    )


def speed(results: Results) -> Table:
    """Clips a second of both engines, and Ray's as a share of the local one's."""
    rows = [
        [
            *(f"{row['model']}, {row['engine']}, {row['cores']} core{'s' if row['cores'] > 1 else ''}",),
            f"{row['clips_per_second']:.2f} [{row['least']:.2f}, {row['most']:.2f}]",
            f"{row['of_local']:.2f} [{row['of_local_least']:.2f}, {row['of_local_most']:.2f}]",
            f"{row['first_row_seconds']:.1f}",
        ]
        for row in results["rows"]
    ]
    return ["", "clips/s once warm", "over the local engine", "seconds to the first row"], rows


def memory(results: Results) -> Table:
    """MB of each kind of process at each tenth of the clips."""
    rows = [
        [f"{at['clips']:,}", *(f"{at[role]:.0f}" if at[role] else "–" for role in ROLES)]
        for at in results["many"]["memory_mb"]
    ]
    return ["clips done", "the process that began, MB", "largest that decodes", "largest model"], rows


def hours(results: Results) -> Table:
    """What a million hours take on cores like these, at one core a machine of Ray, by the larger model's rows."""
    rows = []
    for row in results["rows"]:
        if row["engine"] != "ray":
            continue
        each = row["clips_per_second"] / row["cores"]
        core_hours = HOURS * 3600 / WINDOW_SECONDS / each / 3600
        rows.append(
            [
                f"{row['model']}, measured on {row['cores']} core{'s' if row['cores'] > 1 else ''}",
                f"{each:.2f}",
                f"{core_hours / 1e3:,.0f} thousand",
                f"{core_hours / MACHINES / CORES / 24:.1f}",
                f"{core_hours * PRICE / 1e3:,.1f} thousand",
            ]
        )
    head = ["", "windows/s and core", "core-hours", f"days on {MACHINES} machines of {CORES} cores"]
    return [*head, f"US dollars at {PRICE} an hour of a core"], rows

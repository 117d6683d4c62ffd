"""Tables of docs/ray.md from benchmarks/results/ray_engine.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]

ROLES = ("driver", "decoding", "models")


def origin(results: Results) -> str:
    """Machine, versions and repeats in a sentence."""
    place, many = results["environment"], results["many"]
    names = ("torch", "ray", "pyarrow")
    versions = ", ".join(f"{name} {place['versions'][name]}" for name in names if name in place["versions"])
    return (
        f"{place['processor']} ({place['instructions']}), {place['cores']} cores; {versions}. Medians of "
        f"{results['repeats']} runs at keep rate {results['keep_rate']:g}, least and most in brackets; memory over "
        f"{many['clips']:,} clips."
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

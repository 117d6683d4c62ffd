"""What the project set out to reach on two CPU cores, and what came out: ratios of medians within one run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[Mapping[str, Any]]
PEER = "transformers, sdpa"
PIPELINE = "transformers' pipeline"
RATES = ("1", "0.7", "0.5")
TEN_SECONDS = {"AST-B/16": "ast-10s", "AudioMAE-B": "audiomae-10s"}


@dataclass(frozen=True)
class Outcome:
    """A target and what came out.

    Attributes:
        target: in words.
        where: case and batch size.
        wanted: least ratio.
        ratio: what came out.
        low: first quartile of the ratio over the rounds, None where there are no rounds.
        high: third quartile.
    """

    target: str
    where: str
    wanted: float
    ratio: float
    low: float | None = None
    high: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the ratio is what was wanted, or more."""
        return self.ratio >= self.wanted


def row_of(rows: Rows, case: str, batch: int, contender: str, rate: float) -> Mapping[str, Any] | None:
    """The row of a contender, None where it was not timed."""
    wanted = (case, batch, contender, rate)
    return next(
        (row for row in rows if (row["case"], row["batch_size"], row["contender"], row["keep_rate"]) == wanted), None
    )


def ratio(slow: Mapping[str, Any], fast: Mapping[str, Any]) -> tuple[float, float, float]:
    """How many times as fast: ratio of the medians, and the quartiles of the ratio round by round."""
    pairs = [one / other for one, other in zip(slow["rounds_ms"], fast["rounds_ms"], strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else pairs * 3
    return slow["median_ms"] / fast["median_ms"], low, high


def outcomes(rows: Rows) -> list[Outcome]:
    """Every target of `speed.py`'s rows that was measured."""
    return [*against_macs(rows), *against_transformers(rows), *against_reference(rows), *exported(rows)]


def against_macs(rows: Rows) -> list[Outcome]:
    """Pruned over dense, as a share of what the executed MACs promise."""
    found = []
    for what, case in TEN_SECONDS.items():
        for batch in (1, 8):
            dense = row_of(rows, case, batch, "spectrim", 1.0)
            for rate in (0.7, 0.5):
                pruned = row_of(rows, case, batch, "spectrim", rate)
                if dense and pruned:
                    promised = dense["macs"] / pruned["macs"]
                    speed_up = tuple(one / promised for one in ratio(dense, pruned))
                    name = f"saved time over saved MACs, r={rate:g} ({promised:.2f}× fewer MACs)"
                    found.append(Outcome(name, f"{what}, batch {batch}", 0.9, *speed_up))
    return found


def against_transformers(rows: Rows) -> list[Outcome]:
    """Ours over transformers' AST with SDPA."""
    found = []
    for batch in (1, 8):
        peer = row_of(rows, "ast-10s", batch, PEER, 1.0)
        for rate, wanted in ((1.0, 1.0), (0.7, 1.6), (0.5, 2.2)):
            ours = row_of(rows, "ast-10s", batch, "spectrim", rate)
            if peer and ours:
                name = f"over transformers' AST (SDPA), r={rate:g}"
                found.append(Outcome(name, f"AST-B/16, batch {batch}", wanted, *ratio(peer, ours)))
    return found


def against_reference(rows: Rows) -> list[Outcome]:
    """Ours over the paper's public models at equal keep rate."""
    found = []
    for what, case in TEN_SECONDS.items():
        for rate in (1.0, 0.7, 0.5):
            peer = row_of(rows, case, 8, "public reference", rate)
            ours = row_of(rows, case, 8, "spectrim", rate)
            if peer and ours:
                found.append(Outcome(f"over the public code, r={rate:g}", f"{what}, batch 8", 1.4, *ratio(peer, ours)))
    return found


def exported(rows: Rows) -> list[Outcome]:
    """Exported models over transformers' AST with SDPA in float32, at batch 1."""
    found = []
    peer = row_of(rows, "ast-10s", 1, PEER, 1.0)
    runtimes = dict.fromkeys(row["contender"] for row in rows if row["contender"].startswith("spectrim, O"))
    for runtime in runtimes:
        for rate, wanted in ((0.7, 2.2), (0.5, 3.0)):
            ours = row_of(rows, "ast-10s", 1, runtime, rate)
            if peer and ours:
                name = f"{runtime.removeprefix('spectrim, ')} over transformers' AST (SDPA), r={rate:g}"
                found.append(Outcome(name, "AST-B/16, batch 1", wanted, *ratio(peer, ours)))
    return found


def of_front_end(result: Mapping[str, Any]) -> list[Outcome]:
    """The front end over ASTFeatureExtractor, wall clock per clip."""
    return [
        Outcome("front end over ASTFeatureExtractor", f"10 s, batch {row['batch']}", 10.0, row["wall"]["speed_up"])
        for row in result["rows"]
        if row["front_end"] == "spectrim"
    ]


def of_files(result: Mapping[str, Any]) -> list[Outcome]:
    """The model's share of the time from files to labels."""
    medians = {(row["case"], row["batch_size"], row["what"]): row["median_ms"] for row in result["rows"]}
    return [
        Outcome(
            f"model alone over files → labels, r={rate}",
            f"{what}, batch {batch}",
            0.9,
            medians[case, batch, f"alone: model, r={rate}"] / medians[case, batch, f"spectrim.predict, r={rate}"],
        )
        for what, case in TEN_SECONDS.items()
        for batch in (1, 8)
        if (case, batch, "alone: front end") in medians
        for rate in RATES
    ]


def of_exported_files(result: Mapping[str, Any]) -> list[Outcome]:
    """From files to labels in another runtime, over transformers' pipeline."""
    medians = {(row["case"], row["batch_size"], row["what"]): row["median_ms"] for row in result["rows"]}
    case = TEN_SECONDS["AST-B/16"]
    return [
        Outcome(
            f"files → labels over transformers' pipeline, {pair['backend']} {pair['precision']}, r=0.7",
            f"AST-B/16, batch {batch}",
            4.0,
            medians[case, batch, PIPELINE] / medians[case, batch, exported_name(pair)],
        )
        for pair in result["cases"].get(case, {}).get("exported", [])
        if pair["keep_rate"] == 0.7
        for batch in (1, 8)
        if (case, batch, PIPELINE) in medians
    ]


def exported_name(pair: Mapping[str, Any]) -> str:
    """What `files.py` calls a backend, a precision and a keep rate in its rows."""
    return f"spectrim.predict, {pair['backend']} {pair['precision']}, r={pair['keep_rate']:g}"


def of_recordings(result: Mapping[str, Any]) -> list[Outcome]:
    """Peak memory of the longest recording, and what a further hour of it takes, against shorter ones."""
    rows = sorted(result["rows"], key=lambda row: row["hours"])
    first, middle, last = rows[0], rows[-2], rows[-1]
    memory = first["peak_memory_mb"] / last["peak_memory_mb"]
    early, late = (
        (longer["seconds"] - shorter["seconds"]) / (longer["hours"] - shorter["hours"])
        for shorter, longer in ((first, middle), (middle, last))
    )
    width = result["model"]["hidden_size"]
    lengths = [f"{1e3 * row['hours'] * 3.6:.0f} s" if row["hours"] < 0.1 else f"{row['hours']:g} h" for row in rows]
    return [
        Outcome("peak memory, shortest over longest", f"width {width}, {lengths[0]} and {lengths[-1]}", 0.9, memory),
        Outcome(
            f"time of a further hour, {lengths[0]} to {lengths[-2]} over {lengths[-2]} to {lengths[-1]}",
            f"width {width}",
            0.9,
            early / late,
        ),
    ]

"""Rows of the tables of docs/kwt.md, from the JSON of benchmarks/kwt.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = {
    ("cls_attention", "drop"): "[CLS] attention",
    ("cls_attention", "fuse"): "[CLS] attention, `fuse`",
    ("mean_attention", "drop"): "mean attention",
    ("intensity", "drop"): "intensity",
    ("variation", "drop"): "variation",
    ("value_norm", "drop"): "norm of the values",
    ("cls_attention_so_far", "drop"): "[CLS] attention so far",
    ("cls_without_sinks", "drop"): "[CLS] attention without sinks",
    ("auto", "cluster"): "`cluster`",
    ("regular", "drop"): "a fixed lattice",
    ("random", "drop"): "random",
}


def _signed(found: Mapping[str, float]) -> str:
    """A difference with its interval."""
    return f"{found['mean']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})".replace("-", "−")


def _grid(results: Mapping[str, Any], field: str, shown: Any) -> tuple[list[str], list[list[str]]]:
    """A row a ranking that was run, a column a keep rate."""
    rows = {(row["criterion"], row["reducer"], row["keep_rate"]): row for row in results["rows"]}
    rates = list(dict.fromkeys(rate for _, _, rate in rows))
    ran = {(criterion, reducer) for criterion, reducer, _ in rows}
    lines = [
        [name, *(shown(rows[*ranking, rate][field]) for rate in rates)]
        for ranking, name in NAMES.items()
        if ranking in ran
    ]
    return ["ranked by", *(f"r = {rate:g}" for rate in rates)], lines


def accuracy(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Accuracy of the probe in percent, with intervals."""
    dense = results["dense"]["accuracy"]
    header, lines = _grid(results, "accuracy", lambda one: f"{one['mean']:.1f} ({one['low']:.1f} to {one['high']:.1f})")
    whole = f"{dense['mean']:.1f} ({dense['low']:.1f} to {dense['high']:.1f})"
    rows = [[line[0], whole if at == 0 else "", *line[1:]] for at, line in enumerate(lines)]
    random = [row["draws"] for row in results["rows"] if row["criterion"] == "random"]
    draws = ["random: worst and best draw", "", *(f"{min(draw):.1f}, {max(draw):.1f}" for draw in random)]
    return [header[0], "r = 1", *header[1:]], [*rows, draws]


def over_random(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Points more than random ranking, with intervals."""
    header, lines = _grid(results, "over_random", _signed)
    return header, [line for line in lines if line[0] != NAMES["random", "drop"]]


def own_label(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Share of the clips whose first label of the model's own head stays, in percent."""
    return _grid(results, "own_label_stays", lambda one: f"{one:.1f}")


def cost(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Millions of multiply-accumulates, executed and as the paper counts."""
    header, lines = _grid(results, "macs", lambda one: f"{one['executed'] / 1e6:.1f}")
    _, paper = _grid(results, "macs", lambda one: f"{one['paper'] / 1e6:.1f}")
    dense = {kind: f"{results['dense']['macs'][kind] / 1e6:.1f}" for kind in ("executed", "paper")}
    rows = [[line[0], dense["executed"] if at == 0 else "", *line[1:]] for at, line in enumerate(lines)]
    return [header[0], "r = 1", *header[1:]], [*rows, ["as the paper counts, `drop`", dense["paper"], *paper[0][1:]]]


def origin(results: Mapping[str, Any]) -> str:
    """What was run, in a paragraph."""
    place, official = results["environment"], results["official"]
    draws = max(len(row["draws"]) for row in results["rows"])
    versions = ", ".join(f"{name} {version}" for name, version in place["versions"].items() if version)
    found = official["accuracy"]
    return (
        f"{results['clips']:,} recordings of {results['speakers']} speakers, {results['labels']} words; pruning at "
        f"blocks {', '.join(map(str, results['blocks']))}; random ranking: mean of {draws} draws. With the data set's "
        f"own parts the dense probe reads {found['mean']:.1f} % ({official['clips']:,} clips of six speakers). "
        f"{versions}; {place['processor']}, one thread."
    )


GRIDS = {"accuracy": accuracy, "over-random": over_random, "own-label": own_label, "cost": cost}
"""Tables, by their names in the page."""

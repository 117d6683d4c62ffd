"""The aims of the GPU work, held against what a run found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DENSE_ROOFLINE = 0.45
OF_PROMISE = 0.9
OVER_REFERENCE = 3.0
SECTIONS_OF_WAYS = ("eager", "graphs", "compiled")


def judge(sections: Mapping[str, Mapping[str, Any]], *, counts: bool = True) -> list[dict[str, Any]]:
    """One entry an aim: what was wanted, what was found, and whether it was reached; None where it was not measured.

    Args:
        sections: name → what the section returned, or ``{"error": ...}``.
        counts: False for a trial on tiny models, which reaches and misses nothing.
    """
    aims = _aims(sections)
    return aims if counts else [{**aim, "reached": None} for aim in aims]


def _aims(sections: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = {name: list(section.get("rows", ())) for name, section in sections.items()}
    ways = [{"way": name, **row} for name in SECTIONS_OF_WAYS for row in rows.get(name, ())]
    return [
        _judged("the kernel agrees with float64", "every case", _kernel(rows.get("kernel_check", []))),
        *(_dense(ways, backbone) for backbone in ("ast", "audiomae")),
        *(_pruned(ways, backbone, rate) for backbone in ("ast", "audiomae") for rate in (0.7, 0.5)),
        *(_over_reference(rows.get("reference_order", []), backbone) for backbone in ("ast", "audiomae")),
        _from_waveforms(rows.get("end_to_end", [])),
    ]


def _judged(aim: str, wanted: object, found: tuple[object, bool] | None) -> dict[str, Any]:
    what, reached = found if found is not None else ("not measured", None)
    return {"aim": aim, "wanted": wanted, "found": what, "reached": reached}


def _kernel(rows: list[dict[str, Any]]) -> tuple[object, bool] | None:
    if not rows:
        return None
    right = sum(row["right"] for row in rows)
    return f"{right} of {len(rows)}", right == len(rows)


def _dense(ways: list[dict[str, Any]], backbone: str) -> dict[str, Any]:
    found = [row for row in ways if row["backbone"] == backbone and row["keep_rate"] == 1.0]
    best = max(found, key=lambda row: row["of_roofline"], default=None)
    what = None
    if best is not None:
        fields = ("of_roofline", "way", "batch_size", "tflops", "clips_per_second")
        what = {name: best[name] for name in fields}, best["of_roofline"] >= DENSE_ROOFLINE
    return _judged(f"{backbone}: dense share of the roofline", DENSE_ROOFLINE, what)


def _pruned(ways: list[dict[str, Any]], backbone: str, rate: float) -> dict[str, Any]:
    """In the way that is fastest for the dense model at each batch size; the worst batch size decides."""
    of_one = [row for row in ways if row["backbone"] == backbone and not row["plain"]]
    found = {}
    for batch in sorted({row["batch_size"] for row in of_one}):
        dense = [row for row in of_one if row["batch_size"] == batch and row["keep_rate"] == 1.0]
        fastest = min(dense, key=lambda row: row["median_ms"], default=None)
        for row in of_one:
            if fastest is not None and (row["way"], row["batch_size"]) == (fastest["way"], batch):
                found |= {f"batch {batch}, {row['way']}": row["of_promise"]} if row["keep_rate"] == rate else {}
    what = (found, min(found.values()) >= OF_PROMISE) if found else None
    return _judged(f"{backbone}, r = {rate}: speed-up over the ratio of executed MACs", OF_PROMISE, what)


def _over_reference(rows: list[dict[str, Any]], backbone: str) -> dict[str, Any]:
    """Half precision against half precision decides: AST's autocast as published, and our own type.

    The ratio to float32, in which AudioMAE's published evaluation runs, stands beside it and decides nothing.
    """
    theirs = [row for row in rows if row["backbone"] == backbone and row["way"] == "reference's order"]
    found = {f"r = {row['keep_rate']}, {row['dtype']}": row["speed_up_of_ours"] for row in theirs}
    halves = [row["speed_up_of_ours"] for row in theirs if row["dtype"] != "float32"]
    what = (found, min(halves) >= OVER_REFERENCE) if halves else None
    return _judged(f"{backbone}: times the speed of the reference's order of computing", OVER_REFERENCE, what)


def _from_waveforms(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """No figure is set for it: it is enough that it was measured."""
    found = {
        f"{row['backbone']}, batch {row['batch_size']}, r = {row['keep_rate']}, {row['way']}": row["clips_per_second"]
        for row in rows
        if row["what"] == "waveforms to logits"
    }
    return _judged("waveforms to logits, clips per second", "measured", (found, True) if found else None)

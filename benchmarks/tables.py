"""Write the speed tables and figures of docs/results.md and docs/performance.md from the JSON files of the benchmarks.

    python benchmarks/tables.py            # writes
    python benchmarks/tables.py --check    # exit code 1 where a page does not say what the files say

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; what is between is replaced. NAME is one of
`TABLES`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import figures
import kwt_table
import methods_table
import numpy as np
import ray_table
import targets
from cases import CASES
from scipy.stats import permutation_test
from targets import PEER, Outcome, row_of

from spectrim.files import write_text
from spectrim.stats.speakers import mean_over_speakers

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
PAGES = tuple(
    ROOT / f"docs/{page}.md"
    for page in ("results", "performance", "export", "analysis", "kwt", "ray", "embedded-model")
)
FIGURES = ROOT / "docs/performance"
MARK = re.compile(r"<!-- table: ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
NONE = "–"

SHOWN_IN_SHORT = (
    *((PEER, 1.0), ("transformers, sdpa, weights packed", 1.0), ("transformers, sdpa, bf16", 1.0)),
    *(("ToMe as in FastAST", 0.7), ("public reference", 0.7)),
    *(("spectrim", rate) for rate in (1.0, 0.7, 0.5)),
    *(
        (name, rate)
        for name in ("spectrim, bf16", "spectrim, ONNX Runtime int8", "spectrim, OpenVINO bf16")
        for rate in (1.0, 0.7)
    ),
)

WAYS = {
    "transformers, sdpa": "transformers' AST with SDPA",
    "spectrim": "`spectrim predict`, as it is (float32)",
    "spectrim, bf16": "`--precision bf16`",
    "spectrim, OpenVINO bf16": "`--backend openvino --precision bf16`",
    "spectrim, ONNX Runtime int8": "`--backend onnxruntime --precision int8`",
}
"""What a user can type, by contender."""

Results = Mapping[str, Any]


def load(name: str) -> Any:
    """A file of results, None where it has not been made.

    Raises:
        ValueError: it is of tiny models, which only show that a benchmark runs.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return None
    results = json.loads(path.read_text(encoding="utf-8"))
    if results.get("small"):
        raise ValueError(f"{path} was made with --small: its times say nothing")
    return results


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(results: Results) -> str:
    """Machine, versions, repeats and load in a paragraph."""
    place, rows = results["environment"], results["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in place["versions"].items() if version)
    repeats: dict[int, set[int]] = {}
    for row in rows:
        repeats.setdefault(row["batch_size"], set()).add(row["repeats"])
    rounds = ", ".join(
        f"{' or '.join(map(str, sorted(counts, reverse=True)))} at batch {batch}"
        for batch, counts in sorted(repeats.items())
    )
    load = max(row["load_average_before"] for row in rows)
    wrong = [f"{row['contender']} on {row['case']}" for row in rows if row["agrees"] is False]
    differing = f" Logits that should agree and do not: {', '.join(wrong)}." if wrong else ""
    cores = f"{place['cores']} cores, {place['torch_threads']} threads"
    return (
        f"{place['processor']} ({place['instructions']}), {cores}; Python {place['python']}; {versions}. Timed rounds: "
        f"{rounds}. Load average before a case, largest: {load:.1f} (the benchmark's own work before it "
        f"counts).{differing}"
    )


def measured_again(results: Results) -> str:
    """Ours over the public code, where it was timed once more: ratios of medians and quartiles by round."""
    place = results["environment"]
    origin = f"{place['processor']} ({place['instructions']}), {place['cores']} cores"
    lines = [
        [f"{one.where}, {one.target}", f"{one.ratio:.2f}", f"{one.low:.2f} to {one.high:.2f}"]
        for one in targets.against_reference(results["rows"])
    ]
    rounds = results["rows"][0]["repeats"]
    return f"{origin}, {rounds} rounds:\n\n{table(['measured again', 'ratio', 'quartiles by round'], lines)}"


def machine_in_short(results: Results) -> str:
    """The same for the short table of docs/results.md."""
    place, rows = results["environment"], [row for row in results["rows"] if row["case"] == "ast-10s"]
    versions = [f"{name} {place['versions'][name]}" for name in ("torch", "transformers", "onnxruntime", "openvino")]
    repeats = {row["batch_size"]: row["repeats"] for row in rows}
    return (
        f"Medians of {repeats[1]} rounds at batch 1 and {repeats[8]} at batch 8 on {place['cores']} cores of an "
        f"{place['processor']} ({place['instructions']}); {', '.join(versions)}. Quartiles are on the page."
    )


def reference_apart(results: Results) -> str:
    """How far the public models and ours with their weights are apart."""
    found = {case: max(rates.values()) for case, rates in results["reference_difference"].items() if rates}
    if not found:
        return "The public reference was not there in this run."
    return (
        f"Checkout {results['reference_commit']}. Largest difference of the logits between it and our model with its "
        f"weights, over keep rates 1, 0.7 and 0.5, in standard deviations of the logits: {max(found.values()):.1e} "
        f"({len(found)} cases)."
    )


def shown(name: str) -> str:
    """A contender's name in a table."""
    return {"spectrim": "**spectrim**", PEER: "transformers, SDPA"}.get(name, name).replace("sdpa", "SDPA")


def speed_up(results: Results, case: str, batch: int, row: Mapping[str, Any]) -> str:
    """Times as fast as transformers' AST with SDPA, or as our dense model where there is none."""
    base = row_of(results["rows"], case, batch, PEER, 1.0) or row_of(results["rows"], case, batch, "spectrim", 1.0)
    return NONE if base is None else f"{base['median_ms'] / row['median_ms']:.2f}×"


def readme(results: Results) -> str:
    """AST-B/16 on 10 s: the contenders that a reader asks for first."""
    lines = []
    for name, rate in SHOWN_IN_SHORT:
        rows = [row_of(results["rows"], "ast-10s", batch, name, rate) for batch in (1, 8)]
        if rows[0] is None:
            continue
        cells = []
        for batch, row in zip((1, 8), rows, strict=True):
            cells += [f"{row['ms_per_clip']:.0f}", speed_up(results, "ast-10s", batch, row)] if row else [NONE, NONE]
        lines.append([shown(name), f"{rate:g}", f"{rows[0]['macs'] / 1e9:.1f}", *cells])
    header = ["AST-B/16, 10 s", "keep rate", "G MACs"]
    header += [cell for batch in (1, 8) for cell in (f"ms a clip, batch {batch}", "speed-up")]
    return table(header, lines)


def ways(results: Results) -> str:
    """AST-B/16 on 10 s: how many times as fast each way to run it is, by keep rate and batch size."""
    lines = []
    for name, typed in WAYS.items():
        cells = []
        for batch in (1, 8):
            for rate in (1.0, 0.7, 0.5):
                row = row_of(results["rows"], "ast-10s", batch, name, rate)
                cells.append(NONE if row is None else speed_up(results, "ast-10s", batch, row))
        lines.append([typed, *cells])
    points = [f"batch {batch}, r={rate}" for batch in (1, 8) for rate in ("1", "0.7", "0.5")]
    return table(["times as fast", *points], lines)


def everything(results: Results, case: str) -> str:
    """All contenders of a case at every batch size: ms a clip with quartiles, and the ratio."""
    rows = [row for row in results["rows"] if row["case"] == case]
    if not rows:
        return "Not run."
    sizes = sorted({row["batch_size"] for row in rows})
    names = list(dict.fromkeys((row["contender"], row["keep_rate"]) for row in rows))
    lines = []
    for name, rate in names:
        found = {size: row_of(rows, case, size, name, rate) for size in sizes}
        first = next(row for row in found.values() if row)
        detail = f", {first['detail']}" if first["detail"] else ""
        line = [shown(name) + detail, f"{rate:g}", f"{first['macs'] / 1e9:.2f}"]
        for size, row in found.items():
            if row is None:
                line += [NONE, NONE]
                continue
            low, middle, high = (row[key] / size for key in ("q1_ms", "median_ms", "q3_ms"))
            line += [f"{middle:.1f} [{low:.1f}, {high:.1f}]", speed_up(results, case, size, row)]
        lines.append(line)
    header = [CASES[case].what, "keep rate", "G MACs"]
    header += [cell for size in sizes for cell in (f"batch {size}: ms a clip", "speed-up")]
    return table(header, lines)


def reached(found: Sequence[Outcome]) -> str:
    """Targets and what came out."""
    lines = [
        [
            *(one.target, one.where, f"{one.wanted:g}", f"{one.ratio:.3f}"),
            f"{one.low:.2f} to {one.high:.2f}" if one.low is not None and one.high is not None else NONE,
            "yes" if one.reached else "**no**",
        ]
        for one in found
    ]
    return table(["ratio", "case", "wanted, at least", "came out", "quartiles by round", "reached"], lines)


def all_targets(results: Results) -> str:
    """The targets of every file of results that is there."""
    found, elsewhere = targets.outcomes(results["rows"]), []
    for name, of in (
        ("frontend", targets.of_front_end),
        ("files", targets.of_files),
        ("files_exported", targets.of_exported_files),
        ("long_recording", targets.of_recordings),
    ):
        other = load(name)
        if other is not None and same_place(other, results):
            found += of(other)
        else:
            elsewhere.append(f"benchmarks/results/{name}.json")
    why = "Not in this table, since they were measured on another kind of machine or not at all"
    note = f"\n\n{why}: {', '.join(elsewhere)}." if elsewhere else ""
    return reached(found) + note


def same_place(one: Results, other: Results) -> bool:
    """Whether two files of results come from one kind of machine, with as many threads and the same torch."""
    places = (one["environment"], other["environment"])
    kinds = [
        (place["processor"], place["cores"], place["torch_threads"], place["versions"]["torch"]) for place in places
    ]
    return kinds[0] == kinds[1]


def files(results: Results) -> str:
    """From files to labels: a line for each case and batch size."""
    lines = []
    for case, batch in dict.fromkeys((row["case"], row["batch_size"]) for row in results["rows"]):
        rows = {row["what"]: row for row in results["rows"] if (row["case"], row["batch_size"]) == (case, batch)}
        base = rows.get(targets.PIPELINE) or rows["spectrim.predict, r=1"]
        lines.append(
            [
                f"{CASES[case].what}, batch {batch}",
                with_quartiles(rows[targets.PIPELINE]) if targets.PIPELINE in rows else NONE,
                *(
                    f"{with_quartiles(row)} {base['median_ms'] / row['median_ms']:.2f}×"
                    for row in (rows[f"spectrim.predict, r={rate}"] for rate in targets.RATES)
                ),
                f"{rows['alone: decoding, one process']['median_ms']:.1f}",
                f"{rows['alone: front end']['median_ms']:.1f}",
                f"{rows['alone: model, r=0.7']['median_ms'] / rows['spectrim.predict, r=0.7']['median_ms']:.0%}",
            ]
        )
    ways = [f"`spectrim.predict`, r={rate}" for rate in targets.RATES]
    stages = ["decoding alone", "front end alone", "model's share, r=0.7"]
    return table(["files → labels, ms a file", "transformers' pipeline", *ways, *stages], lines)


def files_exported(results: Results) -> str:
    """From files to labels in other runtimes: a line for each, its batch sizes and how far its labels are."""
    rows = {(row["case"], row["batch_size"], row["what"]): row for row in results["rows"]}
    batches = list(dict.fromkeys(batch for _, batch, _ in rows))
    lines = []
    for case, found in results["cases"].items():
        for pair in found["exported"]:
            times = []
            for batch in batches:
                base, row = rows[case, batch, targets.PIPELINE], rows[case, batch, targets.exported_name(pair)]
                times.append(f"{with_quartiles(row)} {base['median_ms'] / row['median_ms']:.2f}×")
            lines.append(
                [
                    f"{CASES[case].what}, {pair['backend']} {pair['precision']}, r={pair['keep_rate']:g}",
                    *times,
                    f"{pair['agreeing']} of {pair['clips']}",
                    f"{pair['largest_score_difference']:.2g}",
                ]
            )
    heads = [f"batch {batch}, over the pipeline" for batch in batches]
    place = results["environment"]
    machine = f"{place['processor']} ({place['instructions']}), {place['cores']} cores"
    origin = f"{machine}; medians of {results['repeats']} rounds."
    return f"{origin}\n\n{table(['files → labels, ms a file', *heads, 'same label', 'scores apart, at most'], lines)}"


def with_quartiles(row: Mapping[str, Any]) -> str:
    """Median and quartiles in milliseconds."""
    return f"{row['median_ms']:.1f} [{row['q1_ms']:.1f}, {row['q3_ms']:.1f}]"


def operations(results: Results) -> str:
    """Where the time goes."""
    columns = results["operations"]
    kinds = list(dict.fromkeys(kind for column in columns for kind in column["share"]))
    lines = [[kind, *(f"{column['share'].get(kind, 0.0):.1%}" for column in columns)] for kind in kinds]
    names = {"ast": "AST-B", "audiomae": "AudioMAE-B"}
    header = [f"{names[one['model']]}, r={one['keep_rate']:g}, batch {one['batch_size']}" for one in columns]
    return table(["share of a pass", *header], lines)


def alternatives(results: Results) -> str:
    """Other ways of computing."""
    lines = [
        [
            f"{row['model']}, r={row['keep_rate']:g}, batch {row['batch_size']}: {row['way']}",
            f"{row['median_ms']:.0f} [{row['q1_ms']:.0f}, {row['q3_ms']:.0f}]",
            f"{row['speed_up']:.2f}×",
            f"{row['logits_apart']:.1e}",
        ]
        for row in results["alternatives"]
    ]
    return table(["", "ms a pass", "speed-up", "logits apart, in their standard deviations"], lines)


def clips_a_pass(results: Results) -> str:
    """How many clips to put into a pass."""
    lines = [
        [f"{row['clips_a_pass']}", f"{row['median_ms']:.0f} [{row['q1_ms']:.0f}, {row['q3_ms']:.0f}]"]
        for row in results["clips_a_pass"]
    ]
    return table(["clips a pass, AST-B/16, r=0.7", "ms a clip"], lines)


def products(results: Results) -> str:
    """What linear layers reach."""
    rates = {(one["inputs"], one["outputs"], one["rows"], one["way"]): one["gflops"] for one in results["products"]}
    counts = list(dict.fromkeys(one["rows"] for one in results["products"]))
    lines = [
        [
            f"{inputs} → {outputs}",
            *(f"{rates[inputs, outputs, rows, way]:.0f}" for rows in counts for way in ("as it is", "packed")),
        ]
        for inputs, outputs in dict.fromkeys((one["inputs"], one["outputs"]) for one in results["products"])
    ]
    header = [f"{rows} tokens{detail}" for rows in counts for detail in ("", ", packed")]
    return table(["linear layer, GFLOP/s", *header], lines)


def whole_mlp(results: Results) -> str:
    """Speed-ups over transformers' AST with SDPA in a run before `MLP_ROWS`, and in the one after it."""
    after = load("speed_in_pieces")
    lines = []
    for batch in (1, 8):
        for rate in (1.0, 0.7, 0.5):
            cells = []
            for run in (results, after):
                ours = None if run is None else row_of(run["rows"], "ast-10s", batch, "spectrim", rate)
                cells.append(NONE if ours is None else speed_up(run, "ast-10s", batch, ours))
            lines.append([f"AST-B/16, 10 s, batch {batch}, r={rate:g}", *cells])
    return table(["over transformers' AST, SDPA", "MLP of all tokens at once", "in pieces"], lines)


def recordings(results: Results) -> str:
    """Time and memory of tagging one file, by its length."""
    lines = [
        [
            f"{row['audio_seconds']:.0f} s" if row["hours"] < 1 else f"{row['hours']:g} h",
            *(f"{row['file_mb']:.1f}", f"{row['windows']}", f"{row['seconds']:.1f}"),
            *(f"{1e3 * row['seconds'] / row['windows']:.0f}", f"{row['peak_memory_mb']:.0f}"),
        ]
        for row in results["rows"]
    ]
    return table(["length", "MB of FLAC", "windows", "seconds", "ms a window", "peak memory, MB"], lines)


def kendall(results: Results) -> str:
    """Kendall's counts by pairs and by sorting."""
    rows = {(row["form"], row["rows"]): row["processor"] for row in results["kendall"]}
    lines = [
        [
            *(f"{count}", f"{rows['pairwise', count]['median_ms']:.2f}", f"{row['median_ms']:.3f}"),
            f"{row['speed_up']:.0f}×",
        ]
        for (form, count), row in rows.items()
        if form == "sorted"
    ]
    return table(["rows (clips × blocks) in a call", "pairwise, ms a row", "sorted, ms a row", "ratio"], lines)


def accuracy(results: Results) -> str:
    """What other runtimes and precisions cost spectrim-words: a column for each."""
    rows = {(row["runs_in"], row["keep_rate"]): row for row in results["accuracy"]}
    runtimes = list(dict.fromkeys(runtime for runtime, _ in rows))
    lines = [
        [
            f"{rate:g}",
            *(
                f"{rows[runtime, rate]['accuracy']:.1%} ({rows[runtime, rate]['agreement_with_pytorch']:.1%})"
                for runtime in runtimes
            ),
        ]
        for rate in dict.fromkeys(rate for _, rate in rows)
    ]
    return table(["keep rate", *runtimes], lines)


GROUPS = {
    ("Arabic", ""): "Arabic words, human voices",
    ("English", ""): "English words, synthesised voices",
    ("sound", ""): "sounds",
    ("sound", "_but_silence"): "sounds, best label but silence",
    ("silence", ""): "silence and noise",
}
"""Group of the test recordings, and which of its accuracies → head of the column."""


def interval(triple: Sequence[float], digits: int) -> str:
    """A mean with the ends of its interval, if there is one."""
    mean, *ends = (f"{number:.{digits}f}" for number in triple)
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def voices(results: Results, figure: str) -> str:
    """What the packaged model reaches, or loses, at each keep rate: a column a group of recordings."""
    rows = {(row["group"], row["keep_rate"]): row for row in results["groups"]}
    shown = {column: head for column, head in GROUPS.items() if figure == "accuracy" or not column[1]}
    rates = [rate for rate in dict.fromkeys(rate for _, rate in rows) if figure == "accuracy" or rate < 1.0]
    lines = []
    for rate in rates:
        cells = [rows[group, rate][figure + which] for group, which in shown]
        lines.append([f"{rate:g}", *(interval(cell, 1 if figure == "accuracy" else 2) for cell in cells)])
    return table(["keep rate", *shown.values()], lines)


def voices_choice(results: Results) -> str:
    """What rankings lose on the validation recordings at each keep rate, the least on human voices first.

    Of two speakers without an interval, which would be wider than the scale.
    """
    rows = {
        name: {
            (row["group"], row["keep_rate"]): row["lost"] if row["speakers"] > 2 else row["lost"][:1]
            for row in groups
            if row["keep_rate"] < 1.0
        }
        for name, groups in results["criteria"].items()
    }
    keys = list(next(iter(rows.values())))
    lines = []
    for name in sorted(rows, key=lambda name: [rows[name][key][0] for key in keys]):
        lines.append([f"`{name}`", *(interval(rows[name][key], 2) for key in keys)])
    return table(["score", *(f"{GROUPS[group, '']}, {rate:g}" for group, rate in keys)], lines)


RANKED_RUNS = {
    "attention": "voices_attention",
    "attention so far": "voices_attention_so_far",
    "attention without sinks": "voices_without_sinks",
    "norm of the values": "voices",
    "clusters": "voices_clusters",
}
"""What ranked the patches of the test recordings → file of results, all of the same weights and recordings."""


def voices_ranked(results: Results, group: str) -> str:
    """What the packaged model loses by some rankings, and what attention so far has above attention, by speaker.

    p as in the study, by t, and exact, of all changes of sign: with six speakers that is 1/32 at least.
    """
    runs = {
        name: {row["keep_rate"]: row for row in load(file)["groups"] if row["group"] == group}
        for name, file in RANKED_RUNS.items()
    }
    rates = [rate for rate in runs["attention so far"] if rate < 1.0]
    before, after = (runs[name] for name in ("attention", "attention so far"))
    found = []
    for rate in rates:
        shares = before[rate]["by_speaker"]
        above = {name: after[rate]["by_speaker"][name] - share for name, share in shares.items()}
        mean = mean_over_speakers({0: above})
        exact = permutation_test((list(above.values()),), np.mean, permutation_type="samples", n_resamples=np.inf)
        lost = [interval(runs[name][rate]["lost"], 2) for name in RANKED_RUNS]
        found.append([f"{rate:g}", *lost, f"{mean}", f"{mean.p:.4f}" if mean else NONE, f"{exact.pvalue:.3f}"])
    return table(["keep rate", *RANKED_RUNS, "attention so far above attention", "p, t", "p, exact"], found)


TABLES: dict[str, tuple[str, Callable[[Results], str]]] = {
    "readme": ("speed", readme),
    "ways": ("speed", ways),
    **{case: ("speed", lambda results, case=case: everything(results, case)) for case in CASES},
    "targets": ("speed", all_targets),
    "speed-machine": ("speed", machine),
    "audiomae-again": ("speed_audiomae_again", measured_again),
    "machine-in-short": ("speed", machine_in_short),
    "reference": ("speed", reference_apart),
    "files": ("files", files),
    "files-exported": ("files_exported", files_exported),
    "whole-mlp": ("speed_whole_mlp", whole_mlp),
    "operations": ("where_time_goes", operations),
    "alternatives": ("where_time_goes", alternatives),
    "clips-a-pass": ("where_time_goes", clips_a_pass),
    "products": ("where_time_goes", products),
    "recordings": ("long_recording", recordings),
    "kendall": ("kendall", kendall),
    "accuracy": ("export_accuracy", accuracy),
    "methods-origin": ("methods", methods_table.origin),
    "methods": ("methods", lambda results: table(*methods_table.times(results))),
    "kwt-origin": ("kwt", kwt_table.origin),
    "voices": ("voices", lambda results: voices(results, "accuracy")),
    "voices-lost": ("voices", lambda results: voices(results, "lost")),
    "voices-lost-by-attention": ("voices_attention", lambda results: voices(results, "lost")),
    "voices-so-far": ("voices_attention_so_far", lambda results: voices_ranked(results, "Arabic")),
    "voices-so-far-english": ("voices_attention_so_far", lambda results: voices_ranked(results, "English")),
    "voices-choice-so-far": ("voices_validation_so_far", voices_choice),
    "voices-choice": ("voices_validation", voices_choice),
    "voices-choice-without-padding": ("voices_validation_without_padding", voices_choice),
    "ray-origin": ("ray_engine", ray_table.origin),
    "ray-speed": ("ray_engine", lambda results: table(*ray_table.speed(results))),
    "ray-large-origin": ("ray_large", ray_table.origin),
    "ray-large": ("ray_large", lambda results: table(*ray_table.speed(results))),
    "ray-hours": ("ray_large", lambda results: table(*ray_table.hours(results))),
    "ray-memory": ("ray_large", lambda results: table(*ray_table.memory(results))),
    "kwt-block3": ("kwt_block3", lambda results: table(*kwt_table.accuracy(results))),
    **{
        f"kwt-{name}": ("kwt", lambda results, make=make: table(*make(results)))
        for name, make in kwt_table.GRIDS.items()
    },
}
"""Name → file of results, and what makes the table of it."""


def filled(text: str) -> str:
    """A page with every table as the files say; a table whose file is missing says so."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in TABLES:
            raise ValueError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
        file, make = TABLES[name]
        results = load(file)
        content = f"Not run: there is no benchmarks/results/{file}.json." if results is None else make(results)
        return f"<!-- table: {name} -->\n{content}\n<!-- end -->"

    return MARK.sub(one, text)


def main() -> int:
    """Write the pages and figures, or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    code = 0
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if options.check and after != before:
            sys.stderr.write(f"{page} does not say what benchmarks/results say: python benchmarks/tables.py\n")
            code = 1
        elif after != before:
            write_text(page, after)
    results = load("speed")
    if not options.check and results is not None:
        FIGURES.mkdir(exist_ok=True)
        figures.latency(results["rows"], FIGURES / "latency.png")
        figures.saved(results["rows"], FIGURES / "saved.png")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Time counting Kendall's pairs by sorting beside looking at every pair, and k-means on 10 million values.

    python benchmarks/kendall.py --json benchmarks/results/kendall.json

One clip and block has 512 scores, as AST has on 10 s, and five clusters. The pairwise form is the definition in NumPy:
the signs of all differences above the diagonal, multiplied. Both count the same pairs: the output says whether their
numbers are equal. The calls are interleaved, so that what else the machine does hits both alike; processor time stands
beside wall-clock time, because other work does not lengthen it. One thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from showing import write_and_show
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from spectrim.machine import environment
from spectrim.measure.benchmark import interleaved, spread
from spectrim.stats.clusters import kmeans_1d
from spectrim.stats.kendall import count_pairs

PATCHES, CLUSTERS = 512, 5
VALUES = 10_000_000
BUMPS = ((-1, 0.2), (0, 0.5), (0.8, 0.3))
"""Mean and deviation of what the values are drawn from; a tenth of them is one value, as padding is."""


class Timed:
    """A call that also notes its processor time."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.seconds: list[float] = []

    def __call__(self) -> Any:
        """Run it."""
        start = time.process_time()
        result = self.call()
        self.seconds.append(time.process_time() - start)
        return result


def pairwise(scores: np.ndarray, clusters: np.ndarray) -> list[list[int]]:
    """Concordant, discordant and all other pairs of each row of (rows, n) by the definition."""
    found = []
    first, second = np.triu_indices(scores.shape[1], 1)
    for row, ranks in zip(scores, clusters, strict=True):
        signs = np.sign(row[first] - row[second]) * np.sign(ranks[first] - ranks[second])
        found.append([int((signs > 0).sum()), int((signs < 0).sum()), int((signs == 0).sum())])
    return found


def sorted_counts(scores: np.ndarray, clusters: np.ndarray) -> list[list[int]]:
    """The same by sorting."""
    counts = count_pairs(scores, clusters, CLUSTERS)
    ties = counts.pairs - counts.concordant - counts.discordant
    return np.stack([counts.concordant, counts.discordant, ties], axis=1).tolist()


def measure_kendall(rows: list[int], repeats: int) -> list[dict[str, Any]]:
    """Both forms on so many clips and blocks at once."""
    generator = np.random.default_rng(0)
    measured = []
    for count in rows:
        scores = generator.exponential(1 / PATCHES, (count, PATCHES)).astype(np.float32)
        clusters = generator.integers(0, CLUSTERS, (count, PATCHES)).astype(np.int8)
        cases = {
            "pairwise": Timed(lambda scores=scores, clusters=clusters: pairwise(scores, clusters)),
            "sorted": Timed(lambda scores=scores, clusters=clusters: sorted_counts(scores, clusters)),
        }
        equal = cases["pairwise"]() == cases["sorted"]()
        wall = interleaved(cases, repeats=repeats)
        for name, seconds in wall.items():
            row: dict[str, Any] = {"form": name, "rows": count, "patches": PATCHES, "equal": equal}
            processor, peer = cases[name].seconds[-repeats:], cases["pairwise"].seconds[-repeats:]
            for clock, mine, theirs in (("wall", seconds, wall["pairwise"]), ("processor", processor, peer)):
                ratio = statistics.median(theirs) / statistics.median(mine)
                row[clock] = {**spread([one / count for one in mine]), "speed_up": ratio}
            measured.append(row)
    return measured


def measure_clusters(repeats: int) -> dict[str, Any]:
    """Ours to its end, and scikit-learn's from ours' centres, where it has one or two iterations to do."""
    generator = np.random.default_rng(0)
    shares = generator.multinomial(VALUES, [0.3, 0.4, 0.2, 0.1])
    bumps = [generator.normal(*bump, share) for bump, share in zip(BUMPS, shares, strict=False)]
    values = generator.permutation(np.concatenate([*bumps, np.full(shares[3], 0.467)])).astype(np.float32)
    found = kmeans_1d(values, CLUSTERS, padding="with")
    peer = KMeans(CLUSTERS, init=np.asarray(found.centres)[:, None], n_init=1, tol=0)
    cases = {
        "spectrim, from nothing": Timed(lambda: kmeans_1d(values, CLUSTERS, padding="with")),
        "scikit-learn, from those centres": Timed(lambda: peer.fit(values.astype(np.float64)[:, None])),
    }
    wall = interleaved(cases, repeats=repeats, warmup=0)
    return {
        "values": VALUES,
        "largest_difference_of_centres": float(np.abs(peer.cluster_centers_[:, 0] - found.centres).max()),
        "scikit_learn_iterations": int(peer.n_iter_),
        "rows": [
            {"name": name, "wall": spread(seconds), "processor": spread(cases[name].seconds[-repeats:])}
            for name, seconds in wall.items()
        ],
    }


def main() -> None:
    """Parse, measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 12, 96], help="clips × blocks in one call")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--cluster-repeats", type=int, default=3)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with threadpool_limits(1):
        result = {
            "what": f"ms per clip and block of {PATCHES} patches; speed_up: pairwise median divided by this one",
            "repeats": arguments.repeats,
            "kendall": measure_kendall(arguments.rows, arguments.repeats),
            "clusters": measure_clusters(arguments.cluster_repeats),
            "load_average": {"before": load_before, "after": os.getloadavg()[0]},
            "environment": environment(),
        }
    write_and_show(result, arguments.json)


if __name__ == "__main__":
    main()

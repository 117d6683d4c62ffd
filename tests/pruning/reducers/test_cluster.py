"""Clusters by density peaks beside their definition with loops, and every way in which a model is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import tiny_model
from full_size import ONE_BACKBONE
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import BACKBONES, clips, small_config, small_model
from reduced import (
    EXACT,
    Plain,
    Step,
    Token,
    agree,
    assert_compiles_as_one_graph,
    assert_executed_is_counted,
    assert_exported,
    assert_gradients,
    assert_padding_and_removed_patches_are_left_out,
    plain_reduced,
)
from scipy.spatial.distance import cdist
from torch import Tensor

from spectrim import Pruning
from spectrim.errors import InvalidSetting
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.reducers.cluster import clusters

RATES = {2: 0.7, 5: 0.3, 8: 0.6}


def peaks(keys: np.ndarray, count: int) -> list[int]:
    """The centre that each of the tokens (n, head_dim) joins: DPC-KNN as it is defined, 5 neighbours."""
    distance = cdist(keys, keys) / math.sqrt(keys.shape[1])
    number = range(len(keys))
    density = [math.exp(-np.mean(np.sort(row)[:5] ** 2)) for row in distance]
    apart = []
    for i in number:
        denser = [j for j in number if density[j] > density[i] or (density[j] == density[i] and j < i)]
        apart.append(min(distance[i, j] for j in denser) if denser else max(distance[i]))
    centres = sorted(number, key=lambda i: -density[i] * apart[i])[:count]
    return [i if i in centres else min(centres, key=lambda c: distance[i, c]) for i in number]


@settings(deadline=None, max_examples=60)
@given(number=st.integers(1, 30), rate=st.floats(0.01, 1.0), extra=st.sampled_from([1, 2]), seed=st.integers(0, 99))
def test_clusters_are_those_of_the_definition(number: int, rate: float, extra: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(2, extra + number, 16, generator=generator, dtype=torch.float64)
    count, real = math.ceil(rate * number), torch.tensor([number, max(1, number - 4)])
    valid = torch.arange(number) < real.unsqueeze(1)
    kept = torch.tensor([[math.ceil(rate * own)] for own in real.tolist()])
    found = clusters(keys, extra, real.unsqueeze(1) - kept, valid)
    alone = clusters(keys[:1], extra, number - count)
    assert torch.equal(alone[0], found[0])
    for item, own in enumerate(real.tolist()):
        joined = peaks(keys[item, extra : extra + own].numpy(), int(kept[item]))
        places = {centre: place for place, centre in enumerate(sorted(set(joined)))}
        wanted = [*range(extra), *(extra + places[centre] for centre in joined), *[-1] * (number - own)]
        assert found[item].tolist() == wanted


def test_tokens_that_are_the_same_are_still_put_into_as_many_clusters() -> None:
    keys = torch.ones(1, 1 + 12, 8)
    keys[:, 7:] = -1.0
    for count in (1, 2, 3, 12):
        found = clusters(keys, 1, 12 - count)[0, 1:]
        assert found.unique().tolist() == list(range(1, count + 1))
        assert count == 1 or not set(found[:6].tolist()) & set(found[6:].tolist())


def clustered(extra: int, step: Step) -> tuple[list[Token], dict[int, int]]:
    """Each cluster's mean, weighted by how many patches a token stands for."""
    joined = peaks(step.keys[extra:].detach().numpy(), step.count)
    after, moved = [], {}
    for centre in sorted(set(joined)):
        tokens = [token for token, own in zip(step.tokens, joined, strict=True) if own == centre]
        name = tokens[0].name if len(tokens) == 1 else -1 - 1000 * step.block - centre
        size = sum(token.size for token in tokens)
        after.append(Token(name, sum(token.size * token.values for token in tokens) / size, size))
        moved |= {token.name: name for token in tokens}
    return after, moved


def plain_clustered(model: AudioTransformer, clip: Tensor, rates: Mapping[int, float], **fields) -> Plain:
    return plain_reduced(model, clip, rates, lambda step: clustered(model.config.extra_tokens, step), **fields)


def clustering(backbone: str, **fields: object) -> AudioTransformer:
    """A model that clusters in three blocks."""
    given = {"reducer": "cluster", "prune_at": list(RATES), "keep_rate": list(RATES.values())}
    return small_model(backbone, **{**given, **fields})


@pytest.mark.parametrize("rates", [RATES, dict.fromkeys(range(12), 0.9), {11: 0.2}], ids=["three", "every", "last"])
@pytest.mark.parametrize("backbone", [*BACKBONES, "kwt"])
def test_every_token_is_that_of_the_definition(backbone: str, rates: dict[int, float]) -> None:
    model = clustering(backbone, prune_at=list(rates), keep_rate=list(rates.values()))
    values = clips(model.config)
    with torch.no_grad():
        found = model(values, output_token_trace=True, output_hidden_states=True)
        short = model(values)
        for item in range(2):
            agree(found, item, plain_clustered(model, values[item], rates))
    torch.testing.assert_close(short.logits, found.logits, **EXACT)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_of_all_weights_are_those_of_the_definition(backbone: str) -> None:
    model = clustering(backbone)
    assert_gradients(model, lambda clip, **seen: plain_clustered(model, clip, RATES, **seen))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_padding_and_removed_patches_are_in_no_cluster(backbone: str) -> None:
    model = clustering(backbone, drop_padding=True)
    assert_padding_and_removed_patches_are_left_out(
        model, lambda clip, **seen: plain_clustered(model, clip, RATES, **seen)
    )


@pytest.mark.parametrize(("at", "rate"), [((3, 6, 9), 0.7), ((0, 11), 0.2), (tuple(range(12)), 0.93)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_executed_count_is_what_torch_counts(backbone: str, at: tuple[int, ...], rate: float) -> None:
    pruning = Pruning(rate, at=at, reducer="cluster")
    assert_executed_is_counted(small_config(backbone), pruning)


@pytest.mark.parametrize("backbone", ONE_BACKBONE)
def test_compiles_as_one_graph(backbone: str) -> None:
    model = clustering(backbone)
    assert_compiles_as_one_graph(model)


@pytest.mark.parametrize("backbone", ONE_BACKBONE)
def test_an_exported_file_clusters_too(backbone: str, tmp_path: Path) -> None:
    model = tiny_model(backbone, reducer="cluster", keep_rate=0.4)
    assert_exported(model, tmp_path / "cluster.onnx", lambda clip: plain_clustered(model, clip, {0: 0.4, 1: 0.4}))


@pytest.mark.parametrize(
    ("field_name", "fields"),
    [
        ("criterion", {"criterion": "intensity"}),
        ("time_segments", {"time_segments": 2}),
        ("reducer", {"criterion": "intensity", "reference_compat": True}),
    ],
)
def test_what_cannot_be_is_refused_by_name(field_name: str, fields: dict) -> None:
    model = small_model("ast")
    with pytest.raises(InvalidSetting) as error:
        model.set_pruning(Pruning(**{"keep_rate": 0.5, "reducer": "cluster", **fields}))
    assert error.value.field == field_name
    assert model.config.pruning == Pruning()

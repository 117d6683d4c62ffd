"""PiToMe's merging beside its public code and its definition with loops, and in every way in which a model is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import noise, tiny_model
from plain import BACKBONES, clips, small_config, small_model
from reduced import (
    EXACT,
    Plain,
    Step,
    Token,
    agree,
    assert_compiles_as_one_graph,
    assert_executed_is_counted,
    assert_gradients,
    assert_padding_and_removed_patches_are_left_out,
    plain_reduced,
)
from seeded import uniform
from torch import Tensor
from torch.nn.functional import cosine_similarity

from spectrim import Pruning
from spectrim.errors import InvalidSetting
from spectrim.inference.onnx_export import export
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.reducers.pitome import energy_pairs
from spectrim.pruning.tokens import Tokens

RECORDED = np.load(Path(__file__).parents[2] / "reference" / "pitome.npz")
RATES = {2: 0.7, 5: 0.5, 8: 0.6}


@pytest.mark.parametrize("case", sorted(RECORDED))
def test_one_merge_is_that_of_the_public_code(case: str) -> None:
    count, (rate, margin) = int(case.split("/")[0]), map(float, case.split("/")[1:])
    keys, values = uniform(f"metric-{count}", (2, count, 16), 7), uniform(f"tokens-{count}", (2, count, 8), 7)
    sizes = (uniform(f"sizes-{count}", (2, count), 7).abs() * 4).floor() + 1
    number = count - 1
    kept = math.ceil(rate * number)
    tokens = Tokens(values, torch.arange(-1, number).expand(2, -1), 1, size=sizes[:, 1:])
    found = tokens.merge(energy_pairs(keys, 1, number - kept, margin=margin), kept)
    rows = torch.cat([found.values[:, 1:], found.size.unsqueeze(2)], dim=2)
    rows = torch.stack([part[part[:, 0].argsort()] for part in rows])
    np.testing.assert_allclose(rows.numpy(), RECORDED[case], rtol=1e-6, atol=1e-6)


def paired(extra: int, step: Step, depth: int) -> tuple[list[Token], dict[int, int]]:
    """The definition: of the 2r patches of most energy, each at an even rank joins the most similar at an odd one."""
    margin = 0.9 * (1 - step.block / depth)
    keys, number = step.keys[extra:].detach(), len(step.tokens)
    alike = cosine_similarity(keys[:, None], keys[None], dim=-1).tolist()
    energy = [sum(s - margin if s > margin else math.exp(s - margin) - 1 for s in row) / number for row in alike]
    chosen = sorted(range(number), key=lambda i: -energy[i])[: 2 * (number - step.count)]
    going, staying = chosen[::2], chosen[1::2]
    joins = {i: max(staying, key=lambda j: alike[i][j]) for i in going}
    after, moved = [], {}
    for place in (i for i in range(number) if i not in joins):
        tokens = [step.tokens[place], *(step.tokens[i] for i in going if joins[i] == place)]
        name = tokens[0].name if len(tokens) == 1 else -1 - 1000 * step.block - place
        size = sum(token.size for token in tokens)
        after.append(Token(name, sum(token.size * token.values for token in tokens) / size, size))
        moved |= {token.name: name for token in tokens}
    return after, moved


def plain_paired(model: AudioTransformer, clip: Tensor, rates: Mapping[int, float], **fields) -> Plain:
    extra, depth = model.config.extra_tokens, model.config.num_hidden_layers
    return plain_reduced(model, clip, rates, lambda step: paired(extra, step, depth), **fields)


def pairing(backbone: str, **fields: object) -> AudioTransformer:
    """A model that merges in three blocks."""
    given = {"reducer": "pitome", "prune_at": list(RATES), "keep_rate": list(RATES.values())}
    return small_model(backbone, **{**given, **fields})


@pytest.mark.parametrize("rates", [RATES, dict.fromkeys(range(12), 0.9), {11: 0.5}], ids=["three", "every", "last"])
@pytest.mark.parametrize("backbone", [*BACKBONES, "kwt"])
def test_every_token_is_that_of_the_definition(backbone: str, rates: dict[int, float]) -> None:
    model = pairing(backbone, prune_at=list(rates), keep_rate=list(rates.values()))
    values = clips(model.config)
    with torch.no_grad():
        found = model(values, output_token_trace=True, output_hidden_states=True)
        short = model(values)
        for item in range(2):
            agree(found, item, plain_paired(model, values[item], rates))
    torch.testing.assert_close(short.logits, found.logits, **EXACT)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_padding_and_removed_patches_are_merged_with_nobody(backbone: str) -> None:
    model = pairing(backbone, drop_padding=True)
    assert_padding_and_removed_patches_are_left_out(
        model, lambda clip, **seen: plain_paired(model, clip, RATES, **seen)
    )


@pytest.mark.parametrize(("at", "rate"), [((3, 6, 9), 0.7), ((0, 11), 0.5)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_executed_count_is_what_torch_counts(backbone: str, at: tuple[int, ...], rate: float) -> None:
    pruning = Pruning(rate, at=at, reducer="pitome")
    assert_executed_is_counted(small_config(backbone), pruning)


def test_it_compiles_as_one_graph_and_trains() -> None:
    model = pairing("ast")
    assert_compiles_as_one_graph(model)
    assert_gradients(model, lambda clip, **seen: plain_paired(model, clip, RATES, **seen))


def test_an_exported_file_merges_too(tmp_path: Path) -> None:
    """`export` itself compares logits and kept patches with the model, which is held to the definition above."""
    model = tiny_model("audiomae", reducer="pitome", keep_rate=0.6)
    written = export(model, tmp_path / "pitome.onnx", clips=noise())
    assert written.patches == [32, 20, 12] and written.parity.largest_difference < 1e-4


def test_what_cannot_be_is_refused_by_name() -> None:
    for field, fields in (("criterion", {"criterion": "variation"}), ("keep_rate", {"keep_rate": 0.4})):
        with pytest.raises(InvalidSetting) as error:
            small_model("ast").set_pruning(Pruning(**{"keep_rate": 0.5, "reducer": "pitome", **fields}))
        assert error.value.field == field

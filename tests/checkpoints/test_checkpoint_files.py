from __future__ import annotations

import argparse
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import safetensors.torch
import torch
from checkpoint_files import (
    audiomae,
    ced,
    check_same_logits,
    eat,
    hf_model,
    imagenet_deit,
    official_ast,
    passt,
    save,
    ssast,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectrim import assets
from spectrim.backbones import ast_tiny
from spectrim.checkpoints import LAYOUTS, describe, from_pretrained
from spectrim.errors import CheckpointError
from spectrim.network.transformer import AudioTransformer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Strictness


STATES: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "official-ast": lambda: official_ast(prefix=""),
    "audiomae-finetuned": audiomae,
    "audiomae-pretrained": lambda: audiomae(norm=False, labels=0, decoder=True),
    "audiomae-timm": lambda: audiomae(labels=0),
    "imagenet-deit": imagenet_deit,
    "ced": ced,
    "eat": eat,
    "passt": passt,
    "ssast-pretrained": lambda: ssast(pretrained=True),
    "ssast-finetuned": ssast,
    "hf-ast": lambda: dict(hf_model(frames=1024, num_attention_heads=1).state_dict()),
}


HEADS = {"head.weight", "head.1.weight", "mlp_head.1.weight", "outputlayer.1.weight", "classifier.dense.weight"}


@pytest.mark.parametrize("layout", STATES)
def test_no_weight_may_be_missing_renamed_added_or_of_another_shape(tmp_path: Path, layout: str) -> None:
    state = STATES[layout]()
    headed = HEADS & state.keys()
    labels = None if headed and layout != "imagenet-deit" else ["a"]
    assert describe(save(tmp_path, state))["layout"] == layout
    from_pretrained(tmp_path / "weights.pth", labels=labels)
    left = {"audiomae-pretrained": ("norm.",), "ced": ("init_bn.1.num",), "imagenet-deit": ("head",)}
    ignored = ("v.head", "head_dist", "decoder_", "mask_", "cpredlayer", "p_input_", *left.get(layout, ()))
    for name in state:
        if name.startswith(ignored):
            continue
        without = {key: value for key, value in state.items() if key != name}
        renamed = {**without, f"{name}_old": state[name]}
        longer = {**without, name: torch.cat([state[name]] * 2, dim=-1)}
        may_be_longer = name == "time_pos_embed"  # as for a longer input of CED
        for broken in (without, renamed, *([] if may_be_longer else [longer])):
            with pytest.raises(CheckpointError):
                from_pretrained(save(tmp_path, broken), labels=labels)
    with pytest.raises(CheckpointError, match=rf"{layout}.*Unexpected: surprise"):
        from_pretrained(save(tmp_path, {**state, "surprise": torch.ones(1)}), labels=labels)


def test_missing_and_unexpected_weights_are_listed(tmp_path: Path) -> None:
    state = official_ast(prefix="")
    state["v.blocks.1.attn.in_proj.weight"] = state.pop("v.blocks.1.attn.qkv.weight")
    with pytest.raises(CheckpointError) as caught:
        from_pretrained(save(tmp_path, state))
    for part in ("official-ast", "Missing: v.blocks.1.attn.qkv.weight", "Unexpected: v.blocks.1.attn.in_proj.weight"):
        assert part in str(caught.value)


def test_layouts_are_told_by_keys_and_shapes_not_by_names(tmp_path: Path) -> None:
    ours = {"spectrim", "spectrim-encoder", "spectrim-autoencoder"}
    in_files_of_their_own = {"paper-audiomae", "kwt-tflite", "beats", "beats-pretrained"}
    assert set(LAYOUTS) == {*ours, *in_files_of_their_own, *STATES}
    pictures = official_ast(prefix="")
    pictures["v.patch_embed.proj.weight"] = torch.ones(64, 3, 16, 16)
    with pytest.raises(CheckpointError, match="none of the known layouts"):
        from_pretrained(save(tmp_path, pictures, "audioset_16_16_0.4422.pth"))
    with pytest.raises(CheckpointError, match=r"named conv1\.weight"):
        from_pretrained(save(tmp_path, {"conv1.weight": torch.ones(3)}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    state = official_ast()
    state["module.v.blocks.1.mlp.fc1.weight"][3, 4] = bad
    with pytest.raises(CheckpointError, match=r"v.blocks.1.mlp.fc1.weight has 1 values that are NaN"):
        from_pretrained(save(tmp_path, state))


def test_weights_of_other_types(tmp_path: Path) -> None:
    state = official_ast(prefix="")
    for dtype in (torch.float16, torch.float64):
        others = {name: value.to(dtype) for name, value in state.items()}
        loaded = from_pretrained(save(tmp_path, others)).state_dict()
        assert {value.dtype for value in loaded.values()} == {torch.float32}
        assert torch.equal(loaded["norm.weight"], state["v.norm.weight"].to(dtype).float())
    others["v.norm.weight"][0] = 1e300
    with pytest.raises(CheckpointError, match=r"v.norm.weight has 1 values that are NaN or infinite"):
        from_pretrained(save(tmp_path, others))
    for odd in (torch.ones(64, dtype=torch.int64), torch.ones(64).to_sparse(), torch.empty(64, device="meta")):
        with pytest.raises(CheckpointError, match=r"v.norm.weight is no plain array"):
            from_pretrained(save(tmp_path, {**state, "v.norm.weight": odd}))


def test_the_model_does_not_hang_on_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast())
    model = from_pretrained(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Bad files


class Payload:
    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({self.target!r}, 'w').close()",)


@pytest.mark.parametrize("where", ["beside", "inside", "arguments"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, where: str, as_zip: bool) -> None:
    trace = tmp_path / "it_ran"
    state = audiomae()
    content: dict[str, Any] = {
        "beside": {"model": state, "extra": Payload(trace)},
        "inside": {"model": {**state, "head.bias": Payload(trace)}},
        "arguments": {"model": state, "args": argparse.Namespace(lr=Payload(trace))},
    }[where]
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=as_zip)
    with pytest.raises(CheckpointError, match=r"exec.*besides weights"):
        from_pretrained(tmp_path / "evil.pth")
    assert not trace.exists()
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError):
        from_pretrained(tmp_path / "plain.pth")
    assert not trace.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert trace.exists()


def test_whole_modules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"state_dict\(\)"):
        from_pretrained(save(tmp_path, torch.nn.Linear(2, 2)))


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"not a checkpoint", b"PK\x03\x04", b"\x80\x04.", b"\x10" + bytes(7) + b"{" * 16]
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        from_pretrained(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [[1, 2], {}, {"model": {}}, {"lr": 3}, torch.ones(3), {1: torch.ones(2)}])
def test_pickles_that_hold_no_weights(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match="named weights"):
        from_pretrained(save(tmp_path, content))


@given(data=st.data(), kind=st.sampled_from(["zip", "legacy", "safetensors"]))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_never_end_in_anything_but_a_checkpoint_error(
    tmp_path: Path, data: st.DataObject, kind: str
) -> None:
    whole = tmp_path / kind
    if not whole.exists():
        state = {"v.dist_token": torch.ones(1, 1, 64), "v.patch_embed.proj.weight": torch.ones(64, 1, 16, 16)}
        if kind == "safetensors":
            safetensors.torch.save_file(state, whole)
        else:
            torch.save(state, whole, _use_new_zipfile_serialization=kind == "zip")
    content = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        edge = min(1500, len(content) // 2)
        for _ in range(data.draw(st.integers(1, 8))):
            place = data.draw(st.integers(-edge, edge - 1))
            content[place] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content)
    with pytest.raises(CheckpointError):
        from_pretrained(damaged)


def test_places_without_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="directory without weights"):
        from_pretrained(tmp_path)
    for missing in (tmp_path / "nothing.pth", "model.pth", "some/file.safetensors"):
        with pytest.raises(CheckpointError, match=r"no such file|directory without weights|several weight files"):
            from_pretrained(missing)
    save(tmp_path, official_ast(), "one.pth")
    assert describe(tmp_path)["layout"] == "official-ast"
    save(tmp_path, official_ast(), "two.pth")
    with pytest.raises(CheckpointError, match=r"several weight files \(one.pth, two.pth\)"):
        from_pretrained(tmp_path)


def test_indices_of_shards_are_checked(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    for content, said in (
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ("{}", "weight_map"),
        ('{"weight_map": {"a": "model-1.safetensors"}}', "missing; download"),
        ('{"weight_map": {"a": "../elsewhere.safetensors"}}', "outside its own directory"),
    ):
        index.write_text(content)
        with pytest.raises(CheckpointError, match=said):
            from_pretrained(tmp_path)


def test_the_hub_gives_the_needed_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    oracle = hf_model()
    oracle.save_pretrained(tmp_path)

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    check_same_logits(from_pretrained("someone/their-ast"), oracle)
    assert [name for name, _ in asked] == ["someone/their-ast"]
    assert not any(pattern.endswith((".bin", ".pth")) for pattern in asked[0][1])
    (tmp_path / "model.safetensors").unlink()
    save(tmp_path, oracle.state_dict(), "pytorch_model.bin")
    check_same_logits(from_pretrained("someone/their-ast"), oracle)
    assert "pytorch_model.bin" in asked[2][1]


@pytest.mark.parametrize("offline", [True, False])
def test_no_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(CheckpointError, match=r"did not give it.*give its directory"):
        from_pretrained("someone/their-ast")


def test_the_embedded_model_is_found_or_missed_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(assets.EMBEDDED_MODELS, "spectrim-mini", tmp_path / "spectrim-mini")
    with pytest.raises(CheckpointError, match="install spectrim again"):
        from_pretrained("spectrim-mini")
    model = AudioTransformer(ast_tiny(max_length=128, num_hidden_layers=1, prune_at=[]))
    model.save_pretrained(tmp_path / "spectrim-mini")
    assert torch.equal(from_pretrained("spectrim-mini").head.linear.weight, model.head.linear.weight)

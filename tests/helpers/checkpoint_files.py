"""State dictionaries in the layouts that people have, small and seeded: key names and shapes written out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from seeded import seeded_state
from torch import Tensor
from transformers import ASTConfig, ASTForAudioClassification

from spectrim.network.transformer import AudioTransformer

SMALL = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "num_hidden_layers": 2}


def save(tmp_path: Path, content: object, name: str = "weights.pth") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


def hf_model(stride: int = 16, frames: int = 128, **fields: Any) -> ASTForAudioClassification:
    torch.manual_seed(0)
    sizes = {**SMALL, "num_labels": 5, **fields}
    config = ASTConfig(max_length=frames, frequency_stride=stride, time_stride=stride, **sizes)
    model = ASTForAudioClassification(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(torch.randn(weight.shape) * (0.3 if "embeddings" in name else 0.1))
    return model


def check_same_logits(model: AudioTransformer, oracle: ASTForAudioClassification) -> None:
    spectrogram = torch.randn(2, model.config.max_length, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = oracle(spectrogram).logits
        assert expected.std() > 0.1
        torch.testing.assert_close(model(spectrogram).logits, expected, atol=1e-4, rtol=0)


def vit_shapes(width: int = 64, depth: int = 2, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """What AST, AudioMAE and timm have in common."""
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}cls_token": (1, 1, width),
        f"{prefix}patch_embed.proj.weight": (width, 1, 16, 16),
        f"{prefix}patch_embed.proj.bias": (width,),
    }
    for block in range(depth):
        for name, shape in {
            "norm1": (width,),
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "norm2": (width,),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes[f"{prefix}blocks.{block}.{name}.weight"] = shape
            shapes[f"{prefix}blocks.{block}.{name}.bias"] = shape[:1]
    return shapes


def official_ast(
    *, patches: int = 512, labels: int = 5, width: int = 64, depth: int = 2, prefix: str = "module."
) -> dict[str, Tensor]:
    """As the official AST saves it, with DeiT's two unused heads."""
    shapes = vit_shapes(width, depth, "v.") | {
        "v.dist_token": (1, 1, width),
        "v.pos_embed": (1, 2 + patches, width),
        "v.norm.weight": (width,),
        "v.norm.bias": (width,),
        "v.head.weight": (7, width),
        "v.head.bias": (7,),
        "v.head_dist.weight": (7, width),
        "v.head_dist.bias": (7,),
        "mlp_head.0.weight": (width,),
        "mlp_head.0.bias": (width,),
        "mlp_head.1.weight": (labels, width),
        "mlp_head.1.bias": (labels,),
    }
    return {prefix + name: value for name, value in seeded_state(shapes, 1).items()}


def imagenet_deit(*, side: int = 24, width: int = 64, depth: int = 2) -> dict[str, Tensor]:
    """As timm and DeiT save a distilled model for pictures of ``side`` × ``side`` patches."""
    shapes = vit_shapes(width, depth) | {
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "dist_token": (1, 1, width),
        "pos_embed": (1, 2 + side**2, width),
        **{f"{name}.weight": (7, width) for name in ("head", "head_dist")},
        **{f"{name}.bias": (7,) for name in ("head", "head_dist")},
        **{f"norm.{kind}": (width,) for kind in ("weight", "bias")},
    }
    return seeded_state(shapes, 3)


def passt(*, labels: int = 5, width: int = 64, depth: int = 1) -> dict[str, Tensor]:
    """As PaSST saves it, for 10 s at stride 10, with its unused second head."""
    shapes = vit_shapes(width, depth) | {
        "dist_token": (1, 1, width),
        "new_pos_embed": (1, 2, width),
        "freq_new_pos_embed": (1, width, 12, 1),
        "time_new_pos_embed": (1, width, 1, 99),
        **{f"{name}.{kind}": (width,) for name in ("norm", "head.0") for kind in ("weight", "bias")},
        **{f"{name}.weight": (labels, width) for name in ("head.1", "head_dist")},
        **{f"{name}.bias": (labels,) for name in ("head.1", "head_dist")},
    }
    return seeded_state(shapes, 4)


def ced(*, labels: int = 5, width: int = 64, depth: int = 1, times: int = 63) -> dict[str, Tensor]:
    """As CED's authors save it, with a counter of training steps."""
    shapes = vit_shapes(width, depth) | {
        "time_pos_embed": (1, width, 1, times),
        "freq_pos_embed": (1, width, 4, 1),
        **{f"init_bn.1.{name}": (64,) for name in ("weight", "bias", "running_mean", "running_var")},
        **{f"{name}.{kind}": (width,) for name in ("norm", "outputlayer.0") for kind in ("weight", "bias")},
        "outputlayer.1.weight": (labels, width),
        "outputlayer.1.bias": (labels,),
    }
    del shapes["cls_token"]
    return seeded_state(shapes, 6) | {"init_bn.1.num_batches_tracked": torch.tensor(7)}


def eat(
    *, labels: int = 5, width: int = 64, depth: int = 1, times: int = 768, form: str = "finetuned"
) -> dict[str, Tensor]:
    """As EAT's authors save it after fine-tuning; ``form`` also ``"pretrained"``, with a decoder, or ``"released"``.

    The positions are sin-cos codes, the first half that of the frequency.
    """
    shapes = {name: shape for name, shape in vit_shapes(width, depth).items() if name.startswith("blocks.")} | {
        "extra_tokens": (1, 1, width),
        "local_encoder.proj.weight": (width, 1, 16, 16),
        **{f"{name}.{kind}": (width,) for name in ("pre_norm", "fc_norm") for kind in ("weight", "bias")},
        "local_encoder.proj.bias": (width,),
        "head.weight": (labels, width),
        "head.bias": (labels,),
    }
    rates = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    places = torch.cartesian_prod(torch.arange(times), torch.arange(8)).double()
    angles = [places[:, axis, None] * rates for axis in (1, 0)]
    codes = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()
    state = seeded_state(shapes, 7) | {"fixed_positional_encoder.positions": codes[None]}
    if form == "released":
        return {f"model.{name}": value for name, value in state.items()}
    outside, image = ("model." if form == "finetuned" else ""), "modality_encoders.IMAGE."

    def renamed(name: str) -> str:
        if name.startswith(("fc_norm.", "head.")):
            return name
        return (
            outside + ("" if name.startswith("blocks.") else image) + name.replace("pre_norm", "context_encoder.norm")
        )

    if form == "finetuned":
        return {renamed(name): value for name, value in state.items()}
    encoder = {renamed(name): value for name, value in state.items() if renamed(name) != name or "blocks" in name}
    return encoder | {f"{image}decoder.proj.weight": torch.ones(2, 2), f"{image}decoder.blocks.0.0.bias": torch.ones(2)}


def ssast(*, pretrained: bool = False, width: int = 64, depth: int = 1) -> dict[str, Tensor]:
    """As SSAST saves a frame model: fine-tuned for 35 words in 128 frames, or pre-trained on 64."""
    shapes = vit_shapes(width, depth, "v.") | {
        "v.dist_token": (1, 1, width),
        "v.patch_embed.proj.weight": (width, 1, 128, 2),
        "v.pos_embed": (1, 2 + (32 if pretrained else 127), width),
        **{f"v.norm.{kind}": (width,) for kind in ("weight", "bias")},
        **{f"v.{name}.weight": (7, width) for name in ("head", "head_dist")},
    }
    if pretrained:
        sizes = {"p_input_fdim": torch.tensor(128), "p_input_tdim": torch.tensor(64)}
        return seeded_state({**shapes, "mask_embed": (1, 1, width), "cpredlayer.0.bias": (width,)}, 5) | sizes
    head = {"mlp_head.0.weight": (width,), "mlp_head.0.bias": (width,), "mlp_head.1.weight": (35, width)}
    return seeded_state({**shapes, **head, "mlp_head.1.bias": (35,)}, 5)


def audiomae(
    *, patches: int = 64, labels: int = 5, norm: bool = True, decoder: bool = False, depth: int = 2
) -> dict[str, Tensor]:
    """AudioMAE: fine-tuned with ``norm`` and ``labels``, pre-trained with ``decoder``; labels=0: no head."""
    width = 64
    shapes = vit_shapes(width, depth) | {"pos_embed": (1, 1 + patches, width)}
    if norm:
        shapes |= {"fc_norm.weight": (width,), "fc_norm.bias": (width,)}
    if labels:
        shapes |= {"head.weight": (labels, width), "head.bias": (labels,)}
    if decoder:
        shapes |= {
            "norm.weight": (width,),
            "norm.bias": (width,),
            "mask_token": (1, 1, 32),
            "decoder_pos_embed": (1, 1 + patches, 32),
            "decoder_embed.weight": (32, width),
            "decoder_blocks.0.norm1.weight": (32,),
            "decoder_norm.bias": (32,),
            "decoder_pred.weight": (256, 32),
        }
    return seeded_state(shapes, 2)

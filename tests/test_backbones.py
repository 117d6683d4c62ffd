"""The named builders: the settings of the published models."""

from __future__ import annotations

from spectrim.backbones import BUILDERS, ast_base, audiomae_base


def test_the_builders_are_the_published_models() -> None:
    for name, width, heads in (("tiny", 192, 3), ("small", 384, 6), ("base", 768, 12)):
        for backbone in ("ast", "audiomae"):
            config = BUILDERS[f"{backbone}-{name}"](keep_rate=0.7)
            assert (config.backbone, config.hidden_size, config.num_attention_heads) == (backbone, width, heads)
            assert config.intermediate_size == 4 * width and config.num_hidden_layers == 12
            assert config.prune_at == [3, 6, 9] and config.keep_rate == 0.7
            assert (config.num_mel_bins, config.max_length, config.patch_size) == (128, 1024, 16)
    ast, audiomae = ast_base(), audiomae_base()
    assert (ast.extra_tokens, ast.patch_order, ast.pooling) == (2, "frequency_major", "extra_tokens")
    assert (ast.head_norm, ast.position_trainable, ast.resolved_criterion) == (True, True, "cls_attention")
    assert (audiomae.extra_tokens, audiomae.patch_order, audiomae.pooling) == (1, "time_major", "mean_patches")
    assert (audiomae.head_norm, audiomae.position_trainable) == (False, False)
    assert (audiomae.resolved_criterion, audiomae.head_init_std) == ("mean_attention", 2e-5)
    assert ast_base(criterion="random").resolved_criterion == "random"
    assert ast_base(hidden_size=96, num_attention_heads=2).hidden_size == 96

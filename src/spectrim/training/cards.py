"""Model cards of trained models, written with huggingface_hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from spectrim.checkpoints import describe
from spectrim.config import SpectrimConfig
from spectrim.network.macs import macs
from spectrim.pictures.markdown import code_block, code_span, plain_markdown
from spectrim.training.chosen_epoch import epoch_choice
from spectrim.training.recipes import Recipe

METRIC_TYPES = {"accuracy": "accuracy", "mAP": "mean_average_precision"}

CARD = """---
{header}
---

# {name}

{description}

An audio spectrogram transformer ({backbone}, {blocks} blocks, width {width}) with token pruning, trained by
[Spectrim](https://pypi.org/project/spectrim/) on {data}. It keeps {keep_rate} of the patches at blocks {prune_at}.

```python
import spectrim

model = spectrim.from_pretrained("PATH", keep_rate={keep_rate})
```

## Test

{test_clips} clips of the test part, the weights of epoch {epoch:.2f} ({choice}).

{table}

## Training

Started from {start}. `spectrim train` with this recipe, and {training_clips} clips:

{recipe}

## Limits

It knows the {labels} labels it was trained on, in recordings like those of its data set, and {seconds:.2f} s at a time.
{licence}"""


def write_card(folder: Path, config: SpectrimConfig, recipe: Recipe, init: str | None, results: dict[str, Any]) -> None:
    """Write ``README.md`` beside a saved model.

    Args:
        folder: the model's directory.
        config: the model's configuration.
        recipe: by which it was trained.
        init: the checkpoint that it started from, or None.
        results: of `spectrim.training.finetune.train`.
    """
    metric = results["metric"]
    rows = ["| keep rate | " + metric + " | MACs of the paper | executed MACs |", "|---|---|---|---|"]
    for rate, value in results["test"].items():
        count = macs(config, keep_rate=float(rate))
        shown = "not defined" if value is None else f"{value:.4f}"
        rows.append(f"| {rate} | {shown} | {count.paper / 1e6:,.1f} M | {count.executed / 1e6:,.1f} M |")
    evaluations = [
        EvalResult(
            task_type="audio-classification",
            dataset_type=recipe.data.name,
            dataset_name=recipe.data.name,
            metric_type=METRIC_TYPES.get(metric, metric),
            metric_name=f"{metric} at keep rate {rate}",
            metric_value=value,
        )
        for rate, value in results["test"].items()
        if value is not None
    ]
    licence = None if init is None else describe(recipe.model.start(init))["licence"]
    header = ModelCardData(
        license="cc-by-nc-4.0" if licence else None,
        library_name="spectrim",
        pipeline_tag="audio-classification",
        tags=["audio-classification", "token-pruning", config.backbone],
        model_name=recipe.name if evaluations else None,
        eval_results=evaluations or None,
    )
    text = CARD.format(
        header=header.to_yaml(),
        name=plain_markdown(recipe.name),
        description=plain_markdown(recipe.description),
        backbone=config.backbone,
        blocks=config.num_hidden_layers,
        width=config.hidden_size,
        data=code_span(recipe.data.name),
        keep_rate=config.keep_rate,
        prune_at=", ".join(map(str, config.prune_at)),
        test_clips=results["test_clips"],
        epoch=results["chosen"]["epoch"],
        choice=epoch_choice(recipe, results["chosen_on"], len(results["chosen"].get("averaged_steps", ())) or None),
        table="\n".join(rows) if results["test"] else "Not tested.",
        start="random weights" if init is None else code_span(init),
        training_clips=results["training_clips"],
        recipe=code_block(json.dumps(recipe.model_dump(mode="json"), indent=1, ensure_ascii=False), "json"),
        labels=config.num_labels,
        seconds=config.max_length / 100,
        licence=f"Of the weights it started from: {licence}.\n" if licence else "",
    )
    ModelCard(text).save(folder / "README.md")

"""What stands in an exported file beside its graph: settings and labels. Anybody may have changed it since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from spectrim.checkpoints.settings import build_config
from spectrim.checkpoints.untrusted import parse_json
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, brief, one_of
from spectrim.machine import version_of

EXPORT_PRECISIONS = ("fp32", "fp16", "int8")
INPUTS = {"log_mel": ("input_values",), "waveforms": ("waveforms", "num_samples")}
"""What a file takes, by the word in its metadata, and how its graph calls that."""

NO_SETTING = "output_attentions"
"""What transformers lists among a configuration's fields but does not read from a file; older files hold it."""


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself.

    Attributes:
        config: of the model as it was exported.
        precision: one of `EXPORT_PRECISIONS`.
        takes: a key of `INPUTS`.
    """

    config: SpectrimConfig
    precision: str
    takes: str


def write_metadata(config: SpectrimConfig, precision: str, takes: str) -> dict[str, str]:
    """The metadata of a file, as text.

    Returns:
        ``config``: the configuration as JSON; ``labels``: names in the order of the scores as JSON; ``patches``:
        number of patches of a clip at first and after each pruning block as JSON; ``precision``; ``takes``;
        ``sampling_rate``; versions.
    """
    plans = config.plan()
    settings = {name: value for name, value in config.to_dict().items() if name[0] != "_" and name != NO_SETTING}
    return {
        "config": json.dumps(settings, ensure_ascii=False),
        "labels": json.dumps([config.id2label[index] for index in range(config.num_labels)], ensure_ascii=False),
        "patches": json.dumps([config.num_patches, *(plans[block].patches_kept for block in sorted(config.prune_at))]),
        "precision": precision,
        "takes": takes,
        "sampling_rate": str(config.sampling_rate),
        "spectrim_version": version_of("spectrim") or "unknown",
        "torch_version": version("torch"),
    }


def read_metadata(table: Mapping[str, str], title: str) -> Metadata:
    """Read metadata as strictly as a checkpoint's ``config.json``; nothing is imported or allocated for it.

    Args:
        table: name → text.
        title: of the file, for errors.

    Raises:
        CheckpointError: something is missing, malformed, out of range, or does not fit the rest.
    """
    for name in ("config", "labels", "precision", "takes"):
        if name not in table:
            raise CheckpointError(f"{title}: is no model that spectrim export wrote (no {name!r} in its metadata)")
    for name, allowed in (("precision", EXPORT_PRECISIONS), ("takes", tuple(INPUTS))):
        if table[name] not in allowed:
            what = f"{name} in its metadata is {brief(table[name])}; allowed: {one_of(allowed)}"
            raise CheckpointError(f"{title}: is no model that spectrim export wrote ({what})")
    settings = _parsed(table, "config", dict, title)
    settings.pop(NO_SETTING, None)
    config = build_config(SpectrimConfig, settings, title, where="the config in its metadata")
    labels = _parsed(table, "labels", list, title)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise CheckpointError(f"{title}: labels in its metadata must be a list of names")
    if labels != [config.id2label.get(index) for index in range(config.num_labels)]:
        raise CheckpointError(f"{title}: its labels are not those of its configuration; it was changed")
    return Metadata(config, table["precision"], table["takes"])


def _parsed(table: Mapping[str, str], name: str, kind: type, title: str) -> Any:
    """JSON in the metadata, of the kind that it must be."""
    try:
        value = parse_json(table[name])
    except ValueError as error:
        reason = f"{name} in its metadata is no JSON: {error}"
        raise CheckpointError(f"{title}: is no model that spectrim export wrote ({reason})") from error
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        reason = f"{name} in its metadata is a {type(value).__name__}, not {wanted}"
        raise CheckpointError(f"{title}: is no model that spectrim export wrote ({reason})")
    return value

"""A configuration out of a ``config.json`` that anybody may have written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

from huggingface_hub.errors import StrictDataclassError

from spectrim.checkpoints.untrusted import one_line
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, InvalidSetting

MALFORMED = (
    InvalidSetting,
    StrictDataclassError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What building a configuration from values of the wrong kind raises."""

IGNORED = ("auto_map", "quantization_config", "torch_dtype", "device_map", "pruning")
"""Fields that name code, packages or places; so do those that `_names_code` finds."""

Kind = TypeVar("Kind", bound=SpectrimConfig)


def build_config(kind: type[Kind], content: Mapping[str, Any], title: str, where: str = "its config.json") -> Kind:
    """The configuration that a file describes; nothing is imported, downloaded or allocated for it.

    Args:
        kind: of the configuration.
        content: of ``config.json``.
        title: of the checkpoint, for errors.
        where: the place in the checkpoint that holds it, likewise.

    Raises:
        CheckpointError: a field is of the wrong type or out of range, or has the name of something else.
    """
    left_out = sorted(name for name in content if _names_code(name))
    left_out += ["dtype"] if content.get("dtype") not in (None, "float32", "float16", "bfloat16") else []
    for name in content:
        if hasattr(kind, name) and name not in kind.__dataclass_fields__ and name not in left_out:
            raise CheckpointError(f"{title}: {where} sets {name[:100]!r}, which is no field of a configuration")
    said = [name for name in left_out if content[name] not in (None, [], {}) and not name.endswith("dtype")]
    if said:
        warnings.warn(f"{title}: ignored in {where}: {', '.join(said)[:200]}", stacklevel=2)
    labels = content.get("id2label")
    if labels is not None and not isinstance(labels, dict):
        raise CheckpointError(f"{title}: id2label in {where} is a {type(labels).__name__}, not an object")
    try:
        return kind.from_dict({name: value for name, value in content.items() if name not in left_out})
    except MALFORMED as error:
        raise CheckpointError(f"{title}: its settings make no model: {one_line(error)}") from error


def _names_code(name: str) -> bool:
    return name in IGNORED or "implementation" in name or name.startswith(("_", "base_model_"))

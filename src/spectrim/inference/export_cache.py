"""Exported files of models, kept for the user from one call to the next.

They lie where libraries beside Hugging Face's keep theirs (`huggingface_hub.cached_assets_path`), so that HF_HOME and
HF_ASSETS_CACHE say where. What has not been used for longest goes when there is more than `MOST`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import cached_assets_path, constants

from spectrim.errors import ExportError
from spectrim.files import file_digest, write_json
from spectrim.inference.exported_model import SUFFIX
from spectrim.inference.onnx_export import Progress, check_settings, export
from spectrim.machine import version_of
from spectrim.network.transformer import AudioTransformer

MOST = 10 * 10**9
"""Bytes that are kept: those of two dozen models of AST's size, in fp32 and int8."""

IDLE = 3600.0
"""Seconds after its last use in which a file stays, however much there is: somebody may be about to open it."""

logger = logging.getLogger(__name__)

VERSIONS = ("spectrim", "torch", "onnx", "onnxscript", "onnxruntime", "openvino")

GRAPH = 2
"""Raised when the same model is written as another graph: a file of the old one is then none that is looked for."""


def cache_folder() -> Path:
    """The folder of everything here, which may be deleted at any time.

    Raises:
        ExportError: it cannot be made, or cannot be written to.
    """
    try:
        folder: Path = cached_assets_path("spectrim", "backends", "exported", assets_dir=constants.HF_ASSETS_CACHE)
    except (OSError, ValueError) as error:
        raise ExportError(f"the cache folder cannot be made ({error}); {_ADVICE}") from error
    if not os.access(folder, os.W_OK):
        raise ExportError(f"{folder}: cannot be written to; {_ADVICE}")
    return folder


_ADVICE = "let HF_ASSETS_CACHE name a folder that can be written to, or run with backend torch, which needs none"


def entry_name(settings: Mapping[str, Any]) -> str:
    """A few digits that stand for settings and for the versions of all that has a say."""
    content = {**settings, "graph": GRAPH, "versions": {name: version_of(name) for name in VERSIONS}}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:20]


def exported_file(network: AudioTransformer, mark: str, precision: str, on_step: Progress | None = None) -> Path:
    """The exported file of a model at its operating point; written and checked where there is none, or a damaged one.

    Args:
        network: the model.
        mark: its fingerprint (`Backend.fingerprint`): weights, settings, operating point.
        precision: of the file.
        on_step: as for `export`.

    Raises:
        ExportError: the file does not do what the model does, or the folder cannot be written to.
        InvalidSetting, MissingExtra: as `export` does.
    """
    folder = cache_folder()
    path = folder / f"{entry_name({'model': mark, 'precision': precision})}{SUFFIX}"

    def make() -> dict[str, Any]:
        check_settings(path, precision)
        traced = None if precision == "fp32" else exported_file(network, mark, "fp32", on_step)
        parity = export(network, path, precision=precision, traced=traced, on_step=on_step).parity
        return {"sha256": file_digest(path), "clips": parity.clips, "relative_difference": parity.relative_difference}

    record = path.with_suffix(".json")
    remembered(record, make, lambda found: found["sha256"] == file_digest(path))
    if record.exists():
        os.utime(record)
    _make_room(folder, path)
    return path


def _make_room(folder: Path, wanted: Path) -> None:
    """Remove the files that have not been used for longest while there are more than `MOST` bytes of them."""
    with FileLock(folder / ".room.lock"):
        used, sizes = {}, {}
        for path in folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                record = path.with_suffix(".json")
                used[path] = (record if record.exists() else path).stat().st_mtime
                sizes[path] = path.stat().st_size
        for path in sorted(sizes, key=lambda one: used[one]):
            if sum(sizes.values()) <= MOST or time.time() - used[path] < IDLE:
                break
            if path != wanted:
                with suppress(OSError):
                    path.with_suffix(".json").unlink(missing_ok=True)
                    path.unlink(missing_ok=True)
                    del sizes[path]


def remembered(path: Path, make: Callable[[], dict[str, Any]], whole: Callable[[dict[str, Any]], bool]) -> Any:
    """A record that one process makes and others read.

    Args:
        path: of the record, JSON.
        make: gives it where there is none.
        whole: whether a record, and what it stands for, is still as it was left; a damaged one is made anew, as is one
            that could not be written.
    """
    with FileLock(path.with_suffix(".lock")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if whole(record):
                return record
        except (OSError, ValueError, KeyError, TypeError):
            pass
        record = make()
        try:
            write_json(path, record)
        except OSError as error:
            logger.warning("%s: not kept (%s); it is made anew the next time", path, error)
        return record

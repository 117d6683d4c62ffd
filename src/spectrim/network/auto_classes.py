"""Lets transformers' Auto classes and pipelines find Spectrim's classes without loading torch before they ask.

``import spectrim`` must be enough for ``pipeline("audio-classification", model=DIR)``, in whatever order the two
packages are imported, and must stay light. So nothing is registered at once. Each Auto class lives in a module of
its own, and when that module is imported, ours that registers itself there is imported too:

* the configuration with `AutoConfig`;
* the feature extractor with `AutoFeatureExtractor`, whose file names its class before any configuration is read.

The model follows with the first `SpectrimConfig` that is made: transformers asks for the model of a configuration, and
importing the encoder any earlier could happen while transformers is half imported, since its own models import
the Auto classes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

REGISTERS_ITSELF = {
    "transformers.models.auto.configuration_auto": "spectrim.config",
    "transformers.models.auto.feature_extraction_auto": "spectrim.audio.feature_extractor",
}
"""Module of an Auto class → module of ours that registers itself with it when it is imported."""


class _ThenRegister(Loader):
    """Loads a module as its own loader does, then imports the module of ours that waits for it."""

    def __init__(self, loader: Loader, waiting: str) -> None:
        self.loader = loader
        self.waiting = waiting

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, which afterwards looks as if its own loader alone had loaded it."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        importlib.import_module(self.waiting)


class _AutoClassFinder(MetaPathFinder):
    """Finds the modules of the Auto classes where the other finders do, and nothing else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of one of these modules with `_ThenRegister` around its loader, None for all others."""
        if fullname not in REGISTERS_ITSELF:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _ThenRegister(spec.loader, REGISTERS_ITSELF[fullname])
                return spec
        return None


_FINDER = _AutoClassFinder()


def register_when_needed() -> None:
    """Register with each Auto class: now where transformers has loaded it, else as soon as it does."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    for auto_class, waiting in REGISTERS_ITSELF.items():
        if auto_class in sys.modules:
            importlib.import_module(waiting)

"""Who may import whom, one line a package. Read from the source, so that imports inside functions count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import spectrim

SOURCE = Path(spectrim.__file__).parent

MAY_IMPORT = {
    "errors": "",
    "files": "errors",
    "__init__": "audio checkpoints config errors inference network pruning",
    "__main__": "cli",
    "analysis": (
        "audio checkpoints config data errors files inference machine measure network pictures pruning stats tables"
    ),
    "app": "audio errors explain inference measure network pictures pruning",
    "assets": "errors tables",
    "backbones": "config",
    "audio": "config data errors machine",
    "checkpoints": "pruning assets audio backbones config errors network tables",
    "cli": (
        "__init__ analysis app assets audio checkpoints comparison data errors explain "
        "files inference machine measure network pictures pruning stats studies tables training tuning"
    ),
    "comparison": "pruning assets config data errors files inference machine measure network pictures stats tables",
    "config": "pruning audio errors",
    "data": "audio errors files machine tables",
    "explain": "assets audio config errors files inference machine network pictures pruning",
    "inference": "assets audio checkpoints config data errors files machine network pruning tables",
    "machine": "errors",
    "measure": "pruning assets audio checkpoints config data errors inference machine network stats",
    "miniatures": "assets audio data errors machine tables",
    "network": "audio config errors files pruning",
    "pictures": "audio config errors files pruning stats",
    "pruning": "errors",
    "stats": "errors",
    "studies": "analysis backbones config data errors files machine miniatures network pictures stats tables training",
    "tables": "errors",
    "training": (
        "audio backbones checkpoints config data errors files machine measure network pictures pruning stats tables"
    ),
    "tuning": (
        "checkpoints comparison config data errors files inference machine measure network pictures pruning stats "
        "tables"
    ),
}
"""Package, or module of the root → what it may import besides itself."""

HEAVY = {
    "torch",
    "transformers",
    "matplotlib",
    "sklearn",
    "scipy",
    "accelerate",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "gradio",
}
FOREIGN = {"torchaudio", "torchvision", "torchcodec", "timm"}
ENCODER = ("network", "pruning")


def modules() -> dict[str, Path]:
    """Every module, by its name without ``spectrim.``; a package by its own name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


MODULES = modules()


def imported(tree: ast.AST, path: Path) -> Iterator[str]:
    """Full names of all that a piece of source imports; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """The module of ours that an imported name lives in, None for others' modules."""
    if name.split(".")[0] != "spectrim":
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts = parts[:-1]
    return ".".join(parts) or "__init__"


def edges(name: str) -> set[str]:
    path = MODULES[name]
    return {target for full in imported(ast.parse(path.read_text()), path) if (target := own(full)) is not None}


def part(name: str) -> str:
    return name.split(".")[0]


def test_every_package_has_its_line() -> None:
    assert {part(name) for name in MODULES} == MAY_IMPORT.keys()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_are_allowed(package: str) -> None:
    allowed = {package, *MAY_IMPORT[package].split()}
    for name in MODULES:
        if part(name) == package:
            too_many = {target for target in edges(name) if part(target) not in allowed}
            assert not too_many, f"{name} imports {sorted(too_many)}"


def test_no_module_needs_itself() -> None:
    graph = {name: edges(name) - {name} for name in MODULES}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' → '.join((*way, name))}"
        if name not in done:
            for target in graph[name]:
                visit(target, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_criteria_and_pruning_know_no_model() -> None:
    allowed = {"errors", "config", "pruning"}
    for name in MODULES:
        if part(name) == "pruning":
            assert {part(target) for target in edges(name)} <= allowed


def test_only_select_gathers_tokens() -> None:
    for path in MODULES.values():
        place = path.relative_to(SOURCE)
        if place.parts[0] in ENCODER and "masked" not in place.parts and place.name != "select.py":
            names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
            assert not names & {"gather", "index_select", "take_along_dim"}, f"{place} gathers"


def test_what_has_no_builds_everywhere_is_not_used() -> None:
    for path in MODULES.values():
        roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()), path)}
        assert not roots & FOREIGN, path
        assert "espeakng_loader" not in roots or path.name == "espeak.py"


def at_import(path: Path) -> ast.Module:
    """The source without the bodies of functions and without what only type checkers read."""
    tree = ast.parse(path.read_text())
    tree.body = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return tree


def test_the_command_line_starts_light() -> None:
    waiting, seen = ["cli.app"], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name == "__init__":
            continue
        seen.add(name)
        for full in imported(at_import(MODULES[name]), MODULES[name]):
            assert full.split(".")[0] not in HEAVY, f"{name} imports {full} before --help can answer"
            if (target := own(full)) is not None:
                waiting.append(target)
    assert "errors" in seen


def test_the_library_raises_and_never_asserts() -> None:
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(SOURCE)} line {getattr(node, 'lineno', 0)}"
            assert not isinstance(node, ast.Assert), f"{where}: assert"
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                # What nobody foresaw: the one turns it into a line, the other raises it in the thread that waits.
                last = path in (SOURCE / "cli" / "common.py", SOURCE / "audio" / "decoding.py")
                assert caught not in ("", "BaseException"), f"{where}: catches everything"
                assert caught != "Exception" or last, f"{where}: catches everything"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{where}: {node.func.id}"

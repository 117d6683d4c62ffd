from __future__ import annotations

import importlib.util

import command_line
import pytest


def test_without_gradio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = "spectrim: spectrim app needs gradio; install it with: pip install 'spectrim[app]'\n"
    assert command_line.run("app") == (1, "", line)


def test_help_names_the_options() -> None:
    code, out, _ = command_line.run("app", "--help")
    assert code == 0
    assert all(text in out for text in ("spectrim[app]", "--model", "--host", "--port", "--keep-rate"))

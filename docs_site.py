"""What mkdocs.yml needs beyond mkdocs: pages and files that live outside docs/, and links to them.

The README and CONTRIBUTING become pages. A link of a page to another file of the repository, such as the JSON behind a
table, is followed: that file is put into the site beside the pages.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
PAGES = {"README.md": "start.md", "CONTRIBUTING.md": "contributing.md"}
"""File of the repository → its page in the site."""

LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the two pages, and every file outside docs/ that a page links to."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    for page in list(files.documentation_pages()):
        for _, link in LINK.findall(page.content_string):
            target = _in_repository(page.src_uri, link)
            outside = not target.startswith("docs/") and target not in PAGES and (ROOT / target).is_file()
            if outside and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = posixpath.dirname(page.file.src_uri)

    def follow(match: re.Match[str]) -> str:
        target = _in_repository(page.file.src_uri, match[2])
        target = PAGES.get(target, target.removeprefix("docs/"))
        return match[1] + posixpath.relpath(target, here or ".")

    return LINK.sub(follow, markdown)


def _in_repository(page: str, link: str) -> str:
    """Where a link of a page leads, from the repository's root."""
    source = next((name for name, uri in PAGES.items() if uri == page), f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link)).replace(os.sep, "/")

"""The site of the documentation: `make site` builds it into build/site, and fails on a dead
link.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

from groundup import __version__

project = "groundup"
author = "the groundup authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["images"]
html_theme = "furo"
html_title = f"groundup {__version__}"
html_static_path: list[str] = []

# Anchors of headings, as the forge makes them, so that links work in both places.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
suppress_warnings = ["myst.header"]

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True

# Where the source files are on the web, such as https://example.org/groundup/blob/main/. Without it
# a link out of docs/ (a module, a recipe, a result) becomes its text and path.
REPOSITORY = os.environ.get("GROUNDUP_REPOSITORY", "")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s]+)\)")


def _leave_docs(app: object, name: str, source: list[str]) -> None:
    """Turn relative links out of docs/ into addresses or text; a file that is missing is an
    error.
    """

    def replace(link: re.Match[str]) -> str:
        text, path = link[1], link[2]
        if not (Path(__file__).parent.parent / path.partition("#")[0]).exists():
            raise FileNotFoundError(f"docs/{name}.md links to ../{path}, which does not exist")
        if REPOSITORY:
            return f"[{text}]({REPOSITORY}{path})"
        return text if path in text else f"{text} (`{path}`)"

    source[0] = _OUTSIDE.sub(replace, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _leave_docs)

"""The settings of Sphinx for `make docs`; every page, picture and script of the site is local."""

import os
import re
from typing import Any

from htr_lightning import __version__

os.environ["SPHINX_APIDOC_OPTIONS"] = "members"  # apidoc_automodule_options does not apply to pages of packages
project, author, copyright = "htr-lightning", "the authors of htr-lightning", "the authors of htr-lightning, Apache-2.0"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme, html_title, html_show_sphinx = "furo", f"htr-lightning {version}", False
html_copy_source, html_show_search_summary = False, False  # summaries are fetched, which browsers refuse to a file
exclude_patterns = ["reference/modules.rst"]
templates_path: list[str] = []

myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]
# Texts of the repository that are pages, too, with links to files that the site has elsewhere.
MOVED = {
    "../htr_lightning/pretrained/latin-modern.md": "recognizers.md",
    "../htr_lightning/pretrained/digits.md": "recognizers.md",
    "experiments/README.md": "results.md",
    "DECISIONS.md": "decisions.md",
}

suppress_warnings = ["ref.python"]  # two classes may have one name; a missing one has a warning of its own
nitpicky = True  # with -W, a reference to a class or function that is not on the site is an error
nitpick_ignore_regex = [
    ("py:.*", r"(?!htr_lightning\.).*"),  # other packages, whose sites are not read
    ("py:.*", r"htr_lightning\..*\.(T|Kind)"),  # type variables
]
default_role = "code"  # docstrings have single backticks around code, as Markdown has
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
apidoc_modules = [
    {
        "path": "../htr_lightning",
        "destination": "reference",
        "exclude_patterns": [
            f"../htr_lightning/{name}"
            for name in (
                "__main__.py",
                "cli",
                "command.py",
                "config_error.py",
                "hydra_version.py",
                "serve",
                "upgrade.py",
            )
        ],
        "module_first": True,
    }
]
LIMITED = re.compile(r"~?typing\.Annotated\[(.+?), .*?\)\]")  # a type with the limits of its values
MARKUP = re.compile(r"(`[^`]*`)|([*|\\])|(?<=\w)_(?!\w)")


def _plain(app: Any, kind: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Escape in docstrings what only reStructuredText would take for markup."""
    lines[:] = [MARKUP.sub(lambda found: found[0] if found[1] else "\\" + found[0], line) for line in lines]


def _skip(app: Any, kind: str, name: str, thing: object, skip: bool, options: Any) -> bool:
    """Leave out the fields of named tuples, which their signatures list, and what was not written for readers."""
    return skip or (getattr(thing, "__doc__", None) or "").startswith("Alias for field number")


def _signed(app: Any, kind: str, name: str, thing: object, options: Any, signature: str, returns: str) -> Any:
    """Show types without the limits of their values, which the texts give where they matter."""
    return (signature and LIMITED.sub(r"\1", signature)), returns


def _included(app: Any, path: Any, parent: str, text: list[str]) -> None:
    for target, page in MOVED.items():
        text[0] = text[0].replace(f"]({target}", f"]({page}")


def setup(app: Any) -> None:
    """Connect the functions above."""
    app.connect("autodoc-process-docstring", _plain, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", _signed)
    app.connect("autodoc-skip-member", _skip)
    app.connect("include-read", _included)

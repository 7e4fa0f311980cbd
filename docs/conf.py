"""Sphinx configuration."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, os.path.dirname(__file__))
from _gallery import TUTORIALS
from _links import PROJECTS, write_inventories

project = "captum_aml"
author = "The captum_aml authors"
copyright = f"2026, {author}"
version = release = installed_version("captum-aml")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"captum_aml {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Links into other projects' references: to the names that we list, so that a build needs no
# network, or on request to everything that their own inventories have.
if os.environ.get("DOCS_INTERSPHINX"):
    intersphinx_mapping = {project: (address, None) for project, address in PROJECTS.items()}
else:
    intersphinx_mapping = write_inventories(Path(__file__).parent / "_build" / "inventories")

# The scripts in examples/ run while the pages are built. Names as strings, since Sphinx keeps the
# configuration between builds and cannot keep functions.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",
    "ignore_pattern": rf"^(?!({'|'.join(TUTORIALS)})\.py$)",
    "within_subsection_order": "_gallery.position",
    "reset_argv": "_gallery.arguments",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "capture_repr": ("_repr_html_",),
    "remove_config_comments": True,
}
# Without a display, and quietly: bars that show progress are no output worth keeping.
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

"""How the site is built: Sphinx, the notebooks as stored, equations as MathML, docstrings as they are written.

Sphinx because a broken reference fails the build (`-W -n`), because it runs code of ours while it reads (claims are
computed, not typed), and because notebooks are pages (myst-nb).  mkdocs-material reaches its end of life in May 2027, and
its successor has no place for such code yet.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import replicajax as rj  # noqa: E402

project = "replicajax"
author = "the replicajax developers"
copyright = "the replicajax developers"
version = release = rj.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "plain_docstrings",
    "mathml",
    "claim_pages",
    "public_names",
    "repository",
    "dead_links",
]
exclude_patterns = ["_build", "against-table.md"]
html_theme = "furo"
html_title = "replicajax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `make notebooks` runs them and `make test-all` compares
nb_merge_streams = True

autodoc_member_order = "groupwise"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Of a layer alone", "params_style")]
napoleon_use_ivar = True
napoleon_use_rtype = False
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # docstrings name shapes, which are no references
suppress_warnings = ["ref.python"]  # names of fields are no references
copybutton_exclude = ".linenos, .gp, .go"

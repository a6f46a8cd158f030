"Sphinx configuration of the book. Its sources are written by build.py; `make book` runs both."

import importlib.util
import sys
from configparser import ConfigParser
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
settings = ConfigParser(delimiters=["="], interpolation=None)
settings.read(ROOT / "settings.ini", encoding="utf-8")
settings = settings["DEFAULT"]

project = settings["title"]
author = settings["author"]
copyright = settings["copyright"]
version = release = settings["version"]
language = "en"

extensions = ["myst_nb", "sphinxcontrib.bibtex", "sphinx.ext.mathjax", "extension"]
exclude_patterns = ["_figures"]
numfig = False  # figures count from 1 on each page, as in the notebook and in the folder of its run
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", ".*"),
    ("py:data", ".*"),
]  # types of signatures, most of which are other libraries'
python_maximum_signature_line_length = 72
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

nb_execution_mode = "off"
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "fieldlist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 4
myst_heading_slug_func = "extension.jupyter_anchor"

bibtex_bibfiles = ["reports.bib", "datasets.bib", "methods.bib"]
bibtex_default_style = "as_written"
bibtex_reference_style = "label"

# One file of MathJax, out of a package, so that equations need no network.
MATHJAX = Path(
    importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations[0],
    "static",
    "mathjax",
    "tex-svg.js",
)
mathjax_path = "tex-svg.js"
mathjax3_config = {"svg": {"fontCache": "global"}, "options": {"enableMenu": False}}
html_static_path = [str(HERE / "static"), str(MATHJAX)]

html_theme = "furo"
html_title = project
html_css_files = ["book.css"]
html_js_files = ["ledger.js", "jpeg.js", "term.js"]
html_copy_source = False
html_show_sphinx = False
html_permalinks_icon = "#"
pygments_style = "tango"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0067A0"},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}

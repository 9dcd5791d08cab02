"""The site: numpydoc for the reference, the examples as a gallery."""

from sklstm import __version__

project = "sklstm"
author = "the sklstm developers"
copyright = "2026, the sklstm developers"
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # the pages read formulas from the site itself
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
autosummary_generate = True
numpydoc_show_class_members = False
html_title = "sklstm"
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "show_prev_next": False,
    # The tables of the accuracy need the whole width.
    "secondary_sidebar_items": {"**": ["page-toc"], "accuracy": []},
}
# There is one level of pages, so that the sidebar of sections would be empty.
html_sidebars = {"**": []}
html_static_path = ["_static"]
html_css_files = ["wide.css"]
toc_object_entries_show_parents = "hide"


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "download_all_examples": False,
    "show_memory": False,
    "within_subsection_order": "FileNameSortKey",
    "copyfile_regex": r".*\.md",
    "ignore_pattern": r"compare_baselines\.py",  # a script with options, not a page
}

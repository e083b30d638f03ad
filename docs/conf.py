"""Sphinx: API pages from the docstrings. `sphinx-build -W --keep-going docs build/docs` in an environment with the package."""

import crossent

project = "crossent"
author = "The crossent developers"
version = release = crossent.__version__
extensions = ["sphinx.ext.autodoc", "numpydoc"]
html_theme = "alabaster"
html_theme_options = {"description": crossent.__doc__.splitlines()[0], "page_width": "1100px"}
autodoc_typehints = "none"  # numpydoc's sections say more
numpydoc_show_class_members = False
# Every parameter and result described, in order, under headings that numpydoc knows; a broken promise is a warning, and
# warnings are errors.
numpydoc_validation_checks = {"GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "RT01", "SS01"}

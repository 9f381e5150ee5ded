"""How Sphinx builds the documentation site: `make docs`."""

import importlib.metadata

project = "amc-sweep-toolkit"
release = importlib.metadata.version(project)
extensions = ["myst_parser"]
root_doc = "docs/index"
# Documents link to each other as on GitHub, so the source is the whole checkout. Other files become downloads.
include_patterns = ["docs/*.md", "docker/*.md", "tests/*/results/*.md", "*.md"]
exclude_patterns = [".*", "README.md", "build", "dist", "demo", "runs", "wandb"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False

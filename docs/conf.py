"""The site of the documents: ``make docs`` builds it into build/site, and fails where a link leads nowhere."""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish

DOCS = Path(__file__).parent

project = html_title = "Labeler"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/*.rst", "benchmarks/README.md"]
# Without the page of the package index; the folders have nothing to read.
exclude_patterns = ["docs/package.md", ".*", "build", "dist", "instance"]
# Links call headings as GitHub does.
myst_heading_anchors = 4
autodoc_default_options = {"members": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
# A dash that a person types stays one: half of them begin an option.
smartquotes = False
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_use_index = html_domain_indices = False
html_search_language = "ko"


class Search(SearchEnglish):
    """English words by their stems, Korean ones by pairs of syllables, since endings are attached to words."""

    lang = "ko"
    js_splitter_code = r"""
var splitQuery = (query) =>
  (query.match(/[가-힣]+|(?:(?![가-힣])[\p{L}\p{N}_])+/gu) ?? []).flatMap(
    (word) => (/^[가-힣]{2,}$/.test(word) ? [...word.slice(1)].map((last, n) => word[n] + last) : [word]));
"""

    def split(self, input: str) -> list[str]:
        words = re.findall(r"[가-힣]+|(?:(?![가-힣])\w)+", input)
        return [part for word in words for part in (re.findall(r"(?=([가-힣]{2}))", word) or [word])]


def navigation() -> str:
    """Return the side bar: this index, then the headings of docs/README.md, each with the pages that it leads to."""
    groups = re.split(r"^## ", (DOCS / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    bar = "\n```{toctree}\n:hidden:\ndocs/README\n```\n"
    for title, _, links in (group.partition("\n") for group in groups):
        pages = (f"/docs/{path.rpartition('.')[0]}\n" for path in re.findall(r"\]\(([^)#]+)\)", links))
        bar += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n{''.join(pages)}```\n"
    return bar


def add_navigation(app: Sphinx, page: str, text: list[str]) -> None:
    if page == root_doc:
        text[0] += navigation()


def name_language(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    context["language"] = "ko" if page.endswith(".ko") else "en"


def setup(app: Sphinx) -> None:
    app.add_search_language(Search)
    app.connect("source-read", add_navigation)
    app.connect("html-page-context", name_language)

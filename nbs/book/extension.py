"What Sphinx lacks: HTML tables, Jupyter's heading anchors, a bibliography with titles as written."

import re
from functools import cache

from docutils import nodes
from docutils.parsers.rst import directives
from pybtex.backends.plaintext import Backend as PlainText
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style
from pybtex.style.template import field, sentence
from sphinx.search.en import SearchEnglish
from sphinx.util.docutils import SphinxDirective


class HtmlTable(SphinxDirective):
    "Caption in Markdown, a line `%%%`, the head and body of the table in HTML."

    has_content = True
    option_spec = {"name": directives.unchanged, "class": directives.class_option}

    def run(self):
        lines = list(self.content)
        at = lines.index("%%%")
        table = nodes.table(classes=self.options.get("class", []))
        caption = " ".join(line.strip() for line in lines[:at]).strip()
        if caption:
            inline, messages = self.parse_inline(caption)
            table += nodes.title(caption, "", *inline, *messages)
        table += nodes.raw("", "\n".join(lines[at + 1 :]), format="html")
        self.set_source_info(table)
        self.add_name(table)
        return [nodes.container("", table, classes=["table-scroll"])]


def jupyter_anchor(title: str) -> str:
    "A heading's anchor as Jupyter and GitHub make it: the title, with hyphens for spaces."
    return re.sub(r"\s", "-", title)


class AsWritten(Style):
    "The plain style, with the capitals that a title has."

    def format_title(self, e, which_field, as_sentence=True):
        title = field(which_field)
        return sentence[title] if as_sentence else title


register_plugin("pybtex.style.formatting", "as_written", AsWritten)
# Else each citation reads the metadata of all installed packages.
register_plugin("pybtex.backends", "plaintext", PlainText, force=True)


class English(SearchEnglish):
    "English, with each word's stem found once."

    @cache  # noqa: B019, there is one instance
    def stem(self, word: str) -> str:
        return super().stem(word)


def collapse_navigation(app, pagename, templatename, context, doctree):
    "Show the pages beside the open one, not all 300: they would be most of every page."
    if whole := context.get("toctree"):
        context["toctree"] = lambda **options: whole(**(options | {"collapse": True}))


def setup(app):
    "Register the directive, the language of the search and the navigation."
    app.connect("html-page-context", collapse_navigation, priority=400)  # before the theme's
    app.add_directive("html-table", HtmlTable)
    app.add_search_language(English)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

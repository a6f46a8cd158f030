"Notebooks → pages of the book: numbered figures and tables with alt text, links, citations."

import base64
import io
import json
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape, unescape
from pathlib import Path

from PIL import Image
from tables import Table

WIDE = 560  # pixels; a phone scrolls a wider image sideways instead of shrinking it
CAPTION = re.compile(
    r"\*\*(Figure|Table) (\d+)\*\* \(`([^`]+)`\)\. (.*?)(?: \*([^*]+)\.\*)?\s*$", re.S
)
DIRECTIVE = re.compile(r"^#\s*\|\s*([\w-]+)\s*:?\s*(.*)$")
ARXIV = re.compile(r"arXiv[:\s]\s*(\d{4}\.\d{4,5})(?!\d)")
TOKEN = re.compile(
    r"(?P<fence>^ *(?P<tick>```+|~~~+).*?^ *(?P=tick)[ \t]*$)"
    r"|(?P<code>(?P<bar>`+)(?!`).+?(?<!`)(?P=bar)(?!`))"
    r"|(?P<math>\$\$.+?\$\$|\$(?![\s$])[^$\n]+?(?<!\s)\$)"
    r"|(?P<link>!?\[(?P<label>(?:[^\[\]`]|`[^`]*`)*)\]\((?P<target>[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)\))"
    r"|(?P<italic>(?<![*\w])\*(?![*\s])(?P<title>[^*`]+?)(?<!\s)\*(?![*\w]))"
    r"|(?P<arxiv>arXiv[:\s]\s*(?P<number>\d{4}\.\d{4,5})(?!\d))",
    re.S | re.M,
)


class PageError(Exception):
    "A notebook that cannot become a page; the message names the notebook, the cell and what to do."


@dataclass
class Context:
    "What pages may point to."

    root: Path  # of the repository
    out: Path  # of the staged sources
    url: str  # where a reader finds the repository's files, with a / at the end
    pages: set[str] = field(default_factory=set)  # sources that become pages, relative to nbs/
    names: dict[str, str] = field(
        default_factory=dict
    )  # name as written → full name of a library's symbol
    titles: dict[str, str] = field(default_factory=dict)  # plain title → citation key
    arxiv: dict[str, str] = field(default_factory=dict)  # arXiv number → citation key
    mentions: dict[str, str] = field(default_factory=dict)  # phrase → citation key
    moved: dict[str, str] = field(
        default_factory=dict
    )  # file, relative to the root → page that stands for it


def plain(text: str) -> str:
    "Letters and digits only, small: titles are compared so."
    return re.sub(r"[\W_]+", "", text.lower())


def prose(
    text: str,  # Markdown
    page: str,  # the page it stands on, such as papers/kun.ipynb
    context: Context,  # what it may point to
) -> str:  # Markdown for MyST
    "Point links at pages of the book instead of files; link names and cite works."

    def replace(m: re.Match) -> str:
        if m["code"] and m["bar"] == "`":
            name = context.names.get(m["code"][1:-1].removesuffix("()"))
            return f"{{py:obj}}`{m['code'][1:-1]} <{name}>`" if name else m[0]
        if m["link"] and m[0].startswith("!"):
            return f"![{m['label']}]({picture(m['target'], page, context)})"
        if m["link"]:
            cited = ARXIV.search(m["target"].replace("arxiv.org/abs/", "arXiv "))
            return f"[{m['label']}]({link(m['target'], page, context)})" + cite(
                cited[1] if cited else "", context.arxiv
            )
        if m["italic"]:
            return m[0] + cite(titled(m["title"], context), context.titles)
        if m["arxiv"]:
            return m[0] + cite(m["number"], context.arxiv)
        if context.mentions and m["mention"]:
            return m[0] + cite(" ".join(m["mention"].split()), context.mentions)
        return m[0]

    token = TOKEN
    if context.mentions:
        token = re.compile(f"{TOKEN.pattern}|(?P<mention>{phrases(context)})", TOKEN.flags)
    return token.sub(replace, text)


def cite(key: str, known: dict[str, str]) -> str:
    "A citation if there is one to make."
    return f" {{cite:p}}`{known[key]}`" if key in known else ""


def phrases(context: Context) -> str:
    "A pattern of the phrases that are citations, over line breaks, too."
    return "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in context.mentions)


def titled(words: str, context: Context) -> str:
    "The known title that begins with these words: all of them up to a colon, or enough to be sure."
    here = plain(words)
    return (
        here
        if here in context.titles or len(here) < 20
        else next((t for t in context.titles if t.startswith(here)), "")
    )


def cite_in_rst(text: str, context: Context) -> str:
    "The same for a docstring: arXiv numbers and phrases."
    text = ARXIV.sub(
        lambda m: m[0] + (f" :cite:p:`{context.arxiv[m[1]]}`" if m[1] in context.arxiv else ""),
        text,
    )
    if not context.mentions:
        return text
    return re.sub(
        phrases(context),
        lambda m: f"{m[0]} :cite:p:`{context.mentions[' '.join(m[0].split())]}`",
        text,
    )


def link(target: str, page: str, context: Context) -> str:
    "Where a link leads in the book: a page, a file on the repository's site, or unchanged."
    path, _, anchor = target.partition("#")
    if not path:
        return target
    if path.startswith(context.url):
        file = path.removeprefix(context.url)
    elif re.match(r"[a-z]+:", path):
        return target
    else:
        file = posixpath.normpath(posixpath.join("nbs", posixpath.dirname(page), path))
    inside = context.moved.get(file) or file.removeprefix("nbs/")
    if inside in context.pages:
        return posixpath.relpath(inside, posixpath.dirname(page) or ".") + (
            f"#{anchor}" if anchor else ""
        )
    if not (context.root / file).exists() and not path.startswith(context.url):
        raise PageError(f"nbs/{page}: the link {target} leads nowhere")
    return context.url + file + (f"#{anchor}" if anchor else "")


def picture(target: str, page: str, context: Context) -> str:
    "A picture beside the notebooks goes into the book."
    if target.startswith("data:"):
        return target
    file = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    if re.match(r"[a-z]+:", target) or not (source := context.root / "nbs" / file).is_file():
        raise PageError(f"nbs/{page}: the picture {target} is not a file beside it")
    write(context.out / file, source.read_bytes())
    return target


@dataclass
class Page:
    "A notebook on its way into the book; counts its figures and tables."

    name: str  # relative to nbs/
    context: Context
    paper: bool
    count: dict = field(default_factory=lambda: {"Figure": 0, "Table": 0})
    taken: list = field(default_factory=list)  # (kind, number, id, caption) of figures and tables
    faults: list = field(default_factory=list)  # what a person has to put right in the notebook

    @property
    def stem(self) -> str:
        "Name without folder and ending."
        return Path(self.name).stem

    def markdown(self, source: str) -> dict:
        "A Markdown cell."
        return {"cell_type": "markdown", "metadata": {}, "source": source}

    def cells(self, cell: dict) -> list[dict]:
        "What becomes of a cell."
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            return [self.markdown(prose(source, self.name, self.context))]
        directives, source = split_directives(source)
        words = [name for name, _ in directives]
        if "hide" in words or "default_exp" in words or not source.strip() and not cell["outputs"]:
            return []
        tags = set(cell["metadata"].get("tags", []))
        if "parameters" in tags:
            tags.add("hide-input")
        if only_imports(source):
            tags.add("hide-input")
        pieces = [code_cell(source, tags - {"hide-output"})]
        shown = len(self.taken)
        if "parameters" in tags:
            pieces[0]["metadata"]["mystnb"] = {
                "code_prompt_show": "Show the parameters of this run",
                "code_prompt_hide": "Hide the parameters",
            }
        captions, alts = (
            [v for k, v in directives if k == name] for name in ("fig-cap", "fig-alt")
        )
        outputs, used = list(cell["outputs"]), 0
        while outputs:
            out = outputs.pop(0)
            data = {
                k: "".join(v) if isinstance(v, list) else v for k, v in out.get("data", {}).items()
            }
            following = (
                "".join(outputs[0].get("data", {}).get("text/markdown", "")) if outputs else ""
            )
            caption = CAPTION.match("".join(data.get("text/markdown", "")))
            image = next((k for k in ("image/png", "image/jpeg") if k in data), None)
            if image:
                told = CAPTION.match(following)
                if told and told[1] == "Figure":
                    outputs.pop(0)
                    name, text, stamp = told[3], told[4], told[5] or ""
                else:
                    text, name, stamp = (
                        (captions[used] if used < len(captions) else ""),
                        f"{self.stem}-{self.count['Figure'] + 1}",
                        "",
                    )
                alt = (
                    (alts[used] if used < len(alts) else "")
                    or out.get("metadata", {}).get(image, {}).get("alt")
                    or (told and as_text(text))
                )
                used += 1
                if not alt or not text:
                    self.faults.append(
                        f"nbs/{self.name}, cell {cell.get('id')}: "
                        f"image {used} has no caption or no alt text: "
                        "add `#| fig-cap: …` (what is shown) and `#| fig-alt: …` (what is seen) "
                        "above the cell's code, a pair for each image, "
                        "or show it with `Results.figure`"
                    )
                    continue
                pieces.append(
                    self.figure(
                        name,
                        base64.b64decode(data[image]),
                        image.split("/")[1],
                        alt,
                        text,
                        stamp,
                        out.get("metadata", {}).get(image, {}).get("width"),
                    )
                )
            elif (
                caption
                and caption[1] == "Table"
                and outputs
                and "text/html" in outputs[0].get("data", {})
            ):
                html = "".join(outputs.pop(0)["data"]["text/html"])
                pieces.append(self.table(caption[3], html, caption[4], caption[5] or ""))
            elif "text/markdown" in data:
                pieces.append(self.markdown(prose(data["text/markdown"], self.name, self.context)))
            elif "text/html" in data and "<table" in data["text/html"]:
                pieces.append(self.loose_table(data["text/html"]))
            elif out.get("name") == "stderr":
                continue
            else:
                if pieces[-1]["cell_type"] != "code":
                    pieces.append(code_cell("", {"remove-input"}))
                pieces[-1]["outputs"].append(out)
        if "hide-output" in tags and shown < len(self.taken):  # folded away below its caption
            kind, number, _, caption = self.taken[shown]
            told = f"{kind} {number}. {as_text(caption).partition('. ')[0].rstrip('.')}"
            pieces.insert(1, self.markdown(f"<details><summary>{escape(told)}</summary>"))
            pieces.append(self.markdown("</details>"))
        return pieces

    def number(self, kind: str, name: str, caption: str) -> int:
        "The next figure's or table's number on this page."
        self.count[kind] += 1
        self.taken.append((kind, self.count[kind], name, caption))
        return self.count[kind]

    def figure(
        self,
        name: str,
        content: bytes,
        ending: str,
        alt: str,
        caption: str,
        stamp: str,
        width: int | None,
    ) -> dict:
        "A figure, as wide as the notebook shows it; the image goes into a file beside the page."
        number = self.number("Figure", name, caption)
        file = Path("_figures", self.stem, f"{name}.{ending}")
        write(self.context.out / file, content)
        up = "../" * self.name.count("/")
        drawn = width or Image.open(io.BytesIO(content)).width
        wide = ":figclass: wide\n" if drawn > WIDE else ""
        wide += f":width: {width}px\n" if width else ""
        legend, quoted = (
            self.legend(name, stamp),
            json.dumps(" ".join(alt.split()), ensure_ascii=False),
        )
        return self.markdown(
            f"````{{figure}} {up}{file.as_posix()}\n"
            f":name: {self.stem}-figure-{slug(name)}\n{wide}:alt: {quoted}\n\n"
            f"**Figure {number}.** {prose(caption, self.name, self.context)}{legend}\n````"
        )

    def table(self, name: str, html: str, caption: str, stamp: str) -> dict:
        "A table with its caption; a ledger becomes a list of cards on a phone."
        number = self.number("Table", name, caption)
        options = ":class: ledger\n" if name == "verdicts" else ""
        return self.markdown(
            f"````{{html-table}}\n:name: {self.stem}-table-{slug(name)}\n{options}\n"
            f"**Table {number}.** {prose(caption, self.name, self.context)}"
            f"{self.legend(name, stamp)}\n%%%\n"
            f"{Table.read(html).html(name == 'verdicts')}\n````"
        )

    def loose_table(self, html: str) -> dict:
        "A table without a caption, and the paragraph below it: the value of a cell."
        rest = re.search(r"<p>(?:<small>)?([^<>]+)<", html)
        return self.markdown(
            f"````{{html-table}}\n:class: value\n%%%\n{Table.read(html).html()}\n````"
            + (f"\n\n{rest[1]}" if rest else "")
        )

    def legend(self, name: str, stamp: str) -> str:
        "Under the caption: on what it was made, and its name among the run's files."
        return (
            f" [{stamp}. File: `{name}`]{{.stamp}}"
            if stamp and self.paper
            else f" [{stamp}]{{.stamp}}"
            if stamp
            else ""
        )


def split_directives(source: str) -> tuple[list[tuple[str, str]], str]:
    "The `#|` lines of a code cell, and the code without them."
    found, rest = [], []
    for line in source.splitlines():
        m = DIRECTIVE.match(line)
        if m:
            found.append((m[1], m[2].strip().strip('"')))
        else:
            rest.append(line)
    return found, "\n".join(rest).strip("\n")


def code_cell(source: str, tags: set[str]) -> dict:
    "A code cell without outputs."
    return {
        "cell_type": "code",
        "metadata": {"tags": sorted(tags - {"parameters"})},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }


def only_imports(source: str) -> bool:
    "Whether a cell imports and does nothing else."
    import ast

    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False
    return bool(body) and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body)


def as_text(markdown: str) -> str:
    "Markdown without its marks."
    return unescape(re.sub(r"[*`]|\[([^\]]*)\]\([^)]*\)", lambda m: m[1] or "", markdown)).replace(
        "\n", " "
    )


def slug(name: str) -> str:
    "A name that can be an anchor."
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def write(path: Path, content: str | bytes) -> None:
    "Write a file unless it holds just that, so that Sphinx builds again only what has changed."
    content = content.encode() if isinstance(content, str) else content
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def stage_notebook(
    name: str,  # relative to nbs/
    context: Context,
    finish: Callable[[list[dict], Page], list[dict]] | None = None,  # adds cells of the page's own
) -> Page:
    "Write a notebook's page."
    notebook = json.loads((context.root / "nbs" / name).read_text(encoding="utf-8"))
    page = Page(name, context, paper=name.startswith("papers/"))
    cells = [new for cell in notebook["cells"] for new in page.cells(cell)]
    if finish:
        cells = finish(cells, page)
    for i, cell in enumerate(cells):
        cell["id"] = f"c{i}"
    made = {"cells": cells, "metadata": notebook["metadata"], "nbformat": 4, "nbformat_minor": 5}
    write(context.out / name, json.dumps(made, ensure_ascii=False, indent=1))
    return page

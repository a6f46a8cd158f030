"HTML tables as pandas writes them: read, cleaned, written."

from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser

KEPT = ("rowspan", "colspan")  # attributes of a cell that matter


@dataclass
class Cell:
    "A cell: its inner HTML, whether it is a header, and the attributes that are kept."

    html: str = ""
    header: bool = False
    attributes: dict = field(default_factory=dict)

    @property
    def text(self) -> str:
        "What is read in the cell."
        parser = _Text()
        parser.feed(self.html)
        return " ".join("".join(parser.parts).split())


class _Text(HTMLParser):
    "Collects text."

    def __init__(self):
        super().__init__()
        self.parts = []

    def handle_data(self, data):
        self.parts.append(data)

    def handle_starttag(self, tag, attrs):
        if tag == "br":
            self.parts.append(" ")


class _Rows(HTMLParser):
    "Collects the rows of the first table."

    def __init__(self):
        super().__init__(convert_charrefs=False)
        self.head, self.body, self.row, self.cell, self.section, self.done = (
            [],
            [],
            None,
            None,
            "tbody",
            False,
        )

    def handle_starttag(self, tag, attrs):
        if self.done:
            return
        if tag in ("thead", "tbody"):
            self.section = tag
        elif tag == "tr":
            self.row = []
        elif tag in ("th", "td"):
            self.cell = Cell("", tag == "th", {k: v for k, v in attrs if k in KEPT})
        elif self.cell is not None:
            self.cell.html += self.get_starttag_text()

    def handle_endtag(self, tag):
        if self.done:
            return
        if tag == "table":
            self.done = True
        elif tag in ("th", "td") and self.cell is not None:
            self.cell.html = self.cell.html.strip()
            self.row.append(self.cell)
            self.cell = None
        elif tag == "tr":
            (self.head if self.section == "thead" else self.body).append(self.row)
        elif self.cell is not None:
            self.cell.html += f"</{tag}>"

    def handle_data(self, data):
        if self.cell is not None:
            self.cell.html += data

    def handle_entityref(self, name):
        self.handle_data(f"&{name};")

    def handle_charref(self, name):
        self.handle_data(f"&#{name};")


def join_names(head: list[list[Cell]]) -> list[list[Cell]]:
    "Move the row of index names, which pandas adds, into the free cells above if they fit."
    if len(head) < 2:
        return head
    above, last = head[-2], head[-1]
    fits = len(above) == len(last) and not any(c.attributes for c in [*above, *last])

    def free(cell: Cell) -> bool:
        return not cell.text.strip("\xa0 ")

    if not fits or not all(free(a) or free(b) for a, b in zip(above, last)):
        return head
    return [*head[:-2], [b if free(a) else a for a, b in zip(above, last)]]


@dataclass
class Table:
    "Rows of the head and of the body."

    head: list[list[Cell]]
    body: list[list[Cell]]

    @classmethod
    def read(
        cls,
        html: str,  # of a page that holds a table
    ) -> "Table":
        "The first table of some HTML; raises `ValueError` if it has none."
        parser = _Rows()
        parser.feed(html)
        if not parser.body and not parser.head:
            raise ValueError("no table")
        return cls(join_names(parser.head), parser.body)

    @classmethod
    def of(
        cls,
        columns: list[str],  # names
        rows: list[list[str]],  # inner HTML of the cells; the first of a row is its header
    ) -> "Table":
        "A table from columns and rows."
        return cls(
            [[Cell(escape(c), True) for c in columns]],
            [[Cell(value, i == 0) for i, value in enumerate(row)] for row in rows],
        )

    def names(self) -> list[str]:
        "Column names: the last in each column's head, as pandas puts index names in a row."
        rows = [
            [c.text for c in row for _ in range(int(c.attributes.get("colspan", 1)))]
            for row in self.head
        ]
        return [
            next((row[i] for row in reversed(rows) if i < len(row) and row[i].strip("\xa0 ")), "")
            for i in range(max(map(len, rows)))
        ]

    def records(self) -> list[dict[str, str]]:
        "Each row of the body as text by column name."
        return [dict(zip(self.names(), (c.text for c in row))) for row in self.body]

    def html(
        self,
        labels: bool = False,  # whether cells carry their column's name, for a phone's layout
    ) -> str:
        "Head and body without ids, classes and styles."
        names = self.names() if labels else []

        def row(cells: list[Cell], head: bool) -> str:
            "One row."
            return f"<tr>{''.join(one(c, i, head) for i, c in enumerate(cells))}</tr>"

        def one(cell: Cell, i: int, head: bool) -> str:
            "One cell."
            tag = "th" if cell.header else "td"
            extra = "".join(f' {k}="{escape(v)}"' for k, v in cell.attributes.items())
            scope = (
                "" if tag == "td" or not cell.text else ' scope="col"' if head else ' scope="row"'
            )
            label = (
                f' data-label="{escape(names[i])}"'
                if labels and not head and i < len(names)
                else ""
            )
            inner = (
                f"<div>{cell.html}</div>"
                if label and cell.html and not cell.html.startswith("<div>")
                else cell.html
            )
            return f"<{tag}{scope}{extra}{label}>{inner}</{tag}>"

        head = "".join(row(r, True) for r in self.head)
        body = "".join(row(r, False) for r in self.body)
        return f"<thead>{head}</thead><tbody>{body}</tbody>"

"Find faults in the built pages: dead links, missing images or alt texts, outside resources."

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

RESOURCES = {
    "img": "src",
    "script": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
    "input": "src",
}
HARMLESS_LINKS = {
    "search",
    "index",
    "next",
    "prev",
    "author",
    "canonical",
    "copyright",
    "genindex",
}  # rel of <link> that fetch nothing


class Document(HTMLParser):
    "Anchors, links, resources and images of a page."

    def __init__(self, text: str):
        super().__init__()
        (
            self.anchors,
            self.links,
            self.resources,
            self.images,
            self.titles,
            self.styles,
            self.inside,
        ) = set(), [], [], [], 0, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = {k: v or "" for k, v in attrs}
        self.inside = tag
        self.anchors |= {attrs[k] for k in ("id", "name") if attrs.get(k)}
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag == "img":
            self.images.append(attrs)
        if tag == "h1":
            self.titles += 1
        if "style" in attrs:
            self.styles.append(attrs["style"])
        if tag == "link" and set(attrs.get("rel", "").split()) & HARMLESS_LINKS:
            if "href" in attrs:
                self.links.append(attrs["href"])
        elif attrs.get(RESOURCES.get(tag, "")):
            self.resources.append(attrs[RESOURCES[tag]])
        if "srcset" in attrs:
            self.resources += [part.split()[0] for part in attrs["srcset"].split(",")]

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        if self.inside == "style":
            self.styles.append(data)


def outside(url: str) -> bool:
    "Whether a URL leads to another machine."
    return bool(re.match(r"(https?:)?//", url.strip(), re.I))


def fetched_by_css(text: str) -> list[str]:
    "What a style sheet fetches."
    return [
        m[1] or m[2]
        for m in re.finditer(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""", text)
    ]


def check_folder(
    folder: Path,  # of the built pages
) -> list[str]:  # one line a fault
    "Check every page and style sheet."
    pages = {
        p.relative_to(folder).as_posix(): Document(p.read_text(encoding="utf-8"))
        for p in sorted(folder.rglob("*.html"))
        if "_static" not in p.parts
    }
    if "index.html" not in pages:
        return [f"{folder}: there is no index.html"]
    faults = [
        f"{name}: {fault}"
        for name, page in pages.items()
        for fault in check_page(folder, name, page, pages)
    ]
    for sheet in sorted(folder.rglob("*.css")):
        faults += [
            f"{sheet.relative_to(folder)}: fetches {url}"
            for url in fetched_by_css(sheet.read_text(encoding="utf-8"))
            if outside(url)
        ]
    return faults


def check_page(folder: Path, name: str, page: Document, pages: dict[str, Document]) -> list[str]:
    "Faults of one page."
    faults = []
    if page.titles != 1 and name not in ("genindex.html", "py-modindex.html", "search.html"):
        faults.append(f"has {page.titles} headings of the first level")
    for url in page.resources + [u for style in page.styles for u in fetched_by_css(style)]:
        if outside(url):
            faults.append(f"fetches {url}")
        elif not url.startswith("data:") and target(folder, name, url)[0] is None:
            faults.append(f"{url} is missing")
    for image in page.images:
        if not image.get("alt", "").strip():
            faults.append(f"the image {image.get('src', '')[:60]} has no alt text")
    for url in dict.fromkeys(page.links):
        if re.match(r"[a-z][a-z+.-]*:|//", url, re.I):
            continue
        path, anchor = target(folder, name, url)
        if path is None:
            faults.append(f"the link {url} leads nowhere")
        elif anchor and path in pages and anchor not in pages[path].anchors:
            faults.append(f"the link {url} leads to no place on the page")
    return faults


def target(folder: Path, name: str, url: str) -> tuple[str | None, str]:
    "The file that a link on a page leads to, or `None` if it is not there, and the place in it."
    parts = urlsplit(url)
    if not parts.path:
        return name, unquote(parts.fragment)
    return linked_file(folder, (folder / name).parent, unquote(parts.path)), unquote(parts.fragment)


@cache  # each page links to all others
def linked_file(folder: Path, start: Path, path: str) -> str | None:
    "A path from a folder of pages, relative to the book, or `None` if no file is there."
    file = start / path
    file = file / "index.html" if file.is_dir() else file
    try:
        inside = file.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return None
    return inside if file.is_file() else None

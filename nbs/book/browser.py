"A headless Chromium, driven through its DevTools: what it says of each page, and pictures of them."

import base64
import json
import shutil
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
LOOK = """(() => ({
  broken: [...document.images].filter(i => i.complete && !i.naturalWidth)
    .map(i => i.getAttribute("src")),
  unnamed: [...document.images].filter(i => !(i.getAttribute("alt") || "").trim())
    .map(i => i.getAttribute("src")),
  wide: document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth,
  raw: [...document.querySelectorAll("span.math, div.math")]
    .filter(m => !m.querySelector("mjx-container")).length,
}))()"""
DRAWN = "new Promise(r => setTimeout(r, 50))"  # time for a page to be laid out anew


def find_browser() -> str | None:
    "The path of a Chromium, if there is one."
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    "A headless Chromium with one page; use it in a `with` block."

    def __init__(self):
        import websocket

        self.folder = tempfile.TemporaryDirectory(
            prefix="deepfake_nb_browser_", ignore_cleanup_errors=True
        )
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            "--remote-allow-origins=*",
            "--allow-file-access-from-files",
            f"--user-data-dir={self.folder.name}",
            "about:blank",
        ]
        self.process = subprocess.Popen(
            [find_browser(), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        address = Path(self.folder.name, "DevToolsActivePort")
        limit = time.monotonic() + 60
        while not (address.exists() and address.read_text().count("\n")):
            if time.monotonic() > limit or self.process.poll() is not None:
                raise RuntimeError("Chromium did not start")
            time.sleep(0.1)
        port, path = address.read_text().split()
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{port}{path}", timeout=60, suppress_origin=True
        )
        self.ids, self.events, self.session = count(1), [], None
        target = next(
            t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        self.session = self.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.wait(30)
        self.folder.cleanup()

    def send(self, method: str, **parameters) -> dict:
        "Send a command and wait for its answer; events that come in between are kept."
        number = next(self.ids)
        self.socket.send(
            json.dumps(
                {
                    "id": number,
                    "method": method,
                    "params": parameters,
                    **({"sessionId": self.session} if self.session else {}),
                }
            )
        )
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def resize(self, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        "Show pages, the open one included, at a width, in light or dark."
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        "Open a page at a width, in light or dark, and wait until it has loaded."
        self.resize(width, height, dark)
        self.events.clear()
        self.send("Page.navigate", url=url)
        limit = time.monotonic() + 60
        while (
            not any(e.get("method") == "Page.loadEventFired" for e in self.events)
            and time.monotonic() < limit
        ):
            self.events.append(json.loads(self.socket.recv()))
        self.run(f"Promise.resolve(window.MathJax && MathJax.startup?.promise).then(() => {DRAWN})")

    def run(self, script: str):
        "The value of a script on the page; a promise is waited for."
        return self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )["result"].get("value")

    def faults(self) -> list[str]:
        """List what went wrong on the open page.

        Faults are errors in the console, failed or outside requests, broken or unnamed images,
        equations that were not set, and a page wider than the window.
        """
        found = []
        for e in self.events:
            method, p = e.get("method"), e.get("params", {})
            if method == "Runtime.exceptionThrown":
                details = p["exceptionDetails"]
                text = details.get("exception", {}).get("description", details["text"])
                found.append(f"error: {text[:300]}")
            elif method == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"):
                found.append(
                    f"console: {[a.get('value', a.get('description')) for a in p['args']]}"
                )
            elif method == "Log.entryAdded" and p["entry"]["level"] == "error":
                found.append(f"log: {p['entry']['text']} {p['entry'].get('url', '')}")
            elif method == "Network.requestWillBeSent" and urlsplit(
                p["request"]["url"]
            ).scheme not in ("file", "data", "blob", "about"):
                found.append(f"asks for {p['request']['url'][:120]}")
            elif method == "Network.loadingFailed" and not p.get("canceled"):
                found.append(f"failed to load: {p.get('errorText')}")
        page = self.run(LOOK)
        found += [f"the image {src} is broken" for src in page["broken"]] + [
            f"the image {src} has no alt text" for src in page["unnamed"]
        ]
        if page["raw"]:
            found.append(f"{page['raw']} equations were not set")
        if page["wide"] > 0:
            found.append(f"is {page['wide']} pixels wider than the window")
        return found

    def picture(self, path: Path, whole: bool = False) -> None:
        "Save a screenshot: of the window, or of the page from top to bottom."
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = (
            {
                "clip": {
                    "x": 0,
                    "y": 0,
                    "width": size["width"],
                    "height": min(size["height"], 15000),
                    "scale": 1,
                },
                "captureBeyondViewport": True,
            }
            if whole
            else {}
        )
        Path(path).write_bytes(
            base64.b64decode(self.send("Page.captureScreenshot", format="png", **clip)["data"])
        )


def check_in_browser(
    folder: Path,  # of the built pages
    widths: tuple[int, ...] = (1280, 390),  # of the window, in pixels
) -> list[str]:  # one line a fault
    "Open every page, show it at each width, dark on the narrow ones, and search for a word."
    if not find_browser():
        raise RuntimeError(
            f"no browser: none of {', '.join(NAMES)} is on the path (apt-get install chromium)"
        )
    folder, faults = Path(folder).resolve(), []
    pages = [p for p in sorted(folder.rglob("*.html")) if "_static" not in p.parts]
    with Browser() as browser:
        for page in pages:
            browser.open(page.as_uri(), widths[0], dark=widths[0] < 600)
            for width in widths:
                if width != widths[0]:
                    browser.resize(width, dark=width < 600)
                    browser.run(DRAWN)
                faults += [
                    f"{page.relative_to(folder)} at {width} pixels: {fault}"
                    for fault in browser.faults()
                ]
                browser.events.clear()
        browser.open((folder / "search.html").as_uri() + "?q=spectrum")
        wait = (
            "new Promise(r => { let n = 0, t = setInterval(() => { "
            "let k = document.querySelectorAll('#search-results li a').length; "
            "if (k || ++n > 100) { clearInterval(t); r(k) } }, 50) })"
        )
        if not browser.run(wait):
            faults.append("search.html: finds nothing for 'spectrum'")
    return faults

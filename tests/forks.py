"""Processes forked from one that has TensorFlow imported, which takes each of them four seconds.

It has not used TensorFlow yet, so a process can still choose devices, threads and seeds.
"""

import multiprocessing.forkserver
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.context import ForkServerContext
from pathlib import Path

# As if it were not installed: notebooks need no grammar of IRIs, which takes most of the time that
# nbformat's validator takes to start.
sys.modules.setdefault("rfc3987_syntax", None)  # pyright: ignore[reportArgumentType]
PRELOAD = [
    "forks",
    "tensorflow",
    "keras",
    "pandas",
    "matplotlib.pyplot",
    "sklearn.linear_model",
    "cv2",
    "nbdev.test",
]


def call_logged(log: Path, function, *args) -> None:
    "Call a function; what it or a library prints goes to `log`."
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        with redirect_stdout(file), redirect_stderr(file):
            function(*args)


def run_script(code: str, words: list[str]) -> None:
    "Do what `python -c CODE WORDS` does."
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__"})


class Forks:
    "Calls functions, and runs scripts, each in a process of its own."

    def __init__(self):
        self.context = ForkServerContext()
        self.context.set_forkserver_preload(PRELOAD)
        multiprocessing.forkserver.ensure_running()  # in an environment that no test has changed

    def close(self) -> None:
        multiprocessing.forkserver._forkserver._stop()  # so that its processor time counts as ours

    def start(self, log: Path, function, *args):
        process = self.context.Process(target=call_logged, args=(log, function, *args))
        process.start()
        return process

    def call(self, log: Path, function, *args) -> int:
        "Return the exit status of a function's process."
        process = self.start(log, function, *args)
        process.join()
        return process.exitcode

    def script(self, code: str, *words, log: Path) -> int:
        return self.call(log, run_script, code, [str(word) for word in words])

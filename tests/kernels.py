"""Kernels for papers, forked from a process that has TensorFlow imported: four seconds less each.

Jupyter starts this file as it would start ipykernel. It hands its arguments, folder, environment
and output to the server, which `Forks` started, and lives and dies with the kernel that the server
forks.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

ADDRESS = "DEEPFAKE_NB_TEST_KERNELS"  # the server's socket


def ask_for_kernel() -> int:
    "Start a kernel, pass signals on to it, and return its exit status."
    server = socket.socket(socket.AF_UNIX)
    server.connect(os.environ[ADDRESS])
    order = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(order).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(order)
    kernel = int.from_bytes(server.recv(8, socket.MSG_WAITALL), "big")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(kernel, number))
    return int.from_bytes(server.recv(8, socket.MSG_WAITALL), "big")


def be_kernel(order: list, client: socket.socket, outputs: list[int]) -> None:
    "Become the kernel that was asked for; end when the one who asked has ended."
    import threading

    from ipykernel.kernelapp import launch_new_instance

    words, folder, environment = order
    for number, output in enumerate(outputs):
        os.dup2(output, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.environ.pop("JPY_PARENT_PID", None)  # its parent is the server; the watch is below
    sys.argv = ["ipykernel_launcher", *words]
    sys.path[0] = ""
    threading.Thread(target=lambda: (client.recv(1), os._exit(1)), daemon=True).start()
    launch_new_instance()


def serve(address: str) -> None:
    "Fork kernels until the one who started this process ends."
    import importlib

    for name in ("ipykernel.kernelapp", "seaborn", "scipy.stats"):
        importlib.import_module(name)

    waiting = {}  # process of a kernel → socket of the one who asked for it

    def reap(*_) -> None:
        for kernel in list(waiting):
            ended, status = os.waitpid(kernel, os.WNOHANG)
            if ended:
                with waiting.pop(kernel) as client, suppress(OSError):
                    client.sendall(abs(os.waitstatus_to_exitcode(status)).to_bytes(8, "big"))

    signal.signal(signal.SIGCHLD, reap)
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen()
    while True:
        client, _ = server.accept()
        size, outputs, *_ = socket.recv_fds(client, 8, 3)
        order = b""
        while len(order) < int.from_bytes(size, "big"):
            order += client.recv(1 << 16)
        if (kernel := os.fork()) == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            be_kernel(json.loads(order), client, outputs)
            os._exit(0)
        waiting[kernel] = client
        client.sendall(kernel.to_bytes(8, "big"))
        for output in outputs:
            os.close(output)
        reap()


if __name__ == "__main__":
    sys.exit(ask_for_kernel())

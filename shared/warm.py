"""One process that has imported torch and the track's code, and forks a child for each job of a local run.

`import torch` and scikit-learn take 5 s of CPU; the jobs of a mini run compute for less. The workflow therefore names
a socket in REPLICATE_WARM; the first job starts the server behind it, later ones find it. Each job is still a process
of its own, with its own exit code, log and memory; only the imports are shared. On a cluster the variable is not set.

Lifetimes are tied together by the system, not by clean-up code: the server ends when the workflow's process ends,
a child is killed when the process that asked for it ends (kill -9 included).
"""

import contextlib
import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

START_SECONDS = 60.0


# ---- client


def submit(address: str, argv: list[str]) -> int | None:
    """Run a job through the server at `address`, started if need be. Returns its exit code, or None if there is
    no server to be had (not Linux, owner gone): the caller then runs the job itself."""
    owner = _owner(address)
    if not hasattr(os, "pidfd_open") or owner is None:
        return None
    connection = _connect(address, owner)
    if connection is None:
        return None
    with connection:
        request = json.dumps({"argv": argv, "cwd": os.getcwd()}).encode()
        socket.send_fds(connection, [request], [sys.stdout.fileno(), sys.stderr.fileno()])
        answer = connection.recv(64)
    return int(answer) if answer else 1


def start_early(address: str, modules: list[str]) -> None:
    """Start the server before the first job asks for it, importing `modules` in this order: the engine is still busy
    planning."""
    owner = _owner(address)
    if hasattr(os, "pidfd_open") and owner is not None:
        with open(f"{address}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not Path(address).exists():
                _start(address, owner, modules)


def _owner(address: str) -> int | None:
    """Process id of the workflow that owns a socket `.../warm-<pid>.sock`, if it is alive."""
    pid = Path(address).stem.partition("-")[2]
    return int(pid) if pid.isdigit() and Path(f"/proc/{pid}").exists() else None


def _connect(address: str, owner: int) -> socket.socket | None:
    deadline = time.monotonic() + START_SECONDS
    with open(f"{address}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one starter; the others find the server when it is there
        server: subprocess.Popen[bytes] | None = None
        while time.monotonic() < deadline:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(address)
                return connection
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
            except OSError:  # an address too long for a socket: run the job here
                connection.close()
                return None
            if server is None:
                server = _start(address, owner)
            elif server.poll() is not None:
                return None
            time.sleep(0.02)
    return None


def _start(address: str, owner: int, modules: list[str] | None = None) -> "subprocess.Popen[bytes]":
    with open(f"{address}.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "shared.warm", address, str(owner), *(modules or [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


# ---- server


class Server:
    """Accepts jobs, forks a child for each, reports its exit code, kills it when its client is gone.

    modules: imported one by one while no job waits; a job whose runner is not there yet has it imported first.
    """

    def __init__(self, address: str, owner: int, modules: list[str]) -> None:
        self.address, self.modules = address, modules
        self.selector = selectors.DefaultSelector()
        self.listener = socket.socket(socket.AF_UNIX)
        Path(address).unlink(missing_ok=True)
        self.listener.bind(address)
        self.listener.listen()
        self.owner = os.pidfd_open(owner)
        self.children: dict[int, tuple[int, socket.socket]] = {}  # pidfd -> (pid, client)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self.owner, selectors.EVENT_READ, self._stop)
        self.running = True

    def serve(self) -> None:
        """Serve until the owner ends."""
        try:
            while self.running:
                events = self.selector.select(0 if self.modules else None)
                for key, _ in events:
                    key.data(key.fileobj)
                if self.modules and not events:
                    import_all([self.modules.pop(0)])
        finally:
            Path(self.address).unlink(missing_ok=True)
            for pid, _ in self.children.values():
                _kill(pid)

    def _stop(self, _owner: int) -> None:
        self.running = False

    def _accept(self, _listener: socket.socket) -> None:
        client, _ = self.listener.accept()
        message, fds, _, _ = socket.recv_fds(client, 1 << 20, 2)
        if len(fds) < 2:
            client.close()
            return
        request = json.loads(message)
        preload(request["argv"], request["cwd"])
        pid = os.fork()
        if pid == 0:
            self._child(request, client, fds)
        for fd in fds:
            os.close(fd)
        handle = os.pidfd_open(pid)
        self.children[handle] = (pid, client)
        self.selector.register(handle, selectors.EVENT_READ, self._finished)
        self.selector.register(client, selectors.EVENT_READ, self._client_gone)

    def _child(self, request: dict[str, object], client: socket.socket, fds: list[int]) -> None:
        code = 1
        try:
            os.setpgid(0, 0)  # so that a job's own worker processes go with it
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.listener.close()
            for connection in (client, *(other for _, other in self.children.values())):
                connection.close()
            os.dup2(fds[0], 1)
            os.dup2(fds[1], 2)
            os.chdir(str(request["cwd"]))
            from shared.run import execute, parse

            code = execute(parse(list(request["argv"])))  # type: ignore[call-overload]
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _finished(self, handle: int) -> None:
        pid, client = self._forget(handle)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        # OSError: the client was killed between its child's end and this line, so nobody waits for the code
        with contextlib.suppress(OSError):
            client.sendall(str(code if code >= 0 else 128 - code).encode())
        client.close()

    def _client_gone(self, client: socket.socket) -> None:
        handle = next(h for h, (_, c) in self.children.items() if c is client)
        pid, _ = self._forget(handle)
        _kill(pid)
        os.waitpid(pid, 0)
        client.close()

    def _forget(self, handle: int) -> tuple[int, socket.socket]:
        pid, client = self.children.pop(handle)
        self.selector.unregister(handle)
        self.selector.unregister(client)
        os.close(handle)
        return pid, client


def _kill(pid: int) -> None:
    for send in (os.killpg, os.kill):
        # ProcessLookupError: already gone, or (killpg) not yet the leader of its group
        with contextlib.suppress(ProcessLookupError):
            send(pid, signal.SIGKILL)


def preload(argv: list[str], cwd: str) -> None:
    """Import what a job's runner imports, in the server, so that every child has it.

    Only imports: a thread pool started here would not exist in the children.
    """
    import shared.run

    try:
        job = json.loads((Path(cwd) / shared.run.parse(argv).job).read_text(encoding="utf-8"))
    except Exception:
        traceback.print_exc()  # to the server's log; the child will meet the same error and report it as its own
        return
    import_all([job["run"].partition(":")[0]])


def import_all(modules: list[str]) -> None:
    """Import modules; one that cannot be imported fails again, and visibly, in the job that needs it."""
    import importlib

    gc.disable()  # imports leave no garbage, and looking for it takes an eighth of their time
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception:
            traceback.print_exc()
    gc.enable()
    gc.freeze()


def main() -> None:
    """`python -m shared.warm <socket> <pid of the workflow> [module to import early ...]`."""
    Server(sys.argv[1], int(sys.argv[2]), sys.argv[3:]).serve()


if __name__ == "__main__":
    main()

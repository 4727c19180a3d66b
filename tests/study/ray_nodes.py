"""A Ray cluster on this machine: nodes with processes, addresses and files of their own.

Every process carries a mark in its environment, which its children inherit, so that a node can be
lost whole, as a machine is, and nothing is left behind.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

MARK = "CONVAE_STUDY_TEST_MARK"
RAY = str(Path(sys.executable).with_name("ray"))
HEAD = "127.0.0.2"  # Ray takes 127.0.0.1 for the machine's address to the world
N_ATTEMPTS = 3  # Ray gives a node thirty seconds to start, which a busy machine may need


def marked(mark):
    """The processes that carry a mark, without those that have ended already."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if entry in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def kill_marked(mark):
    """Kills them all and waits until none is left."""
    while pids := marked(mark):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


class Started:
    """A process that was started here, and all that it starts.

    Args:
        command: what to run.
        environment: what to add to this process's own.
        settings: of subprocess.Popen.
    """

    def __init__(self, command, environment, **settings):
        self.mark = secrets.token_hex(8)
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **environment, MARK: self.mark},
            start_new_session=True,
            text=True,
            **settings,
        )

    def kill(self):
        """Ends it and all that it has started, at once and without a word."""
        kill_marked(self.mark)
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Cluster:
    """A head without room for trials, to which nodes are added. Loopback addresses only.

    Args:
        folder: for Ray's own files.

    Attributes:
        address: of the cluster.
        environment: what a process needs to take part in it.
    """

    def __init__(self, folder):
        self._folder = folder
        self._nodes = []
        # Clusters ask for a token only if they are told to.
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        with socket.socket() as free:
            free.bind((HEAD, 0))
            port = free.getsockname()[1]
        self.address = f"{HEAD}:{port}"
        arguments = ["--head", f"--port={port}", "--include-dashboard=false"]
        self.head = self._start(HEAD, *arguments, f"--temp-dir={folder}", "--num-cpus=0")

    def add(self, *arguments, within=()):
        """Adds a node and returns it, to be killed.

        Args:
            arguments: of ray start, such as its resources.
            within: a command that runs the one that follows it, such as unshare.
        """
        ip = f"127.0.0.{len(self._nodes) + 2}"
        return self._start(ip, f"--address={self.address}", *arguments, within=within)

    def _start(self, ip, *arguments, within=()):
        command = [*within, RAY, "start", "--block", "--disable-usage-stats"]
        command += [f"--node-ip-address={ip}", "--object-store-memory=80000000", *arguments]
        for _ in range(N_ATTEMPTS):
            log = self._folder / f"{ip}.log"
            with log.open("w") as stream:
                node = Started(command, self.environment, stdout=stream, stderr=stream)
            self._nodes.append(node)
            while node.process.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return node
                time.sleep(0.05)
            node.kill()
        raise RuntimeError(log.read_text())

    def kill(self):
        """Ends every process of every node."""
        for node in reversed(self._nodes):
            node.kill()


@contextmanager
def ray_cluster():
    """A cluster, gone with all its processes and files when the block ends."""
    # Ray's sockets lie in it, whose paths may not be long.
    with tempfile.TemporaryDirectory(prefix="nodes-", dir="/tmp") as folder:
        cluster = Cluster(Path(folder))
        try:
            yield cluster
        finally:
            cluster.kill()

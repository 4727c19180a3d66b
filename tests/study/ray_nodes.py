"""A Ray cluster on this machine: nodes with processes, addresses and files of their own.

Every process carries a mark in its environment, which its children inherit, so that a node can be
lost whole, as a machine is, and nothing is left behind.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from ray.autoscaler._private.monitor import BASE_READONLY_CONFIG

MARK = "CONVAE_STUDY_TEST_MARK"
RAY = str(Path(sys.executable).with_name("ray"))
LOOPBACK = "127.0.0.1"
HEAD = "127.0.0.2"  # Ray takes 127.0.0.1 for the machine's address to the world
# Ray's own stand-in for a cloud, whose machines are processes of the head. By its class: the wheel
# lacks the file that goes with the provider's name.
FAKE_CLOUD = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
FAKE_HEAD_TYPE, FAKE_HEAD_ID = "ray.head.default", "f" * 51 + "00000"
# Of each node, chosen for it: a raylet gives helpers that choose their own fifteen seconds.
PORTS = (
    *("dashboard-agent-grpc-port", "dashboard-agent-listen-port"),
    *("metrics-export-port", "runtime-env-agent-port"),
)
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


def kill_all(find):
    """Kills the processes that a function finds, and waits until it finds none.

    They stand still first: none must see the others die and tell of it, as none of a lost machine's
    can.
    """
    while pids := find():
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        time.sleep(0.05)


def free_port(ip):
    """A port that nobody listens to at this moment."""
    with socket.socket() as free:
        free.bind((ip, 0))
        return free.getsockname()[1]


def as_from_a_terminal():
    """Undoes what nohup, or a shell for what runs in its background, has ignored."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class Started:
    """A process that was started here with more environment variables, and all that it starts."""

    def __init__(self, command, environment, **settings):
        self.mark = secrets.token_hex(8)
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **environment, MARK: self.mark},
            start_new_session=True,
            preexec_fn=as_from_a_terminal,
            text=True,
            **settings,
        )

    def kill(self):
        """Ends it and all that it has started, at once and without a word."""
        kill_all(lambda: marked(self.mark))
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Cluster:
    """A head without room for trials, to which nodes are added. Loopback addresses only.

    Args:
        folder: for Ray's own files.
        dashboard: whether the head has one, which takes jobs.
        cpus: of the head, for trials.
        workers: for Ray's autoscaler, of this version, "1" or "2": what each node that it may start
            has, and how many these may be.
    """

    def __init__(
        self, folder, *, dashboard=False, cpus=0, workers=None, max_workers=1, version="1"
    ):
        self._folder = folder
        self.nodes = []  # the head, and those that were added
        # What a process needs to take part. Clusters ask for a token only if they are told to.
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            # A job's `python` is the one that its node finds.
            "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}",
        }
        port, dashboard_port = free_port(HEAD), free_port(LOOPBACK)
        self.address = f"{HEAD}:{port}"
        self.dashboard = f"http://{LOOPBACK}:{dashboard_port}"
        arguments = ["--head", f"--port={port}", f"--include-dashboard={dashboard}"]
        arguments += [f"--dashboard-host={LOOPBACK}", f"--dashboard-port={dashboard_port}"]
        if workers:
            arguments.append(f"--autoscaling-config={self._scaling(workers, max_workers)}")
            self.environment |= {
                "RAY_FAKE_CLUSTER": "1",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_enable_autoscaler_v2": str(int(version) - 1),
                "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_ID,
            }
        else:
            arguments.append("--no-monitor")  # the autoscaler's process
        self.head = self._start(HEAD, *arguments, f"--temp-dir={folder}", f"--num-cpus={cpus}")

    def _scaling(self, workers, max_workers):
        """The autoscaler's configuration, in a file."""
        config = {
            **BASE_READONLY_CONFIG,  # with all entries that an autoscaler asks for
            "max_workers": max_workers,
            "idle_timeout_minutes": 5,
            "provider": {
                "type": "external",
                "module": FAKE_CLOUD,
                "gcs_address": self.address,
                "head_node_id": FAKE_HEAD_ID,
                "launch_multiple": True,
                "use_node_id_as_ip": True,  # all nodes have the machine's
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "head_node_type": FAKE_HEAD_TYPE,
            "available_node_types": {
                FAKE_HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "worker": {
                    "resources": {**workers, "object_store_memory": 80_000_000},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": max_workers,
                },
            },
        }
        path = self._folder / "autoscaler.yaml"
        path.write_text(json.dumps(config))
        return path

    def add(self, *arguments, within=()):
        """Adds a node and returns it, to be killed.

        The arguments are of ray start, run within a command such as unshare.
        """
        ip = f"127.0.0.{len(self.nodes) + 2}"
        return self._start(ip, f"--address={self.address}", *arguments, within=within)

    def _start(self, ip, *arguments, within=()):
        command = [*within, RAY, "start", "--block", "--disable-usage-stats"]
        command += [f"--node-ip-address={ip}", "--object-store-memory=80000000"]
        command += ["--include-log-monitor=false", *arguments]  # which nobody reads here
        for _ in range(N_ATTEMPTS):
            log = self._folder / f"{ip}.log"
            ports = [f"--{name}={free_port(ip)}" for name in PORTS]
            with log.open("w") as stream:
                node = Started([*command, *ports], self.environment, stdout=stream, stderr=stream)
            self.nodes.append(node)
            while node.process.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return node
                time.sleep(0.05)
            node.kill()
        raise RuntimeError(log.read_text())

    def kill(self):
        """Ends every process of every node."""
        for node in reversed(self.nodes):
            node.kill()


@contextmanager
def ray_cluster(**settings):
    """A cluster, gone with all its processes and files when the block ends; see Cluster."""
    # Ray's sockets lie in it, whose paths may not be long.
    with tempfile.TemporaryDirectory(prefix="nodes-", dir="/tmp") as folder:
        cluster = Cluster(Path(folder), **settings)
        try:
            yield cluster
        finally:
            cluster.kill()

"""deploy/slurm.sh under a real Slurm: its daemons on this machine, with two nodes.

Debian's packages slurmctld, slurmd and slurm-client; root, as slurmd needs.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from programs import need
from ray_nodes import LOOPBACK, MARK, Started, free_port
from running import write_images

from analysis.load import load_run

pytestmark = pytest.mark.cluster

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm.sh"
# No signatures, which munge would make, and no control groups: a test machine may lack both.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}({loopback})
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=5
NodeName=one NodeHostname={host} NodeAddr={loopback} Port={ports[1]} CPUs=1
NodeName=two NodeHostname={host} NodeAddr={loopback} Port={ports[2]} CPUs=1
PartitionName=all Nodes=ALL Default=YES
"""


class Slurm:
    """A controller and two nodes, whose files lie in a folder."""

    def __init__(self, folder):
        self.folder = folder
        settings = {
            "host": socket.gethostname(),
            "loopback": LOOPBACK,
            "folder": folder,
            "ports": [free_port(LOOPBACK) for _ in range(3)],
        }
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**settings))
        (folder / "state").mkdir()
        self.environment = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._daemons = [self._start("slurmctld", "-D")]
        self.environment[MARK] = self._daemons[0].mark  # of the jobs, so that none outlives this
        self._daemons += [self._start("slurmd", "-D", "-N", node) for node in ("one", "two")]
        self.wait_until(lambda: self.run("sinfo", "-h", "-o", "%D %t") == "2 idle\n")

    def _start(self, *command):
        with (self.folder / f"{'-'.join(command)}.log").open("w") as log:
            return Started(command, self.environment, stdout=log, stderr=log)

    def run(self, *command, check=False):
        """What a command of Slurm's prints."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=check,
        )
        return done.stdout

    def submit(self, *options):
        """Hands in the script with a study's options; returns the job's number."""
        sbatch = ("sbatch", "--parsable", "--nodes=2", "--cpus-per-task=1", "--output=job.out")
        return self.run(*sbatch, SCRIPT, *options, check=True).strip()

    def told(self):
        """What the job has printed so far."""
        with suppress(FileNotFoundError):
            return (self.folder / "job.out").read_text()
        return ""

    def says(self, job, key):
        """An entry of what the controller knows of a job."""
        words = self.run("scontrol", "show", "job", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{key}="))

    def wait_until(self, condition, seconds=300):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.2)

    def kill(self):
        """Ends the daemons, and with them all that they have started."""
        for daemon in reversed(self._daemons):
            daemon.kill()


@pytest.fixture(scope="module")
def slurm():
    need("slurmctld", "slurmd", "sbatch", remedy="apt-get install slurmctld slurmd slurm-client")
    if os.geteuid() != 0:
        pytest.skip("needs root, as Slurm's daemons do")
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder:
        running = Slurm(Path(folder))
        try:
            yield running
        finally:
            running.kill()


def test_a_study_on_two_nodes_queues_again_before_its_time_is_up_and_ends_where_it_is_told(slurm):
    write_images(slurm.folder / "noise.npz", 1000, 1000)
    study = ["--gpus=0", "--preset=quick", "--models", "conv", "--trials=1", "--epochs=30"]
    study += ["--storage=results", "--name=study", "--no-report", "--data=noise.npz"]
    job = slurm.submit(*study)
    slurm.wait_until(lambda: "training on CPU" in slurm.told())
    assert "2 at once" in slurm.told()  # both nodes had joined
    # As Slurm itself does it three minutes before the end.
    slurm.run("scancel", "--batch", "--signal=USR1", job, check=True)
    slurm.wait_until(lambda: slurm.says(job, "Restarts") == "1")
    assert "study interrupted" in slurm.told()
    slurm.wait_until(lambda: slurm.says(job, "JobState") == "PENDING")
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=True)  # not in 2 minutes
    slurm.wait_until(lambda: slurm.told().count("training on CPU") == 2)

    slurm.run("scancel", "--batch", "--signal=TERM", job, check=True)
    slurm.wait_until(lambda: slurm.says(job, "JobState") == "FAILED")
    assert slurm.says(job, "ExitCode") == "130:0"
    assert slurm.says(job, "Restarts") == "1"

    job = slurm.submit(*study)
    slurm.wait_until(lambda: slurm.says(job, "JobState") == "COMPLETED")
    trials, _ = load_run(slurm.folder / "results" / "study")
    assert set(trials.state) == {"completed"}
    assert len(trials) == 3

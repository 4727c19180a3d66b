"""NVIDIA MPS, without which processes that share a GPU take turns on it and gain nothing."""

import shutil
import subprocess

import ray

from study.tune.resources import Slots, fits_now

CONTROL = "nvidia-cuda-mps-control"


def mps_runs() -> bool:
    """Whether MPS serves this machine, by the answer of its control program.

    That looks for the daemon in CUDA_MPS_PIPE_DIRECTORY, where CUDA programs look for it too.
    """
    if (control := shutil.which(CONTROL)) is None:
        return False
    try:
        run = subprocess.run(
            [control], input="get_server_list\n", capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.returncode == 0


def sharing_note(slots: Slots) -> str:
    """What the plan has to say of trials that share a GPU, measured by asking a node with one.

    Empty if none share one, if MPS runs, or if no node is there to be asked.
    """
    if not 0 < slots.gpus_per_trial < 1 or not fits_now(slots):
        return ""
    task = ray.remote(num_gpus=slots.gpus_per_trial, num_cpus=slots.cpus_per_trial)(mps_runs)
    if ray.get(task.remote()):
        return ""
    return f"; sharing a GPU pays only with NVIDIA MPS, which does not run: start {CONTROL} -d"

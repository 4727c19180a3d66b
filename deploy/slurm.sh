#!/usr/bin/env bash
# A study as a Slurm job: Ray on every node, the driver on the first. Three minutes before its time is
# up the study keeps what it has and the job queues again, until the study is done. For instance:
#   sbatch --nodes=2 --gpus-per-node=4 deploy/slurm.sh --gpus 8 --storage /shared/results --name NAME
# What follows the script are the study's options. Submit in an environment that has the project, on a
# disk that all nodes see, as --storage is. `scancel --batch --signal=TERM JOB` stops it.
#SBATCH --job-name=convae-study --ntasks-per-node=1 --cpus-per-task=4 --requeue --open-mode=append
#SBATCH --time=04:00:00 --signal=B:USR1@180
set -euo pipefail
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN # Ray runs code for whoever has it
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex())')
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # else Slurm kills half of Ray before it ends
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
address=$ip:$((20000 + SLURM_JOB_ID % 10000)) # a node may hold two jobs' heads
# shellcheck disable=SC2016 # $0, the address, and the node's numbers are for each node's own shell
srun --output="ray-$SLURM_JOB_ID.log" bash -c 'if ((SLURM_NODEID)); then at="--address=$0"
  until ray health-check "$at"; do sleep 1; done 2>/dev/null
  else at="--head --port=${0#*:} --include-dashboard=false"; fi
  exec ray start $at --block --num-cpus="$SLURM_CPUS_ON_NODE" --disable-usage-stats' "$address" &
joined='import ray, sys; ray.init(sys.argv[1]); sys.exit(len(ray.nodes()) < int(sys.argv[2]))'
for _ in {1..60}; do # some minutes; then it starts with the nodes that are there
  if python -c "$joined" "$address" "$SLURM_NNODES" &>/dev/null; then break; fi
done
python -m study.run --address "$address" --resume-or-start "$@" & study=$!
trap 'again=true; kill "$study"' USR1
trap 'kill "$study"' TERM
until wait "$study" && code=0 || code=$?; ! kill -0 "$study" 2>/dev/null; do :; done
if ((code == 130)) && ${again:-false}; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"

#!/usr/bin/env bash
# What the next minutes of a GPU run, in two calls of at most seven: the most telling first.
#   benchmarks/gpu.sh [--check] PART [OUT [STEP ...]]
# PART is 1, what the lanes' programs take, or 2, studies. Each step is a process with a limit of
# time, which writes its result as it comes; then OUT/gpu-PART.tgz and OUT/gpu-PART.tsv are written
# again, so that nothing is lost with a later step. A step that fails does not end the others: the
# last lines say which did, and then the exit status is 1.
# Needs the project installed, or its packages on PYTHONPATH, MNIST (CONVAE_DATA, or in a cache), no
# network. OUT is by default the variable of that name, or else benchmarks/results/gpu.
#   --check        every step in its smallest form, on the CPU and on noise: whether it works
#   TOTAL_SECONDS  for all steps together (default: 410)
#   PYTHON         the interpreter (default: python3)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

check=false
if [[ ${1:-} == --check ]]; then check=true; shift; fi
part=${1:-}
if [[ $part != [12] ]]; then echo "usage: benchmarks/gpu.sh [--check] 1|2 [OUT [STEP ...]]" >&2; exit 2; fi
shift
out=$(realpath -m "${1:-${OUT:-benchmarks/results/gpu}}"); shift || true
chosen=("$@")
total=${TOTAL_SECONDS:-410}
mnist=${XDG_CACHE_HOME:-$HOME/.cache}/convae/mnist.npz
[[ -z ${CONVAE_DATA:-} && -e $mnist ]] && export CONVAE_DATA=$mnist
work=$(mktemp -d) && mkdir -p "$out" || exit 2
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" XDG_CACHE_HOME=$work/cache  # nothing is warm
export TF_CPP_MIN_LOG_LEVEL=2

python=${PYTHON:-python3}
timed=("$python" -m benchmarks.lanes --no-fit)
compiled=("$python" -m benchmarks.lanes --compile-only --batches mixed)
study=("$python" -m benchmarks.engine_pace --real)
if $check; then
  export CUDA_VISIBLE_DEVICES=
  total=${TOTAL_SECONDS:-3000}  # of a machine that may be busy
  "$python" - "$work/noise.npz" << 'END' || exit 2
import sys

import numpy as np

noise = np.random.default_rng(0).integers(0, 256, (700, 28, 28), np.uint8)
np.savez(sys.argv[1], x_train=noise[:600], x_test=noise[600:])
END
  timed+=(--data "$work/noise.npz" --short --epochs 1); compiled+=(--data "$work/noise.npz" --short)
  study+=(--data "$work/noise.npz")
  # Conv takes long to compile: its step `proof` is for all.
  many=(--lanes 2); dense=(--models dense-512); conv=("${dense[@]}"); both=("${dense[@]}"); chunks=(64)
  study+=(--gpus 0 --lanes 2 --models dense --hidden 64 --epochs 1 --no-report)
  standard=(--preset standard --trials 1 --finalists 0)
  audit=(--preset audit --seeds 1 --no-readings --models dense)
else
  timed+=(--epochs 3)
  many=(--lanes 16); dense=(--models dense-512); conv=(--models conv); both=(--models conv dense-512)
  chunks=(64 128 256)
  study+=(--gpus 1)
  standard=(--preset standard); audit=(--preset audit --seeds 5)
fi
no_triton=--xla_gpu_enable_triton_gemm=false

# NAME LIMIT "XLA FLAGS" COMMAND...: LIMIT in seconds, or what is left of them.
step() {
  local name=$1 limit=$2 flags=$3 left=$((total - SECONDS)) start=$SECONDS code=0 result=ok
  shift 3
  $check && limit=600
  if ((${#chosen[@]})) && [[ " ${chosen[*]} " != *" $name "* ]]; then return; fi
  mkdir -p "$work/gpu-$part/$name"
  if ((left < 20)); then
    result="skipped: no time left"
  else
    echo "== $name: $flags $*"
    # A study that is interrupted ends its trials; what does not listen is killed. No pipe: a process
    # that is left behind would hold it open.
    local all="${XLA_FLAGS:+$XLA_FLAGS }$flags"  # to XLA, blanks alone are a file's name
    env ${all:+XLA_FLAGS="$all"} BENCHMARK_RESULTS="$work/gpu-$part/$name" \
      timeout --signal INT --kill-after 15 $((limit < left ? limit : left)) \
      "$@" > "$work/gpu-$part/$name/output.log" 2>&1 || code=$?
    ((code)) && result="failed: exit status $code"
    tail -n 20 "$work/gpu-$part/$name/output.log"
  fi
  [[ $result == ok ]] || failed+=("$name ($result)")
  printf '%s\t%s\t%s\t%s\n' "$name" "$result" $((SECONDS - start)) "$flags $*" >> "$work/gpu-$part/steps.tsv"
  tar -C "$work" --exclude '*.keras' --exclude '*.mlir' --exclude '*.ll' --exclude '*.o' \
    -czf "$work/packed" "gpu-$part" && mv "$work/packed" "$out/gpu-$part.tgz"
  cp "$work/gpu-$part/steps.tsv" "$out/gpu-$part.tsv"
}

failed=()
mkdir -p "$work/gpu-$part"
printf 'step\tresult\tseconds\tcommand\n' > "$work/gpu-$part/steps.tsv"
nvidia-smi > "$work/gpu-$part/nvidia-smi.txt" 2>&1

{  # read whole, whatever becomes of this file while it runs
if ((part == 1)); then
  # Does it compute what Keras does? In the plainest way first.
  step proof 70 "$no_triton" "${timed[@]}" --prove --lanes 2 --batches mixed
  # The forms of the conv model, its products by Triton and by cuBLAS; a search's lanes have chunks of 64.
  step conv 130 "" "${timed[@]}" --prove "${conv[@]}" "${many[@]}" --batches 256 --chunks 256 64
  step conv-no-triton 70 "$no_triton" "${timed[@]}" --prove "${conv[@]}" "${many[@]}" --batches 256
  step dense 100 "" "${timed[@]}" --prove "${dense[@]}" "${many[@]}" --batches mixed --chunks "${chunks[@]}"
  # One lane; then its loop as a CUDA graph.
  step one-lane 80 "" "${timed[@]}" --prove "${both[@]}" --lanes 1 --batches 256 --chunks 256
  step one-lane-graph 80 "--xla_gpu_enable_command_buffer=+WHILE" \
    "${timed[@]}" --prove "${both[@]}" --lanes 1 --batches 256 --chunks 256
  # Kernel by kernel, and XLA's files of them, for benchmarks.aot.
  step profile 80 "--xla_dump_to=$work/gpu-1/profile/xla --xla_dump_hlo_as_text \
--xla_gpu_collect_cost_model_stats=true" "${timed[@]}" --profile "${conv[@]}" "${many[@]}" --batches 256
  step conv-pixels 90 "" "${timed[@]}" "${conv[@]}" "${many[@]}" --batches 256 --forms pixels
else
  # The user's command, its lanes watched.
  step standard 190 "" "${study[@]}" "${standard[@]}" --storage "$work/gpu-2/standard"
  # What XLA tuned is kept, and what it compiled: neither there, the first, both.
  tuned="--xla_gpu_per_fusion_autotune_cache_dir=$work/tuned"; mkdir -p "$work/tuned"
  step cold 80 "$tuned" env CONVAE_XLA_CACHE=1 "${compiled[@]}" "${both[@]}" "${many[@]}"
  step tuned 60 "$tuned" env CONVAE_XLA_CACHE=0 "${compiled[@]}" "${both[@]}" "${many[@]}"
  step warm 40 "$tuned" env CONVAE_XLA_CACHE=1 "${compiled[@]}" "${both[@]}" "${many[@]}"
  # No tuning: what it gains in compiling and loses in training. Triton's products need tuning.
  step autotune 70 "--xla_gpu_autotune_level=0 $no_triton" "${timed[@]}" "${both[@]}" "${many[@]}" --batches 256
  step audit 220 "" "${study[@]}" "${audit[@]}" --storage "$work/gpu-2/audit"
fi
column -t -s $'\t' < "$out/gpu-$part.tsv" 2> /dev/null | cut -c 1-120 || cat "$out/gpu-$part.tsv"
((${#failed[@]})) || exit 0
printf 'FAILED: %s\n' "${failed[@]}"
exit 1
}

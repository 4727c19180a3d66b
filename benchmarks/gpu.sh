#!/usr/bin/env bash
# What a GPU must tell, in eight minutes of it: shortest and most telling first.
#   benchmarks/gpu.sh [--check] [OUT [STEP ...]]
# Each step writes OUT/STEP/ as it goes, and a line of OUT/steps.tsv; one that fails or takes too
# long does not stop the others, and one for which no time is left is skipped. OUT is by default
# benchmarks/results/gpu. Needs the project installed, MNIST (CONVAE_DATA, or in a cache), no network.
#   --check        every step in its smallest form, on the CPU: whether the script works
#   TOTAL_SECONDS  for all steps together (default: 480)
#   PYTHON         the interpreter (default: python3)
set -uo pipefail
cd "$(dirname "$0")/.." || exit

check=false
if [[ ${1:-} == --check ]]; then check=true; shift; fi
out=$(realpath -m "${1:-benchmarks/results/gpu}"); shift || true
if (($#)); then chosen=("$@"); else
  chosen=(lanes cold warm standard study autotune chunks audit)
fi
total=${TOTAL_SECONDS:-480}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

python=${PYTHON:-python3}
lanes=("$python" -m benchmarks.lanes)
timed=("${lanes[@]}" --at-once --no-fit --epochs 3)
compiled=(env CONVAE_XLA_CACHE=1 "${lanes[@]}" --compile-only --lanes 16 --batches mixed)
study=("$python" -m study.run --gpus 1 --no-report)
compared=("$python" -m benchmarks.study --gpus 1)
mixed=(--lanes 16 --batches mixed)
audit=(--preset audit --seeds 5)
standard=(--preset standard)
if $check; then
  timed+=(--short --models dense-512)
  compiled+=(--short --models dense-512 --lanes 2)
  mixed=(--lanes 2 --batches mixed)
  study=("$python" -m study.run --gpus 0 --no-report --models dense --hidden 64 --epochs 1)
  standard=(--preset standard --trials 1)
  audit=(--preset audit --seeds 1 --no-readings)
  compared=("$python" -m benchmarks.study --short)
  export CUDA_VISIBLE_DEVICES=
fi

# NAME LIMIT COMMAND...: LIMIT in seconds, or what is left of them.
step() {
  local name=$1 limit=$2 left=$((total - SECONDS - 10)) start=$SECONDS code=0
  shift 2
  [[ " ${chosen[*]} " == *" $name "* ]] || return 0
  if ((left < 20)); then
    printf '%s\tskipped\t0\t%s\n' "$name" "$*" >> "$out/steps.tsv"
    return 0
  fi
  mkdir -p "$out/$name"
  echo "== $name: $*"
  # A study that is interrupted ends its trials; what does not listen is killed. No pipe: a process
  # that is left behind would hold it open.
  BENCHMARK_RESULTS="$out/$name" timeout --signal INT --kill-after 10 $((limit < left ? limit : left)) \
    "$@" > "$out/$name/output.log" 2>&1 || code=$?
  tail -n 20 "$out/$name/output.log"
  printf '%s\t%s\t%s\t%s\n' "$name" "$code" $((SECONDS - start)) "$*" >> "$out/steps.tsv"
}

mkdir -p "$out"
# Programs of earlier runs would make the first compilations warm, so the cache is another one.
mnist=${XDG_CACHE_HOME:-$HOME/.cache}/convae/mnist.npz
[[ -z ${CONVAE_DATA:-} && -e $mnist ]] && export CONVAE_DATA=$mnist
XDG_CACHE_HOME=$(mktemp -d)
export XDG_CACHE_HOME
trap 'rm -rf "$XDG_CACHE_HOME"' EXIT
printf 'step\texit code\tseconds\tcommand\n' > "$out/steps.tsv"
nvidia-smi > "$out/nvidia-smi.txt" 2>&1 || true

# The ways to compute gradients, full lanes of mixed batch sizes.
step lanes 130 "${timed[@]}" "${mixed[@]}"
# Both models' programs in two threads, without earlier programs and with them.
step cold 80 "${compiled[@]}"
step warm 50 "${compiled[@]}"
# The user's command. It finds none of the programs above: its lanes are other ones.
step standard 170 "${study[@]}" "${standard[@]}" --storage "$out/standard"
# Against Ray Tune and model.fit.
step study 240 "${compared[@]}"
# Less tuning by XLA: what compiling gains and training loses.
step autotune 80 env XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=0" "${timed[@]}" "${mixed[@]}"
# One lane, and larger chunks.
step chunks 100 "${timed[@]}" --lanes 16 1 --batches 256 --chunks 256 64
step audit 360 "${study[@]}" "${audit[@]}" --storage "$out/audit"
cat "$out/steps.tsv"

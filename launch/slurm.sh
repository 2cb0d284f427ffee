#!/usr/bin/env bash
# Slurm: one torchrun on each of N nodes with 8 GPUs, started again in the queue until the run has ended.
#   sbatch --nodes 2 launch/slurm.sh
#   sbatch --nodes 2 --export=ALL,STAGE=sft,CONFIG=launch/configs/llama2_7b/sft.yaml launch/slurm.sh
# Submit it from the repository's root. Repository, environment, rows, base and output_dir lie on a file system that all nodes see.
# Five minutes before the time limit it stops the training and puts the job back into the queue; the next start goes on from the last
# checkpoint, so set train.save_steps. (Five: a step of the 7B config is most of a minute, and torchrun then waits 280 s for its processes.)
# Not run under Slurm so far: tests/test_two_nodes.py runs it with stand-ins for srun, scontrol and scancel.
#SBATCH --job-name=llama-gene
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail

STAGE="${STAGE:-pretrain}"                                       # pretrain, sft or classify
CONFIG="${CONFIG:-launch/configs/llama2_7b/pretrain.yaml}"       # names a train.deepspeed JSON
PROCESSES="${PROCESSES:-8}"                                      # of a node: its GPUs
TORCHRUN="${TORCHRUN:-.venv/bin/torchrun}"
PORT="${PORT:-29500}"                                            # free on the first node

NODES="$SLURM_JOB_NUM_NODES"
HOSTS="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
HOST="${HOSTS%%$'\n'*}"                                          # the first; `| head` would break the pipe, which pipefail sees
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(( (SLURM_CPUS_PER_TASK + PROCESSES - 1) / PROCESSES ))}"

if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then                   # back from the queue: `restart: true` of the config has been obeyed
  set -- "$@" --train.restart false
fi

stopped=no
stop() {
  stopped=yes
  scancel --signal=TERM "$SLURM_JOB_ID"                          # the steps only; each torchrun hands it on to its processes
}
trap stop TERM

srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" "$TORCHRUN" --nnodes "$NODES" --nproc_per_node "$PROCESSES" \
  --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$HOST:$PORT" --shutdown_timeout 280 \
  "launch/$STAGE.py" --config "$CONFIG" "$@" &
step=$!
code=0
wait "$step" || code=$?
if [ "$stopped" = yes ] && [ "$code" -gt 128 ]; then             # the signal ended this wait, not the step
  code=0
  wait "$step" || code=$?
fi
if [ "$stopped" = yes ] && [ "$code" -ne 0 ]; then               # 0: the run ended just then, and is not to begin again
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$code"

#!/usr/bin/env bash
# Launch one recipe, from any directory, on one node or on each node of a job.
#   bash finetune/launch.sh RECIPE.yaml [section.field=value ...] [--dry_run]
# Environment: NPROC (processes per node: all GPUs, or 1), NNODES (1), NODE_RANK (0), MASTER_ADDR, MASTER_PORT,
#              ACCELERATE_CONFIG (configs/accelerate/fsdp2.yaml on several GPUs, else none), PYTHON (.venv's, or python)
# Several nodes need one folder output_dir that all of them see. SIGTERM and SIGUSR1 write a checkpoint and end with 130.
set -euo pipefail
[[ -f "${1:-}" ]] && set -- "$(realpath "$1")" "${@:2}"    # a recipe may lie where the caller is;
cd "$(dirname "${BASH_SOURCE[0]}")/.."                     # every path in it is relative to the repository root
if [[ -z "${PYTHON:-}" ]]; then
    PYTHON=python
    [[ -x .venv/bin/python ]] && PYTHON=.venv/bin/python
fi
NNODES="${NNODES:-1}" NODE_RANK="${NODE_RANK:-0}"
MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" MASTER_PORT="${MASTER_PORT:-29500}"
gpus=$("$PYTHON" -c "import torch; print(torch.cuda.device_count())")
NPROC="${NPROC:-$(( gpus > 0 ? gpus : 1 ))}"
if [[ -n "${ACCELERATE_CONFIG:-}" ]] && { (( gpus == 0 )) || [[ ! -f "$ACCELERATE_CONFIG" ]]; }; then
    echo "error: ACCELERATE_CONFIG=$ACCELERATE_CONFIG: expected a file of configs/accelerate, and a GPU for it" >&2
    exit 2
fi
[[ -n "${ACCELERATE_CONFIG:-}" ]] || (( NPROC * NNODES > 1 )) || exec "$PYTHON" -m finetune.train "$@"
[[ " $* " == *" --dry_run "* ]] && exec "$PYTHON" -m finetune.train "$@"

if (( gpus > 0 )); then
    config="${ACCELERATE_CONFIG:-configs/accelerate/fsdp2.yaml}"
    if grep -q DEEPSPEED "$config" && ! "$PYTHON" -c "import deepspeed" 2>/dev/null; then
        echo "error: $config needs DeepSpeed: $PYTHON -m pip install deepspeed" >&2
        exit 2
    fi
    launcher=(accelerate.commands.launch --config_file "$config"
        --num_processes $(( NPROC * NNODES )) --num_machines "$NNODES" --machine_rank "$NODE_RANK"
        --main_process_ip "$MASTER_ADDR" --main_process_port "$MASTER_PORT" --module finetune.train)
else
    launcher=(torch.distributed.run --nproc_per_node "$NPROC" --nnodes "$NNODES" --node_rank "$NODE_RANK"
        --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" -m finetune.train)
fi
"$PYTHON" -m finetune.train "$@" --dry_run >/dev/null      # a mistake is told once, with its own exit code

# The launchers answer a signal by killing the processes, so it goes to these directly.
( trap '' USR1; exec "$PYTHON" -m "${launcher[@]}" "$@" ) &
pid=$! stopped=0
pass_on() { stopped=130; pkill -USR1 -P "$pid" || true; }
trap pass_on TERM USR1
trap 'stopped=130; kill -INT "$pid" || true' INT
code=0
wait "$pid" || code=$?
while kill -0 "$pid" 2>/dev/null; do code=0; wait "$pid" || code=$?; done    # a signal ends wait early
exit $(( code && stopped ? stopped : code ))    # a signal that came too early to be heard stopped nothing

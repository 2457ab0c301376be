#!/usr/bin/env bash
# Launch one recipe, from any directory, on one node or on each node of a job.
#   bash finetune/launch.sh RECIPE.yaml [section.field=value ...] [--dry_run]
# Environment: NPROC (processes per node: all GPUs, or 1), NNODES (1), NODE_RANK (0), MASTER_ADDR, MASTER_PORT,
#              ACCELERATE_CONFIG (configs/accelerate/fsdp2.yaml where there is a GPU), PYTHON (.venv's, or python)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."                # every path in a recipe is relative to the repository root
if [[ -z "${PYTHON:-}" ]]; then
    PYTHON=python
    [[ -x .venv/bin/python ]] && PYTHON=.venv/bin/python
fi
NNODES="${NNODES:-1}" NODE_RANK="${NODE_RANK:-0}"
MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" MASTER_PORT="${MASTER_PORT:-29500}"
gpus=$("$PYTHON" -c "import torch; print(torch.cuda.device_count())")
if (( gpus > 0 )); then
    NPROC="${NPROC:-$gpus}"
    config="${ACCELERATE_CONFIG:-configs/accelerate/fsdp2.yaml}"
    if grep -q DEEPSPEED "$config" && ! "$PYTHON" -c "import deepspeed" 2>/dev/null; then
        echo "error: $config needs DeepSpeed: $PYTHON -m pip install deepspeed" >&2
        exit 2
    fi
    (( NPROC * NNODES > 1 )) || exec "$PYTHON" -m finetune.train "$@"
    exec "$PYTHON" -m accelerate.commands.launch --config_file "$config" \
        --num_processes $(( NPROC * NNODES )) --num_machines "$NNODES" --machine_rank "$NODE_RANK" \
        --main_process_ip "$MASTER_ADDR" --main_process_port "$MASTER_PORT" --module finetune.train "$@"
fi
NPROC="${NPROC:-1}"
(( NPROC * NNODES > 1 )) || exec "$PYTHON" -m finetune.train "$@"
exec "$PYTHON" -m torch.distributed.run --nproc_per_node "$NPROC" --nnodes "$NNODES" --node_rank "$NODE_RANK" \
    --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" -m finetune.train "$@"

#!/usr/bin/env bash
# DOVE stage 2. Arguments override the recipe, and a first argument that ends in .yaml replaces it:
#   bash finetune/train_ddp_one_s2.sh [RECIPE.yaml] [train.lr=1.0e-6 ...]
recipe=configs/dove_s2.yaml
[[ "${1:-}" == *.yaml ]] && { recipe="$1"; shift; }
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" "$recipe" "$@"

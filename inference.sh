#!/usr/bin/env bash
# Restore and score the usual test sets, each against its own ground truth.
#   bash inference.sh [set ...]        default: all that are in datasets/test
# Environment: MODEL (pretrained_models/DOVE), OUTPUT (results/DOVE), PYTHON (python); further flags of inference_script.py: FLAGS.
set -euo pipefail
cd "$(dirname "$0")"
MODEL="${MODEL:-pretrained_models/DOVE}" OUTPUT="${OUTPUT:-results/DOVE}" PYTHON="${PYTHON:-python}"

# set       scale  scored against ground truth
TABLE="
UDM10       4      yes
SPMCS       4      yes
YouHQ40     4      yes
RealVSR     1      yes
MVSR4x      1      yes
VideoLQ     1      no
"

status=0
while read -r name scale scored; do
    [[ -n "$name" && ( $# == 0 || " $* " == *" $name "* ) ]] || continue
    input="datasets/test/$name/LQ-Video" truth="datasets/test/$name/GT-Video"
    if [[ ! -d "$input" ]]; then
        echo "$name: skipped, $input is not there" >&2
        [[ $# == 0 ]] || status=3
        continue
    fi
    # shellcheck disable=SC2086  # FLAGS is a list of words
    "$PYTHON" inference_script.py --input_dir "$input" --model_path "$MODEL" --output_path "$OUTPUT/$name" \
        --upscale "$scale" ${FLAGS:-} </dev/null || status=$?
    if [[ "$scored" == yes ]]; then
        "$PYTHON" eval_metrics.py --gt "$truth" --pred "$OUTPUT/$name" --metrics psnr,ssim </dev/null || status=$?
    fi
done <<<"$TABLE"
exit "$status"

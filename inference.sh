#!/usr/bin/env bash
# Restore and score the usual test sets, each against its own ground truth if it has one.
# Then: python -m vsr.metrics.table results/DOVE
#   bash inference.sh [set ...]        default: all that are in datasets/test
# Results are stored as the authors do for scores (YUV 4:4:4, CRF 0). SPMCS has 31 frames: hence --allow_short.
# Metrics need weights: `python eval_metrics.py --doctor` says which and where. Without: SCORED=psnr,ssim NO_REFERENCE= .
# Environment: MODEL (pretrained_models/DOVE), OUTPUT (results/DOVE), PYTHON (.venv's, or python), STORED (--save_format
#              yuv444p --crf 0); further flags of inference_script.py: FLAGS.
set -euo pipefail
cd "$(dirname "$0")"
MODEL="${MODEL:-pretrained_models/DOVE}" OUTPUT="${OUTPUT:-results/DOVE}"
if [[ -z "${PYTHON:-}" ]]; then
    PYTHON=python
    [[ -x .venv/bin/python ]] && PYTHON=.venv/bin/python
fi

# VideoLQ at 1, as the authors did (their issue 33; their script says 4).
# set       scale  metrics: against ground truth, of the result alone
TABLE="
UDM10       4      scored
SPMCS       4      scored
YouHQ40     4      scored
RealVSR     1      scored
MVSR4x      1      scored
VideoLQ     1      no-reference
"
SCORED="${SCORED-psnr,ssim,lpips,dists,clipiqa,fastervqa,dover,ewarp}"
STORED="${STORED:---save_format yuv444p --crf 0}"
NO_REFERENCE="${NO_REFERENCE-clipiqa,fastervqa,dover,ewarp}"

for wanted in "$@"; do
    if ! grep -q "^$wanted " <<<"$TABLE"; then
        echo "error: no set $wanted; known: $(awk '{print $1}' <<<"$TABLE" | xargs)" >&2
        exit 2
    fi
done

status=0
while read -r name scale kind; do
    [[ -n "$name" && ( $# == 0 || " $* " == *" $name "* ) ]] || continue
    input="datasets/test/$name/LQ-Video" truth="datasets/test/$name/GT-Video"
    if [[ ! -d "$input" ]]; then
        echo "$name: skipped, $input is not there" >&2
        [[ $# == 0 ]] || status=3
        continue
    fi
    [[ "$kind" == scored ]] && metrics="$SCORED" reference=(--gt "$truth") || { metrics="$NO_REFERENCE" reference=(); }
    if [[ -n "$metrics" ]] && ! found="$("$PYTHON" eval_metrics.py --doctor --metrics "$metrics" </dev/null)"; then
        echo "$name: nothing restored yet, since its scores would fail:" >&2
        echo "$found" >&2
        exit 5
    fi
    # shellcheck disable=SC2086  # both are lists of words
    "$PYTHON" inference_script.py --input_dir "$input" --model_path "$MODEL" --output_path "$OUTPUT/$name" \
        --upscale "$scale" $STORED ${FLAGS:-} </dev/null || status=$?
    if [[ -n "$metrics" ]]; then
        "$PYTHON" eval_metrics.py ${reference[@]+"${reference[@]}"} --pred "$OUTPUT/$name" --metrics "$metrics" \
            --allow_short </dev/null || status=$?
    fi
done <<<"$TABLE"
exit "$status"

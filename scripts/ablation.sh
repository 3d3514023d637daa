#!/usr/bin/env bash
# What each part of the method is worth, as in the paper's tables.
#   bash scripts/ablation.sh                                     the toy world
#   bash scripts/ablation.sh DATASET SPLIT_BY OUTPUT [flags]     a data set; flags as run_pipeline.sh takes them, without
#                                                                --stage1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [ $# -eq 0 ]; then
    source scripts/toy_settings.sh
    bash scripts/quickstart.sh # the whole method; finished before, it takes a second
    set -- refcocog umd output/toy_ablation "${TOY_DATA[@]}" --common "$TOY_COMMON"
    stage1="$TOY_STAGE1 --seed 0" whole=$(toy_output 0)
fi
[ $# -ge 3 ] || fail "give DATASET SPLIT_BY OUTPUT, or nothing for the toy world"
dataset=$1 split_by=$2 output=$3
shift 3

pipeline() { # OUTPUT "FLAGS OF STAGE 1" [--only STEPS]
    local folder=$1 flags=$2
    shift 2
    bash scripts/run_pipeline.sh "$dataset" "$split_by" "$folder" "${passed[@]}" --stage1 "${stage1:-} $flags" "$@"
}

passed=("$@")
pipeline "$output/classification" "--w1 0 --w5 0 --attn_multi 0" --only train_stage1,stage1,stage1_train
pipeline "$output/calibration" "--attn_multi 0" --only train_stage1,stage1,stage1_train
[ -n "${whole:-}" ] || { whole=$output/whole && pipeline "$whole" ""; }
python scripts/ablation_table.py "$output" "$whole"

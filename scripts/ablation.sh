#!/usr/bin/env bash
# What each part of the method is worth, as in the paper's tables.
#   bash scripts/ablation.sh                                     the toy world
#   bash scripts/ablation.sh DATASET SPLIT_BY OUTPUT [flags]     a data set; flags as run_pipeline.sh takes them, without
#                                                                --stage1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [ $# -eq 0 ]; then
    source scripts/toy_settings.sh
    [ -f data/toy/refer/refcocog/instances.json ] || fail "the toy world is not there; run: bash scripts/quickstart.sh"
    set -- refcocog umd output/toy_ablation "${TOY_DATA[@]}" --common "$TOY_COMMON" --irnet "$TOY_IRNET" \
        --stage2 "$TOY_STAGE2"
    stage1=$TOY_STAGE1
fi
[ $# -ge 3 ] || fail "give DATASET SPLIT_BY OUTPUT, or nothing for the toy world"
dataset=$1 split_by=$2 output=$3
shift 3

variant() { # NAME "FLAGS OF STAGE 1" [--only STEPS]
    local name=$1 flags=$2
    shift 2
    bash scripts/run_pipeline.sh "$dataset" "$split_by" "$output/$name" "${passed[@]}" --stage1 "${stage1:-} $flags" "$@"
}

passed=("$@")
variant classification "--w1 0 --w5 0 --attn_multi 0" --only train_stage1,stage1,stage1_train
variant calibration "--attn_multi 0" --only train_stage1,stage1,stage1_train
variant whole ""
python scripts/ablation_table.py "$output"

#!/usr/bin/env bash
# What each part of the method is worth, as in the paper's tables:
#   bash scripts/ablation.sh                                  on the toy world
#   bash scripts/ablation.sh DATASET SPLIT_BY OUTPUT [flags]  on a data set; flags of run_pipeline.sh other than --stage1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[[ " $* " != *" --help "* ]] || { usage && exit; }
stage1="" whole=""
if [ $# -eq 0 ]; then
    source "$REPOSITORY/scripts/toy_settings.sh"
    bash "$REPOSITORY/scripts/quickstart.sh" # the whole method
    set -- refcocog umd output/toy_ablation "${TOY_DATA[@]}" --common "$TOY_COMMON"
    stage1="$TOY_STAGE1 --seed 0" whole=$(toy_output 0)
fi
[ $# -ge 3 ] || fail "give DATASET SPLIT_BY OUTPUT, or nothing for the toy world"
data=("$1" "$2") output=$3 flags=("${@:4}")

variant() { # OUTPUT "FLAGS OF STAGE 1" [flags]
    bash "$REPOSITORY/scripts/run_pipeline.sh" "${data[@]}" "$1" "${flags[@]}" --stage1 "$stage1 $2" "${@:3}"
}

variant "$output/classification" "--w1 0 --w5 0 --attn_multi 0" --only train_stage1,stage1,stage1_train
variant "$output/calibration" "--attn_multi 0" --only train_stage1,stage1,stage1_train
[ -n "$whole" ] || { whole=$output/whole && variant "$whole" ""; }
python "$REPOSITORY/scripts/results_table.py" "$output/classification" "$output/calibration" "$whole"

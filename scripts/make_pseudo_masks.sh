#!/usr/bin/env bash
# Make pseudo masks from response maps:
#   bash scripts/make_pseudo_masks.sh DATASET SPLIT_BY [flags of IRNet/run_sample_refer.py]
# Reads output/DATASET_SPLITBY/cam and output/DATASET_SPLITBY/DATASET_train_names.json, as `validate.py --prms` writes
# them; the masks go to output/DATASET_SPLITBY/ins_seg. A run replaces all earlier masks; --resume continues an interrupted
# one. For ReferIt (referit -) the folder is output/referit; for photos of your own give --image_root FOLDER.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[[ " $* " != *" --help "* ]] || { usage && python "$REPOSITORY/IRNet/run_sample_refer.py" --help && exit; }
[ $# -ge 2 ] || fail "give a data set and who split it, for example: bash scripts/make_pseudo_masks.sh refcocog umd"
dataset=$1 dir=output/${1}_$2
dir=${dir%_-}
shift 2

case "$dataset" in
    referit) photos=data/referit/images ;;
    ref-zom) photos=data ;;
    phrasecut) photos=data/phrasecut/images ;;
    jsonl) [[ " $* " = *" --image_root"[\ =]* ]] || fail "for jsonl give --image_root FOLDER, where the photos are" ;;
esac

python "$REPOSITORY/IRNet/run_sample_refer.py" --cam_out_dir "$dir/cam" --ir_label_out_dir "$dir/ir_label" \
    --ins_seg_out_dir "$dir/ins_seg" --train_list "$dir/${dataset}_train_names.json" \
    --work_space "$dir/irnet" --image_root "${photos:-data/train2014}" \
    --cam_to_ir_label_pass True --train_irn_pass True --make_ins_seg_pass True "$@"

#!/usr/bin/env bash
# Response maps to pseudo masks: bash scripts/make_pseudo_masks.sh DATASET SPLIT_BY; further flags are passed on.
# Reads output/DATASET_SPLITBY/cam and .../DATASET_train_names.json, as validate.py --prms --cam_save_dir
# .../cam --name_save_dir ... writes them; the masks go to output/DATASET_SPLITBY/ins_seg. May be run again at any time.
# For ReferIt (referit -) that is output/referit. Photos of your own are in no fixed folder: give --image_root FOLDER.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ $# -ge 2 ] || fail "give a data set and who split it, for example: bash scripts/make_pseudo_masks.sh refcocog umd"
dataset=$1 dir=output/${1}_$2
dir=${dir%_-}
shift 2

case "$dataset" in
    referit) photos=data/referit/images ;;
    jsonl) [[ " $* " = *" --image_root"[\ =]* ]] || fail "for jsonl give --image_root FOLDER, where the photos are" ;;
esac

python IRNet/run_sample_refer.py --cam_out_dir "$dir/cam" --ir_label_out_dir "$dir/ir_label" \
    --ins_seg_out_dir "$dir/ins_seg" --train_list "$dir/${dataset}_train_names.json" --cam_eval_thres 0.15 \
    --work_space "$dir/irnet" --num_workers 8 --irn_batch_size 96 --image_root "${photos:-data/train2014}" \
    --cam_to_ir_label_pass True --train_irn_pass True --make_ins_seg_pass True "$@"

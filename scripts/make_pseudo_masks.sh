#!/usr/bin/env bash
# Make pseudo masks from response maps:
#   bash scripts/make_pseudo_masks.sh DATASET SPLIT_BY [flags of IRNet/run_sample_refer.py]
#   bash scripts/make_pseudo_masks.sh DATASET SPLIT_BY --cutter sam|irnet+sam [--sam NAME] [flags]
# Reads output/DATASET_SPLITBY/cam and output/DATASET_SPLITBY/DATASET_train_names.json, as `validate.py --prms` writes
# them; the masks go to output/DATASET_SPLITBY/ins_seg. A run replaces all earlier masks; --resume continues an interrupted
# one. For ReferIt (referit -) the folder is output/referit; for photos of your own give --image_root FOLDER. With --cutter SAM 2
# (requirements-sam.txt), which has been trained with masks, takes IRNet's place, or cuts IRNet's masks anew.
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

cutter=irnet sam=() of_both=() of_irnet=()
while [ $# -gt 0 ]; do
    case "$1" in
        --cutter=*) cutter=${1#*=} ;;
        --sam=*) sam=(--sam "${1#*=}") ;;
        --cutter | --sam | --num_workers | --image_root) [ $# -ge 2 ] || fail "$1 needs a value" ;;&
        --cutter) cutter=$2 && shift ;;
        --sam) sam=(--sam "$2") && shift ;;
        --num_workers | --image_root) of_both+=("$1" "$2") && shift ;;
        --num_workers=* | --image_root=* | --resume) of_both+=("$1") ;;
        *) of_irnet+=("$1") ;;
    esac
    shift
done
irnet_masks=$dir/irnet_seg
case "$cutter" in
    irnet)
        [ ${#sam[@]} = 0 ] || fail "--sam needs --cutter sam or --cutter irnet+sam"
        irnet_masks=$dir/ins_seg
        ;;
    sam) [ ${#of_irnet[@]} = 0 ] || fail "${of_irnet[0]} is IRNet's, which --cutter sam leaves out" ;;
    irnet+sam) sam+=(--irnet_masks "$irnet_masks") ;;
    *) fail "there is no --cutter '$cutter'; known are irnet, sam, irnet+sam" ;;
esac

folders=(--cam_out_dir "$dir/cam" --train_list "$dir/${dataset}_train_names.json" --work_space "$dir/irnet")
of_both=(--image_root "${photos:-data/train2014}" "${of_both[@]}")
[ "$cutter" = sam ] ||
    python "$REPOSITORY/IRNet/run_sample_refer.py" "${folders[@]}" --ir_label_out_dir "$dir/ir_label" \
        --ins_seg_out_dir "$irnet_masks" --cam_to_ir_label_pass True --train_irn_pass True --make_ins_seg_pass True \
        "${of_both[@]}" "${of_irnet[@]}"
[ "$cutter" = irnet ] ||
    python "$REPOSITORY/scripts/cut_pseudo_masks.py" "${folders[@]}" --ins_seg_out_dir "$dir/ins_seg" "${of_both[@]}" "${sam[@]}"

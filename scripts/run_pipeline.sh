#!/usr/bin/env bash
# Run the whole pipeline on a data set: stage 1, PRMS, IRNet, stage 2, and the evaluation of each.
#   bash scripts/run_pipeline.sh DATASET SPLIT_BY [OUTPUT] [flags]      refcoco unc, refcocog umd, referit -, jsonl -, ...
# Everything goes to OUTPUT (default: output/DATASET_SPLITBY); metrics, seconds and memory to OUTPUT/results.json.
#   --refer_data_root FOLDER   the data folder (default: ./data; for referit ./data/referit)
#   --splits NAMES             splits to evaluate, as val,test, or none (default: all but train)
#   --only STEPS               run only these, as train_stage1,stage1 (default: all that apply)
#   --common "FLAGS"           further flags of all training and evaluation scripts, as "--backbone toy"
#   --scorer NAME[=FILE]       the frozen CLIP of stage 1's losses and of PRMS (default: ViT-B/32)
#   --stage1 "FLAGS", --irnet "FLAGS", --stage2 "FLAGS"   of train_stage1.py, IRNet/run_sample_refer.py, train_stage2.py
# If interrupted, the same command resumes. A step whose command has changed runs again, with all that depends on it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

STEPS="untrained train_stage1 stage1 stage1_train stage1_prms_train irnet pseudo_masks_train train_stage2 stage2"

# --- What the user asks for

[[ " $* " != *" --help "* ]] || { usage && exit; }
positional=()
declare -A flags=()
while [ $# -gt 0 ]; do
    case $1 in
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --common | --stage1 | --irnet | --stage2 | --only | --splits | --refer_data_root | --data_root | --scorer)
            [ $# -ge 2 ] || fail "$1 needs a value; --help lists the flags"
            flags[${1#--}]=$2
            shift 2
            ;;
        --*) fail "unknown argument '$1'; --help lists the flags" ;;
        *) positional+=("$1") && shift ;;
    esac
done
[[ ${#positional[@]} = [23] ]] || fail "give DATASET SPLIT_BY [OUTPUT], for example refcocog umd"
dataset=${positional[0]} split_by=${positional[1]}
output=output/${dataset}_$split_by
output=${positional[2]:-${output%_-}}

only=${flags[only]:-$STEPS}
only=" ${only//,/ } "
for name in $only; do
    [[ " $STEPS " = *" $name "* ]] || fail "there is no step '$name'; known are $STEPS"
done

words() { # VARIABLE "FLAGS": split FLAGS into an array as a shell does, without running anything
    local split
    split=$(xargs -r -n 1 printf '%s\n' <<<"$2") || fail "cannot read the flags '$2'; check their quotes"
    mapfile -t "$1" < <(printf %s "$split")
}
for name in common stage1 irnet stage2; do words "$name" "${flags[$name]:-}"; done
scorer=(${flags[scorer]:+--scorer "${flags[scorer]}"})

facts=$(python scripts/data_set_facts.py "$dataset" "$split_by") || exit 2
read -r root photos annotated known <<<"$facts"
root=${flags[refer_data_root]:-${flags[data_root]:-$root}}
splits=${flags[splits]:-$known}
best=none # the split that the best epoch is chosen on, never a test split
[[ ",$splits," = *,val,* || ($annotated = 1 && ",$known," = *,val,*) ]] && best=val
shared=(--dataset "$dataset" --refer_data_root "$root")
[ "$split_by" = - ] || shared+=(--splitBy "$split_by")
shared+=("${common[@]}")

# --- How a step runs

mkdir -p "$output/steps" "$output/metrics" || fail "cannot write to $output; choose another OUTPUT"
exec 9>"$output/.lock" # a step that outlives this script, killed, keeps the lock
flock -n 9 || fail "another run is writing to $output; wait for it, or choose another OUTPUT"
find "$output" -name '.*.tmp' -delete # of killed runs

running="" # the name of a step
trap 'end_early TERM 143' TERM
trap 'end_early INT 130' INT

end_early() { # SIGNAL STATUS: let the running step end in an orderly way, then end the script
    trap '' TERM INT
    if [ -n "$running" ]; then
        [ "$1" = INT ] || kill -TERM $! 2>/dev/null || true # a terminal sends Ctrl-C to the step as well
        wait $! || true
        echo "${SCRIPT##*/}: interrupted in the step $running; the same command resumes there" >&2
    fi
    exit "$2"
}

step() { # NAME COMMAND ...: run a step, unless this very command has finished before
    # steps/NAME holds the command from when it begins; record_step.py adds steps/NAME.json when it has finished.
    local name=$1 begun=$output/steps/$1 finished=$output/steps/$1.json command later leftovers=() resume=() status=0
    [[ $only = *" $name "* ]] || return 0
    command=$(printf '%q ' python "${@:2}")
    case $name in # what an interrupted run leaves
        train_*) leftovers=("$output/${name#train_}/ckpt_last.pth") ;;
        irnet) leftovers=("$output"/{irnet,ir_label,ins_seg}) ;;
    esac
    if [ "$(cat "$begun" 2>/dev/null)" != "$command" ]; then
        rm -rf "${leftovers[@]}"
    elif [ -e "$finished" ]; then
        echo "$name: finished before"
        return
    elif [ -e "${leftovers:-}" ]; then
        resume=(--resume)
    fi
    rm -f "$finished"
    if [[ $name =~ ^(train_.*|stage1_prms_train|irnet)$ ]]; then # later steps read its files
        for later in ${STEPS#*"$name"}; do rm -f "$output/steps/$later"{,.json}; done
    fi
    printf %s "$command" >"$begun"

    echo "$name: $command${resume[*]}"
    running=$name
    # In the background, because only then does a signal reach this script at once; with Ctrl-C, which bash makes
    # background commands ignore.
    (trap - INT && exec python scripts/record_step.py "$output" "$name" python "${@:2}" "${resume[@]}") &
    wait $! || status=$?
    running=""
    [ "$status" = 0 ] || fail "the step $name ended with status $status, see above; then run the same command again"
}

validate() { # NAME SPLITS FLAGS ...
    step "$1" validate.py "${shared[@]}" --test_split "$2" --json "$output/metrics/$1.json" "${@:3}"
}

evaluate() { # NAME SPLITS FLAGS ...: only where there are masks to compare with
    [ "$splits" = none ] || [ "$2,$annotated" = train,0 ] || validate "$@"
}

train() { # STAGE FLAGS ...
    step "train_stage$1" "train_stage$1.py" "${shared[@]}" --test_split "$best" --output "$output/stage$1" "${@:2}"
}

# --- The steps

checkpoint=(--output "$output/stage1" --pretrain ckpt.pth)
evaluate untrained "$splits" --untrained
train 1 "${scorer[@]}" "${stage1[@]}"
evaluate stage1 "$splits" "${checkpoint[@]}"
evaluate stage1_train train "${checkpoint[@]}"
validate stage1_prms_train train "${checkpoint[@]}" --prms --cam_save_dir "$output/cam" --cam_format native \
    --name_save_dir "$output" "${scorer[@]}"
step irnet IRNet/run_sample_refer.py --train_list "$output/${dataset}_train_names.json" --cam_out_dir "$output/cam" \
    --ir_label_out_dir "$output/ir_label" --ins_seg_out_dir "$output/ins_seg" --work_space "$output/irnet" \
    --image_root "$root/$photos" --cam_to_ir_label_pass True --train_irn_pass True --make_ins_seg_pass True "${irnet[@]}"
evaluate pseudo_masks_train train --pseudo_path "$output/ins_seg"
train 2 --pseudo_path "$output/ins_seg" "${stage2[@]}"
evaluate stage2 "$splits" --output "$output/stage2" --pretrain ckpt.pth

[ ! -e "$output/results.json" ] || python scripts/results_table.py "$output"
echo "metrics, seconds and memory: $output/results.json"

# Sourced by train_stage1.sh, validate_stage1.sh, ...: the data set is in their first arguments.

read_data_set() { # [DATASET SPLIT_BY] ...: sets `dataset`, `split_by` and their `name`; `rest` are the other arguments
    dataset=refcocog split_by=umd rest=("$@")
    if [[ $# -gt 0 && $1 != -* ]]; then
        [[ $# -ge 2 && $2 != --* ]] || fail "give DATASET SPLIT_BY, for example refcocog umd, or referit -"
        dataset=$1 split_by=$2 rest=("${@:3}")
    fi
    name=${dataset}_$split_by
    name=${name%_-} # referit is split in one way only
}

validate_stage() { # STAGE [DATASET SPLIT_BY [CHECKPOINT]] [flags]
    local stage=$1 published checkpoint script=validate.py
    shift
    read_data_set "$@"
    published=stage${stage}_$dataset
    [ "$dataset" = refcocog ] && published+=_$split_by # the only one that is split in two ways
    checkpoint=weights/$published.pth
    if [[ ${#rest[@]} -gt 0 && ${rest[0]} != -* ]]; then
        checkpoint=${rest[0]} rest=("${rest[@]:1}")
    fi
    if [[ " ${rest[*]} " = *" --help "* ]]; then
        usage && echo
    elif [ ! -e "$checkpoint" ]; then
        fail "$checkpoint is not there; name another CHECKPOINT, or run: bash scripts/download_weights.sh $published"
    fi
    local data=(--dataset "$dataset" --splitBy "$split_by" --test_split val)
    [ "$dataset" != ref-zom ] || data[5]=test # it has no val
    if [ "$dataset" = referit ]; then
        script=validate_referit.py data=(--dataset referit --dataset_root ./data/referit --test_split test)
    fi
    python "$REPOSITORY/$script" --batch_size 1 --size 320 "${data[@]}" --max_query_len 20 --resume \
        --pretrain "$checkpoint" --eval "${rest[@]}"
}

train_stage() { # STAGE [DATASET SPLIT_BY] [flags]: with the published settings that both stages share
    local stage=$1 split=val root=./data
    shift
    [[ " ${rest[*]} " = *" --help "* ]] && usage && echo
    [[ $dataset = @(referit|ref-zom) ]] && split=none # they have no val, and the best epoch is not chosen on test
    [ "$dataset" = referit ] && root=./data/referit
    python "$REPOSITORY/train_stage$stage.py" --batch_size 48 --size 320 --dataset "$dataset" --splitBy "$split_by" \
        --refer_data_root "$root" --test_split "$split" --epoch 15 --backbone clip-RN50 --max_query_len 20 "$@" "${rest[@]}"
}

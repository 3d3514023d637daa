"""The pipeline's script: with a stand-in for the steps what runs when, and once for real on a very small toy world."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.conftest import ROOT, run
from tests.kill_anywhere import FLAGS, Run, differences
from toy.layouts import write_refcocog
from toy.photos import make_photos
from utils.files import write_json

STEPS = ["untrained", "train_stage1", "stage1", "stage1_train", "stage1_prms_train", "irnet", "pseudo_masks_train"]
STEPS += ["train_stage2", "stage2"]
METRICS = ["mIoU", "oIoU", "P@0.5", "PointM"]

# Stands first on the PATH: notes each step instead of running it, and a training whether an earlier one left its state.
PYTHON = r"""#!/usr/bin/env bash
set -- "${1#"$ROOT"/}" "${@:2}"
case $1 in
    scripts/results_table.py) exit ;;
    scripts/cut_pseudo_masks.py) ;;
    scripts/*) exec "$REAL" "$ROOT/$1" "${@:2}" ;;
esac
state=""
if [[ "$*" =~ ^train_.*--output\ ([^ ]+) ]]; then
    [ ! -e "${BASH_REMATCH[1]}/ckpt_last.pth" ] || state=" continues"
    install -D /dev/null "${BASH_REMATCH[1]}/ckpt_last.pth"
fi
echo "$*$state" >>"$FOLDER/ran"
[[ -z "$REFUSE" || ! "$* " =~ $REFUSE.*--resume ]] || exit 3
[[ ! "$*" =~ --json\ ([^ ]+) ]] || echo '{"test": {"mIoU": 50.0}}' >"${BASH_REMATCH[1]}"
[[ -z "$FAIL" || $* != *$FAIL* ]] || exit 7
if [[ -n "$SLEEP" && $* = *$SLEEP* ]]; then
    trap 'touch "$FOLDER/saved"; exit 130' INT
    echo $$ >"$FOLDER/pid"
    for _ in {1..600}; do sleep 0.1; done
fi
"""


class Stubbed:
    """The pipeline with stand-ins for its steps."""

    def __init__(self, folder, capsys):
        self.folder, self.output, self.capsys = folder, folder / "out", capsys
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").write_text(PYTHON)
        (folder / "bin" / "python").chmod(0o755)
        (self.output / "metrics").mkdir(parents=True)
        self.environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "ROOT": str(ROOT), "FOLDER": str(folder)}
        self.environment |= {"REAL": sys.executable, "VIRTUAL_ENV": "active", "FAIL": "", "SLEEP": "", "REFUSE": ""}

    def start(self, **environment):
        """In a process of its own, with the output in the folder that it is called from."""
        return subprocess.Popen(
            ["bash", ROOT / "scripts" / "run_pipeline.sh", "refcocog", "umd", "out"],
            cwd=self.folder,
            env=os.environ | self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words, data=("refcocog", "umd"), output=None, **environment):
        """In this process, which saves the start: exit status, the commands of the steps that ran, and errors."""
        words = (ROOT / "scripts" / "run_pipeline.py", *data, output or self.output, *words)
        with pytest.MonkeyPatch.context() as monkeypatch:
            for name, value in (self.environment | environment).items():
                monkeypatch.setenv(name, value)
            status, _, errors = run(*words, monkeypatch=monkeypatch, capsys=self.capsys)
        ran = self.folder / "ran"
        lines = ran.read_text().splitlines() if ran.exists() else []
        ran.unlink(missing_ok=True)
        return status, lines, errors


@pytest.fixture
def pipeline(tmp_path, capsys):
    return Stubbed(tmp_path, capsys)


def scripts(lines):
    return [line.split()[0] for line in lines]


def test_steps_run_in_order_and_once(pipeline):
    words = ("--splits", "test", "--common", "--model_ema", "--scorer=toy")  # flags that begin with a dash
    status, ran, errors = pipeline.run(*words)
    assert status == 0, errors
    after = ["IRNet/run_sample_refer.py", "validate.py", "train_stage2.py", "validate.py"]
    assert scripts(ran) == ["validate.py", "train_stage1.py", *["validate.py"] * 3, *after]
    assert all("--dataset refcocog --refer_data_root ./data --splitBy umd --model_ema" in line for line in ran[:5])
    assert ["--scorer toy" in line for line in ran].count(True) == 2  # stage 1 and PRMS
    assert "--test_split val --output" in ran[1]  # the best epoch is not chosen on test
    assert [line.endswith("/ins_seg --skip_missing") for line in ran].count(True) == 2
    results = json.loads((pipeline.output / "results.json").read_text())
    assert list(results) == STEPS
    assert results["stage2"].keys() == {"mIoU", "seconds", "peak_mb"}
    assert results["irnet"].keys() == {"seconds", "peak_mb"}
    assert pipeline.run(*words)[:2] == (0, [])
    shutil.copytree(pipeline.output, copied := pipeline.folder / "elsewhere", copy_function=shutil.copyfile)
    assert pipeline.run(*words, output=copied)[:2] == (0, [])
    assert list(json.loads((copied / "results.json").read_text())) == STEPS


def test_a_changed_command_runs_again_with_all_that_depends_on_it(pipeline):
    pipeline.run("--splits", "test")
    never = f"$(touch {pipeline.folder}/x)"  # flags are split as a shell does, but nothing of them is executed
    changed = ("--irnet", f"--beta 'a b' {never}", "--splits")
    status, ran, _ = pipeline.run(*changed, "test", FAIL="pseudo_path")
    assert status == 2
    assert scripts(ran) == ["IRNet/run_sample_refer.py", "validate.py"]
    assert ran[0].endswith(f"--beta a b {never}")
    assert not (pipeline.folder / "x").exists()
    assert "stage2" not in json.loads((pipeline.output / "results.json").read_text())  # it is of other pseudo masks
    _, ran, _ = pipeline.run(*changed, "test")
    assert scripts(ran) == ["validate.py", "train_stage2.py", "validate.py"]
    assert ran[1].endswith("--skip_missing")  # neither resumed, nor is the earlier training left to be resumed later
    _, ran, _ = pipeline.run(*changed, "val,test")
    assert scripts(ran) == ["validate.py"] * 3  # trainings do not depend on what is evaluated


@pytest.mark.parametrize("splits", ["test", "none"])
def test_mean_maps_take_the_place_of_those_that_prms_selects_and_back(splits, pipeline):
    for flags, flag in (((), "--prms"), (("--mean_map",), "--mean_map"), ((), "--prms")):
        _, ran, _ = pipeline.run("--splits", splits, *flags)
        (export,) = (line for line in ran if "--cam_save_dir" in line)
        assert flag in export and any("run_sample_refer" in line for line in ran[ran.index(export) :])
        assert any("--prms" in line for line in ran) == (splits == "test" or not flags)
        assert pipeline.run("--splits", splits, *flags)[:2] == (0, [])


def test_sam_takes_irnets_place_or_cuts_its_masks(pipeline):
    _, ran, _ = pipeline.run("--splits", "none", "--cutter", "irnet+sam", "--sam", "x")
    irnet, sam = (line for line in ran if "ins_seg_out_dir" in line)
    assert "/irnet_seg " in irnet and "/irnet_seg" in sam and "/ins_seg " in sam and "--sam x" in sam
    _, ran, _ = pipeline.run("--splits", "none", "--cutter", "sam")
    assert scripts(ran) == ["scripts/cut_pseudo_masks.py", "train_stage2.py"]


@pytest.mark.parametrize("step", ["train_stage1", "IRNet", "train_stage2"])
def test_an_interrupted_step_resumes_only_what_it_began(step, pipeline):
    words = ("--splits", "test")
    assert pipeline.run(*words)[0] == 0
    changed = (*words, "--common", "--size 96", "--irnet", "--beta 3")
    status, ran, errors = pipeline.run(*changed, FAIL=step)
    assert (status, "--resume" in ran[-1], "continues" in ran[-1]) == (2, False, False)  # of the run before
    assert "ended with status 7" in errors
    _, ran, _ = pipeline.run(*changed)
    assert ran[0].startswith(step) and "--resume" in ran[0]
    assert not any("--resume" in line for line in ran[1:])


@pytest.mark.parametrize("step", ["train_stage1", "IRNet", "train_stage2"])
def test_a_step_that_cannot_be_resumed_starts_over_once(step, pipeline):
    pipeline.run(FAIL=step)
    status, ran, _ = pipeline.run(FAIL=step)
    assert (status, len(ran)) == (2, 1)  # another mistake: nothing is thrown away
    status, ran, _ = pipeline.run(REFUSE=step)
    command, resume, _ = ran[0].partition(" --resume")
    assert (status, resume, ran[1]) == (0, " --resume", command)
    assert [line.startswith(step) for line in ran].count(True) == 2


def test_what_applies_without_any_mask(pipeline):
    _, ran, _ = pipeline.run("--splits", "none", data=("jsonl", "-"))
    names = ["train_stage1.py", "validate.py", "IRNet/run_sample_refer.py", "train_stage2.py"]
    assert scripts(ran) == names
    assert "--test_split none" in ran[0] and "--test_split none" in ran[-1]
    _, ran, _ = pipeline.run(data=("jsonl", "-"))
    assert not any("--pseudo_path" in line for line in ran if line.startswith("validate"))


@pytest.mark.parametrize(
    ("split_by", "words", "message"),
    [
        ("umd", ("--only", "stage1,stage3"), "there is no step 'stage3'; known are untrained, train_stage1"),
        ("umd", ("--mirror", "x"), "unrecognized arguments: --mirror x"),
        ("umd", ("--only",), "--only: expected one argument"),
        ("umd", ("--irnet", "it's"), "cannot read the flags"),
        ("umd", ("one", "more"), "unrecognized arguments: one more"),
        ("unc", (), "refcocog is not split by 'unc'"),
    ],
)
def test_mistakes_are_one_line(split_by, words, message, pipeline):
    status, ran, errors = pipeline.run(*words, data=("refcocog", split_by))
    assert (status, ran, message in errors, errors.count("\n")) == (2, [], True, 1)


@pytest.mark.parametrize(
    ("kind", "send", "status"),
    [(signal.SIGTERM, os.kill, 143), (signal.SIGINT, os.killpg, 130)],
    ids=["TERM", "Ctrl-C"],
)
def test_a_signal_reaches_the_step_and_nothing_is_left(kind, send, status, pipeline):
    process = pipeline.start(SLEEP="IRNet")
    while not (pipeline.folder / "pid").exists() and process.poll() is None:
        time.sleep(0.02)
    assert "another run is writing to" in pipeline.run()[2]
    send(process.pid, kind)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, (pipeline.folder / "saved").exists()) == (status, True)
    assert errors == "run_pipeline.py: interrupted in the step irnet; the same command resumes there\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((pipeline.folder / "pid").read_text()), 0)
    assert pipeline.run()[1][0].endswith("--resume")


@pytest.fixture
def script(tmp_path):
    """Runs a script from another folder: one of a copy, where `python` and the pipeline only print what they get."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", clone / "scripts")
    with (clone / "scripts" / "environment.sh").open("a") as environment:
        environment.write('need_environment() { :; }\npython() { echo "python ${1/#"$REPOSITORY"/CLONE}" "${@:2}"; }\n')
    (clone / "scripts" / "run_pipeline.sh").write_text('echo "pipeline $*"\n')

    def run(name, *words):
        command = ["bash", clone / "scripts" / name, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return run


@pytest.mark.parametrize(
    ("words", "file", "data"),
    [
        ((), "stage1_refcocog_umd", "--dataset refcocog --splitBy umd --test_split val"),
        (("refcocog", "google"), "stage1_refcocog_google", "--dataset refcocog --splitBy google --test_split val"),
        (("refcoco", "unc"), "stage1_refcoco", "--dataset refcoco --splitBy unc --test_split val"),
        (("referit", "-"), "stage1_referit", "--dataset referit --dataset_root ./data/referit --test_split test"),
    ],
)
def test_validation_is_of_the_published_checkpoints(words, file, data, script, tmp_path):
    status, _, errors = script("validate_stage1.sh", *words)
    hint = f"name another CHECKPOINT, or run: bash scripts/download_weights.sh {file}"
    assert (status, errors) == (2, f"validate_stage1.sh: weights/{file}.pth is not there; {hint}\n")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{file}.pth").touch()
    status, (command,), errors = script("validate_stage1.sh", *words, "--batch_size", "8")
    assert (status, errors) == (0, "")
    name = "validate_referit.py" if "referit" in words else "validate.py"
    flags = f"--max_query_len 20 --resume --pretrain weights/{file}.pth --eval --batch_size 8"
    assert command == f"python CLONE/{name} --batch_size 1 --size 320 {data} {flags}"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            "validate_stage2.sh refcocog umd weights/ckpt.pth",
            ["python CLONE/validate.py", "--pretrain weights/ckpt.pth --eval"],
        ),
        (
            "train_stage1.sh",
            ["python CLONE/train_stage1.py", "--output ./weights/refcocog_umd --board_folder ./output/board"],
        ),
        ("train_stage2.sh refcoco unc --lr 1e-4", ["--dataset refcoco --splitBy unc", "--lr 1e-4"]),
        ("train_stage2.sh refcoco unc", ["output/refcoco_unc/ins_seg --output ./weights/stage2/pseudo_refcoco_unc"]),
        ("make_pseudo_masks.sh refcocog umd", ["python CLONE/IRNet/run_sample_refer.py", " data/train2014"]),
        (
            "make_pseudo_masks.sh refcocog umd --cutter sam --sam x",
            ["cut_pseudo_masks.py", "refcocog_umd/ins_seg", "--sam x"],
        ),
        ("make_pseudo_masks.sh referit -", ["--train_list output/referit/referit_train_names.json", "referit/images"]),
        ("make_pseudo_masks.sh jsonl - --image_root mine", ["--cam_out_dir output/jsonl/cam", "--image_root mine"]),
    ],
)
def test_the_published_scripts_find_the_files_of_a_data_set(words, parts, script, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ckpt.pth").touch()
    _, (command,), _ = script(*words.split())
    assert not [part for part in parts if part not in command]


def test_every_data_set_in_data_is_checked(script, tmp_path):
    assert script("check_data.sh") == (2, [], "check_data.sh: data/ holds no data set; see data/README.md\n")
    for file in ("refer/refcocog/refs(umd).p", "referit/annotations/train.pickle"):
        (tmp_path / "data" / file).parent.mkdir(parents=True)
        (tmp_path / "data" / file).touch()
    status, printed, _ = script("check_data.sh")
    check = "python CLONE/scripts/check_data.py --dataset"
    refcocog = ["== refcocog (umd)", f"{check} refcocog --splitBy umd --refer_data_root ./data"]
    referit = ["== referit (-)", f"{check} referit --splitBy - --refer_data_root ./data/referit"]
    assert (status, printed) == (0, refcocog + referit)


def test_seeds_and_ablation_run_the_pipeline_several_times(script):
    _, printed, _ = script("seeds.sh", "0", "2")
    assert [line.split()[3] for line in printed if line.startswith("pipeline")] == ["output/toy", "output/toy_seed2"]
    assert printed[-1] == "python CLONE/scripts/results_table.py --mean output/toy output/toy_seed2"
    _, printed, _ = script("ablation.sh", "refcoco", "unc", "out", "--scorer", "toy")
    assert [line.split()[3] for line in printed[:-1]] == ["out/classification", "out/calibration", "out/whole"]
    assert all("--scorer toy --stage1" in line for line in printed[:-1])
    assert printed[-1] == "python CLONE/scripts/results_table.py out/classification out/calibration out/whole"


def test_reproduce_runs_each_step_that_it_announces_and_writes_the_rows(script, tmp_path):
    for name in ("download_data", "check_data", "download_weights", "validate_stage2"):
        (tmp_path / "clone" / "scripts" / f"{name}.sh").write_text(f'echo "{name} $*"\n')
    words = ("reproduce.sh", "refcoco", "unc", "out", "--common", "--amp bf16")
    (tmp_path / "out").mkdir()
    status, announced, errors = script(*words, "--dry")
    assert (status, errors, list((tmp_path / "out").iterdir())) == (0, "", [])
    assert any("Disk: " in line for line in announced)
    status, printed, errors = script(*words)
    assert (status, errors) == (0, "")
    ran = ["download_data coco refcoco", "check_data refcoco unc", "download_weights stage2_refcoco"]
    ran += ["validate_stage2 refcoco unc --test_split val,testA,testB --json out/published.json"]
    ran += ["pipeline refcoco unc out --common --amp bf16"]
    assert [line for line in printed if line in ran] == ran
    assert [line for line in printed if "#" in line] == [line for line in announced if "#" in line]
    call = "bash scripts/reproduce.sh refcoco unc out --common --amp\\ bf16"
    rows = f"python CLONE/scripts/results_table.py --rows {call} out"
    assert (tmp_path / "out" / "results.md").read_text() == f"{rows}\n"


@pytest.mark.parametrize(
    "name", ["ablation", "quickstart", "reproduce", "seeds", "test", "train_stage1", "validate_stage2"]
)
def test_help_is_the_comment_at_the_top(name, script):
    status, printed, errors = script(f"{name}.sh", "--help")
    assert (status, errors) == (0, "")
    assert any(f"bash scripts/{name}.sh" in line for line in printed)


MISTAKES = [
    "quickstart.sh --seeds 1",
    "quickstart.sh --seed x",
    "validate_stage2.sh refcocog",
    "reproduce.sh refcoco umd",
]


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_in_other_scripts_are_one_line(words, script):
    status, printed, errors = script(*words.split())
    assert (status, printed, errors.count("\n")) == (2, [], 1)


def test_tables(tmp_path, monkeypatch, capsys):
    for folder, value in (("a", 50.0), ("b", 60.0)):
        rows = {"stage2": {"mIoU": value, "seconds": 1.0, "peak_mb": 2}, "irnet": {"seconds": 1.0, "peak_mb": 2}}
        write_json(tmp_path / folder / "results.json", rows)
    table = [ROOT / "scripts" / "results_table.py", "a", "b"]
    _, printed, _ = run(*table, "--mean", monkeypatch=monkeypatch, capsys=capsys, folder=tmp_path)
    assert "| stage2 | 55.0 (50.0 to 60.0) | - | - | - |" in printed
    _, printed, _ = run(*table, monkeypatch=monkeypatch, capsys=capsys, folder=tmp_path)
    assert [line.split() for line in printed.splitlines()[1:]] == [["a:", "stage2", "50.00"], ["b:", "stage2", "60.00"]]
    write_json(tmp_path / "c" / "results.json", {"irnet": {"seconds": 1.0, "peak_mb": 2}})
    _, printed, _ = run(table[0], "c", monkeypatch=monkeypatch, capsys=capsys, folder=tmp_path)
    assert printed == "no metrics: nothing was evaluated\n"


def test_rows_for_the_table_of_results(tmp_path, monkeypatch, capsys):
    data = ["--dataset", "refcoco", "--splitBy", "unc", "--refer_data_root", "./data"]
    for folder, value in (("a", 30.0), ("b", 32.0)):
        evaluated = {"seconds": 60.0, "peak_mb": 2}
        steps = {"stage1": {"stage1_val": {"mIoU": value} | evaluated, "stage1_testA": {"mIoU": value} | evaluated}}
        steps["irnet"] = {"irnet": {"seconds": 3600.0, "peak_mb": 2}}
        steps["stage2"] = {"stage2_val": {"mIoU": value, "PointM": 50.0} | evaluated}
        for name, rows in steps.items():
            splits = ["--test_split", "val" if name == "stage2" else "val,testA"]
            write_json(tmp_path / folder / "steps" / f"{name}.json", {"command": [*data, *splits], "rows": rows})
        results = {row: values for rows in steps.values() for row, values in rows.items()}
        write_json(tmp_path / folder / "results.json", results)
    table = [ROOT / "scripts" / "results_table.py", "--rows", "x y", "a"]
    status, printed, errors = run(*table, "b", monkeypatch=monkeypatch, capsys=capsys, folder=tmp_path)
    assert status == 0, errors
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()]
    assert cells[0][:4] + cells[0][6:] == ["data set", "split", "stage", "cutter", "h:mm", *METRICS, "command"]
    mean, point = "31.0 (30.0 to 32.0)", "50.0 (50.0 to 50.0)"
    assert [row[:4] + row[6:] for row in cells[2:]] == [
        ["refcoco unc", "val", "stage1", "-", "0:01", mean, "-", "-", "-", "`x y`"],
        ["refcoco unc", "testA", "stage1", "-", "0:01", mean, "-", "-", "-", "`x y`"],
        ["refcoco unc", "val", "stage2", "IRNet", "1:02", f"{mean} (published: 31.17)", "-", "-", point, "`x y`"],
    ]
    _, printed, _ = run(*table, monkeypatch=monkeypatch, capsys=capsys, folder=tmp_path)
    assert printed.endswith("| 1:02 | 30.0 (published: 31.17) | - | - | 50.0 | `x y` |\n")


@pytest.mark.usefixtures("one_thread")
def test_from_photos_to_metrics_and_again_after_a_kill(tmp_path, monkeypatch, capsys):
    """With masks and, of your own photos, without any: the pipeline's commands in this process, to save their start."""
    toy = tmp_path / "world"
    write_refcocog(toy, make_photos(3, {"train": 3, "val": 1, "test": 1}))
    photos = [f"train2014/{file.name}" for file in sorted((toy / "train2014").iterdir())]
    lines = [{"image": photo, "sentences": [f"the {word} one", word]} for photo in photos for word in "ab"]
    (toy / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for data, splits in ((("jsonl", "-"), "none"), (("refcocog", "umd"), "test")):
        pipeline = Stubbed(tmp_path / data[0], capsys)
        _, commands, errors = pipeline.run("--data_root", toy, "--splits", splits, *FLAGS, data=data)
        assert len(commands) == {"none": 4, "test": len(STEPS)}[splits], errors
        for command in commands:
            status, _, errors = run(*command.split(), monkeypatch=monkeypatch, capsys=capsys)
            assert status == 0, errors
        names = json.loads((pipeline.output / f"{data[0]}_train_names.json").read_text())
        masks = {file.stem for file in (pipeline.output / "ins_seg").glob("*.png")}
        assert (masks, (pipeline.output / "stage2" / "ckpt.pth").is_file()) == (set(names), True)
    whole, killed = pipeline.output, tmp_path / "killed"
    parameters = torch.load(whole / "stage2" / "ckpt.pth", weights_only=True)["model"]
    for head in range(4):  # with a slope below 0 and weights below 0 its logits would be, too, whatever the photo
        weights = parameters[f"head.{head}.1.weight"]
        assert parameters[f"head.{head}.0.2.weight"] > 0 and weights.min() < 0 < weights.max()
    words = ["scripts/pipeline_picture.py", "--dataset", "refcocog", "--splitBy", "umd", "--data_root", toy]
    words += ["--output", whole, "--picture", tmp_path / "pipeline.png"]
    assert run(*words, monkeypatch=monkeypatch, capsys=capsys)[:2] == (0, f"{tmp_path / 'pipeline.png'}\n")
    assert (tmp_path / "pipeline.png").is_file()
    for file in (whole / "metrics").iterdir():
        ((_, metrics),) = json.loads(file.read_text()).items()
        assert {"mIoU", "oIoU", "P@0.5"} <= set(metrics)

    shutil.copytree(whole, killed)
    for folder in ("ir_label", "irnet", "ins_seg", "steps"):
        shutil.rmtree(killed / folder)
    first = Run(toy, killed, "--only", "irnet")
    assert first.reach(lambda: any((killed / "ir_label").glob("*.png")))
    first.kill()
    Run(toy, killed, "--only", "irnet").finish()
    assert differences(whole / "irnet", killed / "irnet") == []
    assert differences(whole / "ins_seg", killed / "ins_seg") == []
    cost = json.loads((killed / "results.json").read_text())["irnet"]
    assert cost["seconds"] > 0 and cost["peak_mb"] > 100

"""The pipeline's script: with a stand-in for the steps what runs when, and once for real on a very small toy world."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, run
from tests.kill_anywhere import FLAGS, Run, differences
from toy.layouts import write_refcocog
from toy.photos import make_photos
from utils.files import write_json

STEPS = ["untrained", "train_stage1", "stage1", "stage1_train", "stage1_prms_train", "irnet", "pseudo_masks_train"]
STEPS += ["train_stage2", "stage2"]

# Stands first on the PATH: notes each step instead of running it. Of the scripts around the steps, record_step.py is
# real; the others, which take seconds to start, are asked in tests of their own.
PYTHON = r"""#!/usr/bin/env bash
case "$*" in
    *data_set_facts.py\ refcocog\ umd) echo ./data train2014 1 val,test && exit ;;
    *data_set_facts.py\ jsonl\ -) echo ./data . 0 val && exit ;;
    *results_table.py*) exit ;;
    scripts/*) exec "$REAL" "$@" ;;
esac
echo "$*" >>"$FOLDER/ran"
[[ ! "$*" =~ --work_space\ ([^ ]+) ]] || mkdir -p "${BASH_REMATCH[1]}"
[[ ! "$*" =~ ^train_.*--output\ ([^ ]+) ]] || install -D /dev/null "${BASH_REMATCH[1]}/ckpt_last.pth"
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

    def __init__(self, folder):
        self.folder, self.output = folder, folder / "out"
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").write_text(PYTHON)
        (folder / "bin" / "python").chmod(0o755)

    def start(self, *words, data=("refcocog", "umd"), **environment):
        paths = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "VIRTUAL_ENV": "active"}
        paths |= {"REAL": sys.executable, "FOLDER": str(self.folder), "FAIL": "", "SLEEP": ""}
        return subprocess.Popen(
            ["bash", "scripts/run_pipeline.sh", *data, self.output, *words],
            cwd=ROOT,
            env=os.environ | paths | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words, **more):
        """Exit status, the commands of the steps that ran, and errors."""
        process = self.start(*words, **more)
        _, errors = process.communicate(timeout=120)
        ran = self.folder / "ran"
        lines = ran.read_text().splitlines() if ran.exists() else []
        ran.unlink(missing_ok=True)
        return process.returncode, lines, errors


@pytest.fixture
def pipeline(tmp_path):
    return Stubbed(tmp_path)


def test_steps_run_in_order_and_once(pipeline):
    status, ran, errors = pipeline.run("--splits", "test", "--common", "--backbone toy", "--scorer=toy")
    assert status == 0, errors
    scripts = ["validate.py", "train_stage1.py", *["validate.py"] * 3, "IRNet/run_sample_refer.py"]
    assert [line.split()[0] for line in ran] == [*scripts, "validate.py", "train_stage2.py", "validate.py"]
    assert all("--dataset refcocog --refer_data_root ./data --splitBy umd --backbone toy" in line for line in ran[:5])
    assert [line.endswith("--scorer toy") for line in ran].count(True) == 2  # stage 1 and PRMS
    assert "--test_split val --output" in ran[1]  # the best epoch is not chosen on test
    results = json.loads((pipeline.output / "results.json").read_text())
    assert list(results) == STEPS
    assert results["stage2"].keys() == {"mIoU", "seconds", "peak_mb"}
    assert results["irnet"].keys() == {"seconds", "peak_mb"}
    assert pipeline.run("--splits", "test", "--common", "--backbone toy", "--scorer=toy")[:2] == (0, [])


def test_a_changed_command_runs_again_with_all_that_depends_on_it(pipeline):
    pipeline.run("--splits", "test")
    never = f"$(touch {pipeline.folder}/x)"  # flags are split as a shell does, but nothing of them is executed
    changed = ("--irnet", f"--beta 'a b' {never}", "--splits")
    status, ran, _ = pipeline.run(*changed, "test", FAIL="pseudo_path")
    assert status == 2
    assert [line.split()[0] for line in ran] == ["IRNet/run_sample_refer.py", "validate.py"]
    assert ran[0].endswith(f"--beta a b {never}") and "--resume" not in ran[0]
    assert not (pipeline.folder / "x").exists()
    assert "stage2" not in json.loads((pipeline.output / "results.json").read_text())  # it is of other pseudo masks
    _, ran, _ = pipeline.run(*changed, "test")
    assert [line.split()[0] for line in ran] == ["validate.py", "train_stage2.py", "validate.py"]
    assert "--resume" not in ran[1]
    _, ran, _ = pipeline.run(*changed, "val,test")
    assert [line.split()[0] for line in ran] == ["validate.py"] * 3  # trainings do not depend on what is evaluated


@pytest.mark.parametrize("step", ["train_stage1", "IRNet", "train_stage2"])
def test_an_interrupted_step_resumes_only_what_it_began(step, pipeline):
    words = ("--splits", "test")
    assert pipeline.run(*words)[0] == 0
    changed = (*words, "--common", "--size 96", "--irnet", "--beta 3")
    status, ran, errors = pipeline.run(*changed, FAIL=step)
    assert (status, "--resume" in ran[-1]) == (2, False)  # of the run before, with other flags
    assert "ended with status 7" in errors
    _, ran, _ = pipeline.run(*changed)
    assert ran[0].startswith(step) and ran[0].endswith("--resume")
    assert not any("--resume" in line for line in ran[1:])


def test_what_applies_without_any_mask(pipeline):
    _, ran, _ = pipeline.run("--splits", "none", data=("jsonl", "-"))
    names = ["train_stage1.py", "validate.py", "IRNet/run_sample_refer.py", "train_stage2.py"]
    assert [line.split()[0] for line in ran] == names
    assert "--test_split none" in ran[0] and "--test_split none" in ran[-1]
    _, ran, _ = pipeline.run(data=("jsonl", "-"))
    assert not any("--pseudo_path" in line for line in ran if line.startswith("validate"))


@pytest.mark.parametrize(
    ("split_by", "words", "message"),
    [
        ("umd", ("--only", "stage1,stage3"), "there is no step 'stage3'; known are untrained train_stage1"),
        ("umd", ("--mirror", "x"), "unknown argument '--mirror'"),
        ("umd", ("--only",), "--only needs a value"),
        ("umd", ("--irnet", "it's"), "cannot read the flags"),
        ("umd", ("one", "more"), "give DATASET SPLIT_BY [OUTPUT]"),
        ("unc", (), "refcocog is not split by 'unc'"),
    ],
)
def test_mistakes_are_one_line(split_by, words, message, pipeline):
    status, ran, errors = pipeline.run(*words, data=("refcocog", split_by))
    assert (status, ran, message in errors.splitlines()[-1]) == (2, [], True)


@pytest.mark.parametrize(
    ("kind", "send", "status"),
    [(signal.SIGTERM, os.kill, 143), (signal.SIGINT, os.killpg, 130)],
    ids=["TERM", "Ctrl-C"],
)
def test_a_signal_reaches_the_step_and_nothing_is_left(kind, send, status, pipeline):
    process = pipeline.start(SLEEP="IRNet")
    for _ in range(3000):  # a minute
        if (pipeline.folder / "pid").exists():
            break
        time.sleep(0.02)
    assert "another run is writing to" in pipeline.run()[2]
    send(process.pid, kind)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, (pipeline.folder / "saved").exists()) == (status, True)
    assert errors.splitlines()[-1] == "run_pipeline.sh: interrupted in the step irnet; the same command resumes there"
    with pytest.raises(ProcessLookupError):
        os.kill(int((pipeline.folder / "pid").read_text()), 0)
    assert pipeline.run()[1][0].endswith("--resume")


@pytest.fixture
def script(tmp_path):
    """Runs a script of a copy of scripts/ in which `python` and the pipeline only print what they were given."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    with (tmp_path / "scripts" / "environment.sh").open("a") as environment:
        environment.write('need_environment() { :; }\npython() { echo "python $*"; }\n')
    (tmp_path / "scripts" / "run_pipeline.sh").write_text('echo "pipeline $*"\n')

    def run(name, *words):
        done = subprocess.run(["bash", tmp_path / "scripts" / name, *words], capture_output=True, text=True, timeout=60)
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
    assert command == f"python {name} --batch_size 1 --size 320 {data} {flags}"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("validate_stage2.sh refcocog umd weights/ckpt.pth", ["--pretrain weights/ckpt.pth --eval"]),
        ("train_stage1.sh", ["--output ./weights/refcocog_umd --board_folder ./output/board"]),
        ("train_stage2.sh refcoco unc --lr 1e-4", ["--dataset refcoco --splitBy unc", "--lr 1e-4"]),
        ("train_stage2.sh refcoco unc", ["output/refcoco_unc/ins_seg --output ./weights/stage2/pseudo_refcoco_unc"]),
        ("make_pseudo_masks.sh refcocog umd", ["--ins_seg_out_dir output/refcocog_umd/ins_seg", "data/train2014"]),
        ("make_pseudo_masks.sh referit -", ["--train_list output/referit/referit_train_names.json", "referit/images"]),
        ("make_pseudo_masks.sh jsonl - --image_root mine", ["--cam_out_dir output/jsonl/cam", "--image_root mine"]),
    ],
)
def test_the_published_scripts_find_the_files_of_a_data_set(words, parts, script, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ckpt.pth").touch()
    _, (command,), _ = script(*words.split())
    assert not [part for part in parts if part not in command]


def test_seeds_and_ablation_run_the_pipeline_several_times(script):
    _, printed, _ = script("seeds.sh", "0", "2")
    assert [line.split()[3] for line in printed if line.startswith("pipeline")] == ["output/toy", "output/toy_seed2"]
    assert printed[-1] == "python scripts/results_table.py --mean output/toy output/toy_seed2"
    _, printed, _ = script("ablation.sh", "refcoco", "unc", "out", "--scorer", "toy")
    assert [line.split()[3] for line in printed[:-1]] == ["out/classification", "out/calibration", "out/whole"]
    assert all("--scorer toy --stage1" in line for line in printed[:-1])
    assert printed[-1] == "python scripts/results_table.py out/classification out/calibration out/whole"


@pytest.mark.parametrize("name", ["ablation", "quickstart", "seeds", "test", "train_stage1", "validate_stage2"])
def test_help_is_the_comment_at_the_top(name, script):
    status, printed, errors = script(f"{name}.sh", "--help")
    assert (status, errors) == (0, "")
    assert any(f"bash scripts/{name}.sh" in line for line in printed)


@pytest.mark.parametrize("words", ["quickstart.sh --seeds 1", "quickstart.sh --seed x", "validate_stage2.sh refcocog"])
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


@pytest.mark.usefixtures("one_thread")
def test_from_photos_to_metrics_and_again_after_a_kill(tmp_path, monkeypatch, capsys):
    """With masks and, of your own photos, without any: the pipeline's commands in this process, to save their start."""
    toy = tmp_path / "world"
    write_refcocog(toy, make_photos(3, {"train": 3, "val": 1, "test": 1}))
    photos = [f"train2014/{file.name}" for file in sorted((toy / "train2014").iterdir())]
    lines = [{"image": photo, "sentences": [f"the {word} one", word]} for photo in photos for word in "ab"]
    (toy / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for data, splits in ((("jsonl", "-"), "none"), (("refcocog", "umd"), "test")):
        pipeline = Stubbed(tmp_path / data[0])
        _, commands, errors = pipeline.run("--data_root", toy, "--splits", splits, *FLAGS, data=data)
        assert len(commands) == {"none": 4, "test": len(STEPS)}[splits], errors
        for command in commands:
            status, _, errors = run(*command.split(), monkeypatch=monkeypatch, capsys=capsys)
            assert status == 0, errors
        names = json.loads((pipeline.output / f"{data[0]}_train_names.json").read_text())
        masks = {file.stem for file in (pipeline.output / "ins_seg").glob("*.png")}
        assert (masks, (pipeline.output / "stage2" / "ckpt.pth").is_file()) == (set(names), True)
    whole, killed = pipeline.output, tmp_path / "killed"
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

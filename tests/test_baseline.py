"""Claims about the verb: any callable, people and an incumbent in one run, and what is refused."""

import csv
import json
import shutil

import numpy as np
import onnx
import pytest
from commands import SHORT
from onnx import TensorProto, helper, numpy_helper

from distill.contract import CLASSES_KEY
from distill.files import read_json, sha256
from distill.run_folder import BASELINE_ANSWERS
from distill.training.baselines.features import pixels
from distill.training.baselines.heuristics import NearestCentroid
from distill.verbs.baselines.humans import VOTES

ONE = "baselines=[majority_class]"


def centroid_model(data, path, *, order=None, floats=False, named=False, sides=(8, 8)):
    """Write the nearest centroid as an ONNX file: x . c - |c|^2 / 2 is largest for the nearest."""
    seen = pixels(data.train.inputs)
    order = list(range(10)) if order is None else order
    centroids = np.stack([seen[data.train.labels == c].mean(axis=0) for c in order])
    shape = ["n", 1, *sides] if floats else ["n", *sides, 1]
    constants = {
        "scale": np.float32(1 if floats else 255),
        "weight": centroids.T.astype(np.float32),
        "bias": (-(centroids**2).sum(axis=1) / 2).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["c", "scale"], ["s"]),
        helper.make_node("Flatten", ["s"], ["f"]),
        helper.make_node("Gemm", ["f", "weight", "bias"], ["logits"]),
    ]
    kind = TensorProto.FLOAT if floats else TensorProto.UINT8
    graph = helper.make_graph(
        nodes,
        "centroids",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(order)])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if named:
        names = json.dumps([data.classes[c] for c in order])
        helper.set_model_props(model, {CLASSES_KEY: names})
    onnx.save(model, path)
    return path


def annotations(data, path, *, people=("ann", "bob"), count=200):
    """Let people label the first test samples; one of them is wrong every tenth time."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "annotator", "label", "seconds"])
        for number, who in enumerate(people):
            for i in range(count):
                label = data.test.labels[i]
                wrong = number == 0 and i % 10 == 0
                name = data.classes[(label + wrong) % 10]
                writer.writerow([data.test.indices[i], who, name, 1.5])
    return path


def test_a_rule_of_ones_own_and_a_column_stand_beside_ours(cli, data, tmp_path):
    (tmp_path / "mine_rule.py").write_text(
        "def rule(train, test, num_classes):\n    return (test.labels + 1) % num_classes\n"
    )
    lines = [f"{i},{label}" for i, label in zip(data.test.indices, data.test.labels, strict=True)]
    (tmp_path / "old.csv").write_text("\n".join(["index,prediction", *lines]) + "\n")
    ran = cli(
        "baseline", "baselines=[majority_class,predictions]", "baselines.predictions.path=old.csv",
        "+baselines.mine._target_=mine_rule.rule", "+baselines.mine._partial_=true", "run_dir=run",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    baselines = ran.document["baselines"]
    assert list(baselines) == ["majority_class", "predictions", "mine"]
    assert (ran.document["best"], baselines["mine"]["accuracy"]["estimate"]) == ("predictions", 0)
    gain = baselines["mine"]["gain_vs_best"]
    assert (gain["estimate"], gain["num_samples"]) == (-1, len(data.test))
    assert (ran.document["humans"], ran.document["incumbent"]) == (None, None)
    with np.load(tmp_path / "run" / BASELINE_ANSWERS) as arrays:
        np.testing.assert_array_equal(arrays["predictions"], data.test.labels)


def test_a_changed_rule_is_scored_again(cli, tmp_path):
    rule = tmp_path / "mine_changing.py"
    arguments = ("baseline", ONE, "+baselines.mine._target_=mine_changing.rule",
                 "+baselines.mine._partial_=true", "run_dir=run")  # fmt: skip
    rule.write_text("def rule(train, test, num_classes):\n    return test.labels\n")
    assert cli(*arguments).document["best"] == "mine"
    assert "baseline: unchanged, not run again" in cli(*arguments).stderr
    rule.write_text("def rule(train, test, num_classes):\n    return test.labels * 0 + 1\n\n")
    assert "baseline: unchanged, not run again" not in cli(*arguments).stderr


def test_people_have_figures_a_cost_and_pairs(cli, data, tmp_path):
    annotations(data, tmp_path / "said.csv")
    ran = cli("baseline", "humans=said.csv", "humans_cost_per_label=0.5", "run_dir=run")
    assert ran.code == 0, ran.stderr
    humans, score = ran.document["humans"], ran.document["humans"]["score"]
    assert (score["num_samples"], score["num_annotations"], score["num_ties"]) == (200, 400, 20)
    assert score["single"]["estimate"] == pytest.approx(0.95)
    accuracies = {who["name"]: who["accuracy"]["estimate"] for who in score["per_annotator"]}
    assert accuracies == pytest.approx({"ann": 0.9, "bob": 1.0})
    assert score["median_seconds"] == 1.5
    assert humans["cost_per_sample"] == {"single": 0.5, "majority": 1.0}
    assert humans["gain_vs_best"]["majority"]["num_samples"] == 200
    assert ran.document["best"] == "logistic_regression"  # people are no baseline
    assert "majority of humans" in ran.document["prospect"][0]
    assert "Cohen's kappa" in ran.stderr
    with np.load(tmp_path / "run" / VOTES) as arrays:
        assert (arrays["vote"][200:] == -1).all()
        assert (arrays["vote"][:200] == data.test.labels[:200]).sum() == round(
            200 * score["majority"]["estimate"]
        )


def test_several_people_hand_in_a_file_each(cli, data, tmp_path):
    for who in ("ann", "bob"):
        annotations(data, tmp_path / f"{who}.csv", people=(who,))
    ran = cli("baseline", ONE, "humans=[ann.csv,bob.csv]")
    assert ran.code == 0, ran.stderr
    assert ran.document["humans"]["score"]["num_annotations"] == 400


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["humans=nowhere.csv"], 1, "nowhere.csv but there is none"),
        (["humans=others.csv"], 1, "does not have: 99999"),
        (["against=nowhere.onnx"], 1, "Expected an ONNX file at nowhere.onnx"),
        (["against=others.csv"], 1, "Expected an ONNX model at others.csv"),
        (["baselines=[]"], 2, "Expected `baselines` with names"),
        (["baselines=[predictions]"], 2, "Expected a value for `baselines.predictions.path`"),
        (["+baselines.incumbent._target_=x.y"], 2, "besides `incumbent`"),
        (["+baselines.mine._target_=nowhere.rule"], 2, "nowhere.rule"),
        (["+baselines.mine._target_=broken_rule.rule"], 2, "missing 3 required positional"),
        (
            ["+baselines.mine={_target_:broken_rule.lookup,_partial_:true}"],
            1,
            "`mine` but it ended with KeyError: 'absent' (broken_rule.py, line 5)",
        ),
        (
            ["+baselines.mine={_target_:broken_rule.rule,_partial_:true}"],
            1,
            "ValueError: out of ideas",
        ),
        (["annotate", "n=720"], 2, "from 1 to the 719 test samples of digits but got 720"),
        (["annotate", "n=0"], 2, "but got 0"),
        (["annotate", "n=many"], 2, "but got many"),
    ],
)
def test_what_is_wrong_is_one_message(cli, tmp_path, arguments, code, message):
    (tmp_path / "others.csv").write_text("index,label\n99999,3\n")
    (tmp_path / "broken_rule.py").write_text(
        "def rule(train, test, num_classes):\n    raise ValueError('out of ideas')\n\n"
        "def lookup(train, test, num_classes):\n    return {}['absent']\n"
    )
    action = arguments[:1] if arguments[0] == "annotate" else []
    few = [] if any(a.startswith("baselines=") for a in arguments) else [ONE]
    ran = cli("baseline", *action, *few, *arguments[len(action) :])
    assert message in ran.stderr
    assert ran.code == code
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "arguments"),
    [
        ({}, []),
        ({"order": [3, 1, 4, 0, 5, 9, 2, 6, 8, 7], "named": True}, []),
        ({"floats": True}, ["incumbent.mean=[0.0]", "incumbent.std=[1.0]"]),
        ({"floats": True, "sides": ("h", "w")}, ["incumbent.mean=[0.0]", "incumbent.std=[1.0]"]),
    ],
)
def test_an_incumbent_of_any_kind_is_scored_and_timed(cli, data, tmp_path, made, arguments):
    path = centroid_model(data, tmp_path / "old teacher.onnx", **made)
    ran = cli("baseline", ONE, f"against='{path}'", "run_dir=run", *arguments)
    assert ran.code == 0, ran.stderr
    found = ran.document["incumbent"]
    assert (found["artefact"], found["sha256"]) == (str(path), sha256(path))
    assert found["p95_latency_ms"]["estimate"] > 0
    assert found["size_bytes"] == path.stat().st_size
    assert ran.document["best"] == "incumbent"
    assert ran.document["baselines"]["incumbent"] == found
    truth = NearestCentroid().fit(data.train, 10).answer(data.test.inputs)
    with np.load(tmp_path / "run" / BASELINE_ANSWERS) as arrays:
        assert arrays["incumbent"].dtype == np.int64
        np.testing.assert_array_equal(arrays["incumbent"], truth)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"floats": True}, "`incumbent.mean` and `incumbent.std`"),
        ({"order": [0, 1, 2]}, "to answer for 10 classes but it answers for 3"),
        ({"order": [0, 1, 2], "named": True}, "it lacks `3`, `4`"),
    ],
)
def test_an_incumbent_of_other_classes_or_inputs_is_refused(cli, data, tmp_path, made, message):
    path = centroid_model(data, tmp_path / "teacher.onnx", **made)
    ran = cli("baseline", ONE, f"against={path}")
    assert ran.code == 1, ran.stderr
    assert message in ran.stderr
    assert f"The incumbent {path} (`against=`) cannot be asked" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_teacher_that_is_at_hand_is_in_the_prospect(cli, data, tmp_path):
    path = centroid_model(data, tmp_path / "teacher.onnx")
    ran = cli("baseline", ONE, "teacher=onnx", f"teacher.path={path}")
    assert ran.code == 0, ran.stderr
    assert "89.3 % (teacher)" in ran.document["prospect"][0]
    index = data.train.indices  # and none of the test set
    np.savez(tmp_path / "a.npz", index=index, logits=np.eye(10)[data.train.labels])
    ran = cli("baseline", ONE, "teacher=predictions", "teacher.path=a.npz", "views=none")
    assert "not known on this set" in ran.document["prospect"][0]
    assert "not trained yet" in cli("baseline", ONE).document["prospect"][0]


def test_a_sample_is_drawn_at_random_and_shows_no_label(cli, data, tmp_path):
    ran = cli("baseline", "annotate", "n=50", "run_dir=run")
    assert ran.code == 0, ran.stderr
    folder = tmp_path / "run/annotate"
    sample, tasks = read_json(folder / "sample.json"), read_json(folder / "tasks.json")
    drawn = sample["indices"]
    assert len(set(drawn)) == 50
    assert set(drawn) <= set(data.test.indices.tolist())
    assert drawn != sorted(drawn)
    assert sample["inclusion_probability"] == 50 / 719
    assert sample["fingerprint"] == data.fingerprint
    assert [task["data"]["index"] for task in tasks] == drawn
    assert all(set(task) == {"data"} and set(task["data"]) == {"index", "image"} for task in tasks)
    html = (folder / "page.html").read_text()
    assert all(task["data"]["image"] in html for task in tasks)
    assert "http:" not in html
    assert "https:" not in html
    again = cli("baseline", "annotate", "n=50", "run_dir=again")
    assert read_json(tmp_path / "again/annotate/sample.json")["indices"] == drawn
    other = cli("baseline", "annotate", "n=50", "seed=1", "run_dir=other")
    assert read_json(tmp_path / "other/annotate/sample.json")["indices"] != drawn
    everything = cli("baseline", "annotate", "run_dir=everything")
    assert everything.document["num_drawn"] == 719  # all there are, as they are fewer than 1,000
    assert (again.code, other.code, everything.code) == (0, 0, 0)


def test_answers_of_the_sample_are_read_back(cli, data, tmp_path):
    assert cli("baseline", "annotate", "n=60", "run_dir=run").code == 0
    drawn = read_json(tmp_path / "run/annotate/sample.json")["indices"]
    truth = dict(zip(data.test.indices.tolist(), data.test.labels.tolist(), strict=True))
    export = [
        {
            "data": {"index": index},
            "annotations": [
                {
                    "result": [{"value": {"choices": [data.classes[truth[index]]]}}],
                    "was_cancelled": number < 10,
                    "completed_by": 1,
                }
            ],
        }
        for number, index in enumerate(drawn)
    ]
    (tmp_path / "export.json").write_text(json.dumps(export))
    ran = cli("baseline", ONE, "humans=export.json")
    assert ran.code == 0, ran.stderr
    score = ran.document["humans"]["score"]
    assert (score["num_samples"], score["num_left_out"]) == (50, 10)
    assert score["majority"]["estimate"] == 1
    assert 0.9 < score["majority"]["interval"][0] < 0.95  # Wilson: 50 of 50


@pytest.mark.slow
def test_a_student_that_shipped_is_as_good_an_incumbent_as_its_evaluation_says(finished, cli):
    run_dir, _ = finished
    ran = cli("baseline", ONE, f"against={run_dir / 'export/model.int8.onnx'}")
    assert ran.code == 0, ran.stderr
    evaluated = read_json(run_dir / "evaluate.json")["models"]["student_int8"]
    assert ran.document["incumbent"]["accuracy"] == evaluated["accuracy"]
    assert ran.document["incumbent"]["nll"]["estimate"] == pytest.approx(
        evaluated["nll"]["estimate"], rel=1e-4
    )


@pytest.mark.slow
def test_a_pipeline_is_held_against_the_incumbent_and_shows_people(finished, cli, data, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    path = centroid_model(data, tmp_path / "old.onnx")
    annotations(data, tmp_path / "said.csv")
    arguments = ("pipeline", "run_dir=run", *SHORT, f"against={path}", "humans=said.csv")
    ran = cli(*arguments)
    assert ran.code in (0, 3, 4), ran.stderr
    assert "train/student: unchanged" in ran.stderr  # known beside it, not trained on it
    checks = [c for c in ran.document["checks"] if c["name"] == "gain_vs_incumbent"]
    margins = read_json(tmp_path / "run/evaluate.json")["margins"]
    assert len(checks) == len(margins)
    assert [c["measured"] for c in checks] == [
        own["gain_vs_incumbent"]["estimate"] for own in margins.values()
    ]
    assert margins["student"]["gain_vs_humans"]["num_samples"] == 200
    models = ran.document["models"]
    assert (models["incumbent"]["name"], models["humans"]["name"]) == ("old.onnx", "majority")
    report = (tmp_path / "run/report.md").read_text()
    assert "| incumbent |" in report
    assert "| humans: majority (200 samples) |" in report
    assert "points to gain" in report or "nothing to gain" in report
    again = cli(*arguments)
    assert "nothing was run" in again.stderr
    path.write_bytes(path.read_bytes()[:100])
    assert "Expected an ONNX model at" in cli(*arguments).stderr

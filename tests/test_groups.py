"""Claims about rows that depend on each other: a whole run of a table of few groups with names."""

import numpy as np
import pytest
from commands import SHORT

from distill.files import read_json


@pytest.mark.slow
def test_a_table_whose_test_set_is_one_named_group_is_judged_and_claims_nothing(cli, tmp_path, rng):
    sites = np.repeat(["Ulm", "Köln", "Bonn", "Kiel", "Jena", "Trier", "Gera"], 50)
    age = rng.normal(40, 12, 350)
    labels = np.where(age + rng.normal(0, 5, 350) > 40, "yes", "no")
    rows = [f"{a:.1f},{site},{label}" for a, site, label in zip(age, sites, labels, strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(["age,site,label", *rows]))
    given = ("experiment=table_ensemble", "data=table", "data.path=own.csv", "data.label=label")
    given += ("teacher=mlp", "quantize=none", "preflight=false", "data.group=site")
    ran = cli("pipeline", *given, "run_dir=run", *SHORT)
    assert ran.code in (3, 4), ran.stderr  # of one site nothing is known of others
    found = read_json(tmp_path / "run/evaluate.json")["models"]["student"]
    assert found["accuracy"]["estimate"] > 0.6
    assert found["accuracy"]["interval"] == [None, None]
    assert found["agreement_with_teacher"]["interval"] == [None, None]
    assert "unknown" in (tmp_path / "run/report.html").read_text()


def test_people_who_are_wrong_on_whole_groups_are_held_against_as_many_groups(cli, tmp_path, rng):
    age, sites = rng.normal(40, 12, 800), np.repeat(np.arange(40), 20)
    labels = np.where(age > 40, "yes", "no")
    rows = [f"{a:.6f},site {s},{own}" for a, s, own in zip(age, sites, labels, strict=True)]
    (tmp_path / "own.csv").write_text("\n".join(["age,site,label", *rows[:400]]))
    (tmp_path / "test.csv").write_text("\n".join(["age,site,label", *rows[400:]]))
    says_yes = (labels == "yes") ^ (sites % 2 == 1)  # on every other site
    said = [f"{i},ann,{'yes' if says_yes[i] else 'no'}" for i in range(400, 800)]
    (tmp_path / "said.csv").write_text("\n".join(["index,annotator,label", *said]))
    ran = cli(
        "baseline", "experiment=table_ensemble", "data=table", "data.path=own.csv",
        "data.test_path=test.csv", "data.label=label", "data.group=site", "humans=said.csv",
        "baselines=[majority_class]", "run_dir=run",
    )  # fmt: skip
    assert ran.code == 0, ran.stderr
    humans = ran.document["humans"]
    assert humans["score"]["num_samples"] == 400
    expected = 1.96 * 0.5 / np.sqrt(20)  # 20 sites, each right or wrong; 0.05 were it 400 rows
    gains, score = humans["gain_vs_best"], humans["score"]
    for found in (score["single"], score["majority"], score["per_annotator"][0]["accuracy"]):
        assert found["estimate"] == 0.5
        assert np.ptp(found["interval"]) / 2 == pytest.approx(expected, rel=0.15)
    for found in (gains["single"], gains["majority"]):
        assert np.ptp(found["interval"]) / 2 > 0.8 * expected

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

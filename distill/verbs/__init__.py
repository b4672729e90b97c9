"""One module per verb: `run(cfg) -> dict`. The only place that knows every wing, and Hydra.

Folders hold what verbs are made of, and import downwards: `run`, `production`, `learning`,
`exporting`, `baselines`, then `stages` and `searching`, which call whole verbs. `rows` and
`console` stand aside.
"""

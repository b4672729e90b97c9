"""One module per verb: `run(cfg) -> dict`. The only place that knows every wing, and Hydra.

Folders hold what verbs share, and import downwards: `run`, `production`, `learning`, `exporting`,
`baselines`, `stages`, then `searching`; `rows` and `console` stand aside.
"""

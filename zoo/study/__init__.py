"""A study: a plan that is committed before its first run, and the queue of its trainings.

`plan` reads the TOML file, `cells` says in which order its trainings are done and where each lies,
`runner` tunes, trains and scores them. What the results say is `transfer-eval study`'s.
"""

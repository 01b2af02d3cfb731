"""Models that are neither folders nor repositories: see `eval.models.plugs`."""

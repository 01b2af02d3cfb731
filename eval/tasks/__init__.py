"""The declared data sets: their facts, the registry and its suites, task strings."""

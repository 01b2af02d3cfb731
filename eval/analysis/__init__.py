"""Why do some representations transfer better? Measures on features, pure."""

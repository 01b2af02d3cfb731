"""Models that somebody asked to be scored: request, rules, two places to keep them, worker."""

"""Arrays in, numbers out: scores, intervals, paired tests."""

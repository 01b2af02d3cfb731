"""Results in a data set repository of the Hub: read, push, review, merge."""

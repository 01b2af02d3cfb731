"""The embedded suite: facts, painters and files of tasks that need no download."""

"""Where readings go besides their files: one module a tracker, imported when it is called.

A sink is any function of a step and ``{"probe/TASK/PROTOCOL/SCORE": value}``.
"""

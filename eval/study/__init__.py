"""What a study of many trainings says: its committed results, tested as its plan laid down.

`table` is the file that `transfer-zoo study collect` writes, `verdict` the tests, `show` and
`figure` how they are read. `transfer-eval study FILE` prints all of it from the file alone.
"""

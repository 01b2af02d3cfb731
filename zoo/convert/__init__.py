"""Others' checkpoints -> a folder like ours."""

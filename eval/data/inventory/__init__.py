"""What a source of one's own data holds: found, taken, left out and why, and what was decided.

Every reader fills an ``Inventory``; ``check-task`` shows it and ``run`` warns by it.
"""

"""Tries to lose results, to cheat and to trick, by the hundred: ``python -m tests.campaign``.

Each kind is a module with ``campaign(place, seed, least) -> Outcome`` and a row in ``__main__``.
"""

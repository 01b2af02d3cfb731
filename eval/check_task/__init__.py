"""A data set looked over before it is scored: facts, wording, sheets."""

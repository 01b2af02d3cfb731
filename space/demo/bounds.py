"""What a visitor may ask of the demo: fewest and most of everything."""

WAYS = (2, 10)  # classes
SHOTS = (1, 20)  # pictures of a class
QUERIES = (0, 20)  # pictures to recognise
MODELS = (1, 10)
NAMED = (0, 3)  # of these, models that do not ship here: each may be large

"""How good are the features now? Readings of a network while it trains."""

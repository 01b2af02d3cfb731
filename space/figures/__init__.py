"""Tables and findings -> plotly figures: pure."""

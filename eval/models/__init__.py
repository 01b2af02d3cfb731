"""Model string -> identity -> backbone; names of objectives."""

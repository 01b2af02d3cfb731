"""One module a page: components and events only; what they show is made by pure functions."""

"""Backbone x task -> feature bank: encode, precision, bank, cache."""

"""Labelling records again, on purpose: chosen, counted, published once each, marked."""

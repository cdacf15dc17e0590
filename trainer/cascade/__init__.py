"""Binding published adapters into a cascade, by what they answered on the same messages."""

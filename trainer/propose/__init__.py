"""The next adapter: a new version of its dataset, trained, compared, and put to a person."""

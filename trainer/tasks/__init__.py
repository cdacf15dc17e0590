"""Make labelling tasks, choosing the messages whose labels help most."""

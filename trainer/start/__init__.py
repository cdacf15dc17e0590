"""``clerk-trainer start``: from files of labelled messages to a judged model, in one folder."""

"""The trainer's files, each with one model that its writer and readers share."""

"""Shared by the programs: settings, logs, Kafka logins, errors."""

"""What the programs would otherwise copy: settings, logs, Kafka logins, errors, process."""

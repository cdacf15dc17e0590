"""From Kafka into the database: labels to look at, and the texts they are about."""

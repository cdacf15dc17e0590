"""A new adapter without a restart: found, verified, tried, handed to the loop, or refused."""

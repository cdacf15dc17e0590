"""The schema's history; ``desk.store.migrate`` runs it."""

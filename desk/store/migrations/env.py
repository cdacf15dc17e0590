"""Alembic's entry: the connection is given by ``desk.store.migrate``."""

from __future__ import annotations

from alembic import context

from desk.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the transaction is the caller's
)
context.run_migrations()

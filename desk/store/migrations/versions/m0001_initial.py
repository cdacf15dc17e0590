"""The first schema: the tables of ``desk.store.tables``, and the index of texts."""

from __future__ import annotations

from alembic import op

from desk.store.tables import metadata

revision = "0001"
down_revision = None

# The index of texts (desk.store.browse looks in it).
_CREATE_SQLITE = (
    (
        "CREATE VIRTUAL TABLE text_search USING fts5("
        "text, content='texts', content_rowid='item_id', "
        'tokenize="unicode61 remove_diacritics 2")'
    ),
    (
        "CREATE TRIGGER texts_added AFTER INSERT ON texts BEGIN "
        "INSERT INTO text_search(rowid, text) VALUES (new.item_id, new.text); END"
    ),
    (
        "CREATE TRIGGER texts_gone AFTER DELETE ON texts BEGIN "
        "INSERT INTO text_search(text_search, rowid, text) "
        "VALUES ('delete', old.item_id, old.text); END"
    ),
)
# PostgreSQL's parser would make one token of an address or a number with these in it, of which no
# word is found; SQLite's takes every word by itself.
_JOINS = "@./:_~&+<>#=?-"
# What is behind 200,000 characters is not found: a tsvector holds 1 MB.
_CREATE_POSTGRESQL = (
    (
        "ALTER TABLE texts ADD COLUMN search tsvector "
        "GENERATED ALWAYS AS (to_tsvector('simple', "
        f"translate(left(text, 200000), '{_JOINS}', '{' ' * len(_JOINS)}'))) STORED"
    ),
    "CREATE INDEX ix_texts_search ON texts USING gin (search)",
)


def upgrade() -> None:
    """Create the tables, their indices and the index of texts."""
    connection = op.get_bind()
    # Not a copy of the tables: no database of a release exists yet, so a copy would only be changed
    # together with them. The first change after a release puts the released tables here
    # (tests/unit/desk/test_store.py demands it).
    metadata.create_all(connection, checkfirst=False)
    is_sqlite = connection.dialect.name == "sqlite"
    for statement in _CREATE_SQLITE if is_sqlite else _CREATE_POSTGRESQL:
        connection.exec_driver_sql(statement)

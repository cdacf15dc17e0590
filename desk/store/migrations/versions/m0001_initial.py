"""The first schema. A copy of ``desk.store.tables``, for a migration describes what was, and the
tables go on to change; ``tests/unit/desk/test_store.py`` finds a change without a migration."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from desk.store.tables import metadata

revision = "0001"
down_revision = None

_schema = sa.MetaData(naming_convention=metadata.naming_convention)
_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")

sa.Table(
    "projects",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("installation", sa.Text, nullable=False, unique=True),
    sa.Column("taxonomy_digest", sa.Text, sa.ForeignKey("taxonomies.digest"), nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)

sa.Table(
    "taxonomies",
    _schema,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("since_ms", sa.BigInteger, nullable=False),
)

sa.Table(
    "people",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("subject", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("pseudonym", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
)

sa.Table(
    "facets",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("adapter_digest", sa.Text, nullable=False),
    sa.Column("reason_bits", sa.Integer, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("batch_id", _ID),
    sa.UniqueConstraint("label", "adapter_digest", "reason_bits", "origin"),
)

sa.Table(
    "items",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("result_id", sa.Text, nullable=False, unique=True),
    sa.Column("source_topic", sa.Text, nullable=False),
    sa.Column("source_partition", sa.Integer, nullable=False),
    sa.Column("source_offset", sa.BigInteger, nullable=False),
    sa.Column("source_ms", sa.BigInteger),
    sa.Column("record_key", sa.LargeBinary),
    sa.Column("message_id", sa.Text),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("scores", sa.JSON, nullable=False),
    sa.Column("off_label_mass", sa.Float),
    sa.Column("out_of_scope_method", sa.Text),
    sa.Column("out_of_scope_score", sa.Float),
    sa.Column("reasons", sa.JSON, nullable=False),
    sa.Column("truncated", sa.Boolean, nullable=False),
    sa.Column("adapter_name", sa.Text, nullable=False),
    sa.Column("adapter_digest", sa.Text, nullable=False),
    sa.Column("taxonomy_digest", sa.Text, nullable=False),
    sa.Column("labelled_ms", sa.BigInteger, nullable=False),
    sa.Column("replay_at", sa.Text),
    sa.Column("replay_id", sa.Text),
    sa.Column("received_ms", sa.BigInteger, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("blind", sa.Boolean, nullable=False),
    sa.Column("sample_share", sa.Float),
    sa.Column("opinions_wanted", sa.Integer, nullable=False),
    sa.Column("facet_id", _ID, sa.ForeignKey("facets.id"), nullable=False),
    sa.Column("text_state", sa.Text, nullable=False),
    sa.Column("message_sha256", sa.Text),
    sa.Column("cluster_key", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("outcome_label", sa.Text),
    sa.Column("outcome_ms", sa.BigInteger),
    sa.Column("outcome_decision_id", _ID),
    sa.Column("outcome_taxonomy_digest", sa.Text),
    sa.Column("batch_id", _ID),
    sa.Index(None, "state", "facet_id", "received_ms", "id"),
    sa.Index(None, "state", "facet_id", "confidence", "id"),
    sa.Index(None, "text_state", "source_topic", "source_partition", "source_offset"),
    sa.Index(None, "cluster_key", "state"),
    sa.Index(None, "message_id", postgresql_using="hash"),
    sa.Index(None, "record_key", postgresql_using="hash"),
    sa.Index(None, "origin", "outcome_ms"),
)

sa.Table(
    "batches",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("dataset", sa.Text),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("begun_ms", sa.BigInteger, nullable=False),
    sa.Column("loaded_ms", sa.BigInteger),
    sa.Column("person_id", _ID, sa.ForeignKey("people.id")),
)

sa.Table(
    "tasks",
    _schema,
    sa.Column("item_id", _ID, sa.ForeignKey("items.id"), primary_key=True, autoincrement=False),
    sa.Column("batch_id", _ID, sa.ForeignKey("batches.id"), nullable=False, index=True),
    sa.Column("given_label", sa.Text),
    sa.Column("given_source", sa.Text),
    sa.Column("suggested_label", sa.Text),
    sa.Column("confidence", sa.Float),
    sa.Column("codes", sa.JSON, nullable=False),
    sa.Column("guideline", sa.Text),
)

sa.Table(
    "similar",
    _schema,
    sa.Column("item_id", _ID, sa.ForeignKey("items.id"), primary_key=True, autoincrement=False),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("message_id", sa.Text),
    sa.Column("message_sha256", sa.Text, nullable=False, index=True),
    sa.Index(None, "message_id", postgresql_using="hash"),
)

sa.Table(
    "advice",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("loaded_ms", sa.BigInteger, nullable=False),
    sa.Column("person_id", _ID, sa.ForeignKey("people.id")),
)

sa.Table(
    "advice_messages",
    _schema,
    sa.Column("advice_id", _ID, sa.ForeignKey("advice.id"), primary_key=True, autoincrement=False),
    sa.Column("finding", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("message_id", sa.Text),
    sa.Column("message_sha256", sa.Text, index=True),
    sa.Column("label", sa.Text),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("text", sa.Text),
    sa.Index(None, "message_id", postgresql_using="hash"),
)

sa.Table(
    "proposals",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("proposal_id", sa.Text, nullable=False, unique=True),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("loaded_ms", sa.BigInteger, nullable=False),
    sa.Column("person_id", _ID, sa.ForeignKey("people.id")),
    sa.Column("publish", sa.Boolean),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("decided_by", _ID, sa.ForeignKey("people.id")),
    sa.Column("decided_ms", sa.BigInteger),
)

sa.Table(
    "texts",
    _schema,
    sa.Column("item_id", _ID, sa.ForeignKey("items.id"), primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("received_ms", sa.BigInteger, nullable=False, index=True),
)

sa.Table(
    "near_bands",
    _schema,
    sa.Column("band_key", sa.Text, primary_key=True),
    sa.Column("cluster_key", sa.Text, nullable=False),
)

sa.Table(
    "claims",
    _schema,
    sa.Column("item_id", _ID, sa.ForeignKey("items.id"), primary_key=True, autoincrement=False),
    sa.Column("person_id", _ID, sa.ForeignKey("people.id"), nullable=False, index=True),
    sa.Column("since_ms", sa.BigInteger, nullable=False),
    sa.Column("until_ms", sa.BigInteger, nullable=False),
)

sa.Table(
    "decisions",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("request_id", sa.Text, nullable=False, unique=True),
    sa.Column("item_id", _ID, sa.ForeignKey("items.id"), nullable=False),
    sa.Column("person_id", _ID, sa.ForeignKey("people.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("label", sa.Text),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("final", sa.Boolean, nullable=False),
    sa.Column("blind", sa.Boolean, nullable=False),
    sa.Column("taxonomy_digest", sa.Text, nullable=False),
    sa.Column("guideline_version", sa.Integer),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("decided_ms", sa.BigInteger, nullable=False),
    sa.Column("undone_ms", sa.BigInteger),
    sa.Column("undone_by", _ID, sa.ForeignKey("people.id")),
    sa.Index(None, "item_id", "person_id"),
    sa.Index(None, "person_id", "decided_ms"),
)

sa.Table(
    "adjudications",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("item_id", _ID, sa.ForeignKey("items.id"), nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("opened_ms", sa.BigInteger, nullable=False),
    sa.Column("closed_ms", sa.BigInteger),
    sa.Column("decision_id", _ID, sa.ForeignKey("decisions.id")),
    sa.Index(None, "closed_ms", "opened_ms"),
)

sa.Table(
    "guidelines",
    _schema,
    sa.Column("version", _ID, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("person_id", _ID, sa.ForeignKey("people.id"), nullable=False),
    sa.Column("saved_ms", sa.BigInteger, nullable=False),
)

sa.Table(
    "audit_log",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False, index=True),
    sa.Column("person_id", _ID, sa.ForeignKey("people.id")),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("item_id", _ID, index=True),
    sa.Column("detail", sa.JSON, nullable=False),
)

sa.Table(
    "outbox",
    _schema,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("item_id", _ID, sa.ForeignKey("items.id"), nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("record_key", sa.LargeBinary),
    sa.Column("value", sa.LargeBinary),
    sa.Column("due_ms", sa.BigInteger, nullable=False),
    sa.Column("sequence", sa.BigInteger, unique=True),
    sa.Column("sequenced_ms", sa.BigInteger),
    sa.Column("published_ms", sa.BigInteger),
    sa.Index(None, "sequence", "due_ms"),
    sa.Index(None, "published_ms", "sequence"),
)

sa.Table(
    "counters",
    _schema,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

sa.Table(
    "offsets",
    _schema,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("end_offset", sa.BigInteger, nullable=False),
    sa.Column("read_ms", sa.BigInteger, nullable=False),
    sa.Column("record_ms", sa.BigInteger),
    sa.Column("refused", sa.BigInteger, nullable=False),
)

sa.Table(
    "traffic",
    _schema,
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("adapter_digest", sa.Text, primary_key=True),
    sa.Column("doubtful", sa.Boolean, primary_key=True),
    sa.Column("results", sa.BigInteger, nullable=False),
)

sa.Table(
    "leases",
    _schema,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("until_ms", sa.BigInteger, nullable=False),
)

sa.Table(
    "sessions",
    _schema,
    sa.Column("token_sha256", sa.Text, primary_key=True),
    sa.Column("person_id", _ID, sa.ForeignKey("people.id"), nullable=False, index=True),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("seen_ms", sa.BigInteger, nullable=False, index=True),
)

sa.Table(
    "passwords",
    _schema,
    sa.Column("person_id", _ID, sa.ForeignKey("people.id"), primary_key=True, autoincrement=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
)

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
    _schema.create_all(connection, checkfirst=False)
    is_sqlite = connection.dialect.name == "sqlite"
    for statement in _CREATE_SQLITE if is_sqlite else _CREATE_POSTGRESQL:
        connection.exec_driver_sql(statement)

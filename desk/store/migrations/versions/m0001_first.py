"""Everything there is at first: projects and taxonomies, items, people, decisions, the outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# The index of texts (desk.store.search_index looks in it).
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
    """Make the tables, their indices and the index of texts."""
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "facets",
        sa.Column("id", _ID, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("adapter_digest", sa.Text(), nullable=False),
        sa.Column("reason_bits", sa.Integer(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_facets")),
        sa.UniqueConstraint(
            "label",
            "adapter_digest",
            "reason_bits",
            "origin",
            name=op.f("uq_facets_label_adapter_digest_reason_bits_origin"),
        ),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "near_bands",
        sa.Column("band_key", sa.Text(), nullable=False),
        sa.Column("cluster_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("band_key", name=op.f("pk_near_bands")),
    )
    op.create_table(
        "offsets",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("end_offset", sa.BigInteger(), nullable=False),
        sa.Column("read_ms", sa.BigInteger(), nullable=False),
        sa.Column("record_ms", sa.BigInteger(), nullable=True),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("pk_offsets")),
    )
    op.create_table(
        "people",
        sa.Column("id", _ID, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("pseudonym", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people")),
        sa.UniqueConstraint("pseudonym", name=op.f("uq_people_pseudonym")),
        sa.UniqueConstraint("subject", name=op.f("uq_people_subject")),
    )
    op.create_table(
        "taxonomies",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_taxonomies")),
    )
    op.create_table(
        "traffic",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("adapter_digest", sa.Text(), nullable=False),
        sa.Column("doubtful", sa.Boolean(), nullable=False),
        sa.Column("results", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "day", "label", "adapter_digest", "doubtful", name=op.f("pk_traffic")
        ),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", _ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("person_id", _ID, nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("item_id", _ID, nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_audit_log_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_at_ms"), "audit_log", ["at_ms"], unique=False)
    op.create_index(op.f("ix_audit_log_item_id"), "audit_log", ["item_id"], unique=False)
    op.create_table(
        "guidelines",
        sa.Column("version", _ID, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("saved_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_guidelines_person_id")),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_guidelines")),
    )
    op.create_table(
        "items",
        sa.Column("id", _ID, nullable=False),
        sa.Column("result_id", sa.Text(), nullable=False),
        sa.Column("source_topic", sa.Text(), nullable=False),
        sa.Column("source_partition", sa.Integer(), nullable=False),
        sa.Column("source_offset", sa.BigInteger(), nullable=False),
        sa.Column("source_ms", sa.BigInteger(), nullable=True),
        sa.Column("record_key", sa.LargeBinary(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("off_label_mass", sa.Float(), nullable=True),
        sa.Column("out_of_scope_method", sa.Text(), nullable=True),
        sa.Column("out_of_scope_score", sa.Float(), nullable=True),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("adapter_name", sa.Text(), nullable=False),
        sa.Column("adapter_digest", sa.Text(), nullable=False),
        sa.Column("taxonomy_digest", sa.Text(), nullable=False),
        sa.Column("labelled_ms", sa.BigInteger(), nullable=False),
        sa.Column("replay_at", sa.Text(), nullable=True),
        sa.Column("replay_id", sa.Text(), nullable=True),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("sample_share", sa.Float(), nullable=True),
        sa.Column("opinions_wanted", sa.Integer(), nullable=False),
        sa.Column("facet_id", _ID, nullable=False),
        sa.Column("text_state", sa.Text(), nullable=False),
        sa.Column("message_sha256", sa.Text(), nullable=True),
        sa.Column("cluster_key", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("outcome_label", sa.Text(), nullable=True),
        sa.Column("outcome_ms", sa.BigInteger(), nullable=True),
        sa.Column("outcome_decision_id", _ID, nullable=True),
        sa.Column("outcome_taxonomy_digest", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["facet_id"], ["facets.id"], name=op.f("fk_items_facet_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_items")),
        sa.UniqueConstraint("result_id", name=op.f("uq_items_result_id")),
    )
    op.create_index(
        op.f("ix_items_cluster_key_state"), "items", ["cluster_key", "state"], unique=False
    )
    op.create_index(op.f("ix_items_message_id"), "items", ["message_id"], unique=False)
    op.create_index(
        op.f("ix_items_origin_outcome_ms"), "items", ["origin", "outcome_ms"], unique=False
    )
    op.create_index(op.f("ix_items_record_key"), "items", ["record_key"], unique=False)
    op.create_index(
        op.f("ix_items_state_facet_id_confidence_id"),
        "items",
        ["state", "facet_id", "confidence", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_items_state_facet_id_received_ms_id"),
        "items",
        ["state", "facet_id", "received_ms", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_items_text_state_source_topic_source_partition_source_offset"),
        "items",
        ["text_state", "source_topic", "source_partition", "source_offset"],
        unique=False,
    )
    op.create_table(
        "projects",
        sa.Column("id", _ID, nullable=False),
        sa.Column("installation", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("taxonomy_digest", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["taxonomy_digest"], ["taxonomies.digest"], name=op.f("fk_projects_taxonomy_digest")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("installation", name=op.f("uq_projects_installation")),
    )
    op.create_table(
        "claims",
        sa.Column("item_id", _ID, autoincrement=False, nullable=False),
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("since_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_claims_item_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_claims_person_id")),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_claims")),
    )
    op.create_index(op.f("ix_claims_person_id"), "claims", ["person_id"], unique=False)
    op.create_table(
        "decisions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("item_id", _ID, nullable=False),
        sa.Column("person_id", _ID, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("taxonomy_digest", sa.Text(), nullable=False),
        sa.Column("guideline_version", sa.Integer(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("decided_ms", sa.BigInteger(), nullable=False),
        sa.Column("undone_ms", sa.BigInteger(), nullable=True),
        sa.Column("undone_by", _ID, nullable=True),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_decisions_item_id")),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f("fk_decisions_person_id")),
        sa.ForeignKeyConstraint(["undone_by"], ["people.id"], name=op.f("fk_decisions_undone_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
        sa.UniqueConstraint("request_id", name=op.f("uq_decisions_request_id")),
    )
    op.create_index(
        op.f("ix_decisions_item_id_person_id"), "decisions", ["item_id", "person_id"], unique=False
    )
    op.create_index(
        op.f("ix_decisions_person_id_decided_ms"),
        "decisions",
        ["person_id", "decided_ms"],
        unique=False,
    )
    op.create_table(
        "texts",
        sa.Column("item_id", _ID, autoincrement=False, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_texts_item_id")),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_texts")),
    )
    op.create_index(op.f("ix_texts_received_ms"), "texts", ["received_ms"], unique=False)
    op.create_table(
        "adjudications",
        sa.Column("id", _ID, nullable=False),
        sa.Column("item_id", _ID, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_ms", sa.BigInteger(), nullable=True),
        sa.Column("decision_id", _ID, nullable=True),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["decisions.id"], name=op.f("fk_adjudications_decision_id")
        ),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_adjudications_item_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adjudications")),
    )
    op.create_index(
        op.f("ix_adjudications_closed_ms_opened_ms"),
        "adjudications",
        ["closed_ms", "opened_ms"],
        unique=False,
    )
    op.create_index(op.f("ix_adjudications_item_id"), "adjudications", ["item_id"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", _ID, nullable=False),
        sa.Column("item_id", _ID, nullable=False),
        sa.Column("decision_id", _ID, nullable=False),
        sa.Column("record_key", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("due_ms", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("sequenced_ms", sa.BigInteger(), nullable=True),
        sa.Column("published_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["decision_id"], ["decisions.id"], name=op.f("fk_outbox_decision_id")
        ),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name=op.f("fk_outbox_item_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("decision_id", name=op.f("uq_outbox_decision_id")),
        sa.UniqueConstraint("sequence", name=op.f("uq_outbox_sequence")),
    )
    op.create_index(op.f("ix_outbox_item_id"), "outbox", ["item_id"], unique=False)
    op.create_index(
        op.f("ix_outbox_published_ms_sequence"),
        "outbox",
        ["published_ms", "sequence"],
        unique=False,
    )
    op.create_index(
        op.f("ix_outbox_sequence_due_ms"), "outbox", ["sequence", "due_ms"], unique=False
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _CREATE_SQLITE if sqlite else _CREATE_POSTGRESQL:
        op.get_bind().exec_driver_sql(statement)

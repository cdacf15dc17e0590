"""The tables. Times are milliseconds since 1970 (``_ms``). A change here needs a migration too."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""A key that the database numbers itself, which SQLite does only for INTEGER."""

Ms = sa.BigInteger

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("id", Id, primary_key=True),
    # Never changes: the names of the consumer group and the transactional.id end with it.
    sa.Column("installation", sa.Text, nullable=False, unique=True),
    sa.Column("taxonomy_digest", sa.Text, sa.ForeignKey("taxonomies.digest"), nullable=False),
    sa.Column("created_ms", Ms, nullable=False),
)

taxonomies = sa.Table(
    "taxonomies",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("since_ms", Ms, nullable=False),
)

people = sa.Table(
    "people",
    metadata,
    sa.Column("id", Id, primary_key=True),
    # The name at sign-in: "ISSUER subject", the proxy's user name, or the local user's.
    sa.Column("subject", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    # The name in records and on other users' pages.
    sa.Column("pseudonym", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    # Their queue, as the query of its address ("label=refund&share=1/2"); empty for all that waits.
    sa.Column("assigned", sa.Text, nullable=False),
    sa.Column("created_ms", Ms, nullable=False),
)

# The values that a queue can choose by: few rows, each an entry point into the items' indexes, so
# that a queue reads only its own items.
facets = sa.Table(
    "facets",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("adapter_digest", sa.Text, nullable=False),
    sa.Column("reason_bits", sa.Integer, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    # For a batch of tasks, whose key takes the place of the adapter's digest.
    sa.Column("batch_id", Id),
    sa.UniqueConstraint("label", "adapter_digest", "reason_bits", "origin"),
)

items = sa.Table(
    "items",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("result_id", sa.Text, nullable=False, unique=True),
    sa.Column("source_topic", sa.Text, nullable=False),
    sa.Column("source_partition", sa.Integer, nullable=False),
    sa.Column("source_offset", sa.BigInteger, nullable=False),
    sa.Column("source_ms", Ms),
    sa.Column("record_key", sa.LargeBinary),
    sa.Column("message_id", sa.Text),
    # The model's result.
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
    sa.Column("labelled_ms", Ms, nullable=False),
    sa.Column("replay_at", sa.Text),
    sa.Column("replay_id", sa.Text),
    # The reason why it is here.
    sa.Column("received_ms", Ms, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("blind", sa.Boolean, nullable=False),
    # The probability with which the audit sample drew it, None if it did not.
    sa.Column("sample_share", sa.Float),
    sa.Column("opinions_wanted", sa.Integer, nullable=False),
    sa.Column("facet_id", Id, sa.ForeignKey("facets.id"), nullable=False),
    # Its message: pending, here, expired (no longer in Kafka), unreadable or purged.
    sa.Column("text_state", sa.Text, nullable=False),
    sa.Column("message_sha256", sa.Text),
    sa.Column("cluster_key", sa.Text),
    # The state (desk.core.items), and the reviewers' outcome.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text),
    sa.Column("outcome_label", sa.Text),
    sa.Column("outcome_ms", Ms),
    sa.Column("outcome_decision_id", Id),
    # The taxonomy of outcome_label.
    sa.Column("outcome_taxonomy_digest", sa.Text),
    # Only for a task, whose item has no place in Kafka.
    sa.Column("batch_id", Id),
    sa.Index(None, "state", "facet_id", "received_ms", "id"),
    sa.Index(None, "state", "facet_id", "confidence", "id"),
    sa.Index(None, "text_state", "source_topic", "source_partition", "source_offset"),
    sa.Index(None, "cluster_key", "state"),
    # By hash: publishers choose these, and PostgreSQL's usual index refuses more than 2.7 kB.
    sa.Index(None, "message_id", postgresql_using="hash"),
    sa.Index(None, "record_key", postgresql_using="hash"),
    sa.Index(None, "origin", "outcome_ms"),
)

# Tasks that were made together, of one dataset and for one purpose.
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", Id, primary_key=True),
    # A digest of dataset, name and purpose, so that a file that is loaded again is the same batch.
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("dataset", sa.Text),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("purpose", sa.Text, nullable=False),
    sa.Column("begun_ms", Ms, nullable=False),
    # None while its file is being loaded, and after a load that was cut off.
    sa.Column("loaded_ms", Ms),
    # Who loaded it, None for the command line.
    sa.Column("person_id", Id, sa.ForeignKey("people.id")),
)

# Large files of an owner, which are loaded in the background.
uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    # None once it is loaded or refused: it holds messages.
    sa.Column("content", sa.LargeBinary),
    sa.Column("tasks", sa.Integer, nullable=False),
    sa.Column("loaded", sa.Integer, nullable=False),
    sa.Column("begun_ms", Ms, nullable=False),
    sa.Column("person_id", Id, sa.ForeignKey("people.id"), nullable=False),
    # Why it was refused in the end, None if it was not.
    sa.Column("problem", sa.Text),
)

# The fields that only an item of a batch has. Its result_id is the task's id.
tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("item_id", Id, sa.ForeignKey("items.id"), primary_key=True, autoincrement=False),
    sa.Column("batch_id", Id, sa.ForeignKey("batches.id"), nullable=False, index=True),
    # The label that is asked about, its source, and the label that a model would give.
    sa.Column("given_label", sa.Text),
    sa.Column("given_source", sa.Text),
    sa.Column("suggested_label", sa.Text),
    # The probability that the given label is wrong (a check), or that the suggested one is right.
    sa.Column("confidence", sa.Float),
    sa.Column("codes", sa.JSON, nullable=False),
    sa.Column("guideline", sa.Text),
)

# Messages similar to a task's, with their labels. They are other customers' messages.
similar = sa.Table(
    "similar",
    metadata,
    sa.Column("item_id", Id, sa.ForeignKey("items.id"), primary_key=True, autoincrement=False),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("message_id", sa.Text),
    sa.Column("message_sha256", sa.Text, nullable=False, index=True),
    sa.Index(None, "message_id", postgresql_using="hash"),
)

# The trainer's advice about the labels, without its messages.
advice = sa.Table(
    "advice",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False, unique=True),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("loaded_ms", Ms, nullable=False),
    sa.Column("person_id", Id, sa.ForeignKey("people.id")),
)

# The messages behind a finding of the advice; a text is None if it is not here, or was deleted.
advice_messages = sa.Table(
    "advice_messages",
    metadata,
    sa.Column("advice_id", Id, sa.ForeignKey("advice.id"), primary_key=True, autoincrement=False),
    sa.Column("finding", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("message_id", sa.Text),
    sa.Column("message_sha256", sa.Text, index=True),
    sa.Column("label", sa.Text),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("text", sa.Text),
    sa.Index(None, "message_id", postgresql_using="hash"),
)

proposals = sa.Table(
    "proposals",
    metadata,
    sa.Column("id", Id, primary_key=True),
    # The trainer's id.
    sa.Column("proposal_id", sa.Text, nullable=False, unique=True),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("loaded_ms", Ms, nullable=False),
    sa.Column("person_id", Id, sa.ForeignKey("people.id")),
    # Decided once, because its consequences are elsewhere and cannot be undone here.
    sa.Column("publish", sa.Boolean),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("decided_by", Id, sa.ForeignKey("people.id")),
    sa.Column("decided_ms", Ms),
)

# Separate from the items, so that texts can be deleted while items stay.
texts = sa.Table(
    "texts",
    metadata,
    sa.Column("item_id", Id, sa.ForeignKey("items.id"), primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("received_ms", Ms, nullable=False, index=True),
)

near_bands = sa.Table(
    "near_bands",
    metadata,
    sa.Column("band_key", sa.Text, primary_key=True),
    sa.Column("cluster_key", sa.Text, nullable=False),
)

claims = sa.Table(
    "claims",
    metadata,
    # One row for each item, so two users never hold the same one.
    sa.Column("item_id", Id, sa.ForeignKey("items.id"), primary_key=True, autoincrement=False),
    sa.Column("person_id", Id, sa.ForeignKey("people.id"), nullable=False, index=True),
    sa.Column("since_ms", Ms, nullable=False),
    sa.Column("until_ms", Ms, nullable=False),
)

# Rows are only added; of a row only undone_ms changes.
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", Id, primary_key=True),
    # Made by the page, so that a request that is sent twice decides once.
    sa.Column("request_id", sa.Text, nullable=False, unique=True),
    sa.Column("item_id", Id, sa.ForeignKey("items.id"), nullable=False),
    sa.Column("person_id", Id, sa.ForeignKey("people.id"), nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("label", sa.Text),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("final", sa.Boolean, nullable=False),
    sa.Column("blind", sa.Boolean, nullable=False),
    sa.Column("taxonomy_digest", sa.Text, nullable=False),
    sa.Column("guideline_version", sa.Integer),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("decided_ms", Ms, nullable=False),
    # Taken back by the same person, or by a change of the taxonomy.
    sa.Column("undone_ms", Ms),
    sa.Column("undone_by", Id, sa.ForeignKey("people.id")),
    sa.Index(None, "item_id", "person_id"),
    sa.Index(None, "person_id", "decided_ms"),
)

guidelines = sa.Table(
    "guidelines",
    metadata,
    sa.Column("version", Id, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("person_id", Id, sa.ForeignKey("people.id"), nullable=False),
    sa.Column("saved_ms", Ms, nullable=False),
)

audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("at_ms", Ms, nullable=False, index=True),
    sa.Column("person_id", Id, sa.ForeignKey("people.id")),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("item_id", Id, index=True),
    # Never a message's text.
    sa.Column("detail", sa.JSON, nullable=False),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("item_id", Id, sa.ForeignKey("items.id"), nullable=False, index=True),
    # correction or retraction. The last one with a number is what the topic says of its item.
    sa.Column("kind", sa.Text, nullable=False),
    # The record. Deleted after a while, or when the customer's messages are purged. The row stays,
    # because the item may be reopened later.
    sa.Column("record_key", sa.LargeBinary),
    sa.Column("value", sa.LargeBinary),
    sa.Column("due_ms", Ms, nullable=False),
    # Its place in the order of publication, given by the publisher; never changes.
    sa.Column("sequence", sa.BigInteger, unique=True),
    sa.Column("sequenced_ms", Ms),
    sa.Column("published_ms", Ms),
    sa.Index(None, "sequence", "due_ms"),
    sa.Index(None, "published_ms", "sequence"),
)

counters = sa.Table(
    "counters",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# How far each topic has been read; moved in the transaction that adds the items.
offsets = sa.Table(
    "offsets",
    metadata,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
    sa.Column("end_offset", sa.BigInteger, nullable=False),
    sa.Column("read_ms", Ms, nullable=False),
    # The time of the last record that was read.
    sa.Column("record_ms", Ms),
    sa.Column("refused", sa.BigInteger, nullable=False),
)

# All results that were read, by day: the traffic that the audit sample represents.
traffic = sa.Table(
    "traffic",
    metadata,
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("adapter_digest", sa.Text, primary_key=True),
    sa.Column("doubtful", sa.Boolean, primary_key=True),
    sa.Column("results", sa.BigInteger, nullable=False),
)

# Which of several replicas does the work that needs only one.
leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("until_ms", Ms, nullable=False),
)

sessions = sa.Table(
    "sessions",
    metadata,
    # Of the token in the cookie: anyone who reads the database cannot sign in with it.
    sa.Column("token_sha256", sa.Text, primary_key=True),
    sa.Column("person_id", Id, sa.ForeignKey("people.id"), nullable=False, index=True),
    sa.Column("created_ms", Ms, nullable=False),
    sa.Column("seen_ms", Ms, nullable=False, index=True),
)

passwords = sa.Table(
    "passwords",
    metadata,
    sa.Column("person_id", Id, sa.ForeignKey("people.id"), primary_key=True, autoincrement=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("changed_ms", Ms, nullable=False),
)

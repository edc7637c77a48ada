# The server and nothing else: built in the first stage, run in the second by a user that owns only /data.
# Start it with a read-only root (docker run --read-only, as docker-compose.yml does).

FROM python:3.11-slim-bookworm AS build
# The compiler is not pinned: what it builds is, and old versions leave the archive.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements/run.txt requirements/
RUN python -m venv /opt/fastq \
 && /opt/fastq/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r requirements/run.txt
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE CHANGELOG.md ./
COPY fastq fastq
RUN /opt/fastq/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation -w /wheel . \
 && /opt/fastq/bin/python -m pip install --no-cache-dir --no-deps --no-index /wheel/*.whl \
 && /opt/fastq/bin/python -m pip uninstall -y cython django-htmx setuptools pip

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin fastq \
 && install -d -o fastq -g fastq -m 0700 /data
COPY --from=build /opt/fastq /opt/fastq
COPY deploy/healthcheck.py /opt/fastq/healthcheck.py
ENV HOST=0.0.0.0 \
    PORT=8080 \
    WAL_DIR=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/opt/fastq/bin:/usr/local/bin:/usr/bin:/bin
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# On SIGTERM the server answers what is under way and ends within 10 s: the time that `docker stop` gives it.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/opt/fastq/healthcheck.py"]
ENTRYPOINT ["fastq"]
CMD ["serve"]

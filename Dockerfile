# syntax=docker/dockerfile:1

# The relay in a slim image, without rights, its state in a volume.
FROM node:22-slim AS phone
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund --omit=dev

FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/coralmux
COPY requirements.txt .
RUN /opt/coralmux/bin/pip install --no-cache-dir --disable-pip-version-check -r requirements.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY coralmux coralmux
COPY coralmux_site coralmux_site
COPY relay relay
COPY pairing pairing
COPY templates templates
COPY static static
COPY --from=phone /src/node_modules node_modules
RUN /opt/coralmux/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/coralmux coralmux \
    && install -d -o coralmux -g coralmux -m 0700 /var/lib/coralmux
COPY --from=build /opt/coralmux /opt/coralmux
ENV PATH=/opt/coralmux/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CORALMUX_ADDR=:8080 \
    CORALMUX_STATE_DIR=/var/lib/coralmux \
    CORALMUX_LOG_FORMAT=json
USER coralmux
WORKDIR /var/lib/coralmux
VOLUME /var/lib/coralmux
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import os, http.client as h; host, _, port = os.environ['CORALMUX_ADDR'].rpartition(':'); c = h.HTTPConnection(host.strip('[]') or '127.0.0.1', int(port), timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["coralmux-relay"]

# Made by `servd export dockerfile`. In this folder: docker build -t NAME .
# servd is the first process: it reaps orphans and forwards signals.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/servd \
    && /opt/servd/bin/python -m pip install --no-cache-dir 'servd-serve[bentoml]==0.1.0'
COPY . /app/
# what may hold secrets is in no image, whatever .dockerignore says
RUN find /app \( -name '.env' -o -name '.env.*' -o -name '*.key' -o -name '*.pem' -o -name '*.p12' -o -name '*.pfx' -o -name '*.jks' -o -name '.netrc' -o -name 'id_rsa' -o -name 'id_ecdsa' -o -name 'id_ed25519' -o -name '.git' -o -name '.venv' -o -name 'venv' -o -name '__pycache__' -o -name 'node_modules' -o -name '.pytest_cache' \) -exec rm -rf {} +

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --home-dir /app \
        --shell /usr/sbin/nologin servd \
    && install -d -o servd -g servd -m 0700 /run/servd
COPY --from=build /opt/servd /opt/servd
COPY --from=build /app /app
ENV PATH=/opt/servd/bin:$PATH \
    BENTOML_HOME=/tmp/bentoml \
    SERVD_DAEMON__RUNTIME_DIR=/run/servd
WORKDIR /app
USER 10001:10001
EXPOSE 8001
EXPOSE 8002
EXPOSE 8003
# needs up to 900 s to drain and stop: docker run --stop-timeout 910
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["servd", "status"]
ENTRYPOINT ["servd"]

# An image of servd. It runs the configuration in /app as a user that is not root:
#
#   docker build -t servd .
#   docker run -v ./sample-configs/container:/app:ro -p 8000:8000 --stop-timeout 45 servd
#
# For an app with packages of its own: FROM servd, then USER root, RUN pip install, USER 1000:1000.
# servd is the first process: it reaps orphans and forwards signals, so no init is needed.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY .ci/requirements.lock .ci/requirements-build.lock .ci/
RUN python -m venv /opt/build \
    && /opt/build/bin/python -m pip install --no-cache-dir -r .ci/requirements-build.lock
RUN python -m venv /opt/servd \
    && /opt/servd/bin/python -m pip install --no-cache-dir -r .ci/requirements.lock
COPY . .
RUN /opt/build/bin/python -m hatchling build -t wheel -d /opt/build/dist \
    && /opt/servd/bin/python -m pip install --no-cache-dir --no-deps /opt/build/dist/*.whl

FROM python:${PYTHON}-slim
RUN useradd --system --uid 1000 --user-group --home-dir /app --shell /usr/sbin/nologin servd \
    && install -d -o servd -g servd -m 0700 /run/servd
COPY --from=build /opt/servd /opt/servd
ENV PATH=/opt/servd/bin:$PATH \
    SERVD_DAEMON__RUNTIME_DIR=/run/servd
WORKDIR /app
USER 1000:1000
EXPOSE 8000
# drains and stops; give it longer than the longest `timeouts.drain` (30 s by default)
STOPSIGNAL SIGTERM
# whether the daemon answers; compose.yaml in sample-configs/container also asks if it is ready
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["servd", "status"]
ENTRYPOINT ["servd"]

# syntax=docker/dockerfile:1
# One image with the three binaries; compose.yaml says which of them a service runs.

FROM rust:1.95-slim-bookworm AS build
# jemalloc's build asks for it.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ENV SQLX_OFFLINE=true
# The caches outlive the build, so what is shipped is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin gathering-api --bin gathering-worker --bin gathering-scheduler \
    && mkdir /out \
    && cp target/release/gathering-api target/release/gathering-worker target/release/gathering-scheduler /out/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home gathering
COPY --from=build /out/ /usr/local/bin/
USER gathering
# Seen from outside the container only as far as compose.yaml publishes it.
ENV GATHERING_HTTP_ADDR=0.0.0.0:8080 GATHERING_OPS_ADDR=0.0.0.0:8081
CMD ["gathering-api", "serve"]

# The images of `gateway` (the last target, so the default) and of `mock-meta-provider` (--target mock-meta-provider).

FROM rust:1-bookworm AS build
WORKDIR /build
# What a panic says of its place names no directory of the builder's.
ARG RUSTFLAGS="--remap-path-prefix=/usr/local/cargo=/cargo --remap-path-prefix=/build=."

# The dependencies, as layers of their own: only a change of a manifest or of the lock file builds them again. Cargo wants sources
# beside the manifests, so empty ones stand in, and what was built of them is removed.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY mock-meta-provider/Cargo.toml mock-meta-provider/
RUN mkdir src mock-meta-provider/src \
    && touch src/lib.rs mock-meta-provider/src/lib.rs \
    && echo 'fn main() {}' | tee src/main.rs > mock-meta-provider/src/main.rs \
    && cargo build --release --locked --workspace \
    && cargo clean --release -p gateway -p mock-meta-provider \
    && rm -r src mock-meta-provider/src

COPY .sqlx .sqlx
COPY migrations migrations
COPY seeds seeds
COPY mock-meta-provider/src mock-meta-provider/src
COPY src src
# What --version says; by itself it is the version alone, since there is no repository here to tell the commit:
# docker compose build --build-arg GATEWAY_VERSION="0.1.0 ($(git rev-parse --short=12 HEAD))"
ARG GATEWAY_VERSION
RUN cargo build --release --locked --workspace


FROM debian:bookworm-slim AS runtime
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin gateway
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# Inside a container loopback would reach nobody; which of its ports are open to whom is decided outside.
ENV HOST=0.0.0.0

FROM runtime AS mock-meta-provider
LABEL org.opencontainers.image.title="mock-meta-provider" \
      org.opencontainers.image.description="A messaging provider that misbehaves like the real ones, for tests and demonstrations" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /build/target/release/mock-meta-provider /usr/local/bin/
ENV PORT=4000
EXPOSE 4000
COPY .docker/healthcheck /usr/local/bin/
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["healthcheck", "/health"]
ENTRYPOINT ["mock-meta-provider"]


FROM runtime AS gateway
LABEL org.opencontainers.image.title="gateway" \
      org.opencontainers.image.description="A messaging gateway between Meta-like channels and a customer inbox" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /build/target/release/gateway /usr/local/bin/
# A `worker` has its metrics and probes where `serve` has the API, so that one health check fits both.
ENV PORT=3000 METRICS_ADDR=0.0.0.0
EXPOSE 3000
# Restarting does not mend a missing database, so this asks whether the process answers, not whether it is ready.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["gateway", "healthcheck"]
ENTRYPOINT ["gateway"]
CMD ["serve"]

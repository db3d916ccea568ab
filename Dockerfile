# One image for every role: `docker run IMAGE gateway --config ...`, without an argument all roles in one process.
# Checked by reading only: the machine it was written on has no container engine.

# The version of rust-toolchain.toml.
FROM rust:1.95.0-bookworm AS build
# Without this rustup would fetch the formatter and the linter that rust-toolchain.toml asks for.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p dropgate

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/dropgate --shell /usr/sbin/nologin dropgate \
    && install -d -o dropgate -g dropgate -m 0700 /var/lib/dropgate
COPY --from=build /src/target/release/dropgate /usr/local/bin/dropgate

USER 10001:10001
# The only directory it writes to, so the root may be mounted read-only; keep it on a volume, one for each container.
WORKDIR /var/lib/dropgate
ENV DROPGATE__DATA_DIR=/var/lib/dropgate
EXPOSE 2222 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["dropgate"]
CMD ["run", "--sftp-listen", "0.0.0.0:2222", "--ops-listen", "0.0.0.0:8080"]

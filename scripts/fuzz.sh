#!/usr/bin/env bash
# Runs every fuzz target of the project for so many seconds each: scripts/fuzz.sh 60
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PATH="$PATH:$HOME/.cargo/bin"
seconds=${1:-60}
targets=0

cargo +nightly --version >/dev/null 2>&1 || {
    echo "Fuzzing needs a nightly toolchain: rustup toolchain install nightly" >&2
    exit 1
}
command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz

while IFS= read -r manifest; do
    directory=$(dirname "$manifest")
    while IFS= read -r target; do
        echo "Fuzzing $directory: $target, $seconds s"
        cargo +nightly fuzz run --fuzz-dir "$directory" "$target" -- \
            -max_total_time="$seconds" -rss_limit_mb=4096
        targets=$((targets + 1))
    done < <(cargo +nightly fuzz list --fuzz-dir "$directory")
done < <(find . -path ./target -prune -o -path '*/fuzz/Cargo.toml' -print | sort)

if [ "$targets" -eq 0 ]; then
    echo "There is no fuzz target: none of the folders has a fuzz/Cargo.toml." >&2
    exit 1
fi
echo "$targets fuzz targets, no finding."

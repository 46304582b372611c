#!/usr/bin/env bash
# Builds the Debian package from programs that are there: deb.sh [PROFILE [FILE]].
#
# PROFILE is the profile they were built with (release), FILE where the package goes
# (target/debian/). Prints its path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH="$PATH:$HOME/.cargo/bin"
profile=${1:-release}
output=${2:-target/debian/}
target=${CARGO_TARGET_DIR:-target}

if ! command -v cargo-deb >/dev/null; then
    echo "Installing cargo-deb, which writes the package (some minutes, once)" >&2
    cargo install --locked --quiet cargo-deb >&2
fi
folder=$profile
[ "$profile" != dev ] || folder=debug
mkdir -p target/completions
for shell in bash:lockstep.bash zsh:_lockstep fish:lockstep.fish; do
    "$target/$folder/lockstep" completions "${shell%%:*}" >"target/completions/${shell#*:}"
done
cargo deb --quiet --locked --no-build --profile "$profile" -p lockstep-ctl --output "$output"

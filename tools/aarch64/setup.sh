#!/bin/sh
# Installs what tools/aarch64/test.sh needs on Debian or Ubuntu (not on AArch64 itself): the standard library (rustup),
# a C cross-compiler and C library for linking, and qemu's user-mode emulator. Takes about 15 s and 400 MB. Skips what is
# installed already.
set -eu
target=aarch64-unknown-linux-gnu

rustup target add "$target"

packages=
command -v aarch64-linux-gnu-gcc > /dev/null || packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
command -v qemu-aarch64 > /dev/null || packages="$packages qemu-user"
if [ -n "$packages" ]; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    $as_root apt-get -qq update
    # shellcheck disable=SC2086 # a list of packages
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $packages
fi

aarch64-linux-gnu-gcc --version | head -n 1
qemu-aarch64 --version | head -n 1

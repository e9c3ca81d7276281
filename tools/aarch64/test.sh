#!/bin/sh
# Runs tests on emulated AArch64 CPUs, by default those of the kernels and of the pinned bits of logits.
# Usage: [CPUS="names of qemu CPUs"] tools/aarch64/test.sh [arguments of cargo test]
set -eu
cd "$(dirname "$0")/../.."
target=aarch64-unknown-linux-gnu
# Of max's features, pointer authentication by the standard's algorithm takes nine tenths of the time to emulate.
cpus=${CPUS:-max,pauth-impdef=on neoverse-n1 cortex-a72}

for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
    command -v "$tool" > /dev/null || { echo "$tool not found: run tools/aarch64/setup.sh" >&2; exit 1; }
done
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc

failed=
for cpu in $cpus; do
    echo "== AArch64, $cpu"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu"
    if [ $# -gt 0 ]; then
        cargo test --target "$target" "$@" || failed="$failed $cpu"
    else
        cargo test --target "$target" -p clawdbot-kernels || failed="$failed $cpu"
        cargo test --target "$target" -p clawdbot-core --test pinned_bits || failed="$failed $cpu"
    fi
done
[ -z "$failed" ] || { echo "failed on:$failed" >&2; exit 1; }

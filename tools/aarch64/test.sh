#!/bin/sh
# Runs tests of the core on emulated AArch64 CPUs: by default those of the kernels and of the pinned bits of logits.
# Usage: tools/aarch64/test.sh [arguments of cargo test]. CPUS: qemu's names of the CPUs to emulate.
set -eu
cd "$(dirname "$0")/../.."
target=aarch64-unknown-linux-gnu
cpus=${CPUS:-max neoverse-n1 cortex-a72}
[ $# -gt 0 ] || set -- -p clawdbot-core --lib --test pinned_bits -- kernels:: pinned

for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
    command -v "$tool" > /dev/null || { echo "$tool not found: run tools/aarch64/setup.sh" >&2; exit 1; }
done
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc

failed=
for cpu in $cpus; do
    echo "== AArch64, $cpu"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu" \
        cargo test --target "$target" "$@" || failed="$failed $cpu"
done
[ -z "$failed" ] || { echo "failed on:$failed" >&2; exit 1; }

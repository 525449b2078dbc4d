#!/bin/bash
# Fuzzes the codec of the bus's wire (Shared/Wire) with libFuzzer and the address sanitizer, which come with Swift's compiler.
#
#   Tests/Fuzz/fuzz.sh [SECONDS] [more arguments of libFuzzer]
#
# Compiles into .build/fuzz, which keeps the corpus, too; an input that traps is left there as crash-*, and is run again with
#   .build/fuzz/wire .build/fuzz/crash-…
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-60}
shift || true
out=$PWD/.build/fuzz
mkdir -p "$out/corpus"

modules=(-I "$out" -Xcc "-fmodule-map-file=$out/CSys.modulemap")
printf 'module CSys {\n    header "%s"\n    export *\n}\n' "$PWD/Shared/CSys/include/CSys.h" > "$out/CSys.modulemap"
clang -O1 -g -fsanitize=address -I Shared/CSys/include -c Shared/CSys/CSys.c -o "$out/CSys.o"
swift_module() {
    swiftc -O -g -swift-version 6 -enable-upcoming-feature ExistentialAny -parse-as-library -wmo -sanitize=fuzzer,address "${modules[@]}" \
        -module-name "$1" -emit-module -emit-module-path "$out/$1.swiftmodule" -emit-object -o "$out/$1.o" Shared/"$1"/*.swift
}
swift_module Contracts
swift_module Wire
swiftc -O -g -swift-version 6 -parse-as-library -sanitize=fuzzer,address "${modules[@]}" -module-name WireFuzz Tests/Fuzz/WireFuzz.swift \
    "$out/Contracts.o" "$out/Wire.o" "$out/CSys.o" -o "$out/wire"

# A crashing target would hang on the backtracer.
export SWIFT_BACKTRACE=enable=no
cd "$out"
exec ./wire -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=1024 -timeout=10 -print_final_stats=1 "$@" corpus

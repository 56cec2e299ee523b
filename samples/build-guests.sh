#!/bin/sh
# Rebuilds the guests of samples/, tests/guests/ and runtime/sandbox/toolbox/ and puts the .wasm files and their SHA256SUMS beside the sources.
# Running the samples and the tests does not need it: the results are committed.
#
#   samples/build-guests.sh            build, check, print sizes
#   samples/build-guests.sh NAME…      build only these packages
#   samples/build-guests.sh --check    only compare the committed files with SHA256SUMS
#
# It takes the toolchain that is there:
#   - Rust by rustup with `rustup target add wasm32-wasip1`; or else
#   - Debian's: rustc-web rust-web-src libstd-rust-web-dev wasi-libc lld-22, with any cargo, and with the
#     wasm-component-ld of a Rust by rustup.
# Components are built for wasm32-wasip1 too; wasm-component-ld makes components of them.
#
# GUESTS_TARGET_DIR: where cargo builds; a temporary folder that is removed afterwards when it is not set.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
target=wasm32-wasip1
outputs="samples/guestbook/wasm samples/hello-http/wasm tests/guests/wasm runtime/sandbox/toolbox/wasm"

fail() { echo "build-guests: $*" >&2; exit 1; }

check() {
    for output in $outputs; do
        (cd "$root/$output" && sha256sum --quiet --check SHA256SUMS) || fail "$output is not what SHA256SUMS says"
    done
    echo "all guests are what SHA256SUMS says"
}

if [ "${1-}" = --check ]; then check; exit; fi
case ${1-} in -*) fail "unknown argument $1" ;; esac
only=" $* "

# Which toolchain: flags for every crate, flags for linking commands and libraries.
host=$(rustc -vV | sed -n 's/^host: //p')
component_ld=$(rustc --print sysroot)/lib/rustlib/$host/bin/wasm-component-ld
[ -x "$component_ld" ] || component_ld=$(command -v wasm-component-ld) || fail "there is no wasm-component-ld; install Rust by rustup, or cargo install wasm-component-ld"

if [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    rustc=rustc
    flags="" build_std="" small="" small_std="" module="" command="" library="" component="-Clinker=$component_ld"
elif [ -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library" ]; then
    rustc=/usr/bin/rustc
    wasm_ld=$(ls /usr/bin/wasm-ld-* /usr/bin/wasm-ld 2>/dev/null | sort -V | tail -n 1)
    [ -n "$wasm_ld" ] || fail "there is no wasm-ld; install Debian's lld"
    libc=$(dirname "$(find /usr/lib /usr/share -name crt1-command.o 2>/dev/null | head -n 1)")
    [ -f "$libc/libc.a" ] || fail "there is no libc for WebAssembly; install Debian's wasi-libc"
    export RUSTC_BOOTSTRAP=1
    flags="-Lnative=$libc -Clink-self-contained=no" build_std="-Zbuild-std=std,panic_abort"
    # A sixth less code; a panic is a bare trap then.
    small="-Zunstable-options -Cpanic=immediate-abort" small_std="-Zbuild-std-features=optimize_for_size"
    module="-Clinker=$wasm_ld" command="-Clink-arg=$libc/crt1-command.o" library="-Clink-arg=$libc/crt1-reactor.o"
    component="-Clinker=$component_ld -Clink-arg=--wasm-ld-path=$wasm_ld"
else
    fail "there is no standard library for $target; run: rustup target add $target"
fi

if [ -z "${GUESTS_TARGET_DIR-}" ]; then
    GUESTS_TARGET_DIR=$(mktemp -d)
    trap 'rm -rf "$GUESTS_TARGET_DIR"' EXIT
fi
export RUSTC="$rustc" CARGO_TARGET_DIR="$GUESTS_TARGET_DIR"
# No path of this machine gets into the files.
sources=$("$rustc" --print sysroot)/lib/rustlib/src/rust
flags="$flags --remap-path-prefix=$root=coracle --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$sources=rust --remap-path-prefix=$GUESTS_TARGET_DIR=target"
echo "building with $("$rustc" -V)"

# build FOLDER PACKAGE KIND FILE OUTPUT [STACK [SMALL [SMALL_STD]]]: KIND is module, command (a component with a main function) or library (a
# component with other exports); FILE is what cargo calls the result, OUTPUT its place here.
build() {
    case $only in "  " | *" $2 "*) ;; *) return ;; esac
    case $3 in
        module) link="$module $command" ;;
        command) link="$component $command" ;;
        library) link="$component $library" ;;
    esac
    # A megabyte of stack, the default, would be most of what these guests need.
    link="$link -Clink-arg=-zstack-size=${6-131072}"
    # shellcheck disable=SC2086 # the flags are meant to be split
    (cd "$root/$1" && CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="$flags ${7-}" \
        cargo rustc --quiet --locked --release --target $target $build_std ${8-} -p "$2" -- $link)
    mkdir -p "$root/$(dirname "$5")"
    cp "$GUESTS_TARGET_DIR/$target/release/$4.wasm" "$root/$5"
    # The first eight bytes say what it is: version 1 is a module, version 13 in layer 1 is a component.
    header=$(od -An -tx1 -N8 "$root/$5" | tr -d ' ')
    case $3:$header in
        module:0061736d01000000 | command:0061736d0d000100 | library:0061736d0d000100) ;;
        *) fail "$5 is not a $3: it begins with $header" ;;
    esac
    if grep -a -q -e "$HOME/" -e "$root/" "$root/$5"; then fail "$5 names a path of this machine"; fi
    printf '%8d  %s\n' "$(wc -c < "$root/$5")" "$5"
}

book=samples/guestbook/wasm
build samples guestbook-frontend library frontend $book/frontend.wasm
build samples guestbook-api command api $book/api.wasm
build samples guestbook-store module store $book/store.wasm
build samples guestbook-seed command seed $book/seed.wasm
build samples hello-http library hello_http samples/hello-http/wasm/hello-http.wasm

guests=tests/guests/wasm
if [ -f "$root/tests/guests/Cargo.toml" ]; then
build tests/guests account library account $guests/account.wasm
build tests/guests diagnose module diagnose $guests/diagnose.wasm
build tests/guests diagnose command diagnose $guests/diagnose-component.wasm
build tests/guests echo-inherited module echo-inherited $guests/echo-inherited.wasm
build tests/guests sockets command sockets $guests/sockets.wasm
build tests/guests speed command speed $guests/speed.wasm
build tests/guests speed-inherited module speed-inherited $guests/speed-inherited.wasm
build tests/guests socket-checks command socket-checks $guests/socket-checks.wasm
build tests/guests wasmedge-sockets module wasmedge-sockets $guests/wasmedge-sockets.wasm
# Its cryptography is C and needs a clang.
clang=$(ls /usr/bin/clang-[0-9]* /usr/bin/clang 2>/dev/null | sort -V | tail -n 1)
if [ -n "$clang" ]; then
    CC_wasm32_wasip1=$clang AR_wasm32_wasip1=$(ls /usr/bin/llvm-ar-[0-9]* /usr/bin/llvm-ar | sort -V | tail -n 1)
    export CC_wasm32_wasip1 AR_wasm32_wasip1
    build tests/guests own-tls command own-tls $guests/own-tls.wasm
else
    echo "own-tls is left as it is: there is no clang"
fi
build tests/guests http-echo library http_echo $guests/http-echo.wasm
build tests/guests newer-socket-checks library newer_socket_checks $guests/newer-socket-checks.wasm
build tests/guests newer-command library newer_command $guests/newer-command.wasm
build tests/guests newer-http library newer_http $guests/newer-http.wasm
build tests/guests functions library functions $guests/functions.wasm
fi

# foreign NAME OUTPUT PROGRAM ARGUMENTS…: what no cargo builds. Left as it is where the compiler is not installed.
foreign() {
    case $only in "  " | *" $1 "*) ;; *) return ;; esac
    output=$2 program=$3
    shift 3
    command -v "$program" >/dev/null || { echo "$output stays as it is: there is no $program"; return; }
    "$program" "$@"
    chmod 644 "$root/$output"
    printf '%8d  %s\n' "$(wc -c < "$root/$output")" "$output"
}

foreign probe-c $guests/probe-c.wasm clang-22 --target=wasm32-wasi -Wno-deprecated --sysroot=/usr -Os -s \
    "$root/tests/guests/languages/probe.c" -o "$root/$guests/probe-c.wasm"
foreign upgrade $guests/upgrade.wasm clang-22 --target=wasm32-wasi -Wno-deprecated --sysroot=/usr -Os -s \
    "$root/tests/guests/languages/upgrade.c" -o "$root/$guests/upgrade.wasm"
# Zig by its own package, or PyPI's ziglang.
foreign hello-zig $guests/hello-zig.wasm zig build-exe -target wasm32-wasi -O ReleaseSmall \
    "$root/tests/guests/languages/hello.zig" "-femit-bin=$root/$guests/hello-zig.wasm"

# Its shell, its patterns and its archives go deep.
build runtime/sandbox/toolbox toolbox command toolbox runtime/sandbox/toolbox/wasm/toolbox.wasm 524288 "$small" "$small_std"

for output in $outputs; do
    [ -d "$root/$output" ] || continue
    (cd "$root/$output" && sha256sum -- *.wasm > SHA256SUMS)
done

#!/usr/bin/env bash
# Steps of the build stage of deploy/Containerfile; deploy/test-image.sh runs them too.
#
#   deploy/build.sh compile         build the host and the example's components
#   deploy/build.sh assemble OUT    OUT/host: the root file system of the image `host`
#                                   OUT/state: its writable folder, empty
#                                   OUT/example: files that the image `example` adds
#
# PROFILE     Cargo profile of the host (dist)
# SPINFER     binary of the host (target/PROFILE/spinfer)
# COMPONENTS  folder of the built components (target/components/wasm32-wasip2/component)
# LIBRARY     library of ONNX Runtime (target/onnxruntime/libonnxruntime.so)
set -euo pipefail
cd "$(dirname "$0")/.."

PROFILE=${PROFILE:-dist}
# Cargo's folder for the profile `dev` is `debug`.
SPINFER=${SPINFER:-target/${PROFILE/#dev/debug}/spinfer}
BUILT=target/components/wasm32-wasip2/component
COMPONENTS=${COMPONENTS:-$BUILT}
LIBRARY=${LIBRARY:-target/onnxruntime/libonnxruntime.so}
# User of the image: not root, and unlikely to exist on the machine.
USER_ID=65532

compile() {
  cargo build --profile "$PROFILE" --locked --workspace --bin spinfer
  "$SPINFER" build
  cargo build --locked --package generic-model --target wasm32-wasip2 --profile component \
    --target-dir target/components
  make onnxruntime
}

# The binary and ONNX Runtime, the shared libraries they link to, and the files that glibc reads.
host() {
  local root=$1 library
  # Without compiled/, the image's user could not create it, and the host would not start.
  mkdir -p "$root"/{usr/bin,usr/lib/spinfer,etc/ssl/certs,app,tmp,proc,dev,var/cache/spinfer/{compiled,files}}
  install -m 755 "$SPINFER" "$root/usr/bin/spinfer"
  strip --strip-debug "$root/usr/bin/spinfer"
  # The binary searches ../lib/spinfer.
  install -m 755 "$LIBRARY" "$root/usr/lib/spinfer/libonnxruntime.so"
  for library in $({ ldd "$SPINFER"; ldd "$LIBRARY"; } | grep -oE '[[:space:]]/[^ )]+' | sort -u); do
    install -D -m 755 "$library" "$root$library"
  done
  install -m 644 "$COMPONENTS/generic_model.wasm" "$root/usr/lib/spinfer/generic-model.wasm"
  printf 'root:x:0:0:root:/:/sbin/nologin\nspinfer:x:%d:%d:spinfer:/app:/sbin/nologin\n' \
    $USER_ID $USER_ID > "$root/etc/passwd"
  printf 'root:x:0:\nspinfer:x:%d:\n' $USER_ID > "$root/etc/group"
  printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
  # In addition to the well-known roots, which are built into the host.
  if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
    install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  fi
  chmod 1777 "$root/tmp" "$root/var/cache/spinfer/files"
}

# spin.toml, the files it names, and the native code of its components.
example() {
  local root=$1 path
  mkdir -p "$root/app" "$root/var/cache"
  cp spin.toml "$root/app/"
  grep -oE 'source = "[^"]+"' spin.toml | cut -d'"' -f2 | sort -u | while read -r path; do
    if [ "${path#"$BUILT"/}" != "$path" ]; then
      install -D -m 644 "$COMPONENTS/${path##*/}" "$root/app/$path"
    else
      mkdir -p "$root/app/$(dirname "$path")"
      cp -r "$path" "$root/app/$path"
    fi
  done
  XDG_CACHE_HOME="$root/var/cache" "$SPINFER" build --aot --no-commands --from "$root/app"
}

assemble() {
  local out=$1
  umask 022
  rm -rf "$out/host" "$out/state" "$out/example"
  mkdir -p "$out/state"
  out=$(cd "$out" && pwd)
  host "$out/host"
  example "$out/example"
}

case "${1:-} $#" in
  "compile 1") compile ;;
  "assemble 2") assemble "$2" ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

#!/usr/bin/env bash
# Builds the image `example` of deploy/Containerfile without its base image, from an existing binary of the
# host, and runs it as a container engine would: as the image's user, without privileges, on a read-only
# root. With buildah it builds the stages `host` and `example` of the Containerfile; without, it assembles
# their root file system itself. Requires root, unshare, chroot, setpriv and curl; exits with 77 and the
# reason if one is missing.
#
#   deploy/test-image.sh
#
# SPINFER, COMPONENTS, PROFILE   as in deploy/build.sh; the default of PROFILE is dev
# WITHOUT_BUILDAH=1              do not use buildah
set -euo pipefail
cd "$(dirname "$0")/.."
export PROFILE=${PROFILE:-dev}
BASE=(localhost/spinfer-built)

skip() { echo "skipped: $1"; exit 77; }
fail() { echo "FAILED: $1" >&2; [ -z "${log:-}" ] || sed 's/^/  /' "$log" >&2; exit 1; }
say() { printf '==> %s\n' "$1"; }

[ "$(id -u)" = 0 ] || skip "not root: required for chroot and mounts"
for tool in unshare chroot setpriv curl ldd strip; do
  command -v $tool >/dev/null || skip "$tool is not installed"
done
unshare --mount true 2>/dev/null || skip "cannot create a mount namespace"

work=$(mktemp -d)
cleanup() {
  [ -z "${server:-}" ] || kill -KILL "$server" 2>/dev/null || true
  [ -z "${container:-}" ] || "${buildah[@]}" rm --all >/dev/null 2>&1 || true
  [ ! -d "$work/storage" ] || "${buildah[@]}" rmi --all --force >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

say "assembling"
deploy/build.sh assemble "$work/out"

# As in the Containerfile.
USER_ID=65532
COMMAND=(/usr/bin/spinfer up --from /app)
if command -v buildah >/dev/null && [ -z "${WITHOUT_BUILDAH:-}" ]; then
  # In a storage of its own. vfs works where overlay mounts do not.
  buildah=(buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs)
  say "buildah: the stages host and example"
  container=$("${buildah[@]}" from scratch)
  "${buildah[@]}" copy --quiet "$container" "$work/out" /out >/dev/null
  "${buildah[@]}" commit --quiet "$container" "${BASE[0]}" >/dev/null
  # Replaces the stage `build` by its results.
  { echo "FROM ${BASE[0]} AS build"; sed -n '/^FROM scratch AS host/,$p' deploy/Containerfile; } \
    > "$work/Containerfile"
  "${buildah[@]}" build --quiet --isolation chroot --format docker --pull-never \
    --file "$work/Containerfile" --tag localhost/spinfer-example "$work/run" >/dev/null
  # An application on the stage `host`, by app.Containerfile.
  "${buildah[@]}" build --quiet --isolation chroot --format docker --pull-never --target host \
    --file "$work/Containerfile" --tag localhost/spinfer "$work/run" >/dev/null
  say "buildah: app.Containerfile"
  "${buildah[@]}" build --quiet --isolation chroot --format docker --pull-never \
    --build-arg SPINFER=localhost/spinfer --file deploy/app.Containerfile --tag localhost/app \
    "$work/out/example/app" >/dev/null
  for image in spinfer-example app; do
    config=$("${buildah[@]}" inspect --type image "localhost/$image")
    for part in '"User": "65532:65532"' '"/usr/bin/spinfer"' '"XDG_CACHE_HOME=/var/cache"' '"3001/tcp"' \
      '"StopSignal": "SIGTERM"' '"Healthcheck"' '"WorkingDir": "/app"'; do
      [[ $config == *"$part"* ]] || fail "image $image: $part is missing"
    done
  done
else
  say "without buildah"
  mkdir "$work/example"
  cp -a "$work/out/host/." "$work/out/example/." "$work/example/"
  cp -a "$work/out/state" "$work/example/app/.spin"
  chown -R 0:0 "$work/example"
  chown $USER_ID:$USER_ID "$work/example/app/.spin"
fi

# Root file system of an image.
root_of() {
  if [ -n "${container:-}" ]; then
    "${buildah[@]}" mount "$("${buildah[@]}" from --pull-never "localhost/$1")"
  else
    echo "$work/example"
  fi
}

# Runs a command in ROOT as an engine does with --read-only, --user, --cap-drop ALL, no-new-privileges
# and a volume at /app/.spin, which gets the owner of the image's folder.
contained() {
  local root=$1 volume=$2
  shift 2
  exec unshare --mount --propagation private bash -c '
    set -eu
    root=$1 volume=$2 user=$3
    shift 3
    mount --bind "$root" "$root"
    mount --bind /proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --bind "$volume" "$root/app/.spin"
    mount -t tmpfs -o mode=1777,size=64m tmpfs "$root/tmp"
    mount -o remount,bind,ro "$root"
    exec env -i PATH=/usr/bin:/usr/sbin XDG_CACHE_HOME=/var/cache SPINFER_ADMIN_TOKEN="$TOKEN" \
      setpriv --no-new-privs chroot --userspec="$user:$user" --groups= "$root" "$@"
  ' contained "$root" "$volume" $USER_ID "$@"
}
export TOKEN=0123456789abcdef0123456789abcdef

wait_for() {
  local text=$1 end=$((SECONDS + 60))
  until grep -sq -- "$text" "$log"; do
    kill -0 "$server" 2>/dev/null || fail "the host exited before it printed \"$text\""
    [ $SECONDS -lt $end ] || fail "the host did not print \"$text\""
    sleep 0.05
  done
}

try() {
  local image=$1 root volume begin address admin body status
  root=$(root_of "$image")
  log=$work/$image.log
  volume=$work/$image.volume
  mkdir "$volume"
  # As docker and podman do for a new volume.
  chown --reference "$root/app/.spin" "$volume"
  begin=$(date +%s%N)
  (contained "$root" "$volume" "${COMMAND[@]}" --listen 127.0.0.1:0 --admin 127.0.0.1:0) > "$log" 2>&1 &
  server=$!
  wait_for "^Serving http://"
  address=$(sed -n 's,^Serving http://,,p' "$log")
  wait_for "^Metrics at http://"
  admin=$(sed -n 's,^Metrics at \(.*\)/metrics$,\1,p' "$log")
  say "$image: serving after $((($(date +%s%N) - begin) / 1000000)) ms, as user $(stat -c %u "/proc/$server")"
  curl -sf --retry 100 --retry-delay 0 --retry-max-time 30 --retry-all-errors \
    "http://$address/v2/health/ready" >/dev/null || fail "not ready"
  body=$(contained "$root" "$volume" /usr/bin/spinfer health --address "$address") \
    || fail "spinfer health: not ready"
  [[ $body == *"is ready" ]] || fail "spinfer health prints: $body"
  body=$(curl -sf "http://$address/v2/models/iris-classifier/predict" -d '{"features": [5.1, 3.5, 1.4, 0.2]}') \
    || fail "no prediction"
  [[ $body == *'"prediction":"setosa"'* ]] || fail "wrong prediction: $body"
  status=$(curl -s -o /dev/null -w '%{http_code}' "$admin/metrics")
  [ "$status" = 401 ] || fail "the admin plane responds with $status without the token"
  body=$(curl -sf -H "Authorization: Bearer $TOKEN" "$admin/metrics") || fail "no metrics with the token"
  [[ $body == *$'\nspinfer_ready 1'* ]] || fail "spinfer_ready is not 1"
  # Compiled ahead of time: nothing is compiled or written at startup.
  ! grep -qiE 'compiling|cannot (keep|write|store)|not used' "$log" || fail "components are compiled at startup"
  grep -q '^CapEff:.*0000000000000000$' "/proc/$server/status" || fail "the process has capabilities"
  grep -q '^NoNewPrivs:.*1$' "/proc/$server/status" || fail "the process may gain privileges"
  kill -TERM "$server"
  status=0
  wait "$server" || status=$?
  server=
  [ $status = 0 ] || fail "exit status $status after SIGTERM"
  grep -q drained "$log" || fail "no graceful shutdown"
}

if [ -n "${container:-}" ]; then
  try spinfer-example
  try app
else
  try example
fi
say "size of the root file system: $(du -sh --apparent-size "$(root_of "${container:+spinfer-}example")" | cut -f1)"
say "passed"

#!/usr/bin/env bash
# Writes the secrets of compose.yaml or kubernetes/base, with new passwords, to a folder:
#   deploy/secrets.sh deploy/secrets                   for compose
#   deploy/secrets.sh deploy/kubernetes/base/secrets   for Kubernetes
# Existing files are kept: remove them to get new passwords.
#
# REDIS  host and port of the Redis (redis:6379)
set -euo pipefail
[ $# = 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
folder=$1
REDIS=${REDIS:-redis:6379}

random() { od -An -vtx1 -N32 /dev/urandom | tr -d ' \n'; }
sha256() { printf '%s' "$1" | sha256sum | cut -d' ' -f1; }

# The folder is private. The files are not: compose mounts them unchanged, and the image's user reads them.
mkdir -p "$folder"
chmod 700 "$folder"
umask 022

if [ -e "$folder/runtime-config.toml" ] || [ -e "$folder/users.acl" ]; then
  echo "$folder: runtime-config.toml and users.acl belong together; kept"
else
  cache=$(random) store=$(random)
  cat > "$folder/runtime-config.toml" <<END
# --runtime-config-file of every spinfer that uses this Redis.
[cache]
redis = "redis://spinfer-cache:$cache@$REDIS/0"
prefix = "spinfer:"

[key_value_store.default]
type = "redis"
url = "redis://spinfer-store:$store@$REDIS/1"

# Components cannot connect to private networks, whatever name resolves there.
[outbound_networking]
block_networks = ["private"]
END
  # Each user has only the rights that its part of the host needs. Passwords are stored as SHA-256.
  cat > "$folder/users.acl" <<END
user default off
user spinfer-cache on #$(sha256 "$cache") ~spinfer:* +get +set +exists +hmget +hset +hello +client
user spinfer-store on #$(sha256 "$store") ~* +get +mget +set +mset +del +exists +scan +incrby +eval +select +hello +client
user health on nopass +ping
END
fi

if [ -e "$folder/admin.env" ]; then
  echo "$folder: admin.env exists; kept"
else
  echo "SPINFER_ADMIN_TOKEN=$(random)" > "$folder/admin.env"
fi

#!/bin/sh
# Runs rclone's onedrive backend against the emulator: a client that nobody here wrote.
#
# rclone insists on https://graph.microsoft.com, so everything happens in namespaces of its own: a private
# /etc/hosts, a private loopback with port 443, and a throw-away CA. Nothing outside changes.
#
# usage: rclone.sh DRIVE-TYPE [EMULATOR-COMMAND...]
#   The command (default: onedrivefs emulator) is called with
#     --listen 127.0.0.1:443 --drive-type T --tls-cert F --tls-key F
#   and with the same in EMULATOR_LISTEN, EMULATOR_DRIVE_TYPE, EMULATOR_TLS_CERT, EMULATOR_TLS_KEY.
#   With EMULATOR_NO_ARGS=1 it is called without arguments.
# needs: rclone, openssl, curl, unshare and ip; root, or user namespaces
set -eu

if [ -z "${RCLONE_INSIDE:-}" ]; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root=-r
    RCLONE_INSIDE=1 exec unshare $as_root --mount --net -- "$0" "$@"
fi

type=$1
shift
[ $# -gt 0 ] || set -- onedrivefs emulator
dir=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT INT TERM

ip link set lo up
printf '127.0.0.1 localhost graph.microsoft.com login.microsoftonline.com\n' >"$dir/hosts"
mount --bind "$dir/hosts" /etc/hosts

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=throw-away CA' \
    -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj '/CN=graph.microsoft.com' \
    -keyout "$dir/key.pem" -out "$dir/csr.pem" 2>/dev/null
printf 'subjectAltName=DNS:graph.microsoft.com,DNS:login.microsoftonline.com\nbasicConstraints=CA:FALSE\n' >"$dir/ext"
openssl x509 -req -in "$dir/csr.pem" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
    -extfile "$dir/ext" -out "$dir/cert.pem" 2>/dev/null

export EMULATOR_LISTEN=127.0.0.1:443 EMULATOR_DRIVE_TYPE="$type"
export EMULATOR_TLS_CERT="$dir/cert.pem" EMULATOR_TLS_KEY="$dir/key.pem"
[ -n "${EMULATOR_NO_ARGS:-}" ] || set -- "$@" --listen "$EMULATOR_LISTEN" --drive-type "$type" \
    --tls-cert "$EMULATOR_TLS_CERT" --tls-key "$EMULATOR_TLS_KEY"
"$@" >"$dir/server.log" 2>&1 &
server=$!

# What the real service must not see: proxies, the system's certificates, the user's rclone settings.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
export SSL_CERT_FILE="$dir/ca.pem" RCLONE_CONFIG="$dir/rclone.conf" HOME="$dir"
graph=https://graph.microsoft.com
tries=0
until curl -sf --cacert "$dir/ca.pem" -H 'Authorization: Bearer t' "$graph/v1.0/me/drive" >"$dir/drive.json"; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] && kill -0 "$server" || {
        echo "the emulator does not answer:"
        cat "$dir/server.log"
        exit 1
    }
    sleep 0.1
done
# Debian's rclone sends its token to upload and download URLs, which the documentation forbids.
curl -sf --cacert "$dir/ca.pem" -d '{"refuseDataAuthorization":false}' "$graph/_control/switches" >/dev/null
drive_id=$(sed 's/.*"id":"\([^"]*\)","lastMod.*/\1/' "$dir/drive.json")
[ -n "$drive_id" ] || { cat "$dir/drive.json"; exit 1; }

cat >"$RCLONE_CONFIG" <<CONF
[od]
type = onedrive
drive_id = $drive_id
drive_type = $type
token = {"access_token":"t","token_type":"Bearer","refresh_token":"r","expiry":"2099-01-01T00:00:00Z"}
CONF

rc() {
    # A retry would hide a wrong answer.
    rclone --retries 1 --low-level-retries 1 --contimeout 5s ${RCLONE_EXTRA:-} "$@"
}
step() { echo "rclone ($type): $*"; }

mkdir -p "$dir/src/deep/er"
: >"$dir/src/empty"
printf x >"$dir/src/one byte"
head -c 327680 /dev/urandom >"$dir/src/unit.bin"
head -c 10485760 /dev/urandom >"$dir/src/deep/ten.bin"
head -c 104857600 /dev/urandom >"$dir/src/deep/er/hundred.bin"
printf 'odd name\n' >"$dir/src/deep/a b #1 %41 & '+' äöü 😀.txt"
touch -d 2020-02-02T02:02:02Z "$dir/src/unit.bin"

step mkdir
rc mkdir od:dir/sub
step copy
rc copy "$dir/src" od:dir/sub
step check
rc check "$dir/src" od:dir/sub
rc check --download "$dir/src" od:dir/sub
step 'second copy sends nothing'
rc copy -v "$dir/src" od:dir/sub 2>"$dir/second.log"
if grep -q 'Copied' "$dir/second.log"; then
    cat "$dir/second.log"
    exit 1
fi
step 'times are kept'
rc lsl od:dir/sub/unit.bin | grep -q '2020-02-02 02:02:02'
step move
rc moveto od:dir/sub/deep/ten.bin od:dir/moved/TEN.bin
rc move od:dir/sub/deep/er od:dir/other
rc lsf od:dir/other | grep -qx hundred.bin
rc lsf od:dir/moved | grep -qx TEN.bin
rc cat od:dir/moved/TEN.bin | cmp - "$dir/src/deep/ten.bin"
step delete
rc deletefile od:dir/moved/TEN.bin
[ -z "$(rc lsf od:dir/moved)" ]
rc delete od:dir/sub
rc purge od:dir
[ -z "$(rc lsf od:)" ]
step about
rc about od: | grep -q '^Total:'
echo "rclone ($type): all is well"

#!/bin/sh
# Makes a certificate authority, a server certificate for localhost and a client certificate:
#   ./make-certs.sh [FOLDER]      default: certs/ beside this script
# Run it again for new ones. For development: guard or delete ca.key where it matters.
set -eu

folder=${1:-$(dirname "$0")/certs}
umask 077
mkdir -p "$folder"
cd "$folder"

config=$(mktemp)
trap 'rm -f "$config"' EXIT
cat >"$config" <<'END'
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = DNS:sample-client
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
END

key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" 2>/dev/null
    chmod 600 "$1.key"
}

signed() { # NAME COMMON-NAME
    key "$1"
    openssl req -new -config "$config" -key "$1.key" -subj "/CN=$2" |
        openssl x509 -req -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" \
            -days 365 -sha256 -extfile "$config" -extensions "$1" -out "$1.pem" 2>/dev/null
}

key ca
openssl req -x509 -new -config "$config" -extensions ca -key ca.key -days 3650 -sha256 \
    -subj "/CN=servd sample CA" -out ca.pem
signed server localhost
signed client sample-client
chmod 644 ca.pem server.pem client.pem

openssl verify -CAfile ca.pem server.pem client.pem >/dev/null
echo "made in $(pwd): ca.pem, server.pem, server.key, client.pem, client.key"

#!/bin/bash
# A real systemd as PID 1 of namespaces of its own, on a machine that it leaves untouched.
# As root: sandbox.sh FOLDER PROGRAM [ARGUMENT...]
#   FOLDER   is /run/sandbox inside; logs go there, and the exit status of PROGRAM
#   PROGRAM  runs as a unit once systemd is up; the sandbox ends with it
# Folders that $SANDBOX_BIND names (HERE=INSIDE, separated by spaces, INSIDE below /run) are shown
# inside, read-only. Private are: PIDs, mounts, IPC, host name, cgroups, the network (with a loopback
# interface), a copy of /etc without units, and, empty, /run, /tmp, /var/tmp, /var/log, /var/lib, /opt.
set -eu
if [ -z "${SANDBOX_MOUNTS-}" ]; then
    SANDBOX_MOUNTS=private exec unshare --mount bash "$0" "$@"
fi
unset SANDBOX_MOUNTS
folder=$(realpath "$1")
shift

cat >"$folder/sandbox.target" <<END
[Unit]
Requires=sandbox.service
After=sandbox.service
AllowIsolate=yes
END
cat >"$folder/sandbox.service" <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=file:/run/sandbox/program.log
StandardError=inherit
ExecStart=/bin/bash -c '"\$@"; echo \$? >/run/sandbox/status' - $*
ExecStopPost=systemctl exit
END

# What systemd will take for the root of all cgroups: two sandboxes at a time do not meet.
cgroups=$(mktemp -d "$folder/cgroups.XXXXXX")
mount -t cgroup2 none "$cgroups"
above=$cgroups$(sed -n 's/^0:://p' /proc/self/cgroup)
own=$above/servd-sandbox-$$
mkdir "$own"
echo $$ >"$own/cgroup.procs"
leave() {
    echo $$ >"$above/cgroup.procs"
    for _ in $(seq 50); do # the dead leave their cgroups a little later
        find "$own" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
    done
    umount "$cgroups" && rmdir "$cgroups"
}
trap leave EXIT

export SANDBOX_FOLDER=$folder
timeout -k 5 "${SANDBOX_SECONDS:-500}" \
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup --uts --ipc --net \
    bash -eu >"$folder/systemd.log" 2>&1 <<'END' || true
mount -t tmpfs -o mode=755 none /run
show() {
    mkdir -p "$2"
    mount --bind "$1" "$2"
}
show "$SANDBOX_FOLDER" /run/sandbox
for pair in ${SANDBOX_BIND-}; do
    show "${pair%%=*}" "${pair#*=}"
    mount -o remount,bind,ro "${pair#*=}"
done
mkdir /run/etc
cp -a /etc/. /run/etc/
rm -rf /run/etc/systemd/system
mkdir /run/etc/systemd/system
cp /run/sandbox/sandbox.{target,service} /run/etc/systemd/system/
mount --bind /run/etc /etc
for private in /var/log /var/lib /opt; do mount -t tmpfs -o mode=755 none "$private"; done
for private in /tmp /var/tmp; do mount -t tmpfs -o mode=1777 none "$private"; done
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
ip link set lo up
exec env -i container=sandbox /usr/lib/systemd/systemd --system --unit=sandbox.target \
    --log-target=console --log-level=notice </dev/null
END
[ -f "$folder/status" ] || { tail -30 "$folder/systemd.log" >&2; exit 125; }
exit "$(cat "$folder/status")"

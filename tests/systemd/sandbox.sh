#!/bin/bash
# A real systemd as PID 1 of namespaces of its own: sandbox.sh UNITS SCRIPT OUT (as root)
#   UNITS   folder whose files are laid in /etc/systemd/system
#   SCRIPT  runs as a unit once systemd is up; the sandbox ends with it, and with its exit status
#   OUT     empty folder for logs, visible on both sides
# /tmp, /run, /var/log, /etc/systemd/system, cgroups, PIDs, mounts, IPC and the host name are private;
# the rest of the file system and the network are the host's.
set -eu
units=$(realpath "$1") script=$(realpath "$2") out=$(realpath "$3")
boot=$out/boot
mkdir "$boot"
cp -a "$units/." "$boot/"

cat >"$boot/sandbox.target" <<END
[Unit]
Requires=sandbox.service
After=sandbox.service
AllowIsolate=yes
END
cat >"$boot/sandbox.service" <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
Environment=PATH=$PATH
StandardOutput=file:$out/script.log
StandardError=inherit
ExecStart=/bin/bash -c '/bin/bash "$script"; echo \$? >"$out/status"'
ExecStopPost=/bin/systemctl exit
END
cat >"$out/init" <<END
mount --make-rprivate /
for folder in /tmp /run /var/log /var/lib/systemd /etc/systemd/system; do
    mount -t tmpfs none "\$folder"
done
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
cp -a "$boot/." /etc/systemd/system/
exec env container=sandbox /usr/lib/systemd/systemd --system --unit=sandbox.target \
    --log-target=console --log-level=notice
END
timeout -k 5 100 unshare --pid --fork --kill-child --mount --mount-proc --cgroup --uts --ipc \
    bash "$out/init" >"$out/systemd.log" 2>&1 </dev/null || true
[ -f "$out/status" ] || { tail -30 "$out/systemd.log" >&2; exit 125; }
exit "$(cat "$out/status")"

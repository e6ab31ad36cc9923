#!/bin/sh
# Becomes pid 1 of a lab host, inside fresh mount, pid, uts, ipc and time namespaces and the host's network namespace.
# Environment: NAME LOWER DISK CGROUP (the host's own cgroup2 directory, may be empty)
set -e
if [ -n "$CGROUP" ] && [ -z "$IN_CGROUP" ]; then
  mkdir -p "$CGROUP"
  echo 0 > "$CGROUP/cgroup.procs"
  IN_CGROUP=1 exec unshare --cgroup /bin/sh "$0"
fi
mount --make-rprivate /
# In a user namespace dpkg renames directories only when the overlay may use user.* attributes.
X=; grep -qE "^ +0 +0 +4294967295" /proc/self/uid_map || X=,userxattr
M="$DISK/root"
mount -t overlay "lab-$NAME" -o "lowerdir=$LOWER,upperdir=$DISK/upper,workdir=$DISK/work$X" "$M"

mount -t proc proc "$M/proc"
cat /proc/sys/kernel/random/uuid > "$DISK/boot_id"
# The kernel is shared with the machine: nothing in a host may set its sysctls or ring its sysrq bell.
for n in sys sysrq-trigger; do
  [ -e "$M/proc/$n" ] || continue
  mount --bind "$M/proc/$n" "$M/proc/$n"
  mount -o remount,bind,ro "$M/proc/$n"
done
mount --bind "$DISK/boot_id" "$M/proc/sys/kernel/random/boot_id"
mount -t sysfs -o ro sysfs "$M/sys" 2>/dev/null || true
mount -t tmpfs -o mode=755,size=32m tmpfs "$M/run"
mount -t tmpfs -o mode=1777,size=256m tmpfs "$M/tmp"

# Private device nodes: systemd changes the modes of what it finds, and must not find the machine's own.
mount -t tmpfs -o mode=755,size=1m tmpfs "$M/dev"
for n in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
  d="$M/dev/${n%%:*}"; r=${n#*:}
  mknod -m 666 "$d" c "${r%:*}" "${r#*:}" 2>/dev/null || { : > "$d"; mount --bind "/dev/${n%%:*}" "$d"; }
done
mkdir "$M/dev/pts" "$M/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$M/dev/pts"
mount -t tmpfs -o mode=1777,size=32m tmpfs "$M/dev/shm"
ln -s pts/ptmx "$M/dev/ptmx"; ln -s /proc/self/fd "$M/dev/fd"
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "$M/dev/${n#*:}"; done
mknod -m 600 "$M/dev/console" c 1 3 2>/dev/null || ln -s null "$M/dev/console"

hostname "$NAME" 2>/dev/null || chroot "$M" hostname "$NAME"
[ -z "$CGROUP" ] || mount -t cgroup2 cgroup2 "$M/sys/fs/cgroup"
cd "$M"; mkdir -p .old; pivot_root . .old; umount -l .old; rmdir .old 2>/dev/null || true
unset LOWER DISK CGROUP IN_CGROUP; export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux container=lab
exec setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time,-syslog --inh-caps=-sys_module,-sys_rawio,-sys_time,-syslog \
  /lib/systemd/systemd --log-target=console --log-level=warning

#!/bin/sh
# Makes the layer that turns a Debian base into a lab host. Runs in its own mount and pid namespace.
# Environment: BASE LAYER DEBS FIRST (the .debs to install) SSH_KEY KEYRING
set -e
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
X=; grep -qE "^ +0 +0 +4294967295" /proc/self/uid_map || X=,userxattr
M="$LAYER/root"
mount -t overlay site -o "lowerdir=$BASE,upperdir=$LAYER/upper,workdir=$LAYER/work$X" "$M"
mount -t proc proc "$M/proc"
mount -t tmpfs tmpfs "$M/run"

# Units that belong to a machine, not to a host that shares its kernel.
for u in console-getty.service getty@tty1.service systemd-networkd-wait-online.service systemd-resolved.service \
  systemd-timesyncd.service systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket \
  systemd-udevd-kernel.socket systemd-journal-flush.service systemd-sysctl.service systemd-modules-load.service \
  systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-random-seed.service systemd-pstore.service \
  kmod-static-nodes.service sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount fstrim.timer dpkg-db-backup.timer \
  e2scrub_all.timer systemd-remount-fs.service systemd-ask-password-console.path \
  systemd-ask-password-wall.path getty.target; do
  ln -sf /dev/null "$M/etc/systemd/system/$u"
done
ln -sf /lib/systemd/system/multi-user.target "$M/etc/systemd/system/default.target"
# Not a competing patcher unless a test makes it one; so these are disabled, not masked.
chroot "$M" systemctl disable --quiet apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service
printf 'APT::Periodic::Update-Package-Lists "0";\nAPT::Periodic::Unattended-Upgrade "0";\n' \
  > "$M/etc/apt/apt.conf.d/20auto-upgrades"

chroot "$M" useradd --create-home --shell /bin/bash patch
echo 'patch ALL=(ALL) NOPASSWD: ALL' > "$M/etc/sudoers.d/patch"; chmod 440 "$M/etc/sudoers.d/patch"
mkdir -m 700 "$M/home/patch/.ssh"; echo "$SSH_KEY" > "$M/home/patch/.ssh/authorized_keys"
chroot "$M" chown -R patch:patch /home/patch/.ssh
rm -f "$M"/etc/ssh/ssh_host_*
cat > "$M/etc/ssh/sshd_config.d/lab.conf" <<C
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
PermitRootLogin no
UseDNS no
MaxStartups 200
MaxSessions 50
C
# The key is laid into a host before it boots; sshd must not wait for a generator of others.
: > "$M/etc/machine-id"

install -m 644 "$KEYRING" "$M/usr/share/keyrings/lab-archive-keyring.gpg"
rm -f "$M"/etc/apt/sources.list "$M"/etc/apt/sources.list.d/*
cat > "$M/etc/apt/sources.list.d/lab.sources" <<C
Types: deb
URIs: http://10.77.0.1:8081
Suites: lab lab-security
Components: main
Signed-By: /usr/share/keyrings/lab-archive-keyring.gpg
C
# As apt-get leaves it: what was installed first is in the package cache, though in no index.
for d in $FIRST; do install -m 644 "$DEBS/$d" "$M/var/cache/apt/archives/$d"; done
(cd "$M/var/cache/apt/archives" && chroot "$M" sh -c "cd /var/cache/apt/archives && dpkg -i $FIRST")
: > "$M/etc/resolv.conf"
umount "$M/run" "$M/proc" "$M"

#!/bin/bash
# The first process of a box: a machine with an address, a file system, processes and an SSH server of its own.
# Started by _boxes.py in new namespaces. box.sh NAME ADDRESS/PREFIX FOLDER
#   FOLDER/authorized_keys, FOLDER/profile   who may log in, and what a shell of the box reads first
# Everything but /home, /tmp, /run and /dev/shm is read-only, and those belong to the box alone.
set -e
name=$1 address=$2 folder=$3
hostname "$name"
ip link set lo up
for _ in $(seq 200); do
    ip link show eth0 > /dev/null 2>&1 && break
    sleep 0.05
done
ip address add "$address" dev eth0
ip link set eth0 up

mkdir -p "$folder"/home/.ssh "$folder"/tmp "$folder"/etc
chmod 1777 "$folder"/tmp
chmod 700 "$folder"/home/.ssh
cp "$folder"/authorized_keys "$folder"/home/.ssh/
chmod 600 "$folder"/home/.ssh/authorized_keys
[ -f "$folder"/home/.bashrc ] || cp "$folder"/profile "$folder"/home/.bashrc
[ -f "$folder"/etc/host_key ] || ssh-keygen -q -t ed25519 -N '' -f "$folder"/etc/host_key
printf '127.0.0.1 localhost\n%s %s\n' "${address%/*}" "$name" > "$folder"/etc/hosts
# The user of Ubuntu's images; the same as root, but in a box that is no one.
{ echo 'ubuntu:x:0:0::/home/ubuntu:/bin/bash'; grep -v '^ubuntu:' /etc/passwd; } > "$folder"/etc/passwd
{ echo 'ubuntu:*:19000:0:99999:7:::'; cat /etc/shadow; } > "$folder"/etc/shadow
for file in hosts passwd shadow; do mount --bind "$folder"/etc/$file /etc/$file; done

mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /run/box
cp "$folder"/etc/host_key /run/box/
chmod 600 /run/box/host_key
cat > /run/box/sshd_config <<END
Port 22
ListenAddress ${address%/*}
HostKey /run/box/host_key
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
AuthorizedKeysFile /home/ubuntu/.ssh/authorized_keys
AcceptEnv *
MaxStartups 100
MaxSessions 100
END
mount -t tmpfs -o size="${BOX_SHM:-600m}" tmpfs /dev/shm
mount -t tmpfs tmpfs /home
mkdir /home/ubuntu
mount --bind "$folder"/home /home/ubuntu
mount --bind "$folder"/tmp /tmp  # hides the folders of the other boxes, which lie below the real one
mount -o remount,bind,ro /
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ /usr/sbin/sshd -D -e -f /run/box/sshd_config &

trap 'exit 0' TERM
set +e
while :; do wait -n 2> /dev/null || sleep 0.5; done  # the first process buries the others

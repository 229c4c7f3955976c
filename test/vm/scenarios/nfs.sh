# The kernel's NFS server, and a mount of what it exports by NFS 4.2 in the same guest. 80 files from the export to an exFAT
# stick by an ordinary user; N files onto the export; files that the server takes away while they are read; a server that
# stops answering in the middle of a copy, and comes back. Leaves /tmp/tee.jsonl (all that the agent told), /tmp/floods
# (name, files, ms, ticks of the agent's CPU) and /tmp/said (what was seen while the server was away).
n=$(cat /vm/env/N)
. /tmp/lib.sh
say() { echo "== $* ($(vm ms) ms)"; }
status() { sekisho-agent status --config /etc/agent.yaml; }
hangs() { status | grep -q '/mnt/hr: file system does not answer'; }
answers() { ! hangs; }

mkdir -p /srv /mnt/hr /var/lib/sekisho
mount -t tmpfs -o mode=755,nr_inodes=200k srv /srv # of what it lies on as little as can be is to be measured
mkdir -p /srv/hr && mv /tmp/papers /srv/hr/
put 100 /srv/hr/stale
chown -R user /srv/hr
put "$n" /home/local
put 26 /home/few
put 300 /home/many

modprobe -a nfsd nfsv4
mount -t nfsd nfsd /proc/fs/nfsd
# What rpc.mountd would answer the server: who 127.0.0.1 is, how /srv is exported to it (insecure, async, no subtree check,
# with a number), and which number that is.
ever=2147483647
echo "nfsd 127.0.0.1 $ever here" >/proc/net/rpc/auth.unix.ip/channel
echo "here /srv $ever $((0x2412)) 65534 65534 0" >/proc/net/rpc/nfsd.export/channel
printf 'here 1 \\x00000000 %s /srv\n' $ever >/proc/net/rpc/nfsd.fh/channel
echo '-2 -3 +4.2' >/proc/fs/nfsd/versions
echo 10 >/proc/fs/nfsd/nfsv4gracetime # else nothing can be opened for a minute and a half
echo 8 >/proc/fs/nfsd/threads
mount -t nfs4 -o vers=4.2,addr=127.0.0.1,clientaddr=127.0.0.1 127.0.0.1:/hr /mnt/hr || { dmesg | tail; exit 1; }
say mounted
: >$tee
sekisho-agent run --config /etc/agent.yaml --tee $tee >/tmp/agent.out 2>/tmp/agent.log &
agent=$!
within 60 grep -q agent-started $tee || exit 1
vm plug EX && vm mount EX /mnt/ex exfat uid=1000 || exit 1
watched hr ex || exit 1
usleep 1000000

say watched
papers || exit 1
settled

say copied
flood hr || exit 1

say stale
ls -lR /mnt/hr/stale >/dev/null
for f in /mnt/hr/stale/0/*; do
	cat "$f"
	rm "/srv${f#/mnt}"
	cat "$f"
done >/tmp/stale 2>&1
rm -rf /srv/hr/stale
settled

say away
# The agent has not looked yet at what was written last when the server goes. What goes to the stick meanwhile is told meanwhile.
kill -STOP $agent
cp -r /home/few /mnt/hr/late || exit 1
(cp -r /home/many /mnt/hr/hang; echo "the copy ended with status $?" >>/tmp/said) &
copy=$!
until [ $(ls /srv/hr/hang/0 2>/dev/null | wc -l) -gt 50 ]; do :; done # without a pause: a fast machine copies 250 more in a moment
ip link set lo down
kill -CONT $agent
usleep 2000000
echo "$(ls /srv/hr/hang/0 | wc -l) of 300 files had come" >>/tmp/said
su user -c 'cp -r /home/few /mnt/ex/meanwhile'
within 90 sh -c "[ \$(grep -c /mnt/ex/meanwhile/ $tee) -ge 26 ]" && echo "told while the server was away" >>/tmp/said
within 90 hangs && echo "status says that it does not answer" >>/tmp/said
kill -0 $copy && echo "the copy hung" >>/tmp/said
ip link set lo up
say back
wait $copy
settled
within 90 answers && echo "status says that it answers" >>/tmp/said
cat /tmp/said
status
kill $agent
wait $agent
echo "the agent ended with status $?"

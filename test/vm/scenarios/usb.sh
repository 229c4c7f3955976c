# An unregistered stick (S1) that gets 80 files from an ordinary user, a registered one (S2) with 10, a keyboard (K1).
# Leaves /tmp/tee.jsonl (all the agent saw and said) and /tmp/marks (name, wall clock, seconds since boot).
# The guest is slow, so this waits for what it expects in the agent's output, each time with a limit; the checks come on
# the host.
. /tmp/lib.sh

mkdir -p /var/lib/sekisho /home/user/papers
for i in $(seq -w 80); do dd if=/dev/urandom of=/home/user/papers/list-$i.csv bs=1000 count=20 2>/dev/null; done
chown -R 1000:1000 /home/user
: >$tee
sekisho-agent check --config /etc/agent.yaml || exit 1
sekisho-agent run --config /etc/agent.yaml --tee $tee >/tmp/agent.out 2>/tmp/agent.log &
agent=$!
await 90 '"agent-started"' || exit 1
usleep 2000000

(await 90 '"usb-attached".*S1-0001|S1-0001.*"usb-attached"' && mark s1-told) &
told=$!
mark s1-plug
vm plug S1 || exit 1
wait $told
vm mount S1 /mnt/s1 vfat uid=1000 || exit 1
await 90 '"volume-mounted".*/mnt/s1|/mnt/s1.*"volume-mounted"'
watched s1 || exit 1
mark s1-copy
su user -c 'cp /home/user/papers/*.csv /mnt/s1/' || exit 1
sync
await 90 '"USB-3"'
settled # what is pulled while files wait to be told is another scenario's, files.sh
mark s1-unplug
vm unplug S1
await 90 '"usb-detached".*S1-0001|S1-0001.*"usb-detached"'
umount -l /mnt/s1

mark s2-plug
vm plug S2 || exit 1
vm mount S2 /mnt/s2 vfat uid=1000 || exit 1
await 90 '"volume-mounted".*/mnt/s2|/mnt/s2.*"volume-mounted"'
watched s2 || exit 1
su user -c 'cp /home/user/papers/list-0*.csv /mnt/s2/'
sync
settled
umount /mnt/s2
vm unplug S2
await 90 '"usb-detached".*S2-APPROVED|S2-APPROVED.*"usb-detached"'

mark k1-plug
vm plug K1 || exit 1
await 90 '"keyboard"'
usleep 3000000
mark end

dmesg >/tmp/kernel.log
kill -TERM $agent
wait $agent
echo "the agent ended with status $?"
cat /tmp/agent.log

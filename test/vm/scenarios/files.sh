# 80 files from a protected SMB share to an exFAT stick by an ordinary user; N files onto FLOODS (exFAT, vfat, SMB); a clock that
# is set; a vfat stick that is pulled while its files wait to be told. Leaves /tmp/tee.jsonl (all that the agent told) and
# /tmp/floods (name, files, ms, ticks of the agent's CPU); the checks come on the host.
n=$(cat /vm/env/N)
. /tmp/lib.sh

mkdir -p /var/lib/sekisho
put "$n" /home/local
put 26 /home/few
: >$tee
sekisho-agent run --config /etc/agent.yaml --tee $tee >/tmp/agent.out 2>/tmp/agent.log &
agent=$!
within 60 grep -q agent-started $tee || exit 1
vm share /mnt/hr || exit 1
vm plug EX FAT || exit 1
vm mount EX /mnt/ex exfat uid=1000 && vm mount FAT /mnt/fat vfat uid=1000 || exit 1
watched hr ex fat || exit 1
usleep 1000000

papers || exit 1
settled

for m in $(cat /vm/env/FLOODS); do
	flood "$m" || exit 1
done

for step in 10800 -21600 10800; do
	date -s "@$(($(date +%s) + step))" >/dev/null
	cp -r /home/few "/mnt/ex/clock $(vm ms)"
done
settled

cp -r /home/few /mnt/fat/pulled && vm unplug FAT
settled
kill $agent
wait $agent
echo "the agent ended with status $?"

# 80 files from a protected SMB share to an exFAT stick by an ordinary user; N files onto exFAT, vfat and SMB; a clock that
# is set; a vfat stick that is pulled while its files wait to be told. Leaves /tmp/tee.jsonl (all that the agent told) and
# /tmp/floods (name, files, ms, ticks of the agent's CPU); the checks come on the host.
n=$(cat /vm/env/N)
tee=/tmp/tee.jsonl
within() { # within SECONDS COMMAND...: until it succeeds
	local end
	end=$(($(vm ms) + $1 * 1000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(vm ms)" -lt $end ] || { echo "in vain: $*"; tail -n 3 /tmp/agent.log; return 1; }
		usleep 200000
	done
}
settled() { # until the agent has told nothing for three seconds
	local was
	was=-1
	until [ "$(stat -c %s $tee)" = "$was" ]; do
		was=$(stat -c %s $tee)
		usleep 3000000
	done
}
cpu() { awk '{print $14 + $15}' /proc/$agent/stat; }
put() { # put COUNT DIR: that many files of 20 bytes
	local i
	mkdir -p "$2"
	i=0
	while [ $i -lt "$1" ]; do
		printf 'file number %08d' $i >"$2/f$i"
		i=$((i + 1))
	done
}

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
for m in hr ex fat; do within 30 sh -c "sekisho-agent status --config /etc/agent.yaml --json | grep -q '\"/mnt/$m\"'" || { sekisho-agent status --config /etc/agent.yaml; exit 1; }; done
usleep 1000000

su user -c 'cp /mnt/hr/papers/*.csv /mnt/ex/' || exit 1
settled

for m in ex fat hr; do
	before=$(cpu)
	t=$(vm ms)
	cp -r /home/local "/mnt/$m/flood" || exit 1
	t=$(($(vm ms) - t))
	settled
	echo "$m $n $t $(($(cpu) - before))" >>/tmp/floods
done
cat /tmp/floods

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

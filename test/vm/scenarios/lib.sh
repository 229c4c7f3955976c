# For scenarios that run the agent with --tee: sourced as /tmp/lib.sh.
tee=/tmp/tee.jsonl
trap '[ $? -eq 0 ] || { echo "ended early, after the mark $(tail -n 1 /tmp/marks 2>/dev/null)"; tail -n 20 /tmp/agent.log; }' EXIT
trap 'exit 143' TERM # the time is up

mark() { # mark NAME: now, by the wall clock and by the clock of the kernel's messages, in seconds
	# A file's time is that of the last tick, which comes late on a busy host: what was told before would count as after.
	echo "$1 $(adjtimex | awk '/tv_sec/ {s = $2} /tv_usec/ {printf "%d.%06d", s, $2}') $(cut -d' ' -f1 /proc/uptime)" >>/tmp/marks
}

await() { # await SECONDS PATTERN [TIMES]: until the agent wrote that many lines like it
	local up end
	read -r up _ </proc/uptime
	end=$((${up%.*} + $1))
	until [ "$(grep -cE "$2" $tee)" -ge "${3:-1}" ]; do
		read -r up _ </proc/uptime
		[ "${up%.*}" -lt $end ] || { echo "not ${3:-1} lines like $2 within $1 s"; return 1; }
		usleep 10000
	done
}

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

watched() { # watched NAME...: until the agent says that it watches /mnt/NAME
	for m; do
		within 60 sh -c "sekisho-agent status --config /etc/agent.yaml --json | grep -q '\"/mnt/$m\"'" || { sekisho-agent status --config /etc/agent.yaml; return 1; }
	done
}

put() { # put COUNT DIR: that many files of 20 bytes, a thousand in a folder: FAT goes through all of it for each name
	local i
	i=0
	while [ $i -lt "$1" ]; do
		[ $((i % 1000)) -ne 0 ] || mkdir -p "$2/$((i / 1000))"
		printf 'file number %08d' $i >"$2/$((i / 1000))/f$i"
		i=$((i + 1))
	done
}

papers() { # the 80 files of /mnt/hr/papers to /mnt/ex by an ordinary user, ten at a time, each when those before are told:
	# on a busy host the agent may know of a read more than ten seconds after the write, and the copy lacks its source then
	local d
	for d in 0 1 2 3 4 5 6 7; do
		su user -c "cp /mnt/hr/papers/*\ $d?.csv /mnt/ex/" || return 1
		within 90 sh -c "[ \$(grep -v '\"kind\":\"alert\"' $tee | grep -c '\"path\":\"/mnt/ex/') -ge $((10 * (d + 1))) ]"
	done
}

used() { awk '{print $14 + $15}' /proc/$agent/stat; } # used: ticks of the agent's CPU

flood() { # flood NAME: the files of /home/local to /mnt/NAME; a line in /tmp/floods says how many they were, ms, ticks
	local before t
	before=$(used)
	t=$(vm ms)
	cp -r /home/local "/mnt/$1/flood" || return 1
	t=$(($(vm ms) - t))
	settled
	echo "$1 $(find /home/local -type f | wc -l) $t $(($(used) - before))" >>/tmp/floods
	tail -n 1 /tmp/floods
}

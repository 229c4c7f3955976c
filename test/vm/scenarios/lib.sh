# For scenarios that run the agent with --tee: sourced as /tmp/lib.sh.
tee=/tmp/tee.jsonl

mark() { # mark NAME: now, by the wall clock, and by the clock of the kernel's messages
	: >/tmp/now
	read -r up _ </proc/uptime
	echo "$1 $(stat -c %y /tmp/now | cut -d. -f1 | tr ' ' T).$(stat -c %y /tmp/now | cut -d. -f2 | cut -c1-3)Z $up" >>/tmp/marks
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

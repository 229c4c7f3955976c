# For the scenarios of packages: sourced as /root/lib.sh. Times are told, not judged: the guest is many times slower than a PC.
say() { echo "== $*"; }
fail() { echo "FAILED: $*"; failed=1; }
until_ok() { # until_ok SECONDS COMMAND...
	n=$(($1 * 10))
	shift
	until "$@" >/dev/null 2>&1; do
		n=$((n - 1))
		[ $n -gt 0 ] || { fail "in vain: $*"; return 1; }
		sleep 0.1
	done
}
ms() { read -r up _ </proc/uptime; echo "${up%.*}${up#*.}0"; }
watching() { # at least four of the five sensors by their best mechanism, none without any
	sekisho-agent status --json | tr -d ' \n' >/tmp/status && [ "$(grep -o '"state":"ok"' /tmp/status | wc -l)" -ge 4 ] && ! grep -q '"state":"down"' /tmp/status
}
failed=0
export SEKISHO_LANG=en DEBIAN_FRONTEND=noninteractive
version() { sekisho-agent version | head -n 1; }

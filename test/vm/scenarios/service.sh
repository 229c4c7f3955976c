# In the Debian guest: the agent as a service of systemd, under its hardened unit. Installed, started, proven by a
# self-test and by a stick that the desktop's automounter mounts, killed, started again by systemd, stopped, removed.
say() { echo "== $*"; }
until_ok() { # until_ok SECONDS COMMAND...
	n=$(($1 * 5))
	shift
	until "$@" >/dev/null 2>&1; do
		n=$((n - 1))
		[ $n -gt 0 ] || { echo "in vain: $*"; return 1; }
		sleep 0.2
	done
}
mkdir -p /etc/sekisho && cp /root/agent.yaml /etc/sekisho/agent.yaml
sekisho-agent service install || exit 1
systemd-analyze verify /etc/systemd/system/sekisho-agent.service && say verified
sekisho-agent service start || exit 1
until_ok 60 sekisho-agent status || exit 1
until_ok 60 sekisho-agent selftest --within 10s && say selftest
vm plug S1 && udisksctl mount -b "$(vm part S1)" --no-user-interaction || exit 1
until_ok 60 sh -c 'sekisho-agent status --json | grep -q "\"/media/root/"' || exit 1 # it watches the stick
mkdir -p /tmp/papers
for i in $(seq 60); do head -c 2000 /dev/urandom >/tmp/papers/f$i; done
cp /tmp/papers/* /media/root/*/
until_ok 30 sh -c 'sekisho-agent status --json | grep -q "\"alerts_raised\": [3-9]"' && say alerts
sekisho-agent status
kill -9 "$(systemctl show -P MainPID sekisho-agent)"
until_ok 30 sekisho-agent status && say "back after kill -9"
sekisho-agent service stop && [ "$(systemctl is-active sekisho-agent)" = inactive ] && say stopped
sekisho-agent service uninstall && [ ! -e /etc/systemd/system/sekisho-agent.service ] && say removed
grep -c '"msg":"agent stopped"' /var/lib/sekisho/log/agent.log

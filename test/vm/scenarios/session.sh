# In the Debian guest: people log on by login(1) on a terminal and to a desktop's session, lock, leave idle and use it
# again, log off; logind tells it all. The idle times are real to logind: the guest's clock goes on by 20 minutes.
say() { echo "== $*"; }
until_ok() { # until_ok SECONDS COMMAND...
	n=$(($1 * 2)) # a look takes longer than the pause: the guest is slow
	shift
	until "$@" >/dev/null 2>&1; do
		n=$((n - 1))
		[ $n -gt 0 ] || { echo "in vain: $*"; loginctl list-sessions; grep -c . /root/told.jsonl; return 1; }
		sleep 0.2
	done
}
# With the quotes: where a line tells of the grep itself, they are escaped.
count() { grep "^{\"@timestamp" /root/told.jsonl | grep -v '"kind":"alert"' | grep -c "\"action\":\"session-$1\".*\"name\":\"$2\""; }
told() { [ "$(count "$1" "$2")" -ge "${3:-1}" ]; }
useradd -m tanaka && useradd -m sato || exit 1
mkdir -p /etc/sekisho && cp /root/agent.yaml /etc/sekisho/agent.yaml

# The hardened unit lets it speak to the bus.
sekisho-agent service install && sekisho-agent service start || exit 1
until_ok 60 sh -c 'sekisho-agent status | grep -q logind' && say "logind under the unit"
sekisho-agent status
sekisho-agent service stop && sekisho-agent service uninstall || exit 1

# On a terminal, from the start on: known and not told, but for the end.
mkfifo /tmp/early /tmp/late
script -qfc "login -f sato" /dev/null </tmp/early >/dev/null 2>&1 &
exec 3>/tmp/early
until_ok 30 sh -c 'loginctl list-sessions --no-legend | grep -q sato' || exit 1
sekisho-agent run --config /etc/sekisho/agent.yaml --tee /root/told.jsonl 2>/root/agent.err &
agent=$!
until_ok 60 sh -c 'sekisho-agent status | grep -q logind' || { tail /root/agent.err; exit 1; }

systemd-run -q --unit=desk -p PAMName=login -p User=tanaka -p TTYPath=/dev/tty8 -p StandardInput=tty -p StandardOutput=journal \
	-E XDG_SESSION_TYPE=wayland sleep 1000 || exit 1
until_ok 30 told logon tanaka && say "logon to a desktop"
id=$(loginctl list-sessions --no-legend | awk '$3 == "tanaka" {print $1; exit}')
loginctl show-session "$id" -p Id -p Name -p Class -p Type -p TTY -p Audit -p Leader -p State
# Whose doing it is: sudo on the terminal, and a program that the desktop has its service manager start.
chmod 4755 /usr/bin/sudo && echo 'ALL ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers && chmod 440 /etc/sudoers || exit 1
echo 'sudo -n sleep 0.771' >&3
until_ok 30 grep -q '"args":\["sleep","0.771"\]' /root/told.jsonl && say "sudo on a terminal"
runuser -u tanaka -- env XDG_RUNTIME_DIR=/run/user/$(id -u tanaka) systemd-run -q --user sleep 0.772 || exit 1
until_ok 30 grep -q '"0.772"\]' /root/told.jsonl && say "a program by the desktop's service manager"
echo "desktop is $id"
object=$(busctl call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager GetSession s "$id" | sed 's/^o "//; s/"$//')
hint() { busctl call org.freedesktop.login1 "$object" org.freedesktop.login1.Session "Set$1Hint" b "$2"; }
hint Locked true && until_ok 30 told locked tanaka && say locked
hint Locked false && until_ok 30 told unlocked tanaka && say unlocked
loginctl lock-session "$id" && until_ok 30 grep -q '"message":"asked to lock' /root/told.jsonl && say "asked to lock"
hint Idle true || exit 1
sleep 25 # the terminal's last read is looked at every ten seconds
date -s '+20 minutes' >/dev/null
hint Idle false && until_ok 30 told resumed tanaka && say "idle desktop used"
echo true >&3
until_ok 30 told resumed sato && say "idle terminal used"
systemctl stop desk
until_ok 30 told logoff tanaka && say "logoff from a desktop"
# A program left behind keeps the session in logind; its person is gone.
script -qfc "login -f tanaka" /dev/null </tmp/late >/dev/null 2>&1 &
exec 4>/tmp/late
until_ok 30 told logon tanaka 2 && say "logon on a terminal"
echo 'nohup sleep 500 >/dev/null 2>&1 &' >&4
sleep 2
echo exit >&4
until_ok 40 told logoff tanaka 2 && say "logoff with a program left behind"
loginctl list-sessions --no-legend
systemctl restart systemd-logind
echo exit >&3
until_ok 40 told logoff sato && say "logoff after a restart of logind"
kill $agent
wait $agent

# In the Debian guest: both packages as an administrator has them. Installed, the service watches; upgraded with edited
# settings and with broken ones, removed, kept and purged.
. /root/lib.sh

dpkg -i /root/agent-1.deb || fail install
old=$(version)
until_ok 60 watching && say "installed and watching"
systemctl is-enabled sekisho-agent | grep -qx enabled || fail "not enabled"
systemctl stop sekisho-agent
began=$(ms)
systemctl start sekisho-agent
until_ok 60 watching
say "watching"
echo "from systemctl start to the first status that tells so: $(($(ms) - began)) ms"
journalctl -u sekisho-agent -o short-monotonic --no-pager | tail -n 3
sekisho-agent selftest --within 30s >/dev/null && say selftest
systemd-analyze security --no-pager sekisho-agent | tail -n 1
systemd-analyze verify sekisho-agent.service && say verified
sekisho-agent doctor | head -n 40

was=$(systemctl show -P MainPID sekisho-agent)
dpkg -i /root/agent-1.deb >/dev/null || fail "install again"
until_ok 60 watching && say "installed twice"
sed -i '/^host:/a\  department: "by hand"' /etc/sekisho/agent.yaml
dpkg -i /root/agent-2.deb </dev/null || fail upgrade
new=$(version)
until_ok 60 watching
grep -q 'by hand' /etc/sekisho/agent.yaml && [ "$new" != "$old" ] && [ "$(systemctl show -P MainPID sekisho-agent)" != "$was" ] && say upgraded

# A later version that does not take these settings must not end the watch.
cp /etc/sekisho/agent.yaml /root/good.yaml
echo 'no_such_key: 1' >>/etc/sekisho/agent.yaml
was=$(systemctl show -P MainPID sekisho-agent)
dpkg -i /root/agent-2.deb </dev/null 2>/root/told || fail "upgrade with broken settings"
cat /root/told
grep -q 'not (re)started' /root/told && grep -q no_such_key /root/told && systemctl -q is-active sekisho-agent && [ "$(systemctl show -P MainPID sekisho-agent)" = "$was" ] && say "watches on"
cp /root/good.yaml /etc/sekisho/agent.yaml

systemctl disable --now sekisho-agent 2>/dev/null
dpkg -i /root/agent-2.deb >/dev/null </dev/null || fail "upgrade of a service that is off"
sleep 1
[ "$(systemctl is-active sekisho-agent)" = inactive ] && [ "$(systemctl is-enabled sekisho-agent)" = disabled ] && say "stays off"
systemctl enable --now sekisho-agent 2>/dev/null
until_ok 60 watching

dpkg -r sekisho-agent || fail remove
[ "$(systemctl is-active sekisho-agent)" = inactive ] && [ -s /etc/sekisho/agent.yaml ] && [ -d /var/lib/sekisho ] && ! pgrep sekisho-agent && say removed
touch /var/lib/sekisho/keep-on-purge
dpkg -P sekisho-agent || fail purge
[ -e /var/lib/sekisho/keep-on-purge ] && [ ! -e /etc/sekisho ] && say kept

ip link set lo up
dpkg -i /root/console-1.deb || fail "install the console"
until_ok 60 sh -c 'journalctl -u sekisho-console --no-pager | grep -q "ready: web"' && say console
journalctl -u sekisho-console --no-pager -o cat | tail -n 12
[ -L /var/lib/sekisho-console ] && [ -d /var/lib/private/sekisho-console ] || fail "not where systemd keeps such folders"
# Enrolled by a token that lies there when the agent is installed.
mkdir -p /etc/sekisho
sekisho-console enroll-token create --config /etc/sekisho/console.yaml --uses 2 --address 127.0.0.1:8443 >/etc/sekisho/enroll.token
rm -rf /var/lib/sekisho
dpkg -i /root/agent-2.deb || fail "install with a token"
until_ok 60 watching
[ -e /var/lib/sekisho/identity ] && [ ! -e /etc/sekisho/enroll.token ] && sekisho-agent selftest --through console --within 60s >/dev/null && say enrolled
touch /etc/sekisho/console.note
dpkg -P sekisho-agent || fail "purge the agent"
[ -e /etc/sekisho/console.yaml ] && say "agent purged beside the console"
rm /etc/sekisho/console.note
dpkg -P sekisho-console || fail "purge the console"
left=$(find / -xdev \( -path /proc -o -path /sys -o -path /root -o -path /vm -o -path /tmp -o -path /run -o -path /var/log \) -prune -o -name '*sekisho*' -print)
[ -z "$left" ] && say "nothing left" || fail "left: $left"
systemctl list-units --all --no-legend '*sekisho*'
[ $failed -eq 0 ]

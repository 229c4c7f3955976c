# In the Debian guest: the packages by rpm. A first installation starts nothing unless a preset of the system enables it;
# Red Hat's presets enable nothing.
. /root/lib.sh
rpms() { rpm --force-debian --nodeps "$@"; }
agent() { systemctl is-enabled sekisho-agent; systemctl is-active sekisho-agent; } 2>/dev/null
mkdir -p /etc/systemd/system-preset
echo 'disable *' >/etc/systemd/system-preset/99-default.preset
rpms -i /root/agent-1.rpm || fail "rpm -i"
[ "$(agent | paste -sd' ')" = "disabled inactive" ] && [ -x /usr/bin/sekisho-agent ] && say "rpm starts nothing"
systemctl enable --now sekisho-agent 2>/dev/null
until_ok 60 watching && sekisho-agent selftest --within 30s >/dev/null && say "rpm watching"
sed -i '/^host:/a\  department: "by hand"' /etc/sekisho/agent.yaml
was=$(systemctl show -P MainPID sekisho-agent)
old=$(version)
rpms -U /root/agent-2.rpm || fail "rpm -U"
until_ok 60 watching
grep -q 'by hand' /etc/sekisho/agent.yaml && [ "$(version)" != "$old" ] && [ "$(systemctl show -P MainPID sekisho-agent)" != "$was" ] &&
	[ "$(agent | paste -sd' ')" = "enabled active" ] && say "rpm upgraded"
cp /etc/sekisho/agent.yaml /root/good.yaml
echo 'no_such_key: 1' >>/etc/sekisho/agent.yaml
was=$(systemctl show -P MainPID sekisho-agent)
rpms -U --replacepkgs /root/agent-2.rpm 2>/root/told || fail "rpm -U with broken settings"
cat /root/told
grep -q 'not restarted' /root/told && grep -q no_such_key /root/told && systemctl -q is-active sekisho-agent && [ "$(systemctl show -P MainPID sekisho-agent)" = "$was" ] && say "rpm watches on"
cp /root/good.yaml /etc/sekisho/agent.yaml
systemctl disable --now sekisho-agent 2>/dev/null
rpms -U --replacepkgs /root/agent-2.rpm || fail "rpm -U of a service that is off"
[ "$(agent | paste -sd' ')" = "disabled inactive" ] && say "rpm stays off"
systemctl enable --now sekisho-agent 2>/dev/null
until_ok 60 watching
rpms -e sekisho-agent || fail "rpm -e"
[ "$(systemctl is-active sekisho-agent)" = inactive ] && [ ! -e /usr/bin/sekisho-agent ] && ! pgrep sekisho-agent && [ -d /var/lib/sekisho ] &&
	cmp -s /etc/sekisho/agent.yaml.rpmsave /root/good.yaml && [ -z "$(find /etc/systemd -name 'sekisho*')" ] && say "rpm removed"
echo 'enable sekisho-console.service' >/etc/systemd/system-preset/50-site.preset
rpms -i /root/console-1.rpm || fail "rpm -i of the console"
[ "$(systemctl is-enabled sekisho-console)" = enabled ] && say "rpm enables what a preset names"
rpms -e sekisho-console || fail "rpm -e of the console"
[ ! -e /usr/bin/sekisho-console ] && [ -z "$(find /etc/systemd -name 'sekisho*')" ] && say "rpm disables it again"
[ $failed -eq 0 ]

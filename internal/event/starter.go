package event

import "strings"

// The values of sekisho.process.started_by: what kind of program the nearest
// telling ancestor of a process is.
const (
	ByBrowser   = "browser"
	ByMail      = "mail"
	ByShell     = "shell" // a command line; a desktop is ByOther
	ByService   = "service"
	ByScheduler = "scheduler"
	ByOther     = "other"
)

// starters maps a program, in lower case without .exe, to what it says of the
// processes that it starts. Programs that are not in it say nothing: their own
// ancestors do. Judgement, from what offices in Japan use.
var starters = func() map[string]string {
	m := map[string]string{}
	for _, row := range [...]struct{ kind, names string }{
		{ByBrowser, "chrome google-chrome chromium chromium-browser msedge msedgewebview2 microsoft-edge firefox firefox-esr firefox-bin iexplore " +
			"brave brave-browser opera vivaldi vivaldi-bin epiphany falkon konqueror floorp sleipnir"},
		{ByMail, "outlook olk hxoutlook msimn winmail thunderbird thunderbird-bin evolution kmail geary claws-mail becky becky2 b2 shuriken"},
		{ByShell, "sh bash dash zsh fish ksh tcsh csh busybox cmd powershell pwsh powershell_ise"},
		{ByService, "systemd init openrc runit runsv runsvdir s6-supervise launchd services svchost wininit smss"},
		{ByScheduler, "cron crond atd anacron fcron taskeng taskhostw"},
		// A person at the desktop, or from afar.
		{ByOther, "explorer gnome-shell plasmashell xfce4-panel cinnamon mate-panel lxqt-panel kwin_wayland gdm-session-worker " +
			"nautilus dolphin thunar nemo sshd"},
	} {
		for n := range strings.FieldsSeq(row.names) {
			m[n] = row.kind
		}
	}
	return m
}()

// Starter is what a program (its name or its path on either system, in any case)
// says of the processes that it starts: one of the By... constants, "" where it
// says nothing.
func Starter(program string) string {
	name := strings.ToLower(program[strings.LastIndexAny(program, `/\`)+1:])
	return starters[strings.TrimSuffix(name, ".exe")]
}

package event

import "testing"

func TestStarterKnowsProgramsOfBothSystems(t *testing.T) {
	for program, want := range map[string]string{
		"Chrome.exe": ByBrowser, `C:\Program Files\Google\Chrome\Application\chrome.exe`: ByBrowser, "/usr/lib/firefox-esr/firefox-esr": ByBrowser,
		"OUTLOOK.EXE": ByMail, "/bin/bash": ByShell, "svchost.exe": ByService, "cron": ByScheduler, `C:\Windows\explorer.exe`: ByOther,
		"winword.exe": "", "": "", "/usr/bin/": "",
	} {
		if got := Starter(program); got != want {
			t.Errorf("%q: got %q, want %q", program, got, want)
		}
	}
}

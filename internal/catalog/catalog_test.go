package catalog

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sekisho/internal/event"
)

func TestMatchTellsRemoteAccessTools(t *testing.T) {
	pe := func(original, product, company string) *event.PE {
		return &event.PE{OriginalFileName: original, Product: product, Company: company}
	}
	tests := []struct {
		name string
		p    event.Process
		tool string // "" for none
		how  How
	}{
		{"the name as it is", event.Process{Executable: `C:\Program Files (x86)\AnyDesk\AnyDesk.exe`}, "anydesk", ByName},
		{"a copy of anything under the name, on Linux", event.Process{Executable: "/home/taro/Downloads/AnyDesk"}, "anydesk", ByName},
		{"the package's own place on Linux", event.Process{Executable: "/opt/anydesk/anydesk"}, "anydesk", ByName},
		{"a helper in the package's place", event.Process{Executable: "/opt/teamviewer/tv_bin/script/somehelper"}, "teamviewer", ByFolder},
		{"only the process name is known", event.Process{Name: "TeamViewer.exe"}, "teamviewer", ByName},
		{"a download counter", event.Process{Executable: `C:\Users\a\Downloads\AnyDesk (1).exe`}, "anydesk", ByDownloadName},
		{"a counter in full-width brackets", event.Process{Executable: `C:\Users\a\Downloads\AnyDesk（2）.exe`}, "anydesk", ByDownloadName},
		{"a copy made in Explorer", event.Process{Executable: `C:\Users\a\Desktop\AnyDesk - コピー.exe`}, "anydesk", ByDownloadName},
		{"a listed variant", event.Process{Executable: `C:\Users\a\Downloads\TeamViewerQS_x64.exe`}, "teamviewer", ByName},
		{"a variant and a counter", event.Process{Executable: `C:\Users\a\Downloads\TeamViewerQS_x64 (3).exe`}, "teamviewer", ByDownloadName},
		{"a language", event.Process{Executable: `C:\Users\a\Downloads\TeamViewerQS_ja.exe`}, "teamviewer", ByDownloadName},
		{"a session id", event.Process{Executable: `C:\Users\a\Downloads\TeamViewerQS-idcv8x2.exe`}, "teamviewer", ByDownloadName},
		{"a version and an architecture", event.Process{Executable: "/home/a/Downloads/anydesk-6.2.1-amd64"}, "anydesk", ByDownloadName},
		{"an AppImage", event.Process{Executable: "/home/a/rustdesk-1.2.3-x86_64.AppImage"}, "rustdesk", ByDownloadName},
		{"the second stage of an installer", event.Process{Executable: `C:\Users\a\AppData\Local\Temp\is-1.tmp\TeamViewer_Setup.tmp`}, "teamviewer", ByName},
		{"a pattern", event.Process{Executable: `C:\Users\a\Downloads\ScreenConnect.Client.Setup-abc.exe`}, "screenconnect", ByGlob},
		{"renamed, with its version resource", event.Process{Executable: `C:\Users\a\Downloads\請求書.exe`, PE: pe("AnyDesk.exe", "AnyDesk", "AnyDesk Software GmbH")}, "anydesk", ByOriginalName},
		{"renamed, with its product only", event.Process{Executable: `C:\a.exe`, PE: pe("", "TeamViewer QuickSupport", "")}, "teamviewer", ByProduct},
		{"renamed to a neighbour's name", event.Process{Executable: `C:\putty.exe`, PE: pe("AnyDesk.exe", "", "")}, "anydesk", ByOriginalName},
		{"renamed, with its signer", event.Process{Executable: `C:\a.exe`, Signer: "AnyDesk Software GmbH"}, "anydesk", BySigner},
		{"a signer as distinguished name", event.Process{Executable: `C:\a.exe`, Signer: `CN="ConnectWise, LLC", O="ConnectWise, LLC", L=Tampa, C=US`}, "screenconnect", BySigner},
		{"a distinguished name without quotes", event.Process{Executable: `C:\a.exe`, Signer: `C=DE, O=TeamViewer Germany GmbH, CN=TeamViewer Germany GmbH`}, "teamviewer", BySigner},
		{"renamed in its folder", event.Process{Executable: `C:\Program Files\RustDesk\svc.exe`}, "rustdesk", ByFolder},
		{"a folder whose end is random", event.Process{Executable: `C:\Program Files (x86)\ScreenConnect Client (1a2b)\x.exe`}, "screenconnect", ByFolder},
		{"a general name and the vendor", event.Process{Executable: `C:\x\rutserv2.exe`, PE: pe("", "", "Remote Utilities Pte. Ltd.")}, "", ""},
		{"an ambiguous name and the vendor", event.Process{Executable: `C:\x\connect.exe`, PE: pe("", "", "Zoho Corporation")}, "zoho-assist", ByTogether},
		{"a weak signer and a weak product", event.Process{Executable: `C:\x\a.exe`, PE: pe("", "LogMeIn Client", ""), Signer: "LogMeIn, Inc."}, "logmein", ByTogether},
		{"a weak product and its vendor", event.Process{Executable: `C:\x\a.exe`, PE: pe("", "LogMeIn", "LogMeIn, Inc.")}, "logmein", ByTogether},
		{"an installer of a package", event.Process{Executable: `C:\Windows\System32\msiexec.exe`, CommandLine: `"C:\Windows\System32\msiexec.exe" /i "C:\Users\a\Downloads\AnyDesk (1).msi" /qn`}, "anydesk", ByArgument},
		{"dpkg on a package", event.Process{Executable: "/usr/bin/dpkg", Args: []string{"dpkg", "-i", "anydesk_6.3.2-1_amd64.deb"}}, "anydesk", ByArgument},
		{"a script on Linux", event.Process{Executable: "/usr/bin/bash", Args: []string{"/bin/bash", "/usr/bin/teamviewer"}}, "teamviewer", ByArgument},
		{"under Wine", event.Process{Executable: "/usr/lib/wine/wine64-preloader", Args: []string{"wine64", "Z:\\home\\a\\AnyDesk.exe"}}, "anydesk", ByArgument},

		{"nothing known", event.Process{}, "", ""},
		{"an ordinary program", event.Process{Executable: `C:\Windows\System32\notepad.exe`, PE: pe("NOTEPAD.EXE", "Microsoft® Windows® Operating System", "Microsoft Corporation")}, "", ""},
		{"the desktop window manager", event.Process{Executable: `C:\Windows\System32\dwm.exe`}, "", ""},
		{"Teams", event.Process{Executable: `C:\Users\a\AppData\Local\Microsoft\Teams\current\Teams.exe`}, "", ""},
		{"an SSH client", event.Process{Executable: "/usr/bin/ssh"}, "", ""},
		{"PuTTY", event.Process{Executable: `C:\Users\a\Downloads\putty-64bit.exe`, PE: pe("PuTTY", "PuTTY suite", "Simon Tatham"), Signer: "Simon Tatham"}, "", ""},
		{"WinSCP", event.Process{Executable: `C:\Program Files (x86)\WinSCP\WinSCP.exe`, Signer: "Martin Prikryl"}, "", ""},
		{"an outgoing viewer", event.Process{Executable: "/usr/bin/vncviewer"}, "", ""},
		{"an outgoing viewer of UltraVNC", event.Process{Executable: `C:\x\ultravnc-viewer.exe`, PE: pe("VNCViewer.exe", "", "UltraVNC")}, "", ""},
		{"the remote desktop client", event.Process{Executable: `C:\Windows\System32\mstsc.exe`}, "", ""},
		{"an ambiguous name alone", event.Process{Executable: `C:\x\client32.exe`}, "", ""},
		{"a company alone", event.Process{Executable: `C:\x\hello.exe`, PE: pe("", "", "Zoho Corporation")}, "", ""},
		{"company and weak signer only name the vendor", event.Process{Executable: `C:\x\hello.exe`, PE: pe("", "", "Zoho Corporation"), Signer: "ZOHO Corporation Private Limited"}, "", ""},
		{"an uninstaller in a tool's folder", event.Process{Executable: `C:\Program Files\RustDesk\unins000.exe`}, "", ""},
		{"sources of a tool", event.Process{Executable: "/home/dev/src/anydesk/build"}, "", ""},
		{"a document about a tool", event.Process{Executable: `C:\Users\a\Documents\teamviewer\list.exe`}, "", ""},
		{"a word that only begins like a product", event.Process{Executable: `C:\a.exe`, PE: pe("", "Parsecs Calculator", "")}, "", ""},
		{"a shell that runs code, not a file", event.Process{Executable: "/bin/sh", Args: []string{"sh", "-c", "anydesk"}}, "", ""},
		{"dpkg asked about a package", event.Process{Executable: "/usr/bin/dpkg", Args: []string{"dpkg", "-l", "anydesk"}}, "", ""},
		{"a short name with a number", event.Process{Executable: "/usr/bin/frpc-2"}, "", ""},
	}
	c := Load()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tool, how := c.Match(&tt.p)
			id := ""
			if tool != nil {
				id = tool.ID
			}
			if id != tt.tool || how != tt.how {
				t.Errorf("got %q by %q, want %q by %q", id, how, tt.tool, tt.how)
			}
		})
	}
	if tool, _ := c.Match(nil); tool != nil {
		t.Errorf("no process: got %q", tool.ID)
	}
}

func TestNeighboursAreNeverTold(t *testing.T) {
	c := Load()
	n := 0
	for _, tool := range c.All() {
		if tool.Controls {
			continue
		}
		n++
		for _, exe := range slices.Concat(tool.WindowsExecutables, tool.LinuxExecutables) {
			if got, how := c.Match(&event.Process{Executable: `C:\x\` + exe}); got != nil {
				t.Errorf("%s of %s: got %s by %s, want none", exe, tool.ID, got.ID, how)
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d neighbours in the catalogue", n)
	}
}

func TestEveryStrongNameIsFound(t *testing.T) {
	c := Load()
	ids := c.IDs()
	if len(ids) < 200 || !slices.IsSorted(ids) {
		t.Fatalf("%d tools, sorted: %v", len(ids), slices.IsSorted(ids))
	}
	for _, tool := range c.All() {
		if !tool.Controls {
			continue
		}
		check := func(what string, p event.Process) {
			got, _ := c.Match(&p)
			if got == nil || got.ID != tool.ID {
				id := "none"
				if got != nil {
					id = got.ID
				}
				t.Errorf("%s: %s: got %s", tool.ID, what, id)
			}
		}
		for _, n := range tool.WindowsExecutables {
			check(n, event.Process{Executable: `D:\x\` + strings.ToUpper(n)})
		}
		for _, n := range tool.LinuxExecutables {
			check(n, event.Process{Executable: "/x/" + n})
		}
		for _, n := range tool.OriginalFileNames {
			check(n, event.Process{Executable: `C:\x.exe`, PE: &event.PE{OriginalFileName: n}})
		}
		for _, n := range tool.Products {
			check(n, event.Process{Executable: `C:\x.exe`, PE: &event.PE{Product: "The " + strings.ToUpper(n) + " 7"}})
		}
		for _, n := range tool.Signers {
			check(n, event.Process{Executable: `C:\x.exe`, Signer: n})
			check("CN="+n, event.Process{Executable: `C:\x.exe`, Signer: `O="` + n + `", CN="` + n + `"`})
		}
		for _, n := range tool.Folders {
			check(n, event.Process{Executable: `C:\Program Files` + strings.TrimRight(n, `\/`) + `\any.exe`})
		}
		for _, n := range tool.AmbiguousExecutables {
			if got, how := c.Match(&event.Process{Executable: `D:\x\` + n}); got != nil && how != ByDownloadName {
				t.Errorf("%s: ambiguous %s alone: got %s by %s", tool.ID, n, got.ID, how)
			}
		}
	}
}

func TestMatchDomain(t *testing.T) {
	for domain, want := range map[string]string{
		"anydesk.com": "anydesk", "relay-1.net.AnyDesk.com.": "anydesk", "notanydesk.com": "", "com": "", "": "",
		"example.jp": "", "server.absolute.com": "", // a neighbour's
		strings.Repeat("a.", 200) + "teamviewer.com": "", // longer than a name can be
	} {
		id := ""
		if tool, ok := Load().MatchDomain(domain); ok {
			id = tool.ID
		}
		if id != want {
			t.Errorf("%s: got %q, want %q", domain, id, want)
		}
	}
}

// What stands on an ordinary Debian machine is no remote access, but for what is.
func TestProgramsOfThisMachine(t *testing.T) {
	allowed := []string{"x11vnc", "xrdp", "krfb", "vino-server", "wayvnc", "tmate", "x0vncserver", "Xvnc", "Xtigervnc", "x2goagent", "xpra"}
	n := 0
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/games", "/usr/libexec", "/usr/lib/git-core"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			n++
			path := filepath.Join(dir, e.Name())
			if tool, how := Load().Match(&event.Process{Executable: path}); tool != nil && !slices.Contains(allowed, e.Name()) {
				t.Errorf("%s is told as %s by %s", path, tool.ID, how)
			}
		}
	}
	if n == 0 {
		t.Skip("no /usr/bin here")
	}
	t.Logf("%d programs", n)
}

// Names that Debian installs and that look like, or are near to, names of the catalogue.
func TestOrdinaryNamesOfLinux(t *testing.T) {
	for name := range strings.FieldsSeq(`
		ssh sshd ssh-agent sshfs scp sftp mosh mosh-client mosh-server autossh telnet nc ncat socat rsync curl wget screen tmux
		vncviewer xvncviewer xtightvncviewer xtigervncviewer tigervncviewer vinagre remmina rdesktop xfreerdp wlfreerdp krdc
		gnome-connections virt-viewer remote-viewer spicy putty plink pscp filezilla winscp nautilus dolphin thunar
		firefox chromium google-chrome thunderbird evolution libreoffice soffice.bin code vim emacs nano gimp vlc
		systemd systemd-logind systemd-resolved dbus-daemon NetworkManager agetty login sudo su cron anacron atd
		Xorg Xwayland gdm3 sddm lightdm gnome-shell plasmashell kwin_x11 pipewire pulseaudio
		python3 python3.11 perl node ruby java php go rustc gcc make git svn docker containerd runc podman qemu-system-x86_64
		apache2 nginx postgres mysqld redis-server smbd nmbd winbindd cupsd avahi-daemon dnsmasq openvpn wg wg-quick charon strongswan
		rd sh dd level duet connect agent client host remote support desktop setup install update helper service launcher viewer server
		zabbix_agentd glpi-agent puppet ansible salt-minion chef-client osqueryi nagios nrpe telegraf node_exporter
		supervisord screenkey screenfetch desktop-file-install logger lsof mesg meson ninja parsec47 teleport chiseler`) {
		if tool, how := Load().Match(&event.Process{Executable: "/usr/bin/" + name, Name: name}); tool != nil {
			t.Errorf("%s is told as %s by %s", name, tool.ID, how)
		}
	}
}

// 939 process starts from attack labs, none of them a remote-access tool (the one
// PsExec.exe carries no version resource, and its name alone is ambiguous).
func TestSigmaHQCorpus(t *testing.T) {
	f, err := os.Open("../../../shared/corpora/sigmahq/process-events.jsonl")
	if err != nil {
		t.Skip("corpus is not here: ", err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<22)
	n := 0
	for sc.Scan() {
		e, err := event.Decode(sc.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		n++
		if tool, how := Load().Match(e.Process); tool != nil {
			t.Errorf("%s (%s) is told as %s by %s", e.Process.Executable, e.Process.CommandLine, tool.ID, how)
		}
	}
	t.Logf("%d events", n)
}

func TestMatchDoesNotAllocate(t *testing.T) {
	c := Load()
	for _, p := range benchProcesses {
		if n := testing.AllocsPerRun(100, func() { c.Match(&p) }); n != 0 {
			t.Errorf("%s: %v allocations, want 0", p.Executable, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() { c.MatchDomain("www.example.jp") }); n != 0 {
		t.Errorf("domain: %v allocations, want 0", n)
	}
}

var benchProcesses = []event.Process{
	{Executable: "/usr/bin/true"},
	{Executable: "/usr/lib/x86_64-linux-gnu/libexec/some-long-helper-name-2.3.4"},
	{Executable: `C:\Program Files\Microsoft Office\root\Office16\EXCEL.EXE`, Signer: "CN=Microsoft Corporation, O=Microsoft Corporation, L=Redmond, S=Washington, C=US",
		PE: &event.PE{OriginalFileName: "Excel.exe", Company: "Microsoft Corporation", Product: "Microsoft Office", Description: "Microsoft Excel"}},
	{Executable: "/bin/bash", CommandLine: "/bin/bash /usr/local/bin/backup --all"},
	{Executable: `C:\Users\a\Downloads\AnyDesk (1).exe`},
}

func BenchmarkMatch(b *testing.B) {
	c := Load()
	for i, name := range []string{"miss-short", "miss-long", "miss-full", "miss-script", "hit-download"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Match(&benchProcesses[i])
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		build(slices.Clone(Load().tools))
	}
}

func FuzzMatch(f *testing.F) {
	f.Add(`C:\x\AnyDesk (1).exe`, "AnyDesk.exe", "AnyDesk", "Zoho Corporation", `CN="a, b", O=c`, `msiexec /i "a b.msi`)
	f.Add("/opt/anydesk/anydesk", "", "", "", "=", "")
	f.Fuzz(func(t *testing.T, exe, original, product, company, signer, line string) {
		p := event.Process{Executable: exe, Signer: signer, CommandLine: line, PE: &event.PE{OriginalFileName: original, Product: product, Company: company}}
		tool, how := Load().Match(&p)
		if (tool == nil) != (how == "") {
			t.Errorf("tool %v by %q", tool, how)
		}
		if tool != nil && !tool.Controls {
			t.Errorf("told a neighbour: %s", tool.ID)
		}
		Load().MatchDomain(exe)
	})
}

// The finder is compared with looking for each pattern on its own.
func FuzzFinder(f *testing.F) {
	f.Add("abc", "bc", "c", "xAbCabc")
	f.Add(`\a\`, "/a", "a/", `/A\a/`)
	f.Fuzz(func(t *testing.T, a, b, c, text string) {
		lowered := func(s string) string {
			b := []byte(s)
			for i := range b {
				b[i] = fold(b[i])
			}
			return string(b)
		}
		var patterns []pattern
		for _, s := range []string{a, b, c} {
			if s == "" || len(s) > 50 || len(text) > 500 {
				return
			}
			patterns = append(patterns, pattern{lowered(s), mark{tail: lowered(s)}})
		}
		got := map[string]int{}
		newFinder(patterns).find(text, func(m *mark, from, to int) bool {
			if lowered(text[from:to]) != m.tail {
				t.Errorf("%q found at %d:%d of %q", m.tail, from, to, text)
			}
			got[m.tail]++
			return true
		})
		for _, p := range patterns {
			want, same := 0, 0
			for i := range len(text) {
				if strings.HasPrefix(lowered(text)[i:], p.text) {
					want++
				}
			}
			for _, q := range patterns {
				if q.text == p.text {
					same++
				}
			}
			if got[p.text] != want*same {
				t.Errorf("%q in %q: got %d, want %d times %d", p.text, text, got[p.text], want, same)
			}
		}
	})
}

var update = flag.Bool("update", false, "write docs/remote-access-tools.md anew")

// The document lists what can be approved, from the catalogue itself.
func TestDocumentIsUpToDate(t *testing.T) {
	const file = "../../docs/remote-access-tools.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	begin, end := []byte("<!-- tools -->\n"), []byte("<!-- end -->\n")
	head, rest, ok := bytes.Cut(data, begin)
	_, tail, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("no place for the table in %s", file)
	}
	table := []byte("| id | 名前 / name | 種類 / category | OS |\n| --- | --- | --- | --- |\n")
	for _, tool := range Load().All() {
		if !tool.Controls {
			continue
		}
		names := strings.Join(append([]string{tool.Name}, tool.Also...), ", ")
		table = fmt.Appendf(table, "| `%s` | %s | %s | %s |\n", tool.ID, strings.ReplaceAll(names, "|", `\|`), tool.Category, strings.Join(tool.OS, ", "))
	}
	want := slices.Concat(head, begin, table, end, tail)
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(data, want) {
		t.Errorf("%s differs from the catalogue (go test -update writes it anew)", file)
	}
}

package procwatch

import (
	"fmt"
	"testing"
	"time"
	"unicode/utf8"

	"sekisho/internal/winlog"
	"sekisho/internal/winlog/winlogtest"
)

func TestAStartThatIsAudited(t *testing.T) {
	e := winlogtest.Read(t, "audit-4688.xml") // after the sample in MSDN, "4688(S): A new process has been created"
	want := auditStart{at: time.Date(2026, 11, 12, 2, 24, 52, 377352500, time.UTC), pid: 0x2bc, ppid: 0xe74, path: `C:\Windows\System32\rundll32.exe`,
		line: `rundll32.exe "C:\Users\tanaka\a b.dll",Run`, user: "S-1-5-21-111111111-222222222-333333333-1001", label: "S-1-16-8192", elevation: 3}
	if got, ok := decodeAudit(e); !ok || got != want {
		t.Errorf("got  %+v, %t\nwant %+v", got, ok, want)
	}
	for _, c := range []struct {
		name string
		data []winlog.Field
		want string // pid, parent, user; "" for no start
	}{
		{"version 0", []winlog.Field{{Name: "SubjectUserSid", Value: "S-1-5-18"}, {Name: "NewProcessId", Value: "0x10"}, {Name: "ProcessId", Value: "0x4"}}, "16 4 S-1-5-18"},
		{"nobody else's", []winlog.Field{{Name: "SubjectUserSid", Value: "S-1-5-18"}, {Name: "TargetUserSid", Value: "S-1-0-0"}, {Name: "NewProcessId", Value: "0x10"}}, "16 0 S-1-5-18"},
		{"no number", []winlog.Field{{Name: "NewProcessId", Value: "16"}}, ""},
		{"the idle process", []winlog.Field{{Name: "NewProcessId", Value: "0x0"}}, ""},
		{"a number too large", []winlog.Field{{Name: "NewProcessId", Value: "0xffffffffff"}}, ""},
		{"nothing", nil, ""},
	} {
		got := ""
		if s, ok := decodeAudit(&winlog.Event{ID: auditProcess, Data: c.data}); ok {
			got = fmt.Sprint(s.pid, " ", s.ppid, " ", s.user)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if _, ok := decodeAudit(&winlog.Event{ID: 4689, Data: []winlog.Field{{Name: "NewProcessId", Value: "0x10"}}}); ok {
		t.Error("an end is a start")
	}
}

func FuzzAudit(f *testing.F) {
	f.Add("0x2bc", "0xe74", `C:\a.exe`, `a "b"`, "S-1-5-18", "%%1936")
	f.Fuzz(func(t *testing.T, pid, ppid, path, line, user, elevation string) {
		s, ok := decodeAudit(&winlog.Event{ID: auditProcess, Data: []winlog.Field{{Name: "NewProcessId", Value: pid}, {Name: "ProcessId", Value: ppid}, {Name: "NewProcessName", Value: path},
			{Name: "CommandLine", Value: line}, {Name: "TargetUserSid", Value: user}, {Name: "TokenElevationType", Value: elevation}}})
		if ok && (s.pid <= 0 || s.ppid < 0 || len(s.line) > maxBytes || utf8.ValidString(line) && !utf8.ValidString(s.line)) {
			t.Errorf("%+v", s)
		}
	})
}

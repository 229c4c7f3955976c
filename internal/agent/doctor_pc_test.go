package agent

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"sekisho/internal/winacl"
)

// rightPC is a Windows PC with nothing to complain about.
func rightPC() windowsPC {
	var pc windowsPC
	pc.version.major, pc.version.build, pc.elevated, pc.source = 10, 26100, true, true
	pc.service = windowsService{
		automatic: true, account: "LocalSystem", restarts: slices.Clone(ServiceRestarts), resetAfter: ServiceResetAfter, afterErrors: true,
		privileges: append([]string{"SeShutdownPrivilege"}, ServicePrivileges...),
	}
	pc.places = []placeChecked{{path: `C:\ProgramData\Sekisho`}}
	pc.signed, pc.signer = "trusted", "Example Works Code Signing"
	for _, l := range watchedLogs {
		pc.logs = append(pc.logs, logChecked{l, true, nil})
	}
	return pc
}

func TestARightWindowsPCHasNoComplaint(t *testing.T) {
	d := &doctor{}
	d.windows(rightPC())
	for _, c := range d.checks {
		if c.Result != CheckOK {
			t.Errorf("%+v", c)
		}
	}
	if len(d.checks) != 8+len(watchedLogs) {
		t.Errorf("%d checks", len(d.checks))
	}
}

func TestTheDoctorNamesWhatIsWrongWithWindows(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*windowsPC)
		code   string
		result CheckResult
		ja, en string // parts of why
	}{
		{"Windows 8.1", func(pc *windowsPC) { pc.version.major, pc.version.minor, pc.version.build = 6, 3, 9600 }, "DOC-13", CheckWarning, "6.3.9600", "older than"},
		{"the first Windows 10", func(pc *windowsPC) { pc.version.build = 10240 }, "DOC-13", CheckWarning, "Windows 10 (10.0.10240)", "Windows 10 (10.0.10240)"},
		{"no service", func(pc *windowsPC) { pc.service = windowsService{err: errNoService} }, "DOC-14", CheckWarning, "登録されていない", "not installed"},
		{"a service that cannot be looked at", func(pc *windowsPC) { pc.service = windowsService{err: os.ErrPermission} }, "DOC-14", CheckWarning, "調べられない", "permission denied"},
		{"started by hand", func(pc *windowsPC) { pc.service.automatic = false }, "DOC-14", CheckFailed, "自動で", "by itself"},
		{"another account", func(pc *windowsPC) { pc.service.account = `NT AUTHORITY\LocalService` }, "DOC-14", CheckFailed, "LocalService", "LocalService"},
		{"users may stop it", func(pc *windowsPC) { pc.service.changer = `BUILTIN\Users` }, "DOC-14", CheckFailed, `BUILTIN\Users`, "may stop"},
		{"other pauses", func(pc *windowsPC) { pc.service.restarts[1] = time.Minute }, "DOC-14", CheckWarning, "再起動", "as it should be"},
		{"not after errors", func(pc *windowsPC) { pc.service.afterErrors = false }, "DOC-14", CheckWarning, "再起動", "as it should be"},
		{"a privilege less", func(pc *windowsPC) { pc.service.privileges = []string{"SeChangeNotifyPrivilege"} }, "DOC-14", CheckWarning, "特権", "privileges"},
		{"recovery that cannot be read", func(pc *windowsPC) { pc.service.recovery = errors.New("recovery: invalid level") }, "DOC-14", CheckWarning, "invalid level", "invalid level"},
		{"a folder of a user", func(pc *windowsPC) {
			pc.places[0].err = &winacl.Trouble{Path: pc.places[0].path, Kind: winacl.Owned, Who: `PC1\tanaka`}
		}, "DOC-15", CheckFailed, "所有者", `PC1\tanaka`},
		{"a folder that cannot be looked at", func(pc *windowsPC) { pc.places[0].err = os.ErrPermission }, "DOC-15", CheckWarning, "調べられない", "permission"},
		{"rules that a user may change", func(pc *windowsPC) {
			pc.places[0] = placeChecked{`C:\rules`, true, &winacl.Trouble{Path: `C:\rules`, Kind: winacl.Writable, Who: `BUILTIN\Users`}}
		}, "DOC-15", CheckWarning, `BUILTIN\Users が変えられます`, `BUILTIN\Users, no administrator, may change`},
		{"rules behind a link", func(pc *windowsPC) {
			pc.places[0] = placeChecked{`C:\rules`, true, &winacl.Trouble{Path: `C:\rules`, Kind: winacl.Linked}}
		}, "DOC-15", CheckWarning, "リンク", "it is a link"},
		{"no signature", func(pc *windowsPC) { pc.signed, pc.signer = "unsigned", "" }, "DOC-21", CheckWarning, "署名がない", "not signed"},
		{"a signature of a stranger", func(pc *windowsPC) { pc.signed = "untrusted-root" }, "DOC-21", CheckWarning, "信頼していない", "does not trust"},
		{"a program that was changed", func(pc *windowsPC) { pc.signed = "changed" }, "DOC-21", CheckFailed, "changed", "not valid: changed"},
		{"a program that cannot be read", func(pc *windowsPC) { pc.signed = "not-checked" }, "DOC-21", CheckWarning, "調べられない", "cannot be checked"},
		{"no DPAPI", func(pc *windowsPC) { pc.sealing = errors.New("RPC server") }, "DOC-16", CheckFailed, "RPC server", "RPC server"},
		{"too many sessions", func(pc *windowsPC) { pc.tracing = errors.New("limit") }, "DOC-17", CheckWarning, "limit", "limit"},
		{"prints off", func(pc *windowsPC) { pc.logs[2].on = false }, "DOC-18", CheckWarning, "印刷", "prints"},
		{"no such log", func(pc *windowsPC) { pc.logs[1].err = errors.New("no such log") }, "DOC-18", CheckWarning, "no such log", "no such log"},
		{"an old Windows", func(pc *windowsPC) { pc.devices = errors.ErrUnsupported }, "DOC-19", CheckWarning, "unsupported", "unsupported"},
		{"no source", func(pc *windowsPC) { pc.source = false }, "DOC-20", CheckWarning, "登録されていない", "not registered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pc, d := rightPC(), &doctor{}
			c.change(&pc)
			d.windows(pc)
			var wrong []Check
			for _, k := range d.checks {
				if k.Result != CheckOK {
					wrong = append(wrong, k)
				}
			}
			if len(wrong) != 1 || wrong[0].Code != c.code || wrong[0].Result != c.result || !strings.Contains(wrong[0].Why.JA, c.ja) || !strings.Contains(wrong[0].Why.EN, c.en) ||
				wrong[0].Next.JA == "" || wrong[0].Next.EN == "" {
				t.Errorf("got %+v", wrong)
			}
		})
	}
}

func TestAListOfTextsOfWindowsIsRead(t *testing.T) {
	for _, c := range []struct{ list, want string }{
		{"SeA\x00SeB\x00\x00", "SeA SeB"}, {"SeA\x00\x00SeB\x00", "SeA"}, {"SeA\x00Se", "SeA"}, {"\x00", ""}, {"", ""}, {"特権\x00\x00", "特権"},
	} {
		if got := strings.Join(splitTexts(utf16.Encode([]rune(c.list))), " "); got != c.want {
			t.Errorf("%q: got %q, want %q", c.list, got, c.want)
		}
	}
}

func TestWithoutRightsTheDoctorSaysSo(t *testing.T) {
	pc, d := rightPC(), &doctor{}
	pc.elevated, pc.tracing, pc.logs[3].err = false, os.ErrPermission, os.ErrPermission
	d.windows(pc)
	for _, code := range []string{"DOC-17", "DOC-18"} {
		c := found(d.checks, code)
		if last := c[len(c)-1]; !strings.Contains(last.Next.JA, "管理者として") || !strings.Contains(last.Next.EN, "as administrator") {
			t.Errorf("%s: %+v", code, last)
		}
	}
}

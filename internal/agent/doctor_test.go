package agent

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"
	"sekisho/internal/ship"
)

// found is the check with a code.
func found(checks []Check, code string) (all []Check) {
	for _, c := range checks {
		if c.Code == code {
			all = append(all, c)
		}
	}
	return all
}

func TestDoctorOfARunningAgent(t *testing.T) {
	r := start(t, shortDir(t), "", newScripted())
	checks := Doctor(t.Context(), r.o.ConfigFile)
	for code, want := range map[string]CheckResult{"DOC-01": CheckOK, "DOC-03": CheckOK, "DOC-05": CheckOK, "DOC-06": CheckOK, "DOC-08": CheckWarning} {
		got := found(checks, code)
		if len(got) != 1 || got[0].Result != want {
			t.Errorf("%s: got %+v, want one %s", code, got, want)
		}
	}
	for _, c := range checks {
		if c.Name.JA == "" || c.Name.EN == "" || c.Result != CheckOK && (c.Next.JA == "" || c.Next.EN == "") {
			t.Errorf("%s lacks a text: %+v", c.Code, c)
		}
	}
}

func TestDoctorNamesWhatIsWrong(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "agent.yaml")
	state := "state_dir: " + dir + "/state\n"
	tests := []struct {
		name, settings string
		code           string
		result         CheckResult
		ja, en         string // parts of why
	}{
		{"settings with three problems", "hots: 1\nlgo: 2\nhost: 3\n", "DOC-01", CheckFailed, "（ほか 2 件）", "(and 2 more)"},
		{"a rule file that is not there", state + "rules: {paths: [none.yml]}\n", "DOC-03", CheckFailed, "none.yml: 読めません", "none.yml: cannot be read"},
		{"no state directory", state, "DOC-04", CheckFailed, ".doctor", ".doctor"},
		{"no agent", state, "DOC-05", CheckFailed, "エージェントが動いていない", "not running"},
		{"not enrolled", state, "DOC-08", CheckWarning, "登録されていない", "not enrolled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			write(t, file, tt.settings)
			got := found(Doctor(t.Context(), file), tt.code)
			if len(got) != 1 || got[0].Result != tt.result || !strings.Contains(got[0].Why.JA, tt.ja) || !strings.Contains(got[0].Why.EN, tt.en) || got[0].Next.JA == "" || got[0].Next.EN == "" {
				t.Errorf("got %+v", got)
			}
		})
	}
	if err := os.MkdirAll(filepath.Join(dir, "state", "identity"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "state", "identity", "identity.json"), "{}")
	got := found(Doctor(t.Context(), file), "DOC-08")
	if len(got) != 1 || got[0].Result != CheckFailed || !strings.Contains(got[0].Why.JA, enroll.CodeIdentity) {
		t.Errorf("with a broken identity: %+v", got)
	}
}

func TestDoctorTellsOfAClockThatIsOff(t *testing.T) {
	for _, c := range []struct {
		off  time.Duration
		want CheckResult
	}{{0, CheckOK}, {-4 * time.Minute, CheckOK}, {25 * time.Hour, CheckWarning}, {-6 * time.Minute, CheckWarning}} {
		d := &doctor{}
		d.clock(endpoint.Status{Contact: endpoint.Contact{LastSuccess: time.Now(), ClockOffset: c.off}})
		if len(d.checks) != 1 || d.checks[0].Result != c.want {
			t.Errorf("%v: %+v", c.off, d.checks)
		}
	}
	d := &doctor{}
	d.clock(endpoint.Status{})
	if len(d.checks) != 0 {
		t.Errorf("without contact: %+v", d.checks)
	}
}

// A console that can be reached and refuses this PC is no good connection.
func TestDoctorTellsOfAConsoleThatTakesNothing(t *testing.T) {
	d := &doctor{}
	d.delivery(endpoint.Contact{})
	d.delivery(endpoint.Contact{LastSuccess: time.Now()})
	d.delivery(endpoint.Contact{LastSuccess: time.Now(), Code: ship.CodeRevoked, Error: "the console answered 403", Since: time.Now()})
	if len(d.checks) != 2 || d.checks[0].Result != CheckOK {
		t.Fatalf("got %+v", d.checks)
	}
	if c := d.checks[1]; c.Result != CheckFailed || !strings.HasPrefix(c.Why.JA, "SHP-11: ") || !strings.Contains(c.Why.EN, "403") || c.Next.JA == "" || c.Next.EN == "" {
		t.Errorf("got %+v", c)
	}
}

// The way to the console: each failure has the code of shipping, and a next step.
func TestDoctorSaysWhichStepOfTheWayFails(t *testing.T) {
	for _, c := range []struct{ addr, code string }{
		{"https://console.invalid:8443", "SHP-02"},
		{"https://127.0.0.1:1", "SHP-03"},
	} {
		d := &doctor{}
		d.reach(t.Context(), &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}, c.addr)
		if len(d.checks) != 1 || d.checks[0].Result != CheckFailed || !strings.HasPrefix(d.checks[0].Why.JA, c.code+": ") || d.checks[0].Next.JA == "" {
			t.Errorf("%s: %+v", c.addr, d.checks)
		}
	}
}

// docs/errors.md has a line on every check.
func TestEveryCheckIsDocumented(t *testing.T) {
	var src []byte
	for _, file := range []string{"doctor.go", "doctor_pc.go"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		src = append(src, b...)
	}
	doc, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]bool{}
	for _, c := range regexp.MustCompile(`DOC-\d\d`).FindAllString(string(src), -1) {
		codes[c] = true
		if !strings.Contains(string(doc), "| `"+c+"` |") {
			t.Errorf("docs/errors.md lacks %s", c)
		}
	}
	if len(codes) < 20 {
		t.Errorf("only %d codes found", len(codes))
	}
}

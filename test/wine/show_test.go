//go:build linux

package wine_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/test/stack"
)

// pc is a Windows that runs, and somebody at it.
type pc struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

// switchOn boots a fresh Windows with files at C:\ (path here to name) until the
// test ends.
func switchOn(t *testing.T, files map[string]string) *pc {
	t.Helper()
	hand := filepath.Join(t.TempDir(), "pc.exe")
	build := exec.Command("go", "build", "-o", hand, "./pc")
	build.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	args := []string{"-t", "900"}
	for path, name := range files {
		args = append(args, "-c", path+"="+name)
	}
	cmd := exec.Command("./run", append(args, "-c", hand+"=pc.exe", `C:\pc.exe`)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	p := &pc{t: t, in: in, out: bufio.NewScanner(out)}
	p.out.Buffer(nil, 1<<20)
	p.answer()
	return p
}

// try does something at the PC and answers what was printed, and the exit code.
func (p *pc) try(format string, args ...any) (out string, code int) {
	p.t.Helper()
	fmt.Fprintf(p.in, format+"\n", args...)
	return p.answer()
}

// do is try for what must succeed.
func (p *pc) do(format string, args ...any) string {
	p.t.Helper()
	out, code := p.try(format, args...)
	if code != 0 {
		p.t.Errorf("%s: exit %d\n%s", fmt.Sprintf(format, args...), code, out)
	}
	return out
}

func (p *pc) answer() (out string, code int) {
	p.t.Helper()
	var b strings.Builder
	for p.out.Scan() {
		line := strings.TrimRight(p.out.Text(), "\r")
		if _, err := fmt.Sscanf(line, "== exit %d", &code); err == nil {
			return b.String(), code
		}
		b.WriteString(line + "\n")
	}
	p.t.Fatalf("Windows has ended: %v\n%s", p.out.Err(), b.String())
	return "", 0
}

// status is what the agent says of itself; false: it does not answer.
func (p *pc) status(agent string, args ...string) (s endpoint.Status, ok bool) {
	out, code := p.try("run %s status --json %s", agent, strings.Join(args, " "))
	if code != 0 {
		return s, false
	}
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &s); err != nil {
		p.t.Fatalf("status: %v\n%s", err, out)
	}
	return s, true
}

// until waits until the agent answers.
func (p *pc) until(agent string, args ...string) (s endpoint.Status, ok bool) {
	p.t.Helper()
	until(p.t, "the agent answers", func() bool { s, ok = p.status(agent, args...); return ok })
	return s, ok
}

// doctor is the worst that the agent's checks of the PC say, by code.
func (p *pc) doctor() map[string]string {
	p.t.Helper()
	out, _ := p.try(`run C:\agent.exe doctor --json --config C:\agent.yaml`)
	var checks []struct{ Code, Result string }
	if err := json.Unmarshal([]byte(out[max(0, strings.Index(out, "[")):]), &checks); err != nil {
		p.t.Fatalf("doctor: %v\n%s", err, out)
	}
	order := []string{"", "ok", "warning", "failed"}
	worst := map[string]string{}
	for _, c := range checks {
		if slices.Index(order, c.Result) > slices.Index(order, worst[c.Code]) {
			worst[c.Code] = c.Result
		}
	}
	return worst
}

// seen is how many events a sensor has told.
func seen(s endpoint.Status, sensor string) uint64 {
	for _, x := range s.Sensors {
		if x.Name == sensor {
			return x.Events
		}
	}
	return 0
}

// until waits for something to come true, longer than a slow machine needs.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	const within = 3 * time.Minute
	began := time.Now()
	for !ok() {
		if time.Since(began) > within {
			t.Fatalf("waited %v in vain until %s", within, what)
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Logf("%s: after %.1f s", what, time.Since(began).Seconds())
}

// ask asks the console's API.
func ask(t *testing.T, s *stack.Stack, path string, answer any) {
	t.Helper()
	req, err := http.NewRequest("GET", s.Web+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v", path, resp.Status, err)
	}
}

// told is what the console has of the alerts of one rule.
type told struct {
	alerts int // how many
	files  float64
}

// alerts are those that the console has of the Windows PC, by rule.
func alerts(t *testing.T, s *stack.Stack) map[string]told {
	t.Helper()
	var page struct {
		Alerts []struct {
			Alert struct {
				Host struct {
					OS struct {
						Type string `json:"type"`
					} `json:"os"`
				} `json:"host"`
				Sekisho struct {
					Rule  string `json:"rule"`
					Alert struct {
						Totals map[string]float64 `json:"totals"`
					} `json:"alert"`
				} `json:"sekisho"`
			} `json:"alert"`
		} `json:"alerts"`
	}
	ask(t, s, "/api/v1/alerts?limit=1000", &page)
	all := map[string]told{}
	for _, a := range page.Alerts {
		if a.Alert.Host.OS.Type == "windows" {
			x := a.Alert.Sekisho
			all[x.Rule] = told{all[x.Rule].alerts + 1, all[x.Rule].files + x.Alert.Totals["files"]}
		}
	}
	return all
}

const installed = `"C:\Program Files\Sekisho\sekisho-agent.exe"`

// A day of a PC: the agent comes by its installer, a stick is put in, 80 files go
// to it, a remote-control tool is started while the console is away, the agent is
// killed. The console knows all of it, once.
func TestWhatHappensOnAWindowsPCStandsInTheConsole(t *testing.T) {
	msi := installer(t, "1.0.0")
	s := stack.Start(t)
	s.End("agent", syscall.SIGTERM) // this is about the other one
	token := strings.TrimSpace(s.Run(s.Console, "enroll-token", "create", "--config", s.Dir+"/console.yaml", "--uses", "1", "--department", "test"))
	stick := t.TempDir()

	p := switchOn(t, map[string]string{msi: "agent.msi"})
	began := time.Now()
	p.do(`run msiexec /qn /i C:\agent.msi ENROLL_TOKEN=%s`, token)
	t.Logf("installed and enrolled: %.1f s", time.Since(began).Seconds())
	st, _ := p.until(installed)
	for _, x := range st.Sensors {
		t.Logf("sensor %s: %s by %q %s", x.Name, x.State, x.Mechanism, x.Reason)
	}
	p.do(`run sc query sekisho-agent`)

	p.do(`make 80 C:\users\root\Documents`)
	p.do(`attach E %s`, stick)
	until(t, "the drive is known", func() bool {
		st, _ := p.status(installed)
		return seen(st, "volume") > 0
	})
	p.do(`copy 80 C:\users\root\Documents E:\work`)
	if files, err := os.ReadDir(filepath.Join(stick, "work")); err != nil || len(files) != 80 {
		t.Fatalf("on the stick are %d files, %v", len(files), err)
	}
	until(t, "the console has an alert of 80 copies", func() bool { return alerts(t, s)["USB-3"].files == 80 })

	// The console goes away; what happens now is on this PC only, and then the agent
	// is killed.
	s.End("console", syscall.SIGTERM)
	before, _ := p.status(installed)
	if before.Lost > 0 {
		t.Errorf("%d events were lost", before.Lost)
	}
	p.do(`run mkdir C:\users\root\Downloads & copy C:\pc.exe C:\users\root\Downloads\AnyDesk.exe >NUL`)
	p.do(`start C:\users\root\Downloads\AnyDesk.exe sleep 20`)
	p.do(`copy 80 C:\users\root\Documents E:\more`)
	until(t, "the alert of the tool is raised, and 80 more files are seen", func() bool {
		st, _ := p.status(installed)
		return st.AlertsRaised > before.AlertsRaised && seen(st, "file") >= seen(before, "file")+80
	})
	p.do(`run taskkill /f /im sekisho-agent.exe`)
	if _, ok := p.status(installed); ok {
		t.Fatal("the agent lives on")
	}
	s.Up("console")
	// Wine does not start a service again.
	p.do(`start %s run`, installed)
	until(t, "the console has the alert of the tool", func() bool { return alerts(t, s)["SCAM-1"].alerts > 0 })
	until(t, "the console has 160 copies", func() bool { return alerts(t, s)["USB-3"].files == 160 })
	until(t, "nothing waits any more", func() bool {
		st, ok := p.status(installed)
		return ok && st.Alerts.Records == 0 && st.Activity.Records == 0 && st.Alerts.Dropped == 0 && st.Activity.Dropped == 0
	})
	for rule, x := range alerts(t, s) {
		t.Logf("alert %s: %d", rule, x.alerts)
		if x.alerts != 1 {
			t.Errorf("%d alerts of %s", x.alerts, rule)
		}
	}

	p.do(`detach E`)
	p.do(`run taskkill /f /im sekisho-agent.exe`)
	p.do(`run msiexec /qn /x C:\agent.msi`)
	if out, _ := p.try(`run dir /s /b "C:\Program Files\Sekisho" C:\ProgramData\Sekisho`); strings.Contains(out, `Sekisho\`) {
		t.Errorf("left behind:\n%s", out)
	}
}

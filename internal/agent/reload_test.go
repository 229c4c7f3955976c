package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/endpoint"
)

const ownRule = `title: Sticks of one maker
id: 0f4f9f0a-7d51-4c43-9a5e-6f7ad7b8a001
status: test
logsource:
  product: sekisho
detection:
  it:
    event.action: usb-attached
    device.vendor.id: '0781'
  condition: it
level: low
`

// status is the agent's, over the control socket.
func (r *running) status() endpoint.Status {
	r.t.Helper()
	st, err := r.ctl.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

func settingsOf(r *running, more string) string {
	return "state_dir: " + r.stateDir + "\n" + more
}

func TestSettingsAreReadAgainAllOrNothing(t *testing.T) {
	tests := []struct {
		name    string
		change  func(r *running)
		applied bool   // the department becomes 税務課
		problem string // else this is in the status
	}{
		{"a changed file", func(r *running) {
			write(t, r.o.ConfigFile, settingsOf(r, "host: {department: 税務課}\n"))
		}, true, ""},
		{"a file that is not YAML", func(r *running) {
			write(t, r.o.ConfigFile, settingsOf(r, "host: {department: 税務課\n"))
		}, false, "agent.yaml:3:1: not YAML"},
		{"an unknown key beside a good one", func(r *running) {
			write(t, r.o.ConfigFile, settingsOf(r, "host: {department: 税務課}\nhots: 1\n"))
		}, false, `agent.yaml:3:1: unknown key "hots" (did you mean "host"?)`},
		{"a rule file that is wrong", func(r *running) {
			write(t, filepath.Join(r.dir, "rules", "bad.yml"), strings.Replace(ownRule, "device.vendor.id", "device.vender.id", 1))
			write(t, r.o.ConfigFile, settingsOf(r, "host: {department: 税務課}\nrules: {paths: [rules]}\n"))
		}, false, "device.vender.id"},
		{"a state_dir that moved", func(r *running) {
			write(t, r.o.ConfigFile, "state_dir: "+r.dir+"/elsewhere\nhost: {department: 税務課}\n")
		}, false, "state_dir cannot change"},
		{"a file that is gone", func(r *running) {
			os.Remove(r.o.ConfigFile)
		}, false, "cannot read the settings file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := shortDir(t)
			if err := os.Mkdir(filepath.Join(dir, "rules"), 0o700); err != nil {
				t.Fatal(err)
			}
			src := newScripted()
			r := start(t, dir, "host: {department: 福祉課}\n", src)
			before := r.status()
			tt.change(r)
			r.until("the change was noticed", func() bool {
				st := r.status()
				return len(st.Settings.Problems) > 0 || st.Department != before.Department
			})
			st := r.status()
			if tt.applied {
				if st.Department != "税務課" || !st.Settings.LoadedAt.After(before.Settings.LoadedAt) || len(st.Settings.Problems) > 0 {
					t.Errorf("status: %q, %+v", st.Department, st.Settings)
				}
				return
			}
			if st.Department != "福祉課" || st.Rules.Active != before.Rules.Active || !st.Settings.LoadedAt.Equal(before.Settings.LoadedAt) {
				t.Errorf("the old settings did not stay: %q, %+v", st.Department, st.Settings)
			}
			if !strings.Contains(strings.Join(st.Settings.Problems, "\n"), tt.problem) {
				t.Errorf("the status tells %q, want %q in it", st.Settings.Problems, tt.problem)
			}
			if _, err := r.ctl.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("reload over the control socket: %v", err)
			}
			// What is in force still judges.
			src.out <- stick("S1")
			r.until("an alert is raised", func() bool { return r.saw(`"USB-1"`, "S1") })

			write(t, r.o.ConfigFile, settingsOf(r, "host: {department: 建設課}\n"))
			r.until("good settings are in force and no problem is told", func() bool {
				st := r.status()
				return st.Department == "建設課" && len(st.Settings.Problems) == 0
			})
		})
	}
}

func TestTheControlSocketReloadsAndTellsWhatChanged(t *testing.T) {
	r := start(t, shortDir(t), "host: {department: 福祉課}\n", newScripted())
	write(t, r.o.ConfigFile, settingsOf(r, "host: {department: 税務課}\n"))
	changes, err := r.ctl.Reload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The watcher may have been first; then there is nothing left to change.
	if len(changes) > 0 && (len(changes) != 1 || changes[0].Path != "host.department") {
		t.Errorf("changes: %v", changes)
	}
	if got := r.status().Department; got != "税務課" {
		t.Errorf("department %q", got)
	}
}

func TestRulesOfAFolderAreReadAgainToTheBottom(t *testing.T) {
	dir := shortDir(t)
	rules := filepath.Join(dir, "rules")
	if err := os.Mkdir(rules, 0o700); err != nil {
		t.Fatal(err)
	}
	src := newScripted()
	r := start(t, dir, "rules: {paths: [rules]}\n", src)
	shipped := r.status().Rules.Active
	active := func(n int) func() bool { return func() bool { return r.status().Rules.Active == shipped+n } }

	write(t, filepath.Join(rules, "a.yml"), ownRule)
	r.until("the new rule runs", active(1))
	src.out <- stick("S1")
	r.until("it alerts", func() bool { return r.saw("0f4f9f0a-7d51-4c43-9a5e-6f7ad7b8a001", `"alert"`, "S1") })

	below := filepath.Join(rules, "below", "deeper")
	if err := os.MkdirAll(below, 0o700); err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(below, "b.yml")
	write(t, second, strings.Replace(ownRule, "a001", "a002", 1))
	r.until("a rule in a new folder runs", active(2))

	write(t, second, "title: [")
	r.until("a broken rule is told", func() bool { return len(r.status().Settings.Problems) > 0 })
	if !active(2)() {
		t.Error("the rules before did not stay")
	}
	// The file only: Windows keeps a watched folder until the watch ends.
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	r.until("what was removed no longer runs", func() bool { return active(1)() && len(r.status().Settings.Problems) == 0 })
}

func TestExceptionsAreReadAgain(t *testing.T) {
	src := newScripted()
	r := start(t, shortDir(t), "", src)
	settings := func(rules string) string {
		return settingsOf(r, "rules: {exceptions: [{rules: ["+rules+"], when: {device.serial_number: 'S*'}, reason: a drill}]}\n")
	}
	write(t, r.o.ConfigFile, settings("USB-1"))
	if _, err := r.ctl.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	src.out <- stick("S1")
	src.out <- stick("T1") // judged after it, and no exception
	r.until("the other stick is told", func() bool { return r.saw(`"USB-1"`, "T1") })
	if r.saw(`"USB-1"`, "S1") {
		t.Error("the exception does not hold")
	}
	write(t, r.o.ConfigFile, settings("USB-11"))
	const problem = `agent.yaml:2:30: rules.exceptions[0].rules: there is no rule with id or name "USB-11" (did you mean "USB-1"?) [CFG-13]`
	if _, err := r.ctl.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), problem) {
		t.Errorf("an exception from a rule that is not there: %v", err)
	}
}

func TestARuleThatIsWrongAtTheStartLeavesTheOthers(t *testing.T) {
	dir := shortDir(t)
	write(t, filepath.Join(dir, "bad.yml"), strings.Replace(ownRule, "usb-attached", "usb-attached\n    no.such.field: 1", 1))
	src := newScripted()
	r := start(t, dir, "rules: {paths: [bad.yml]}\n", src)
	if p := r.status().Rules.Problems; len(p) == 0 || !strings.Contains(p[0], "bad.yml:") || !strings.Contains(p[0], "no.such.field") {
		t.Errorf("the status tells %q", p)
	}
	src.out <- stick("S1")
	r.until("the others alert", func() bool { return r.saw(`"USB-1"`, "S1") })
	write(t, filepath.Join(dir, "bad.yml"), ownRule)
	r.until("the mended rule runs", func() bool { return len(r.status().Rules.Problems) == 0 })
}

// This PC's own sensors: a place that becomes protected is watched at once.
func TestTheFileSensorIsToldOfNewProtectedPlaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: file activity elsewhere than in one's own folders")
	}
	dir := shortDir(t)
	place := filepath.Join(dir, "台帳")
	if err := os.Mkdir(place, 0o755); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir, "sensors: {usb: {enabled: false}, process: {enabled: false}}\n")
	r.until("the file sensor runs", func() bool {
		for _, s := range r.status().Sensors {
			if s.Name == "file" && s.Mechanism != "" {
				return true
			}
		}
		return false
	})
	write(t, r.o.ConfigFile, settingsOf(r, "sensors: {usb: {enabled: false}, process: {enabled: false}}\nprotected: [{label: 住民情報, paths: ["+place+"/**]}]\n"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%+v\n%s", r.Status().Sensors, strings.Join(r.tee.lines(), "\n"))
		}
	})
	n := 0
	r.until("a file written there is told with the place's label", func() bool {
		n++
		if n%50 == 1 {
			// By another process: what the agent itself writes is not told.
			exec.Command("/bin/sh", "-c", "echo 1,2 >>"+filepath.Join(place, "住民.csv")).Run()
		}
		return r.saw(`"file-written"`, "住民.csv", `"住民情報"`)
	})
}

// The pipeline stands still for what a swap writes: that must be little, however
// much was counted.
func TestAReloadLeavesTheSwapLittleToWrite(t *testing.T) {
	src := newScripted()
	r := start(t, shortDir(t), "", src)
	<-src.ready
	const sticks = 300
	for n := range sticks {
		src.out <- stick(fmt.Sprint("S", n))
	}
	r.until("all alerts are kept", func() bool { return r.out.kept.Load() >= sticks })
	if _, err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	written := int64(-1)
	r.do(func() { written = r.judge.Stats().Written })
	if written <= 0 || written > 50<<10 {
		t.Errorf("%d bytes", written)
	}
}

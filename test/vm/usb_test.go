// Package vm_test runs the agent in a guest with a real kernel and an emulated USB bus; test/vm/README.md describes it.
package vm_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// told is an event or alert as the agent wrote it, its fields by dotted ECS name.
type told map[string]any

func (e told) str(field string) string {
	s, _ := e[field].(string)
	return s
}

func (e told) num(field string) float64 {
	n, _ := e[field].(float64)
	return n
}

// has reports whether the list in field contains want.
func (e told) has(field, want string) bool {
	list, _ := e[field].([]any)
	return slices.Contains(list, any(want))
}

func (e told) time(t *testing.T, field string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, e.str(field))
	if err != nil {
		t.Fatalf("%s of %s: %v", field, e, err)
	}
	return at
}

// shown are the fields that a line about an event or alert has room for: CI keeps only so much of what a test says.
var shown = []string{"sekisho.rule", "event.action", "device.vendor.id", "device.product.id", "device.serial_number", "sekisho.device.kinds",
	"sekisho.device.ledger", "sekisho.usb.path", "sekisho.usb.oddities", "volume.mount_name", "volume.file_system_type", "volume.serial_number",
	"sekisho.volume.usb_path", "process.executable", "process.command_line", "file.path", "user.name", "user.id", "sekisho.session.id",
	"sekisho.session.kind", "sekisho.sensor", "message"}

func (e told) String() string {
	line := e.str("@timestamp")
	for _, field := range shown {
		if v, ok := e[field]; ok {
			line += fmt.Sprintf(" %s=%v", field[strings.LastIndexByte(field, '.')+1:], v)
		}
	}
	return line
}

// flatten adds the fields of a nested object to out, by dotted name.
func flatten(out told, prefix string, v map[string]any) {
	for k, x := range v {
		if m, ok := x.(map[string]any); ok {
			flatten(out, prefix+k+".", m)
			continue
		}
		out[prefix+k] = x
	}
}

// run boots the guest with a scenario of the folder and returns the folder with what it brought back, and what it said.
func run(t *testing.T, args ...string) (dir, said string) {
	t.Helper()
	if os.Getenv("SEKISHO_VM") == "" {
		t.Skip("boots a guest for minutes; make test-vm runs it")
	}
	dir = t.TempDir()
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "OUT", dir)
	}
	cmd := exec.Command("./run", args...)
	out, err := cmd.CombinedOutput()
	t.Logf("scenario:\n%s", out)
	if err != nil {
		t.Errorf("scenario: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("in short: scenario: %v\n%s", err, inShort(string(out)))
		}
	})
	return dir, string(out)
}

// complaints are what scenarios, the harness and the guest's own command say where something is not as it should be.
var complaints = regexp.MustCompile(`(?m)^(not \d+ lines|in vain|FAILED|ended early|vm: ).*`)

// inShort returns what a scenario complained of and how its output ended: the last word of a test that failed, as CI may
// keep nothing else.
func inShort(out string) string {
	found := complaints.FindAllString(out, 20)
	return strings.Join(found, "\n") + "\n...\n" + out[max(0, len(out)-1500):]
}

// readTold returns the events and the alerts of a file of `run --tee`, in the order they were told.
func readTold(t *testing.T, path string) (events, alerts []told) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewReader(f); ; {
		line, err := s.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			return events, alerts
		}
		var v map[string]any
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%s: %v in %q", path, err, line)
		}
		e := told{}
		flatten(e, "", v)
		if e.str("event.kind") == "alert" {
			alerts = append(alerts, e)
		} else {
			events = append(events, e)
		}
	}
}

// A mark is one moment of the scenario on both of the guest's clocks.
type mark struct {
	wall time.Time
	boot float64 // seconds since boot, as in the kernel's messages
}

func readMarks(t *testing.T, path string) map[string]mark {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	marks := map[string]mark{}
	for line := range strings.Lines(string(b)) {
		var name string
		var sec, micro int64
		var boot float64
		if _, err := fmt.Sscanf(line, "%s %d.%d %f\n", &name, &sec, &micro, &boot); err != nil {
			t.Fatalf("%s: %v in %q", path, err, line)
		}
		marks[name] = mark{time.Unix(sec, micro*1000).UTC(), boot}
	}
	return marks
}

// kernelTime returns when the kernel announced the first device at or after a moment, in seconds since boot. It does so
// just before the uevent, so what is measured from here is never too short. Where the guest has measured its TSC wrongly, the
// messages' clock runs at another speed than the one of after, and there may be none.
func kernelTime(t *testing.T, path string, after float64) (at float64, ok bool) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\[ *([0-9.]+)\] usb .*: New USB device found`).FindAllSubmatch(b, -1) {
		at, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		if at >= after-0.02 { // /proc/uptime counts in hundredths
			return at, true
		}
	}
	return 0, false
}

// where returns the events or alerts with all the given fields, which alternate with their values.
func where(list []told, fieldsAndValues ...string) []told {
	var out []told
	for _, e := range list {
		ok := true
		for i := 0; i < len(fieldsAndValues); i += 2 {
			ok = ok && e.str(fieldsAndValues[i]) == fieldsAndValues[i+1]
		}
		if ok {
			out = append(out, e)
		}
	}
	return out
}

func TestSticksAndAKeyboard(t *testing.T) {
	agent, err := filepath.Abs("../../bin/static/sekisho-agent")
	if err != nil {
		t.Fatal(err)
	}
	dir, _ := run(t,
		"--exe", agent+":/usr/bin/sekisho-agent",
		"--put", "scenarios/usb.agent.yaml:/etc/agent.yaml", "--put", "scenarios/lib.sh:/tmp/lib.sh",
		"--stick", "name=S1,size=64M,fs=vfat,serial=S1-0001",
		"--stick", "name=S2,size=64M,fs=vfat,serial=S2-APPROVED",
		"--usb", "name=K1,type=kbd",
		"--script", "scenarios/usb.sh",
		"--get", "/tmp/tee.jsonl:OUT/tee.jsonl",
		"--get", "/tmp/marks:OUT/marks",
		"--get", "/tmp/kernel.log:OUT/kernel.log",
		"--timeout", "900", "--smp", "2",
	)
	events, alerts := readTold(t, filepath.Join(dir, "tee.jsonl"))
	marks := readMarks(t, filepath.Join(dir, "marks"))
	for _, a := range alerts {
		t.Logf("alert %s: %s, count %v, totals %v files, %v bytes", a.str("sekisho.rule"), a.str("sekisho.alert.title.en"),
			a["sekisho.alert.count"], a["sekisho.alert.totals.files"], a["sekisho.alert.totals.bytes"])
	}

	t.Run("the stick's attach event tells vendor, product and serial", func(t *testing.T) {
		got := where(events, "event.action", "usb-attached", "device.serial_number", "S1-0001")
		if len(got) != 1 {
			t.Fatalf("got %d attach events, want 1", len(got))
		}
		for field, want := range map[string]string{
			"device.vendor.id": "46f4", "device.product.id": "0001", "device.product.name": "QEMU USB HARDDRIVE",
			"sekisho.device.ledger": "unregistered",
		} {
			if got := got[0].str(field); got != want {
				t.Errorf("%s: got %q, want %q", field, got, want)
			}
		}
		if !got[0].has("sekisho.device.kinds", "storage") {
			t.Errorf("kinds: got %v, want storage among them", got[0]["sekisho.device.kinds"])
		}
	})

	// Told, not asserted: the emulated guest has a twentieth of a PC's speed and the host may be busy. The aim is 200 ms.
	t.Run("how long after the kernel's uevent the attach event is there", func(t *testing.T) {
		kernel, ok := kernelTime(t, filepath.Join(dir, "kernel.log"), marks["s1-plug"].boot)
		attached := where(events, "event.action", "usb-attached", "device.serial_number", "S1-0001")
		if !ok || len(attached) == 0 {
			t.Skip("no message of the kernel, or no event, to measure from")
		}
		seen := attached[0].time(t, "event.created").Sub(marks["s1-plug"].wall).Seconds() + marks["s1-plug"].boot
		written := marks["s1-told"].boot
		t.Logf("after the kernel's message: seen %.0f ms, found in the agent's file by a polling shell %.0f ms",
			(seen-kernel)*1000, (written-kernel)*1000)
	})

	t.Run("USB-1 is raised for the unregistered stick only", func(t *testing.T) {
		got := where(alerts, "sekisho.rule", "USB-1")
		if len(got) != 1 || got[0].str("device.serial_number") != "S1-0001" {
			t.Errorf("got %v, want one for S1-0001", got)
		}
	})

	t.Run("the copy is told with process, user, files and bytes", func(t *testing.T) {
		files := map[string]float64{}
		for _, e := range events {
			action, path := e.str("event.action"), e.str("file.path")
			if action != "file-copied" && action != "file-written" || !strings.HasPrefix(path, "/mnt/s1/") {
				continue
			}
			files[path] = max(files[path], e.num("file.size"))
			if e.str("user.name") != "user" || e.str("process.executable") != "/bin/busybox" {
				t.Errorf("%s: user %q, process %q, want user, /bin/busybox", path, e.str("user.name"), e.str("process.executable"))
			}
		}
		var total float64
		for _, size := range files {
			total += size
		}
		if len(files) != 80 || total != 80*20000 {
			t.Errorf("got %d files with %.0f bytes, want 80 with 1600000", len(files), total)
		}
	})

	t.Run("USB-3 is one alert, raised at the 50th file, that goes on counting", func(t *testing.T) {
		got := where(alerts, "sekisho.rule", "USB-3")
		if len(got) == 0 {
			t.Fatal("no alert")
		}
		for _, a := range got {
			if a.str("event.id") != got[0].str("event.id") {
				t.Errorf("a second alert: %s", a)
			}
			if a.str("user.name") != "user" || a.str("process.executable") != "/bin/busybox" || a.str("volume.mount_name") != "/mnt/s1" {
				t.Errorf("user %q, process %q, volume %q, want user, /bin/busybox, /mnt/s1",
					a.str("user.name"), a.str("process.executable"), a.str("volume.mount_name"))
			}
		}
		totals := func(a told, files float64) {
			t.Helper()
			if f, b := a.num("sekisho.alert.totals.files"), a.num("sekisho.alert.totals.bytes"); f != files || b != files*20000 {
				t.Errorf("totals: %.0f files, %.0f bytes, want %.0f, %.0f", f, b, files, files*20000)
			}
		}
		totals(got[0], 50)
		totals(got[len(got)-1], 80+9) // the same person's nine files on the second stick are within the window
	})

	t.Run("pulling a stick gives one detach event", func(t *testing.T) {
		for _, serial := range []string{"S1-0001", "S2-APPROVED"} {
			if got := where(events, "event.action", "usb-detached", "device.serial_number", serial); len(got) != 1 {
				t.Errorf("%s: got %d detach events, want 1", serial, len(got))
			}
		}
	})

	t.Run("the keyboard gives its attach event and nothing else", func(t *testing.T) {
		from := marks["k1-plug"].wall
		n := 0
		for _, e := range events {
			if !e.time(t, "@timestamp").After(from) {
				continue
			}
			switch action := e.str("event.action"); {
			case action == "usb-attached" && e.has("sekisho.device.kinds", "keyboard"):
				n++
				if ledger, ok := e["sekisho.device.ledger"]; ok {
					t.Errorf("the ledger is asked about a keyboard: %v", ledger)
				}
			case strings.HasPrefix(action, "usb-"), strings.HasPrefix(action, "volume-"), strings.HasPrefix(action, "file-"):
				t.Errorf("unexpected %s", e)
			}
		}
		if n != 1 {
			t.Errorf("got %d attach events of a keyboard, want 1", n)
		}
		for _, a := range alerts {
			if a.time(t, "@timestamp").After(from) {
				t.Errorf("unexpected alert %s", a)
			}
		}
	})

	t.Run("nothing was lost", func(t *testing.T) {
		if lost := where(events, "event.action", "events-lost"); len(lost) > 0 {
			t.Errorf("got %v", lost)
		}
	})
}

// brought returns the arguments that bring a program of this machine into the guest, or skips the test. The program may be
// where only root's PATH has it.
func brought(t *testing.T, names ...string) (args []string) {
	t.Helper()
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			path, err = exec.LookPath("/usr/sbin/" + name)
		}
		if err != nil {
			t.Skipf("%v; test/vm/setup installs it", err)
		}
		args = append(args, "--exe", path+":/usr/bin/"+name)
	}
	return args
}

// TestDevicesOfEveryShape adds some two minutes to make test-vm.
func TestDevicesOfEveryShape(t *testing.T) {
	if os.Getenv("SEKISHO_VM") == "" {
		t.Skip("boots a guest for minutes; make test-vm runs it")
	}
	const conversions = "/usr/lib/x86_64-linux-gnu/gconv" // what jmtpfs's libraries need of the C library
	phone := t.TempDir()
	if err := os.WriteFile(filepath.Join(phone, "picture.txt"), []byte("a picture"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir, _ := run(t, append(brought(t, "cryptsetup", "dmsetup", "jmtpfs"),
		"--exe", "../../bin/static/sekisho-agent:/usr/bin/sekisho-agent",
		"--put", conversions+"/gconv-modules:"+conversions+"/gconv-modules", "--put", conversions+"/gconv-modules.d:"+conversions+"/gconv-modules.d", "--put", conversions+"/UTF-16.so:"+conversions+"/UTF-16.so",
		"--put", conversions+"/UNICODE.so:"+conversions+"/UNICODE.so",
		"--put", "scenarios/kinds.agent.yaml:/etc/agent.yaml", "--put", "scenarios/lib.sh:/tmp/lib.sh",
		"--stick", "name=BOOT,serial=BOOT-1", "--stick", "name=T1,serial=TWIN-1", "--stick", "name=T2,serial=TWIN-1",
		"--usb", "name=PHONE,type=mtp,dir="+phone, "--usb", "name=DOCK,type=hub", "--stick", "name=D1,hub=DOCK,serial=DOCKED-1",
		"--usb", "name=D2,type=kbd,hub=DOCK", "--usb", "name=D3,type=mouse,hub=DOCK", "--usb", "name=D4,type=net,hub=DOCK",
		"--usb", "name=D5,type=audio,hub=DOCK", "--usb", "name=D6,type=ccid,hub=DOCK",
		"--stick", "name=L1,fs=none,serial=LUKS-1", "--stick", "name=S1,serial=SLEEP-1",
		"--script", "scenarios/kinds.sh", "--get", "/tmp/tee.jsonl:OUT/tee.jsonl", "--get", "/tmp/marks:OUT/marks",
		"--timeout", "900", "--smp", "2")...)
	all, alerts := readTold(t, filepath.Join(dir, "tee.jsonl"))
	marks := readMarks(t, filepath.Join(dir, "marks"))
	// between returns what was told of devices and volumes from one mark of the scenario to another.
	between := func(list []told, from, to string) (out []told) {
		for _, e := range list {
			at, action := e.time(t, "@timestamp"), e.str("event.action")
			ours := strings.HasPrefix(action, "usb-") || strings.HasPrefix(action, "volume-")
			if e.str("event.kind") == "alert" {
				ours = !strings.HasPrefix(e.str("sekisho.rule"), "HLT") // what this guest lacks is no matter here
			}
			if ours && !at.Before(marks[from].wall) && at.Before(marks[to].wall) {
				out = append(out, e)
			}
		}
		return out
	}
	// kinds returns what was attached, in its order: "storage+keyboard" of one device.
	kinds := func(list []told) string {
		var out []string
		for _, e := range where(list, "event.action", "usb-attached") {
			list, _ := e["sekisho.device.kinds"].([]any) // none where it was gone before it could be read
			var k []string
			for _, one := range list {
				k = append(k, fmt.Sprint(one))
			}
			out = append(out, strings.Join(k, "+"))
		}
		return strings.Join(out, " ")
	}
	// step runs the checks of a part of the scenario, which raises so many alerts.
	step := func(name, from, to string, raised int, check func(t *testing.T, list []told)) {
		t.Run(name, func(t *testing.T) {
			list := between(all, from, to)
			ids := map[string]bool{}
			for _, a := range between(alerts, from, to) {
				ids[a.str("event.id")] = true
			}
			if len(ids) != raised {
				t.Errorf("%d alerts, want %d", len(ids), raised)
			}
			if a, d := len(where(list, "event.action", "usb-attached")), len(where(list, "event.action", "usb-detached")); a != d && from != "start" {
				t.Errorf("%d attached, %d detached", a, d)
			}
			check(t, list)
			if t.Failed() {
				for _, e := range list {
					t.Log(e)
				}
			}
		})
	}

	step("what is there before the agent is told as present", "start", "badusb", 1, func(t *testing.T, list []told) {
		got := where(list, "event.action", "usb-attached")
		if len(got) != 1 || got[0].str("device.serial_number") != "BOOT-1" || got[0].str("message") != "present at start" {
			t.Errorf("got %v, want one stick, present at start", got)
		}
	})
	step("a stick that is a keyboard as well is one device and one alert", "badusb", "swap", 1, func(t *testing.T, list []told) {
		got := where(list, "event.action", "usb-attached")
		if kinds(list) != "storage+keyboard" || !got[0].has("sekisho.usb.oddities", "types-and-stores") || got[0].str("sekisho.device.ledger") != "unregistered" {
			t.Errorf("got %v", got)
		}
	})
	step("a keyboard in the place of a stick is told as that", "swap", "twins", 1, func(t *testing.T, list []told) {
		got := where(list, "event.action", "usb-attached")
		if kinds(list) != "storage keyboard" || got[1].str("sekisho.usb.path") != got[0].str("sekisho.usb.path") || got[1].str("sekisho.device.ledger") != "" {
			t.Fatalf("got %v", got)
		}
		// Whether it came soon enough to be strange depends on how busy this machine is.
		gone := where(list, "event.action", "usb-detached")
		if len(gone) == 0 {
			t.Fatal("its end is not told")
		}
		since := got[1].time(t, "@timestamp").Sub(gone[0].time(t, "@timestamp"))
		if odd := got[1].has("sekisho.usb.oddities", "port-swap"); odd != (since < 3*time.Second) {
			t.Errorf("after %v: strange is %v", since, odd)
		}
	})
	step("two sticks with one serial number are told apart by their ports", "twins", "phone", 1, func(t *testing.T, list []told) {
		got := where(list, "event.action", "usb-attached", "device.serial_number", "TWIN-1")
		if kinds(list) != "storage storage" || len(got) != 2 || got[0].str("sekisho.usb.path") == got[1].str("sekisho.usb.path") ||
			got[0].has("sekisho.usb.oddities", "same-serial") || !got[1].has("sekisho.usb.oddities", "same-serial") {
			t.Fatalf("got %v", got)
		}
		for i, mount := range []string{"/mnt/t1", "/mnt/t2"} {
			v := where(list, "event.action", "volume-mounted", "volume.mount_name", mount)
			if len(v) != 1 || v[0].str("volume.serial_number") != "TWIN-1" || v[0].str("sekisho.volume.usb_path") != got[i].str("sekisho.usb.path") {
				t.Errorf("%s: got %v, want the one at port %s", mount, v, got[i].str("sekisho.usb.path"))
			}
		}
	})
	step("a phone is told without a volume, and with its identity where a program shows or opens it", "phone", "dock", 1, func(t *testing.T, list []told) {
		got := where(list, "event.action", "usb-attached")
		if kinds(list) != "mtp" || got[0].str("sekisho.device.ledger") != "unregistered" {
			t.Fatalf("got %v", got)
		}
		for _, tt := range []struct{ fs, program string }{{"fuse.jmtpfs", "/usr/bin/jmtpfs"}, {"mtp", "/bin/busybox"}} {
			v := where(list, "event.action", "volume-mounted", "volume.file_system_type", tt.fs, "sekisho.volume.kind", "removable",
				"volume.serial_number", got[0].str("device.serial_number"), "volume.product_id", got[0].str("device.product.id"), "sekisho.volume.usb_path", got[0].str("sekisho.usb.path"))
			if len(v) != 1 || v[0].str("process.executable") != tt.program || v[0].str("user.id") != "0" || v[0].str("sekisho.device.ledger") != "unregistered" {
				t.Errorf("%s: got %v", tt.fs, v)
			}
			if v := where(list, "event.action", "volume-unmounted", "volume.file_system_type", tt.fs); len(v) != 1 {
				t.Errorf("%s: ended %d times, want once", tt.fs, len(v))
			}
		}
	})
	step("a dock with six devices is seven of them and one alert", "dock", "luks", 1, func(t *testing.T, list []told) {
		if got := strings.Join(slices.Sorted(slices.Values(strings.Fields(kinds(list)))), " "); got != "audio hub keyboard mouse network smartcard storage" {
			t.Errorf("got %s", got)
		}
		if len(list) != 2*7 {
			t.Errorf("told %d times, want 14", len(list))
		}
	})
	step("what lies on an encrypted stick has its identity", "shifted", "flap", 0, func(t *testing.T, list []told) {
		for _, mount := range []string{"/mnt/luks", "/mnt/image"} { // LVM's kind of mapping on dm-crypt; a file in that by a loop device
			v := where(list, "event.action", "volume-mounted", "volume.mount_name", mount, "sekisho.volume.kind", "removable", "volume.serial_number", "LUKS-1",
				"volume.bus_type", "usb", "sekisho.device.ledger", "approved")
			if len(v) != 1 || v[0]["sekisho.volume.encrypted"] != true {
				t.Errorf("%s: got %v, want it encrypted and approved", mount, v)
			}
		}
	})
	step("a device that will not stay is bounded, and told when it does", "flap", "sleep", 0, func(t *testing.T, list []told) {
		if took := marks["flapped"].wall.Sub(marks["flap"].wall); took > 80*time.Second {
			t.Skipf("17 times in %v is not too often", took)
		}
		got := where(list, "event.action", "usb-attached")
		if most := 9 + int(marks["sleep"].wall.Sub(marks["flap"].wall)/(10*time.Second)); len(got) == 0 || len(got) > most {
			t.Fatalf("attached %d times of 17 in %v, want at most %d", len(got), marks["sleep"].wall.Sub(marks["flap"].wall), most)
		}
		if last := got[len(got)-1]; last.str("device.serial_number") != "FLAP-1" {
			t.Errorf("the last is %s, want all of what stayed", last)
		}
		if !slices.ContainsFunc(got, func(e told) bool { return e.has("sekisho.usb.oddities", "re-enumerates") }) {
			t.Error("that it came again and again is not told")
		}
	})
	step("a sleep of the PC is quiet", "asleep", "awake", 0, func(t *testing.T, list []told) {
		if len(list) != 0 {
			t.Errorf("told %v", list)
		}
	})
	t.Run("nothing was lost", func(t *testing.T) {
		if lost := where(all, "event.action", "events-lost"); len(lost) > 0 {
			t.Errorf("got %v", lost)
		}
	})
}

// TestTheServiceUnderSystemd needs the Debian guest, whose image takes a minute to build the first time, as root.
func TestTheServiceUnderSystemd(t *testing.T) {
	if os.Getenv("SEKISHO_VM") == "" {
		t.Skip("boots a guest for minutes; make test-vm runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("the image of the Debian guest can be built by root only")
	}
	_, said := run(t, "--rootfs", "debian", "--smp", "2", "--timeout", "900", "--stick", "name=S1,size=64M,serial=SVC-1",
		"--put", "../../bin/static/sekisho-agent:/usr/bin/sekisho-agent", "--put", "scenarios/service.agent.yaml:/root/agent.yaml",
		"--script", "scenarios/service.sh")
	for _, want := range []string{"verified", "selftest", "alerts", "back after kill -9", "stopped", "removed"} {
		if !strings.Contains(said, "== "+want+"\n") {
			t.Errorf("no %q", want)
		}
	}
}

package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write testdata, configs/*.schema.json and the tables of docs/configure.md anew")

// golden compares got with a file, or writes it with -update.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")); !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew)\n--- got\n%s--- want\n%s", file, got, want)
	}
}

// parse loads as the agent or, for names that begin with console, the console does.
func parse(name string, data []byte) (Listed, error) {
	if strings.HasPrefix(name, "console") {
		c, err := ParseConsole(name, data)
		return c, err
	}
	a, err := ParseAgent(name, data)
	return a, err
}

// Every message has a file here, and the whole text is compared: one line each
// in English, then with carets in Japanese.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad files: %v", err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := parse(filepath.Base(file), data)
			var ps Problems
			if !errors.As(err, &ps) || len(ps) == 0 {
				t.Fatalf("no problem told: %v", err)
			}
			if !reflect.ValueOf(got).IsNil() {
				t.Error("a bad file gave settings")
			}
			for _, p := range ps {
				seen[p.Code] = true
				if p.JA == "" || p.EN == "" || p.JA == p.EN {
					t.Errorf("%s: ja %q, en %q", p.Code, p.JA, p.EN)
				}
			}
			out := bytes.NewBufferString(err.Error() + "\n\n")
			if err := ps.Print(out, "ja"); err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", out.Bytes())
		})
	}
	for _, code := range []string{CodeText, CodeYAML, CodeUnknown, CodeDouble, CodeType, CodeValue, CodeMissing, CodeFeature, CodeBounds, CodeTogether, CodeTwice} {
		if !seen[code] {
			t.Errorf("no bad file shows %s", code)
		}
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadAgent(filepath.Join(dir, "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml: cannot read the settings file: ") || !strings.HasSuffix(err.Error(), "[CFG-01]") {
		t.Errorf("no file: got %v", err)
	}
	if _, err := LoadConsole(dir); err == nil || !strings.HasSuffix(err.Error(), "[CFG-01]") {
		t.Errorf("a folder: got %v", err)
	}
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, bytes.Repeat([]byte("# large\n"), MaxFile/8+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadAgent(large); err == nil || !strings.HasSuffix(err.Error(), "larger than 1048576 bytes [CFG-10]") {
		t.Errorf("a large file: got %v", err)
	}
}

func TestSettingsAreRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	text := "\ufeff" + strings.ReplaceAll(`console:
  url: https://console.example.jp:8443
  ca: ca.pem
state_dir: st
sensors: {volume: {removable_paths: [/mnt/relay]}}
people:
  - id: 0123
    accounts: t.yamada
    last_day: 2027-03-31
devices:
  approved:
    - {vendor: 0951, product: 1666, serial: 0012}
work_hours: {from: 9:00, to: "24:00"}
rules:
  paths: [C:\rules, more]
  thresholds: {USB-3: {files: 20, bytes: 10MB}}
  thresholds_for:
    - {department: 市民課, tag: sensitive, list: leaver, thresholds: {USB-3: {bytes: 5MB}}}
  exceptions:
    - rules: any
      when: {user.name: svc-backup, host.name: [bk01, 'nas-*']}
      reason: approved
      expires: 2027-03-31
  placeholders: {servers: [fs01, fs02]}
limits: {spool_alerts: 5MiB, activity_max_age: 1d12h}
`, "\n", "\r\n")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := LoadAgent(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want any }{
		{"url", a.Console.URLs, []string{"https://console.example.jp:8443"}},
		{"ca", a.Console.CA, filepath.Join(dir, "ca.pem")},
		{"state_dir", a.StateDir, filepath.Join(dir, "st")},
		{"log.dir", a.Log.Dir, filepath.Join(dir, "st", "log")},
		{"removable", a.Sensors.Volume, VolumeSensor{true, []string{"/mnt/relay"}}},
		{"person", a.People, []Person{{ID: "0123", Accounts: []string{"t.yamada"}, LastDay: "2027-03-31"}}},
		{"device", a.Devices.Approved, []ApprovedDevice{{Vendor: "0951", Product: "1666", Serial: "0012"}}},
		{"from", a.WorkHours.From, Clock(9 * 60)},
		{"to", a.WorkHours.To, Clock(24 * 60)},
		{"days", a.WorkHours.Days, []string{"mon", "tue", "wed", "thu", "fri"}},
		{"rules", a.Rules.Paths, []string{`C:\rules`, filepath.Join(dir, "more")}},
		{"thresholds", a.Rules.Thresholds, map[string]map[string]int64{"USB-3": {"files": 20, "bytes": 10_000_000}}},
		{"thresholds_for", a.Rules.ThresholdsFor, []ThresholdsFor{{"市民課", "sensitive", "leaver", map[string]map[string]int64{"USB-3": {"bytes": 5_000_000}}}}},
		{"exceptions", a.Rules.Exceptions, []Exception{{[]string{"any"},
			map[string][]string{"user.name": {"svc-backup"}, "host.name": {"bk01", "nas-*"}}, "approved", "2027-03-31"}}},
		{"placeholders", a.Rules.Placeholders, map[string][]string{"servers": {"fs01", "fs02"}}},
		{"spool_alerts", a.Limits.SpoolAlerts, 5 * MiB},
		{"age", a.Limits.ActivityMaxAge, 36 * time.Hour},
		{"zone", a.WorkHours.Location().String(), "Asia/Tokyo"},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %#v, want %#v", c.what, c.got, c.want)
		}
	}
	origins := map[string]string{}
	for _, s := range a.Settings() {
		origins[s.Path] = s.Value + " " + s.Origin.String()
	}
	for path, want := range map[string]string{
		"people[0].id":                 `"0123" ` + file + ":7",
		"rules.thresholds.USB-3.bytes": "10000000 " + file + ":16",
		"log.level":                    `"info" default`,
		"work_hours.from":              `"09:00" ` + file + ":13",
		"shares":                       "[] default",
		"limits.activity_max_age":      "36h " + file + ":25",

		"rules.thresholds_for[0].thresholds.USB-3.bytes": "5000000 " + file + ":18",
		"rules.exceptions[0].rules":                      `["any"] ` + file + ":20",
		"rules.exceptions[0].when.host.name":             `["bk01", "nas-*"] ` + file + ":21",
		"rules.placeholders.servers":                     `["fs01", "fs02"] ` + file + ":24",
	} {
		if origins[path] != want {
			t.Errorf("%s: got %q, want %q", path, origins[path], want)
		}
	}
}

func TestEmptyFilesAreTheDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "people:\nhost:\n  tags:\n", "~"} {
		a, err := ParseAgent("a.yaml", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if changes := Diff(DefaultAgent(), a); len(changes) > 0 {
			t.Errorf("%q: got %v, want the defaults", text, changes)
		}
		if _, err := ParseConsole("c.yaml", []byte(strings.NewReplacer("people:", "names:", "host:", "web:", "tags:", "tls:").Replace(text))); err != nil {
			t.Errorf("console: %q: %v", text, err)
		}
	}
}

func TestDefaultsHaveNoProblem(t *testing.T) {
	if ps := DefaultAgent().validate(); len(ps) > 0 {
		t.Errorf("agent: %v", ps)
	}
	if ps := DefaultConsole().validate(); len(ps) > 0 {
		t.Errorf("console: %v", ps)
	}
	for program, keys := range map[Listed][]Key{DefaultAgent(): agentKeys, DefaultConsole(): consoleKeys} {
		v := reflect.ValueOf(program).Elem()
		for _, k := range keys {
			x, ok := lookup(v, k.Path)
			if ok && x.CanInt() && x.Int() != 0 && k.Max != 0 && (x.Int() < k.Min || x.Int() > k.Max) {
				t.Errorf("%s: default %d is out of its range", k.Path, x.Int())
			}
		}
	}
}

func TestDiffTellsWhatChanged(t *testing.T) {
	before, err := ParseAgent("a.yaml", []byte("log: {level: debug}\nstate_dir: /a\npeople: [{id: a, accounts: b}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := ParseAgent("a.yaml", []byte("state_dir: /b\nrules: {thresholds: {USB-3: {files: 5}}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range Diff(before, after) {
		s := c.String()
		if c.Restart {
			s += " (restart)"
		}
		got = append(got, filepath.ToSlash(s))
	}
	want := []string{
		`state_dir: "/a" -> "/b" (restart)`,
		"people: - -> []",
		"rules.thresholds.USB-3.files: - -> 5",
		`log.level: "debug" -> "info"`,
		`log.dir: "/a/log" -> "/b/log" (restart)`,
		`people[0].id: "a" -> -`,
		`people[0].accounts: ["b"] -> -`,
		`people[0].department: "" -> -`,
		"people[0].lists: [] -> -",
		`people[0].last_day: "" -> -`,
		"rules.thresholds: {} -> -",
	}
	if runtime.GOOS == "windows" {
		t.Skip("paths print otherwise here")
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if d := Diff(after, after); len(d) != 0 {
		t.Errorf("the same settings: got %v", d)
	}
}

// The structs, the tables of keys and the texts hold together.
func TestEveryKeyHasItsRow(t *testing.T) {
	for name, p := range map[string]struct {
		root any
		keys []Key
	}{"agent": {Agent{}, agentKeys}, "console": {Console{}, consoleKeys}} {
		var leaves []string
		var walk func(t reflect.Type, key string)
		walk = func(rt reflect.Type, key string) {
			switch {
			case rt.Kind() == reflect.Struct:
				for _, f := range fields(rt) {
					walk(rt.Field(f.index).Type, join(key, f.name))
				}
			case rt.Kind() == reflect.Map:
				walk(rt.Elem(), join(key, "*"))
			case rt.Kind() == reflect.Slice && rt.Elem().Kind() == reflect.Struct:
				walk(rt.Elem(), key+"[]")
			default:
				leaves = append(leaves, key)
			}
		}
		walk(reflect.TypeOf(p.root), "")
		var rows []string
		for _, k := range p.keys {
			rows = append(rows, k.Path)
			if k.JA == "" || k.EN == "" || k.JA == k.EN {
				t.Errorf("%s: %s: ja %q, en %q", name, k.Path, k.JA, k.EN)
			}
		}
		if !slices.Equal(rows, leaves) {
			t.Errorf("%s: rows of the table\n%s\nfields of the structs\n%s", name, strings.Join(rows, "\n"), strings.Join(leaves, "\n"))
		}
	}
}

// Every example in the tables is taken by the loader.
func TestExamplesOfKeys(t *testing.T) {
	for name, keys := range map[string][]Key{"agent.yaml": agentKeys, "console.yaml": consoleKeys} {
		for _, k := range keys {
			if k.Example == "" {
				continue
			}
			path := strings.TrimSuffix(strings.TrimSuffix(k.Path, ".*"), ".*") // the example of a mapping is all of it
			var b strings.Builder
			parts := strings.Split(path, ".")
			for i, part := range parts {
				listed := strings.HasSuffix(part, "[]")
				b.WriteString(strings.Repeat("  ", i) + strings.TrimSuffix(part, "[]") + ":")
				switch {
				case i == len(parts)-1:
					b.WriteString(" " + k.Example + "\n")
				case listed:
					b.WriteString("\n" + strings.Repeat("  ", i) + " -\n")
				default:
					b.WriteString("\n")
				}
			}
			_, err := parse(name, []byte(b.String()))
			var ps Problems
			errors.As(err, &ps)
			for _, p := range ps {
				if p.Code != CodeMissing && p.Code != CodeTogether { // it stands alone here
					t.Errorf("%s: example %s: %v\n%s", k.Path, k.Example, p.Message("en"), b.String())
				}
			}
		}
	}
}

const configs = "../../configs/"

func TestSchemasAreUpToDate(t *testing.T) {
	golden(t, configs+"agent.schema.json", AgentSchema())
	golden(t, configs+"console.schema.json", ConsoleSchema())
}

// validator is a schema ready to use.
func validator(t *testing.T, data []byte) *jsonschema.Resolved {
	t.Helper()
	var s jsonschema.Schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// instance is a YAML text as a validator of JSON sees it.
func instance(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(plain(v))
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(j, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// plain turns what YAML 1.1 makes a time back into text, as editors have it.
func plain(v any) any {
	switch x := v.(type) {
	case time.Time:
		return x.Format(time.DateOnly)
	case map[string]any:
		for k := range x {
			x[k] = plain(x[k])
		}
	case []any:
		for i := range x {
			x[i] = plain(x[i])
		}
	}
	return v
}

// The examples name every key, loader and schema take them as they are and with
// everything uncommented, and what is not commented out is the default.
func TestExampleFiles(t *testing.T) {
	for name, p := range map[string]struct {
		keys   []Key
		schema []byte
		def    Listed
	}{"agent.yaml": {agentKeys, AgentSchema(), DefaultAgent()}, "console.yaml": {consoleKeys, ConsoleSchema(), DefaultConsole()}} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(configs + name)
			if err != nil {
				t.Fatal(err)
			}
			data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
			if !bytes.HasPrefix(data, []byte("# yaml-language-server: $schema=./"+strings.TrimSuffix(name, ".yaml")+".schema.json\n")) {
				t.Error("the first line does not name the schema")
			}
			c, err := parse(name, data)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range Diff(p.def, c) {
				t.Errorf("not the default: %s", d)
			}
			v := validator(t, p.schema)
			if err := v.Validate(instance(t, data)); err != nil {
				t.Errorf("schema: %v", err)
			}

			// "#key" and "#  more" are settings, "# text" is words.
			full := regexp.MustCompile(`(?m)^( *)#(\S|  )`).ReplaceAll(data, []byte("$1$2"))
			c, err = parse(name, full)
			if err != nil {
				t.Fatalf("uncommented: %v\n%s", err, full)
			}
			if err := v.Validate(instance(t, full)); err != nil {
				t.Errorf("uncommented: schema: %v", err)
			}
			given := map[string]bool{}
			index := regexp.MustCompile(`\[\d+\]`)
			for _, s := range c.Settings() {
				if s.Origin != (Origin{}) {
					path := index.ReplaceAllString(s.Path, "[]")
					for _, k := range p.keys { // keys of mappings are people's own
						if of, any, _ := strings.Cut(k.Path, ".*"); any != "" || strings.HasSuffix(k.Path, ".*") {
							if strings.HasPrefix(path, of+".") {
								path = k.Path
							}
						}
					}
					given[path] = true
				}
			}
			for _, k := range p.keys {
				if !given[k.Path] {
					t.Errorf("%s is not in the example", k.Path)
				}
			}
		})
	}
}

// The schema is no stricter than the loader in what it was made from, and
// refuses what it can.
func TestSchemaRefuses(t *testing.T) {
	v := validator(t, AgentSchema())
	for _, text := range []string{"hosts: {}", "log: {level: loud}", "sensors: {usb: {enabled: 3}}", "limits: {activity_max_age: soon}",
		"people: [{accounts: [a]}]", "log: {max_files: 0}", "work_hours: {days: [monday]}"} {
		if v.Validate(instance(t, []byte(text))) == nil {
			t.Errorf("%s: taken", text)
		}
	}
}

// The tables of docs/configure.md are made from the same rows.
func TestDocumentIsUpToDate(t *testing.T) {
	const file = "../../docs/configure.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	out := data
	for _, program := range []string{"agent", "console"} {
		for _, lang := range []string{"ja", "en"} {
			begin, end := []byte("<!-- settings "+program+" "+lang+" -->\n"), []byte("<!-- end -->\n")
			head, rest, ok := bytes.Cut(out, begin)
			_, tail, ok2 := bytes.Cut(rest, end)
			if !ok || !ok2 {
				t.Fatalf("no place for the table of %s in %s", program, lang)
			}
			var table bytes.Buffer
			if err := Reference(&table, program, lang); err != nil {
				t.Fatal(err)
			}
			out = slices.Concat(head, begin, table.Bytes(), end, tail)
		}
	}
	golden(t, file, out)
	for _, code := range []string{CodeRead, CodeText, CodeYAML, CodeUnknown, CodeDouble, CodeType, CodeValue, CodeMissing, CodeFeature, CodeBounds, CodeTogether, CodeTwice, CodeFound} {
		if bytes.Count(out, []byte("| "+code+" |")) != 2 {
			t.Errorf("%s is not in the tables of codes, once in each language", code)
		}
	}
}

func TestSizesDurationsAndClocks(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "4096": 4096, "64MB": 64_000_000, "1GiB": 1 << 30, "10 kb": 10_000, "5B": 5, "16mib": 16 << 20} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1.5GB", "1TB", "9999999999999GB", "1  MB", "0x10"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
	for s, want := range map[Size]string{0: "0", 1: "1", 64_000_000: "64MB", 1 << 20: "1MiB", 1500: "1500", 2000: "2KB"} {
		if got := s.String(); got != want {
			t.Errorf("%d: got %s, want %s", int64(s), got, want)
		}
		if back, err := ParseSize(want); err != nil || back != s {
			t.Errorf("%s: got back %d, %v", want, back, err)
		}
	}
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "15m": 15 * time.Minute, "24h": day, "7d": 7 * day, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
		if back, err := ParseDuration(FormatDuration(got)); err != nil || back != got {
			t.Errorf("%q: got back %v, %v", text, back, err)
		}
	}
	for _, text := range []string{"", "7", "d", "-1h", "1w", "1.5d", "7d-1h", "7dd", "99999d", "+3h", "9999999h", "7d3"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
	for _, text := range []string{"", "8", "8:5", "24:01", "08:60", "8:30:00", "-1:00", "008:30"} {
		if got, err := ParseClock(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	_, err := ParseConsole("c.yaml", []byte("web:\n  admin_password: hunter2\n  tls: {cert_file: a, key_file: b, tls_token: 'hunter2', x: y}\n  public_url: https://taro:hunter2@example.jp\n"))
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := ps.Print(&out, "en"); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("a secret is shown:\n%s", out.String())
	}
	for _, want := range []string{"admin_password: <secret>", "key_file: b, tls_token: <secret>, x: y", "https://<secret>@example.jp"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in\n%s", want, out.String())
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", configs + "*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{"agent.yaml", "console.yaml"} {
			got, err := parse(name, data)
			if err == nil {
				if len(got.Settings()) == 0 {
					t.Error("no settings")
				}
				if d := Diff(got, got); len(d) != 0 {
					t.Errorf("differs from itself: %v", d)
				}
				continue
			}
			var ps Problems
			if !errors.As(err, &ps) || len(ps) == 0 {
				t.Fatalf("error of another kind: %v", err)
			}
			for _, lang := range []string{"ja", "en"} {
				var out strings.Builder
				if err := ps.Print(&out, lang); err != nil {
					t.Fatal(err)
				}
				for _, r := range out.String() {
					if r != '\n' && (r < ' ' || r == 0x7f || r >= 0x202a && r <= 0x202e) {
						t.Fatalf("unprintable %U in\n%q", r, out.String())
					}
				}
			}
		}
	})
}

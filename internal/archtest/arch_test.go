package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "sekisho"

// A row says what one package below internal/ may import of ours. Folders below a package (internal/rules/pack) belong
// to it and share its row. Tests may import anything: a test that wires two neighbours is no dependency of the product.
type row struct {
	may string // packages below internal/, separated by blanks; "*" for whatever it wires
	why string // why nothing more, for the person who just wrote the import that fails
}

// layers is the direction of the data: sources -> enrich -> rules -> correlate -> alert -> spool -> ship on the PC,
// collector -> store <- console on the server.
var layers = map[string]row{
	"event":      {"", "every package speaks events, so whatever this imports is linked into all of them"},
	"endpoint":   {"", "plain facts an agent reports about itself, shared by both programs; logic belongs to agent or console"},
	"account":    {"", "plain types of the console's users; logic belongs to console, rows to store"},
	"input":      {"", "reads files of any kind for those that parse them, and knows none of them"},
	"config":     {"input problem", "settings are read before anything else exists; a package takes the values it needs, not the loader"},
	"spool":      {"", "the spool keeps bytes; if it knew alerts, changing an alert would change the format on disk"},
	"version":    {"", "a leaf that every program and protocol may name"},
	"lang":       {"", "asked by the command lines before settings are read; pages choose their language by the reader, not the machine"},
	"problem":    {"", "what is wrong with a file, told alike for settings and rules"},
	"cli":        {"lang", "the manners of both command lines; what a command does belongs to its program"},
	"confine":    {"", "takes rights from a process; what the process needs them for is not its business"},
	"logfile":    {"", "a log is opened before anything else and by both programs; it must not need them"},
	"winacl":     {"", "who may do what to a file; which file and why is for those who open it"},
	"archtest":   {"", "a test about packages belongs to none of them"},
	"disktest":   {"", "a disk for tests of any package; no program links it"},
	"guid":       {"", "a type that Windows' calls share; what is named by it is theirs to know"},
	"winpath":    {"", "the one form of paths; which path and why is for those who have it"},
	"cfgmgr":     {"guid", "a system's call and its bytes, for sensors to make something of"},
	"etw":        {"guid", "a system's call and its bytes, for sensors to make something of"},
	"usb":        {"event endpoint cfgmgr guid", "a source tells what happened and never sees a rule, so that replay can stand in for it"},
	"volume":     {"event endpoint usb cfgmgr", "knows the USB device behind a volume, no more: a source tells what happened and never sees a rule, so that replay can stand in for it"},
	"fileaudit":  {"event endpoint etw guid volume winpath", "knows on which volume a file lies, no more: a source tells what happened and never sees a rule, so that replay can stand in for it"},
	"procwatch":  {"event endpoint etw guid winlog winpath", "a source tells what happened and never sees a rule, so that replay can stand in for it"},
	"winlog":     {"", "reads logs of Windows for those who know what the records mean"},
	"usblog":     {"event endpoint winlog cfgmgr usb", "reads ids as the USB source does: a source tells what happened and never sees a rule, so that replay can stand in for it"},
	"session":    {"event endpoint winlog", "a source tells what happened and never sees a rule, so that replay can stand in for it"},
	"printwatch": {"event endpoint winlog", "a source tells what happened and never sees a rule, so that replay can stand in for it"},
	"alert":      {"event", "an alert is made of events; what is done with it is not its business"},
	"rules":      {"event input problem", "a rule sees events only: with sources or settings in reach, replay would judge differently from the agent"},
	"catalog":    {"event", "facts about tools, matched against events; what they mean is for the rules to say"},
	"enrich":     {"event catalog config problem", "the one stage that joins settings and catalogue to events; it must not know what the rules make of them"},
	"correlate":  {"event rules", "windows over matches by event time, nothing else, so that a replay counts the same"},
	"judge":      {"event enrich rules correlate alert spool", "the judging path that agent and replay share; a source in it would break replay. The spool is the journal of a judge that is opened on a folder, which replay's is not"},
	"replay":     {"event judge enrich rules correlate alert catalog config input lang problem", "replay needs no privileges and links no source, no spool, no network"},
	"wire":       {"event alert endpoint", "bodies that agent and collector exchange; neither side's code"},
	"ship":       {"spool wire endpoint", "moves bytes from the spool to the collector; it must not judge or change them"},
	"enroll":     {"wire endpoint winacl", "identity only: it must work before, and when, everything else does not"},
	"respond":    {"event alert", "acts on an alert; what led to it is not its business"},
	"store":      {"event alert endpoint account", "the only package with SQL; handlers and pages declare what they need and it satisfies them"},
	"peer":       {"", "who is at the other end of a request; asked by every server, knows none"},
	"collector":  {"wire store enroll endpoint event alert peer", "authenticates, checks, stores; pages belong to console"},
	"console":    {"event alert endpoint account peer", "declares the small interfaces it needs; store satisfies them, so pages can be tested without a database"},
	"api":        {"alert endpoint account version peer", "the JSON API for scripts declares what it needs and store satisfies it, as with console"},
	"agent":      {"*", "wires the agent"},
}

// bans are imports from outside the tree that some packages must not name themselves. Transitive imports are not
// looked at: zap, for one, brings net/http along.
var bans = []struct {
	path string
	in   func(pkg string) bool
	why  string
}{
	{"gopkg.in/yaml.v3", everywhere, "archived; use go.yaml.in/yaml/v4"},
	{"github.com/shirou/gopsutil/v4", everywhere, "v3 was asked for; two majors would be linked side by side"},
	{"database/sql", except("store"), "SQL lives in internal/store alone; declare an interface and let store satisfy it"},
	{"modernc.org/sqlite", except("store"), "SQL lives in internal/store alone; declare an interface and let store satisfy it"},
	{"go.etcd.io/bbolt", except("judge"), "it holds what the judge counted and nothing else: records to deliver belong into a spool, the console's into its store"},
	{"net/http", only("usb", "volume", "fileaudit", "procwatch", "session", "winlog", "printwatch", "usblog", "rules", "correlate", "spool", "event", "enrich"),
		"sources, rules and the spool have no business on the network; ship and enroll talk to the collector"},
	{"github.com/cilium/ebpf", except("procwatch"), "programs in the kernel are loaded in one place, which says what they need and what is done without"},
	{"github.com/godbus/dbus/v5", except("session"), "who speaks to the bus of the system is in one place, which says what is done without it"},
	{"github.com/google/gousb", except("usb"), "cgo stays in one place; a build without it must lose nothing but descriptors"},
}

func everywhere(string) bool { return true }
func only(p ...string) func(string) bool {
	return func(pkg string) bool { return slices.Contains(p, pkg) }
}
func except(p ...string) func(string) bool {
	return func(pkg string) bool { return !slices.Contains(p, pkg) }
}

// unlinked is what a program must not contain, however it would get there.
var unlinked = []struct {
	program string
	paths   []string
	why     string
}{
	{module + "/cmd/agent", []string{module + "/internal/store", module + "/internal/collector", module + "/internal/console", "database/sql"},
		"the agent stays small and carries no server code to every PC"},
	{module + "/cmd/console", []string{module + "/internal/agent", module + "/internal/usb", module + "/internal/fileaudit",
		module + "/internal/procwatch", module + "/internal/session", module + "/internal/printwatch", module + "/internal/usblog", module + "/internal/spool", "github.com/google/gousb"},
		"the console watches no PC; it must run in a container without rights"},
	{module + "/internal/replay", []string{module + "/internal/usb", module + "/internal/volume", module + "/internal/fileaudit",
		module + "/internal/procwatch", module + "/internal/session", module + "/internal/printwatch", module + "/internal/usblog", module + "/internal/ship"},
		"replay needs no privileges and never links a source"},
}

// builds are the variants the programs are made in: a ban has to hold in the files of each.
var builds = [][]string{
	{"GOOS=linux", "CGO_ENABLED=1"},
	{"GOOS=linux", "CGO_ENABLED=0"},
	{"GOOS=windows", "CGO_ENABLED=0"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

// list returns our packages as one build sees them.
func list(t *testing.T, env []string) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps", module+"/...")
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list (%s): %v\n%s", strings.Join(env, " "), err, stderr.String())
	}
	var pkgs []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// noticeChanges makes go test run this test again when a Go file of ours has changed: it remembers what a test itself
// looks at, but not what the go command that it starts reads.
func noticeChanges(t *testing.T) {
	t.Helper()
	for _, root := range []string{"../../cmd", "../../internal"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".go") {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// owner returns the package below internal/ that an import path belongs to ("sekisho/internal/rules/pack" -> "rules").
func owner(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, module+"/internal/")
	if !ok {
		return "", false
	}
	name, _, _ := strings.Cut(rest, "/")
	return name, true
}

// problems returns what is wrong with the imports of pkgs, one sentence each.
func problems(pkgs []listed) []string {
	var bad []string
	for _, p := range pkgs {
		pkg, internal := owner(p.ImportPath)
		r, known := layers[pkg]
		if internal && !known {
			bad = append(bad, fmt.Sprintf("internal/%s: no row for it in archtest.layers: add a row and a reason", pkg))
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, module+"/cmd/") || internal && strings.HasPrefix(imp, module+"/test/") {
				bad = append(bad, fmt.Sprintf("%s imports %s: programs and test tools are imported by nobody", p.ImportPath, imp))
			}
			if dep, ours := owner(imp); ours && internal && dep != pkg && r.may != "*" && !slices.Contains(strings.Fields(r.may), dep) {
				bad = append(bad, fmt.Sprintf("%s imports internal/%s, may import %q: %s", p.ImportPath, dep, r.may, r.why))
			}
			for _, b := range bans {
				if imp == b.path && b.in(pkg) {
					bad = append(bad, fmt.Sprintf("%s imports %s: %s", p.ImportPath, imp, b.why))
				}
			}
		}
		for _, u := range unlinked {
			if p.ImportPath != u.program {
				continue
			}
			for _, path := range u.paths {
				if slices.Contains(p.Deps, path) {
					bad = append(bad, fmt.Sprintf("%s links %s: %s", p.ImportPath, path, u.why))
				}
			}
		}
	}
	return bad
}

func TestImportsFollowTheDirectionOfTheData(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go on PATH to list packages with")
	}
	noticeChanges(t)
	for _, env := range builds {
		t.Run(strings.Join(env, " "), func(t *testing.T) {
			t.Parallel()
			pkgs := list(t, env)
			if len(pkgs) == 0 {
				t.Fatal("go list names no package of ours")
			}
			for _, p := range problems(pkgs) {
				t.Error(p)
			}
		})
	}
}

// The table is only worth something if a wrong import is found; these are wrong in each way there is.
func TestWrongImportsAreFound(t *testing.T) {
	tests := []struct {
		name string
		pkg  listed
		want string // part of the only problem, "" for none
	}{
		{"a source imports a rule", listed{ImportPath: "sekisho/internal/usb", Imports: []string{"sekisho/internal/rules"}}, "never sees a rule"},
		{"a folder shares its package's row", listed{ImportPath: "sekisho/internal/rules/pack", Imports: []string{"sekisho/internal/config"}}, "replay would judge differently"},
		{"a folder and its package are one", listed{ImportPath: "sekisho/internal/rules", Imports: []string{"sekisho/internal/rules/pack", "sekisho/internal/event"}}, ""},
		{"the agent imports what it wires", listed{ImportPath: "sekisho/internal/agent", Imports: []string{"sekisho/internal/spool", "net/http"}}, ""},
		{"a package without a row", listed{ImportPath: "sekisho/internal/helpers"}, "add a row and a reason"},
		{"SQL outside the store", listed{ImportPath: "sekisho/internal/console", Imports: []string{"database/sql"}}, "internal/store alone"},
		{"SQL in a program", listed{ImportPath: "sekisho/cmd/console", Imports: []string{"database/sql"}}, "internal/store alone"},
		{"SQL in the store", listed{ImportPath: "sekisho/internal/store/sqlite", Imports: []string{"database/sql"}}, ""},
		{"the old YAML library", listed{ImportPath: "sekisho/internal/config", Imports: []string{"gopkg.in/yaml.v3"}}, "archived"},
		{"a source on the network", listed{ImportPath: "sekisho/internal/procwatch", Imports: []string{"net/http"}}, "no business on the network"},
		{"a program imported", listed{ImportPath: "sekisho/internal/agent", Imports: []string{"sekisho/cmd/agent"}}, "imported by nobody"},
		{"the agent links the store", listed{ImportPath: "sekisho/cmd/agent", Deps: []string{"sekisho/internal/store"}}, "no server code"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := problems([]listed{tt.pkg})
			switch {
			case tt.want == "" && len(got) > 0:
				t.Errorf("got %q, want none", got)
			case tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)):
				t.Errorf("got %q, want one with %q", got, tt.want)
			}
		})
	}
}

// A row may name a package that is yet to come, but not one that no row describes, and no two packages each other.
func TestTheTableItselfIsSound(t *testing.T) {
	reach := map[string][]string{}
	for pkg, r := range layers {
		if r.why == "" {
			t.Errorf("%s has no reason", pkg)
		}
		for _, dep := range strings.Fields(r.may) {
			if dep == "*" {
				continue
			}
			if _, ok := layers[dep]; !ok {
				t.Errorf("%s may import %s, which has no row", pkg, dep)
			}
			reach[pkg] = append(reach[pkg], dep)
		}
	}
	for pkg, deps := range reach {
		for _, dep := range deps {
			if slices.Contains(reach[dep], pkg) {
				t.Errorf("%s and %s may import each other", pkg, dep)
			}
		}
	}
}

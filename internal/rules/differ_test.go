package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sekisho/internal/event"
)

// A maker makes rules and events from bytes, such that they have to do with each
// other: literals, patterns and texts are put together from the same pieces.
type maker struct{ data []byte }

// pick is a number below n; 0 when the bytes are used up.
func (m *maker) pick(n int) int {
	if len(m.data) == 0 {
		return 0
	}
	c := m.data[0]
	m.data = m.data[1:]
	return int(c) % n
}

func (m *maker) of(list []string) string { return list[m.pick(len(list))] }

// join is up to n of the pieces.
func (m *maker) join(list []string, n int) string {
	var b strings.Builder
	for range 1 + m.pick(n) {
		b.WriteString(m.of(list))
	}
	return b.String()
}

var (
	pieces = []string{"a", "b", "Ab", "-enc", " /c ", `\`, `\cmd.exe`, "évil", "Ü", "ſ", "\u212a", " ", "powershell", "~1", ".", "%", "日本", "—",
		"Windows", "12", "0123456789abcdef", `"`, "'", "^", "C:", ".dat,#1", "\u202e", "YWI", "hidden window", "\xff", "=", "MD5=", ",SHA256="}
	wild     = append([]string{"*", "?", `\*`, `\?`, `\\`}, pieces[:len(pieces)-4]...)
	regexes  = []string{"a", "b+", "[a-c]{2,3}", `\s`, `\.`, ".*", "(?:x|Ab|enc)", `\w+`, "^", "$", `\b`, "[0-9a-f]{8}", "é", `\\`, "powershell", "cmd", ".{3,}", "(a|b)*", `[^a]`, "[^a-z]{2}", `\s+hid`, "ſ", "k", "(?i:K)", `\d{1,3}`, `\B`, "%.*%"}
	ecsNames = []string{"process.command_line", "process.executable", "process.args", "file.name", "user.name", "message", "process.pid", "file.size", "destination.ip", "volume.removable"}
	winNames = []string{"CommandLine", "Image", "User", "ParentImage", "OriginalFileName", "Hashes", "ProcessId", "LogonId", "md5", "sha256"}
	modified = []string{"|contains", "|contains", "", "|startswith", "|endswith", "|contains|all", "|re", "|re|i", "|windash|contains", "|windash", "|cased|contains", "|cased",
		"|exists", "|cidr", "|gt", "|lte", "|fieldref", "|fieldref|endswith", "|fieldref|contains", "|base64offset|contains", "|wide|base64offset|contains", "|base64|contains", "|neq", "|re|all", "|cased|endswith", "|endswith|all"}
	conditions = []string{"s0", "s0 and not s1", "1 of them", "all of s*", "not (s0 or s1)", "s0 or (s1 and not s2)", "not 1 of s*", "(s0 or s1) and not (s2 and s1)", "not s0 and not s2", "s1 and 1 of s*"}
)

func single(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// rule is a rule for Windows process starts, or with the names of ECS.
func (m *maker) rule(n int) string {
	head, names := ecs, ecsNames
	if m.pick(2) == 1 {
		head, names = windows, winNames
	}
	var b strings.Builder
	fmt.Fprintf(&b, "title: t%d\n%s\ndetection:\n", n, head)
	for i := range 3 {
		fmt.Fprintf(&b, "  s%d:\n", i)
		if m.pick(8) == 0 { // keywords
			for range 1 + m.pick(2) {
				fmt.Fprintf(&b, "    - %s\n", single(m.join(wild, 3)))
			}
			continue
		}
		fields := map[string]bool{}
		for range 1 + m.pick(2) {
			name, mod := m.of(names), m.of(modified)
			if fields[name+mod] {
				continue
			}
			fields[name+mod] = true
			fmt.Fprintf(&b, "    %s%s: ", name, mod)
			switch {
			case mod == "|exists":
				b.WriteString(m.of([]string{"true", "false"}) + "\n")
			case mod == "|cidr":
				b.WriteString(m.of([]string{"10.0.0.0/8", "192.168.0.0/16", "::/0"}) + "\n")
			case mod == "|gt", mod == "|lte":
				b.WriteString(m.of([]string{"1", "10", "99.5", "-3"}) + "\n")
			case strings.HasPrefix(mod, "|fieldref"):
				b.WriteString(m.of(names) + "\n")
			default:
				from, count := wild, 3
				if strings.HasPrefix(mod, "|re") {
					from, count = regexes, 5
				} else if strings.Contains(mod, "base64") {
					from = []string{"ab", "evil", "powershell", "日本"} // of one byte nothing sure is left at some offsets
				}
				var values []string
				for range 1 + m.pick(4) {
					values = append(values, single(m.join(from, count)))
				}
				if mod == "" && m.pick(6) == 0 {
					values = append(values, m.of([]string{"null", "''"}))
				}
				if (name == "process.pid" || name == "ProcessId" || name == "file.size") && !strings.Contains(mod, "base64") {
					values = []string{m.of([]string{"1", "10", "'1*'"})}
				}
				if name == "volume.removable" && !strings.Contains(mod, "base64") {
					values = []string{m.of([]string{"true", "false"})}
				}
				fmt.Fprintf(&b, "[%s]\n", strings.Join(values, ", "))
			}
		}
	}
	fmt.Fprintf(&b, "  condition: %s\n", m.of(conditions))
	return b.String()
}

// text is a field's text: short, or now and then of several kilobytes.
func (m *maker) text() string {
	n := []int{0, 2, 6, 12, 30}[m.pick(5)]
	var b strings.Builder
	for range n {
		b.WriteString(m.of(pieces))
	}
	text := b.String()
	if m.pick(9) == 0 {
		text = strings.Repeat(text, 1+m.pick(60))
	}
	return text
}

func (m *maker) event() *event.Event {
	e := &event.Event{Action: event.ProcessStarted}
	set := func(name string, v event.Value) {
		if m.pick(5) > 0 {
			_ = e.Set(name, v) // all fit their fields
		}
	}
	set("host.os.type", event.Text("windows"))
	for _, name := range []string{"process.command_line", "process.executable", "process.parent.executable", "user.name", "user.domain", "file.name",
		"message", "process.pe.original_file_name", "sekisho.process.hashes", "process.hash.sha256", "host.name", "sekisho.session.logon_id"} {
		set(name, event.Text(m.text()))
	}
	if m.pick(4) == 0 { // more than is looked through word by word
		set("process.command_line", event.Text(m.text()+strings.Repeat("x", wordBytes)+m.text()))
	}
	args := make([]string, m.pick(4))
	for i := range args {
		args[i] = m.text()
	}
	set("process.args", event.Texts(args...))
	set("process.pid", event.Number(int64(m.pick(12))))
	set("file.size", event.Number(int64(m.pick(256))))
	set("volume.removable", event.Truth(m.pick(2) == 1))
	set("destination.ip", event.Text(m.of([]string{"10.1.2.3", "192.168.1.1", "::1", "::ffff:10.0.0.1", "x"})))
	return e
}

// differ compares the program of a few rules with the interpreter over a few
// events; ok is false where the rules do not compile.
func differ(t testing.TB, data []byte) (matches int, ok bool) {
	m := &maker{data}
	var docs []string
	for i := range 1 + m.pick(4) {
		docs = append(docs, m.rule(i))
	}
	text := strings.Join(docs, "---\n")
	file, err := Parse("f.yml", []byte(text))
	if err != nil {
		return 0, false
	}
	p, err := Compile([]*File{file}, someSettings)
	if err != nil && len(p.Rules) == 0 {
		return 0, false
	}
	for range 1 + m.pick(4) {
		e := m.event()
		got := map[*Rule]bool{}
		first := p.Match(e, nil)
		for _, x := range first {
			got[x.Rule] = true
			matches++
		}
		for range 3 { // from what the first left in mind: it is kept, learnt from, known
			if again := p.Match(e, nil); !slices.Equal(first, again) {
				t.Fatalf("%v matches, and then %v\n%s\n%s", first, again, text, e.AppendJSON(nil))
			}
		}
		for _, r := range p.Rules {
			if want := interpret(r.doc, e, someSettings); got[r] != want {
				s := newPool(p.getters).New().(*scratch)
				s.begin(e)
				t.Fatalf("rule %s: compiled %v, without the index %v, interpreted %v\n%s\n%s", r.Title, got[r], r.node.match(s), want, text, e.AppendJSON(nil))
			}
		}
	}
	return matches, true
}

func randomBytes(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, 1200)
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

func TestMadeRulesAgreeWithTheInterpreter(t *testing.T) {
	compiled, matches := 0, 0
	n := 1000
	if testing.Short() || raceEnabled {
		n = 100
	}
	for seed := range n {
		m, ok := differ(t, randomBytes(uint64(seed)))
		matches += m
		if ok {
			compiled++
		}
	}
	t.Logf("%d of %d sets of rules compile, %d matches", compiled, n, matches)
	if compiled < n/3 || matches < n/3 {
		t.Errorf("%d of %d sets of rules compile, %d matches: too few to tell anything", compiled, n, matches)
	}
}

func FuzzMadeRulesAgreeWithTheInterpreter(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(randomBytes(1_000_000 + seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 5000 {
			differ(t, data)
		}
	})
}

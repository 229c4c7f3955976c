package rules

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/event"
)

// corpusDir is where the SigmaHQ rules and real events are, should they be on
// this machine: they are under another licence and not part of the tree.
func corpusDir(t testing.TB) string {
	dir := os.Getenv("SEKISHO_SIGMAHQ")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "corpora", "sigmahq")
	}
	if _, err := os.Stat(filepath.Join(dir, "rules.tar.gz")); err != nil {
		t.Skip("no SigmaHQ corpus (set SEKISHO_SIGMAHQ to its folder): ", err)
	}
	return dir
}

func corpusFiles(t testing.TB, dir string) (files []*File, problems Problems) {
	f, err := os.Open(filepath.Join(dir, "rules.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(h.Name, ".yml") {
			continue
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		file, err := Parse(h.Name, data)
		if err != nil {
			problems = append(problems, asProblems(err)...)
		}
		files = append(files, file)
	}
	return files, problems
}

func corpusEvents(t testing.TB, dir string) []*event.Event {
	f, err := os.Open(filepath.Join(dir, "process-events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []*event.Event
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, event.MaxJSON)
	for sc.Scan() {
		e, err := event.Decode(sc.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func pairsOf(t testing.TB, name string) map[[2]string]bool {
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	out := map[[2]string]bool{}
	for line := range strings.Lines(string(data)) {
		if id, rule, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			out[[2]string{id, rule}] = true
		}
	}
	return out
}

// refusedHere are the rules of the corpus that name fields which no event of
// ours has: GrandParentImage is no field of Sigma's taxonomy, Provider_Name
// belongs to ETW.
var refusedHere = map[string]string{
	"Potential Pikabot Discovery Activity":                     "GrandParentImage",
	"RedSun - Conhost.exe Spawned by TieringEngineService.exe": "GrandParentImage",
	"Uncommon Child Process Of Conhost.EXE":                    "Provider_Name",
}

// differences explains, by rule, where the other engine's matches differ.
var differences = map[string]string{
	"bafd07c6-3ea5-454a-b4be-058fbb073de7": "fieldref, which the other engine refuses",
	"d2b7a134-9c3e-4f8a-b56d-e0c1f8a29b47": "fieldref, which the other engine refuses",
	"11bb9b26-4179-4a06-afcb-1ec31fce1627": "product linux against a Windows event; the other engine ignores the logsource",
}

func TestSigmaHQRulesLoadAndMatchTheirEvents(t *testing.T) {
	dir := corpusDir(t)
	files, problems := corpusFiles(t, dir)
	p, err := Compile(files, Options{})
	if err != nil {
		problems = append(problems, asProblems(err)...)
	}
	for i := range problems {
		if field := refusedHere[problems[i].Rule]; field == "" || !strings.Contains(problems[i].EN, field) {
			t.Errorf("refused: %s", problems[i].Message("en"))
		}
	}
	if got, want := len(p.Rules), len(files)-len(refusedHere); got != want {
		t.Errorf("%d rules load, want %d", got, want)
	}
	got := map[[2]string]bool{}
	var buf []Match
	for _, e := range corpusEvents(t, dir) {
		buf = p.Match(e, buf[:0])
		for _, m := range buf {
			got[[2]string{e.ID, m.Rule.ID}] = true
		}
	}
	expected := pairsOf(t, filepath.Join(dir, "expected.tsv"))
	missed := 0
	for pair := range expected {
		if !got[pair] {
			missed++
			t.Errorf("event %s does not match its rule %s", pair[0], pair[1])
		}
	}
	t.Logf("%d of %d rules load, %d of %d labelled matches, %d matches in all", len(p.Rules), len(files), len(expected)-missed, len(expected), len(got))
	ref := pairsOf(t, filepath.Join(dir, "reference-matches.tsv"))
	for pair := range ref {
		if !got[pair] && differences[pair[1]] == "" {
			t.Errorf("only the other engine has event %s, rule %s", pair[0], pair[1])
		}
	}
	for pair := range got {
		if !ref[pair] && differences[pair[1]] == "" {
			t.Errorf("only ours has event %s, rule %s", pair[0], pair[1])
		}
	}
}

func TestSigmaHQMissesDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	dir := corpusDir(t)
	files, _ := corpusFiles(t, dir)
	p, _ := Compile(files, Options{})
	var misses []*event.Event
	for _, e := range corpusEvents(t, dir) {
		if len(p.Match(e, nil)) == 0 {
			misses = append(misses, e)
		}
	}
	all := func() {
		for _, e := range misses {
			p.Match(e, nil)
		}
	}
	for range 10 { // automata learn, and texts are kept when they come again
		all()
	}
	n := testing.AllocsPerRun(5, all)
	if n > 0 || len(misses) < 100 {
		t.Errorf("%v allocations over %d events that match nothing", n, len(misses))
	}
}

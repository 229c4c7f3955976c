package rules

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"sekisho/internal/event"
)

// What the engine has to reach, on one core: 250,000 process starts a second
// with all of SigmaHQ's process rules, a million events a second with the
// shipped rules alone, no event over 200 us up to a command line of 8,191
// characters (the longest of cmd.exe), nothing allocated where nothing matches.

// corpus is SigmaHQ's rules and events, loaded once for all benchmarks.
type corpus struct {
	files  []*File
	events []*event.Event
}

var theCorpus struct {
	sync.Once
	corpus
}

func loadedCorpus(b *testing.B) *corpus {
	dir := corpusDir(b)
	theCorpus.Do(func() {
		theCorpus.files, _ = corpusFiles(b, dir)
		theCorpus.events = corpusEvents(b, dir)
	})
	return &theCorpus.corpus
}

// some compiles n of the corpus' rules, from all over it.
func (c *corpus) some(n int) *Program {
	var files []*File
	for i := range n {
		files = append(files, c.files[i*len(c.files)/n])
	}
	p, _ := Compile(files, Options{}) // three name fields that we do not have
	return p
}

// runsEach is how often each event runs to find out what it costs.
const runsEach = 20

// measure matches the events in turn and reports events a second and what the
// events cost: each one the least of its runs, which leaves out what else the
// machine does meanwhile.
func measure(b *testing.B, p *Program, events []*event.Event) { measureEach(b, p, events, func() {}) }

// measureEach is measure with something to do before each event.
func measureEach(b *testing.B, p *Program, events []*event.Event, before func()) {
	if len(events) == 0 {
		b.Skip("no such events")
	}
	var buf []Match
	least := make([]time.Duration, len(events))
	for i := range least {
		least[i] = time.Hour
	}
	for range runsEach {
		for i, e := range events {
			before()
			began := time.Now()
			buf = p.Match(e, buf[:0])
			least[i] = min(least[i], time.Since(began))
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		before()
		buf = p.Match(events[i%len(events)], buf[:0])
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	reportCosts(b, least)
}

func reportCosts(b *testing.B, costs []time.Duration) {
	slices.Sort(costs)
	sum := time.Duration(0)
	for _, c := range costs {
		sum += c
	}
	b.ReportMetric(float64(sum)/1e3/float64(len(costs)), "mean-us")
	for _, m := range []struct {
		unit string
		at   int
	}{{"p50-us", len(costs) / 2}, {"p99-us", len(costs) * 99 / 100}, {"max-us", len(costs) - 1}} {
		b.ReportMetric(float64(costs[m.at])/1e3, m.unit)
	}
}

func BenchmarkMatchSigmaHQ(b *testing.B) {
	c := loadedCorpus(b)
	for _, n := range []int{10, 100, len(c.files)} {
		p := c.some(n)
		var hits, misses []*event.Event
		for _, e := range c.events {
			if len(p.Match(e, nil)) > 0 {
				hits = append(hits, e)
			} else {
				misses = append(misses, e)
			}
		}
		for _, bb := range []struct {
			name   string
			events []*event.Event
		}{{"hit", hits}, {"miss", misses}, {"all", c.events}} {
			b.Run(fmt.Sprintf("rules=%d/%s", n, bb.name), func(b *testing.B) { measure(b, p, bb.events) })
		}
	}
}

// forget has the worker take every text for one that comes for the first time, if
// it does so before each event.
func (p *Program) forget() {
	if s := p.spare.Load(); s != nil {
		clear(s.recall.seen)
	}
}

// Whoever wants to keep the engine busy does not send the same line again.
func BenchmarkMatchDenseLines(b *testing.B) {
	c := loadedCorpus(b)
	p := c.some(len(c.files))
	for _, size := range []int{500, 2000, 8191, 32_767} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) { measureEach(b, p, denseEvents(b, p, size), p.forget) })
	}
}

// What a worker keeps of texts that come again helps little where none does.
func BenchmarkMatchNewTexts(b *testing.B) {
	c := loadedCorpus(b)
	p := c.some(len(c.files))
	measureEach(b, p, c.events, p.forget)
}

// The first event of a worker finds nothing prepared: no room for texts, and no
// automata but those made with the program.
func BenchmarkMatchColdWorker(b *testing.B) {
	c := loadedCorpus(b)
	p := c.some(len(c.files))
	for _, bb := range []struct {
		name   string
		events []*event.Event
	}{{"events", c.events}, {"dense=8191", denseEvents(b, p, 8191)}} {
		b.Run(bb.name, func(b *testing.B) {
			costs := make([]time.Duration, len(bb.events))
			for i := range costs {
				costs[i] = time.Hour
			}
			for i := 0; b.Loop(); i++ {
				for range 3 {
					p.spare.Store(p.pool.New().(*scratch))
					began := time.Now()
					p.Match(bb.events[i%len(bb.events)], nil)
					costs[i%len(costs)] = min(costs[i%len(costs)], time.Since(began))
				}
			}
			reportCosts(b, costs[:min(b.N, len(costs))])
		})
	}
}

func BenchmarkLoadSigmaHQ(b *testing.B) {
	dir := corpusDir(b)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var p *Program
	var parse, compile time.Duration
	before := heap()
	for b.Loop() {
		began := time.Now()
		files, _ := corpusFiles(b, dir)
		parse += time.Since(began)
		began = time.Now()
		p, _ = Compile(files, Options{})
		compile += time.Since(began)
	}
	b.ReportMetric(float64(heap()-before)/1e6, "MB")
	b.ReportMetric(parse.Seconds()*1e3/float64(b.N), "parse-ms")
	b.ReportMetric(compile.Seconds()*1e3/float64(b.N), "compile-ms")
	b.ReportMetric(float64(len(p.Rules)), "rules")
}

// packEvents is what a PC tells in an ordinary hour, and some of what the shipped
// rules are for.
var packEvents = []struct{ name, text string }{
	{"process", `{"event.action":"process-started","host.name":"pc1","host.os.type":"windows","process.pid":4711,"process.executable":"C:\\Windows\\System32\\notepad.exe","process.command_line":"notepad.exe a.txt","process.args":["notepad.exe","a.txt"],"process.parent.executable":"C:\\Windows\\explorer.exe","user.name":"tanaka","user.domain":"CORP"}`},
	{"exit", `{"event.action":"process-ended","host.name":"pc1","host.os.type":"windows","process.pid":4711,"process.executable":"C:\\Windows\\System32\\notepad.exe","process.exit_code":0}`},
	{"write", `{"event.action":"file-written","host.name":"pc1","host.os.type":"linux","file.path":"/home/tanaka/a.ods","file.name":"a.ods","file.extension":"ods","file.size":20480,"sekisho.file.volume_kind":"local","process.executable":"/usr/bin/soffice","user.name":"tanaka"}`},
	{"read", `{"event.action":"file-read","host.name":"pc1","host.os.type":"windows","file.path":"\\\\fs1\\sales\\2026\\a.xlsx","file.name":"a.xlsx","sekisho.file.volume_kind":"network","sekisho.file.share":"\\\\fs1\\sales","user.name":"tanaka"}`},
	{"attach", `{"event.action":"usb-attached","host.name":"pc1","host.os.type":"windows","device.vendor.id":"046d","device.product.id":"c31c","device.product.name":"Keyboard K120","sekisho.device.kinds":["keyboard"],"user.name":"tanaka"}`},
	{"copy", `{"event.action":"file-copied","host.name":"pc1","sekisho.source.volume_kind":"network","sekisho.source.protected":"x","sekisho.file.volume_kind":"removable","sekisho.copy.files":1,"user.name":"tanaka"}`},
}

func BenchmarkMatchPack(b *testing.B) {
	p, err := Load(LoadOptions{Builtin: true})
	if err != nil {
		b.Fatal(err)
	}
	byName := map[string]*event.Event{}
	for _, x := range packEvents {
		e, err := event.Decode([]byte(x.text))
		if err != nil {
			b.Fatal(err)
		}
		byName[x.name] = e
		b.Run(x.name, func(b *testing.B) { measure(b, p, []*event.Event{e}) })
	}
	// Of a hundred: judgement, from a day of recorded desktops.
	var mix []*event.Event
	for _, x := range []struct {
		name string
		n    int
	}{{"process", 30}, {"exit", 30}, {"write", 25}, {"read", 12}, {"attach", 1}, {"copy", 2}} {
		for range x.n {
			mix = append(mix, byName[x.name])
		}
	}
	b.Run("mix", func(b *testing.B) { measure(b, p, mix) })
}

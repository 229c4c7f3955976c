package correlate

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// heap is the bytes that live on the heap.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// bodies are the correlations that memory and time are measured with.
var bodies = []struct{ name, text string }{
	{"event_count", "event_count\n  condition: {gte: 1000000000}"},
	{"value_count", "value_count\n  condition: {field: file.name, gte: 1000000000}"},
	{"value_sum", "value_sum\n  condition: {field: sekisho.copy.files, gte: 1000000000000}"},
	{"temporal_ordered", "temporal_ordered"},
}

func measured(t testing.TB, body, span string) *rules.Program {
	return program(t, "  rules: [a, b]\n  group-by: [user.name]\n  timespan: "+span+"\n  type: "+body)
}

func TestMemoryStaysWithinWhatLimitsSay(t *testing.T) {
	keys, events := 100_000, 1_000_000
	if racing {
		keys, events = 20_000, 200_000
	}
	for _, span := range []string{"1h", "90d"} {
		for _, b := range bodies {
			if b.name == "value_sum" || span == "90d" && b.name == "temporal_ordered" {
				continue // like event_count
			}
			t.Run(b.name+" "+span, func(t *testing.T) {
				p := measured(t, b.text, span)
				users, names := make([]string, keys), make([]string, 5000)
				for i := range users {
					users[i] = fmt.Sprint("user", i)
				}
				for i := range names {
					names[i] = fmt.Sprint("name", i)
				}
				before := heap()
				// Limits that all of it just fits in.
				s := New(p, Limits{Keys: keys, Entries: events, Cells: keys * (windowCells + 12)}, nil)
				e := with(ev(0, "a", "u"), 1)
				e.ID = ""
				m := p.Match(e, nil)
				for i := range events {
					if i <= s.limits.Events { // evidence keeps events: each its own
						user, file, own := *e.User, *e.File, *e
						own.User, own.File = &user, &file
						e = &own
					}
					e.User.Name, e.File.Name = users[i%keys], names[i%4999]
					e.Time = e.Time.Add(time.Millisecond)
					s.Observe(e, m, nil)
				}
				used := heap() - before
				st, l := s.Stats(), s.limits
				if st.Evicted+st.Trimmed+st.Lost != 0 || st.Keys+st.Long != keys {
					t.Fatalf("%+v", st)
				}
				stated := int64(l.Keys)*500 + int64(l.Entries)*40 + int64(l.Events)*8192
				if span == "90d" {
					stated = int64(l.Cells)*80 + int64(l.Events)*8192
				}
				t.Logf("%d bytes a key, %d MB of %d MB stated", used/int64(keys), used>>20, stated>>20)
				if used > stated {
					t.Errorf("%d MB, stated %d MB", used>>20, stated>>20)
				}
				runtime.KeepAlive(s)
			})
		}
	}
	t.Run("first seen", func(t *testing.T) {
		p := compiled(t, newShare)
		for _, store := range []Store{nil, mapStore{}} {
			before := heap()
			s := New(p, Limits{}, store)
			e := ev(0, "a", "u")
			m := p.Match(e, nil)
			var buf []rules.Match
			for i := range s.limits.Combinations {
				e.User.Name = strconv.Itoa(i)
				buf = s.FirstSeen(e, append(buf[:0], m...))
			}
			used, stated := heap()-before, int64(s.limits.Combinations)*120
			t.Logf("%d bytes a combination", used/int64(s.limits.Combinations))
			if used > stated {
				t.Errorf("%d MB, stated %d MB", used>>20, stated>>20)
			}
			runtime.KeepAlive(s)
		}
	})
	t.Run("full samples", func(t *testing.T) {
		p := measured(t, bodies[1].text, "90d")
		before := heap()
		s := New(p, Limits{}, nil)
		e := ev(0, "a", "u")
		m := p.Match(e, nil)
		for i := range 60 * SampleSize {
			e := *e
			user, file := *e.User, *e.File
			user.Name, file.Name = fmt.Sprint(i%40), fmt.Sprint(i)
			e.User, e.File = &user, &file
			s.Observe(&e, m, nil)
		}
		used, stated := heap()-before, int64(s.limits.Cells)*80+int64(s.limits.Events)*8192
		t.Logf("%+v: %d bytes a cell, %d MB of %d MB stated", s.Stats(), used/int64(s.Stats().Cells), used>>20, stated>>20)
		if used > stated {
			t.Errorf("%d MB, stated %d MB", used>>20, stated>>20)
		}
		runtime.KeepAlive(s)
	})
}

// A window that was large gives its memory back: else one after the other could
// take all that Limits.Entries allows.
func TestAWindowThatWasLargeGivesItsMemoryBack(t *testing.T) {
	const windows, entries = 10, 5000
	for _, b := range bodies[:2] {
		t.Run(b.name, func(t *testing.T) {
			p := measured(t, b.text, "1m")
			s := New(p, Limits{Entries: entries + 1000, Evidence: 1, Tolerance: time.Second}, nil)
			e := ev(0, "a", "u")
			m := p.Match(e, nil)
			before := heap()
			see := func(user int, at time.Time, name int) {
				e := *e
				e.Time, e.User, e.File = at, &event.User{Name: fmt.Sprint(user)}, &event.File{Name: fmt.Sprint(name)}
				s.Observe(&e, m, nil)
			}
			now := start
			for u := range windows {
				for i := range entries {
					see(u, now.Add(time.Duration(i)*time.Millisecond), i)
				}
				for range 3 { // each goes on with an event now and then
					now = now.Add(40 * time.Second)
					for o := range u + 1 {
						see(o, now, 0)
					}
				}
			}
			used, st := heap()-before, s.Stats()
			if st.Keys != windows || st.Evicted+st.Trimmed != 0 || st.Entries > 40 {
				t.Fatalf("%+v", st)
			}
			if stated := int64(windows*500 + (entries+1000)*40 + 16<<10); used > stated {
				t.Errorf("%d entries take %d KB, stated are %d KB for %d", st.Entries, used>>10, stated>>10, entries+1000)
			}
			runtime.KeepAlive(s)
		})
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, span := range []string{"10m", "90d"} {
		for _, body := range bodies {
			if span == "90d" && (body.name == "event_count" || body.name == "temporal_ordered") {
				continue
			}
			for _, keys := range []int{1, 1_000, 100_000} {
				b.Run(fmt.Sprintf("%s/%s/keys=%d", body.name, span, keys), func(b *testing.B) {
					p := measured(b, body.text, span)
					users, names := make([]string, keys), make([]string, 5000)
					for i := range users {
						users[i] = fmt.Sprint("user", i)
					}
					for i := range names {
						names[i] = fmt.Sprint("name", i)
					}
					before := heap()
					s := New(p, Limits{Keys: 200_000, Entries: 400_000, Cells: 4_000_000}, nil)
					e := with(ev(0, "a", "u"), 1)
					m := p.Match(e, nil)
					i := 0
					step := func() {
						e.User.Name = users[i%keys]
						e.File.Name = names[i%4999]
						e.Time = e.Time.Add(3 * time.Millisecond) // 200,000 events in 10 minutes
						s.Observe(e, m, nil)
						i++
					}
					for range 300_000 { // windows as they are in the long run
						step()
					}
					used := heap() - before
					b.ReportAllocs()
					for b.Loop() {
						step()
					}
					b.ReportMetric(float64(used)/float64(keys), "heap-B/key")
				})
			}
		}
	}
	b.Run("no correlation", func(b *testing.B) {
		p := measured(b, bodies[0].text, "10m")
		s := New(p, Limits{}, nil)
		e := ev(0, "c", "u")
		m := p.Match(e, nil)
		if len(m) != 1 {
			b.Fatal(len(m))
		}
		b.ReportAllocs()
		for b.Loop() {
			s.Observe(e, m, nil)
		}
	})
}

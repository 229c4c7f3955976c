package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A spool against a plain list, by random steps. What the spool may do that the list does not, drop the oldest over the
// cap, has to agree with its own count.
func TestAgainstAModel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed, 400) })
	}
}

func runModel(t *testing.T, seed uint64, steps int) {
	r := rand.New(rand.NewPCG(seed, 0))
	o := Options{MaxBytes: 16 << 10, SegmentBytes: 512 + r.Int64N(3<<10), SyncEvery: time.Hour}
	dir := t.TempDir()
	s := mustOpen(t, dir, o)
	var (
		queue   []string // waiting, by the model
		leased  *Batch
		late    int    // records at the front of the lease that were dropped since
		n       int    // appended
		dropped uint64 // overflow seen so far
		log     []string
	)
	// sync takes what the spool says it dropped off the model's front.
	follow := func() {
		d := s.Stats().Dropped.Overflow
		gone := int(d - dropped)
		dropped = d
		if gone > len(queue) {
			t.Fatalf("%d dropped of %d\n%s", gone, len(queue), strings.Join(log, "\n"))
		}
		queue = queue[gone:]
		if leased != nil {
			late = min(late+gone, len(leased.Records()))
		}
	}
	for range steps {
		switch p := r.IntN(100); {
		case p < 45:
			var recs [][]byte
			for range 1 + r.IntN(3) {
				rec := fmt.Sprintf("%d %s", n, strings.Repeat("m", r.IntN(120)))
				n++
				recs = append(recs, []byte(rec))
				queue = append(queue, rec)
			}
			log = append(log, fmt.Sprintf("append %d", len(recs)))
			if err := s.Append(r.IntN(10) == 0, recs...); err != nil {
				t.Fatal(err)
			}
			follow()
		case p < 70:
			if leased != nil {
				continue
			}
			b, err := s.Lease(1+r.IntN(20), 1+r.IntN(2000))
			log = append(log, fmt.Sprintf("lease: %v", err))
			if errors.Is(err, ErrEmpty) {
				if len(queue) > 0 {
					t.Fatalf("empty, but %d wait\n%s", len(queue), strings.Join(log, "\n"))
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, rec := range b.Records() {
				if i >= len(queue) || string(rec) != queue[i] {
					t.Fatalf("lease gave %.20q at %d\n%s", rec, i, strings.Join(log, "\n"))
				}
			}
			leased, late = b, 0
		case p < 85:
			if leased == nil {
				continue
			}
			k := len(leased.Records())
			refused := 0
			if r.IntN(3) == 0 {
				k = r.IntN(k + 1)
				refused = r.IntN(k + 1)
			}
			log = append(log, fmt.Sprintf("settle %d of %d, %d late", k, len(leased.Records()), late))
			if err := leased.Settle(k-refused, refused); err != nil {
				t.Fatal(err)
			}
			leased = nil
			queue = queue[max(0, k-late):]
			dropped = s.Stats().Dropped.Overflow // less those that arrived after all
		case p < 92:
			if leased != nil {
				log = append(log, "release")
				leased.Release()
				leased = nil
			}
		case p < 96:
			log = append(log, "close")
			mustClose(t, s)
			leased = nil
			s = mustOpen(t, dir, o)
		default:
			log = append(log, "crash")
			crash := crashed(t, dir)
			mustClose(t, s)
			leased = nil
			dir = crash
			s = mustOpen(t, dir, o)
		}
		st := s.Stats()
		if st.Records != len(queue) || st.Appended != uint64(n) || st.Bytes > o.MaxBytes {
			t.Fatalf("stats %+v, want %d records of %d\n%s", st, len(queue), n, strings.Join(log, "\n"))
		}
		balanced(t, s)
	}
	if leased != nil {
		leased.Release()
	}
	if got := drain(t, s); !slices.Equal(got, queue) {
		t.Fatalf("drained %d, want %d\n%s", len(got), len(queue), strings.Join(log, "\n"))
	}
	if e := s.Stats().LastError; e != "" {
		t.Error(e)
	}
}

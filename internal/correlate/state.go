package correlate

import (
	"encoding/json"
	"errors"
	"fmt"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// state is a Set's windows as they are kept over a restart.
type state struct {
	Watermark int64             `json:"watermark"`
	Late      int               `json:"late"`
	Seq       uint64            `json:"seq"`
	Events    []json.RawMessage `json:"events"` // evidence, each once
	Groups    []groupState      `json:"groups"` // longest unused first
}

type groupState struct {
	Rule     string     `json:"rule"`
	Digest   uint64     `json:"digest"`
	Key      []byte     `json:"key"`
	Told     uint64     `json:"told"`
	Low      int        `json:"low"`
	Entries  [][4]int64 `json:"entries"`            // time, seq, n, 1 lead + 2 news
	Evidence []int      `json:"evidence,omitempty"` // places in Events
}

// State is the windows as JSON, for Restore.
func (s *Set) State() ([]byte, error) {
	st := state{Watermark: s.watermark, Late: s.late, Seq: s.seq}
	index := map[*event.Event]int{}
	for g := s.lru.prev; g != &s.lru; g = g.prev {
		gs := groupState{Rule: g.c.rule.ID, Digest: g.c.rule.Digest(), Key: []byte(g.key), Told: g.told, Low: g.lo, Entries: make([][4]int64, 0, len(g.entries))}
		for _, n := range g.entries {
			flags := int64(0)
			if n.lead {
				flags |= 1
			}
			if n.news {
				flags |= 2
			}
			gs.Entries = append(gs.Entries, [4]int64{n.t, int64(n.seq), n.n, flags})
		}
		for _, e := range g.evidence {
			i, ok := index[e]
			if !ok {
				i = len(st.Events)
				index[e] = i
				st.Events = append(st.Events, e.AppendJSON(nil))
			}
			gs.Evidence = append(gs.Evidence, i)
		}
		st.Groups = append(st.Groups, gs)
	}
	return json.Marshal(st)
}

// ErrState says that a kept state makes no sense.
var ErrState = errors.New("kept state makes no sense")

// Restore takes over the windows of a State, those of correlations that count
// the same now; the Set must be new. On an error it stays empty.
func (s *Set) Restore(data []byte) error {
	var st state
	if err := json.Unmarshal(data, &st); err != nil {
		return fmt.Errorf("%w: %v", ErrState, err)
	}
	events := make([]*event.Event, len(st.Events))
	for i, raw := range st.Events {
		e, err := event.Decode(raw)
		if err != nil {
			return fmt.Errorf("%w: event %d: %v", ErrState, i, err)
		}
		events[i] = e
	}
	for i := range st.Groups {
		if err := st.Groups[i].check(len(events)); err != nil {
			return fmt.Errorf("%w: window %d: %v", ErrState, i, err)
		}
	}
	s.watermark, s.late, s.seq = st.Watermark, st.Late, st.Seq
	s.started = st.Watermark != 0
	byID := map[string]*corr{}
	for _, c := range s.corrs {
		byID[c.rule.ID] = c
	}
	for i := range st.Groups {
		gs := &st.Groups[i]
		c := byID[gs.Rule]
		if c == nil || c.rule.Digest() != gs.Digest || c.groups[string(gs.Key)] != nil {
			continue
		}
		s.revive(c, gs, events)
	}
	s.expire()
	return nil
}

func (gs *groupState) check(events int) error {
	if len(gs.Entries) == 0 || gs.Low < 0 || gs.Low >= len(gs.Entries) {
		return errors.New("no entries")
	}
	for i, n := range gs.Entries {
		if i > 0 && n[0] < gs.Entries[i-1][0] {
			return fmt.Errorf("entry %d is out of order", i)
		}
	}
	for _, i := range gs.Evidence {
		if i < 0 || i >= events {
			return fmt.Errorf("there is no event %d", i)
		}
	}
	return nil
}

// revive makes a window of its entries.
func (s *Set) revive(c *corr, gs *groupState, events []*event.Event) {
	g := &group{c: c, key: string(gs.Key), told: gs.Told, lo: gs.Low}
	counting := c.rule.Correlation.Type == rules.ValueCount || c.rule.Correlation.Type == rules.Temporal
	if counting {
		g.counts = map[uint64]int32{}
	}
	for i, n := range gs.Entries {
		en := entry{t: n[0], seq: uint64(n[1]), n: n[2], lead: n[3]&1 != 0, news: n[3]&2 != 0}
		if c.rule.Correlation.Type != rules.ValueCount {
			en.n = min(max(en.n, -maxAmount), maxAmount)
		}
		g.entries = append(g.entries, en)
		if i < g.lo {
			continue
		}
		fresh := en.seq > g.told
		switch {
		case counting:
			g.counts[uint64(en.n)]++
			if fresh && en.news {
				g.fresh++
			}
		case c.rule.Correlation.Type != rules.TemporalOrdered:
			g.sum += en.n
			if fresh {
				g.fresh += en.n
			}
		}
		if en.lead {
			g.events++
			if fresh {
				g.unseen++
			}
		}
	}
	for _, i := range gs.Evidence {
		s.keep(g, events[i])
	}
	s.stats.Entries += len(g.entries)
	c.groups[g.key] = g
	g.prev, g.next = &s.lru, s.lru.next
	g.prev.next, g.next.prev = g, g
}

package rules

import (
	"bytes"
	"slices"

	"sekisho/internal/event"
)

// The index answers which rules an event can match at all, in three steps: by
// the event's action and system (bucket); within a bucket by what a rule needs
// to find whole, or at the end of a path, in some field (triggers); rules that
// need no such thing are always looked at.

// place names a bucket.
type place struct{ action, os string }

// bucket is the rules that events of one action and system can match.
type bucket struct {
	entries []entry
	always  []uint64 // bit set of entries without a trigger
	tables  []table
}

// entry is a rule and what of its condition the bucket does not vouch for.
type entry struct {
	rule *Rule
	node node
}

// table finds entries by the text of a field: the whole of it, or (base) what
// follows its last slash or backslash. Texts are folded.
type table struct {
	field   int
	base    bool
	entries map[string][]int32
}

// trigger is a text without which a rule cannot match.
type trigger struct {
	field int
	base  bool
	text  string
}

func (p *Program) index(actionSlot, osSlot int) {
	actions, systems := []string{""}, []string{""}
	add := func(list *[]string, n node, slot int) {
		values, _ := valuesOf(n, slot)
		for _, v := range values {
			if !slices.Contains(*list, v) {
				*list = append(*list, v)
			}
		}
	}
	for _, r := range p.Rules {
		if r.node != nil && !r.Disabled {
			add(&actions, r.node, actionSlot)
			add(&systems, r.node, osSlot)
		}
	}
	p.buckets = make(map[place]*bucket, len(actions)*len(systems))
	for _, a := range actions {
		for _, o := range systems {
			b := &bucket{}
			for _, r := range p.Rules {
				if r.node != nil && !r.Disabled && admits(r.node, actionSlot, a) && admits(r.node, osSlot, o) {
					b.entries = append(b.entries, entry{r, without(without(r.node, actionSlot, a), osSlot, o)})
				}
			}
			b.build()
			p.buckets[place{a, o}] = b
		}
	}
}

// admits reports whether a node can match where a field has this value; "" is
// any value that no rule names.
func admits(n node, slot int, value string) bool {
	values, any := valuesOf(n, slot)
	return any || slices.Contains(values, value)
}

// without is a node less its conditions that a field having this value fulfils.
func without(n node, slot int, value string) node {
	fulfilled := func(n node) bool {
		t, ok := n.(*textNode)
		if !ok || value == "" || t.cased {
			return false
		}
		values, any := valuesOf(t, slot)
		return !any && slices.Contains(values, value)
	}
	if fulfilled(n) {
		return constNode(true)
	}
	all, ok := n.(allNode)
	if !ok {
		return n
	}
	var rest []node
	for _, x := range all {
		if !fulfilled(x) {
			rest = append(rest, x)
		}
	}
	return both(rest...)
}

// bucket is where to look for the rules of an event.
func (p *Program) bucket(e *event.Event) *bucket {
	at := place{action: string(e.Action)}
	if e.Host != nil {
		at.os = e.Host.OSType
	}
	if b, ok := p.buckets[at]; ok {
		return b
	}
	// Seldom: an action or system in capitals, or one that no rule names.
	at.action, at.os = fold(at.action), fold(at.os)
	if _, ok := p.buckets[place{"", at.os}]; !ok {
		at.os = ""
	}
	if _, ok := p.buckets[place{at.action, ""}]; !ok {
		at.action = ""
	}
	return p.buckets[at]
}

// about is the rules that an event of this action and system can match.
func (p *Program) about(e *event.Event) []*Rule {
	var out []*Rule
	for _, en := range p.bucket(e).entries {
		out = append(out, en.rule)
	}
	return out
}

// build makes the tables of a bucket.
func (b *bucket) build() {
	b.always = make([]uint64, (len(b.entries)+63)/64)
	for i, en := range b.entries {
		ts, ok := triggers(en.node)
		if !ok {
			b.always[i>>6] |= 1 << (i & 63)
			continue
		}
		for _, t := range ts {
			k := slices.IndexFunc(b.tables, func(x table) bool { return x.field == t.field && x.base == t.base })
			if k < 0 {
				k = len(b.tables)
				b.tables = append(b.tables, table{t.field, t.base, map[string][]int32{}})
			}
			m := b.tables[k].entries
			if l := m[t.text]; len(l) == 0 || l[len(l)-1] != int32(i) {
				m[t.text] = append(l, int32(i))
			}
		}
	}
}

// candidates is the bit set of a bucket's entries that the event may match.
func (s *scratch) candidates(b *bucket) []uint64 {
	s.set = append(s.set[:0], b.always...)
	for i := range b.tables {
		t := &b.tables[i]
		for _, text := range s.folded(t.field) {
			if t.base {
				text = text[bytes.LastIndexAny(text, `\/`)+1:]
			}
			for _, en := range t.entries[string(text)] {
				s.set[en>>6] |= 1 << (en & 63)
			}
		}
	}
	return s.set
}

// triggers is texts of which at least one has to occur for a node to match; ok
// is false where there are none such.
func triggers(n node) (out []trigger, ok bool) {
	switch n := n.(type) {
	case *textNode:
		for i := range n.patterns {
			p := &n.patterns[i]
			t := trigger{field: n.field, text: fold(string(p.lit))}
			switch cut := bytes.LastIndexAny(p.lit, `\/`); {
			case p.shape == exact:
			case p.shape == suffix && cut >= 0:
				t.base, t.text = true, fold(string(p.lit[cut+1:]))
			case n.all:
				continue // another of the values will do
			default:
				return nil, false
			}
			out = append(out, t)
			if n.all {
				return out, true
			}
		}
		return out, len(out) > 0
	case allNode:
		for _, x := range n {
			if ts, has := triggers(x); has && (!ok || len(ts) < len(out)) {
				out, ok = ts, true
			}
		}
		return out, ok
	case anyNode:
		for _, x := range n {
			ts, has := triggers(x)
			if !has {
				return nil, false
			}
			out = append(out, ts...)
		}
		return out, true
	}
	return nil, false
}

// valuesOf is the values (folded) of a field outside of which a node cannot
// match; any says that it may match whatever the value.
func valuesOf(n node, slot int) (values []string, any bool) {
	switch n := n.(type) {
	case *textNode:
		if n.field != slot {
			return nil, true
		}
		for i := range n.patterns {
			p := &n.patterns[i]
			if p.shape != exact || n.cased && fold(string(p.lit)) != string(p.lit) {
				return nil, true
			}
			if n.all && len(n.patterns) > 1 {
				return nil, true
			}
			values = append(values, string(p.lit))
		}
		return values, false
	case allNode:
		any = true
		for _, x := range n {
			a, whatever := valuesOf(x, slot)
			switch {
			case whatever:
			case any:
				values, any = a, false
			default:
				values = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return !slices.Contains(a, s) })
			}
		}
		return values, any
	case anyNode:
		for _, x := range n {
			a, whatever := valuesOf(x, slot)
			if whatever {
				return nil, true
			}
			for _, s := range a {
				if !slices.Contains(values, s) {
					values = append(values, s)
				}
			}
		}
		return values, false
	case constNode:
		return nil, bool(n)
	}
	return nil, true
}

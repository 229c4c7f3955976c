package rules

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/problem"
)

// The time modifiers: what of a time they read, and between which numbers that
// lies. A week is ISO 8601's, of which a year can have 53.
var timeParts = map[string]struct{ least, most int64 }{
	"minute": {0, 59}, "hour": {0, 23}, "day": {1, 31}, "week": {1, 53}, "month": {1, 12}, "year": {1, 9999},
}

// defaultZone is Asia/Tokyo, which has had no other offset since 1951.
var defaultZone = time.FixedZone("Asia/Tokyo", 9*60*60)

// zone is where the time modifiers read a clock.
func (o *Options) zone() *time.Location {
	if o.Zone != nil {
		return o.Zone
	}
	return defaultZone
}

// timeNode compares a part of a time field with numbers: any of them.
type timeNode struct {
	field  int
	part   string // of timeParts
	op     string // "eq", or gt, gte, lt, lte
	values []int64
	zone   *time.Location
}

func (n *timeNode) cost() int { return 5 }

func (n *timeNode) match(s *scratch) bool {
	f := s.slot(n.field)
	if !f.present || f.joint != 0 { // what is joined is no time
		return false
	}
	switch v := f.value(); v.Type() {
	case event.Time:
		return n.holds(v.Time())
	case event.String:
		return n.reads(v.Str())
	case event.List:
		for _, text := range v.List() {
			if n.reads(text) {
				return true
			}
		}
	}
	return false
}

// reads compares a text in RFC 3339; any other is no time.
func (n *timeNode) reads(text string) bool {
	if len(text) < len("2006-01-02T15:04:05Z") || len(text) > len("2006-01-02T15:04:05.999999999+09:00") {
		return false
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	return err == nil && n.holds(t)
}

func (n *timeNode) holds(t time.Time) bool {
	v := partOf(t.In(n.zone), n.part)
	for _, want := range n.values {
		if compare(n.op, v, want) {
			return true
		}
	}
	return false
}

func partOf(t time.Time, part string) int64 {
	switch part {
	case "minute":
		return int64(t.Minute())
	case "hour":
		return int64(t.Hour())
	case "day":
		return int64(t.Day())
	case "week":
		_, week := t.ISOWeek()
		return int64(week)
	case "month":
		return int64(t.Month())
	}
	return int64(t.Year())
}

// moment compiles a line with a time modifier.
func (c *compiler) moment(d *document, it *item, h how, g Getter) node {
	if t := g.Type(); t != event.Time && t != event.String && t != event.None {
		c.fail(d, it.line, it.col, it.path, CodeModifier, it.field+" は時刻ではないため、"+h.part+" を取り出せません",
			fmt.Sprintf("%s is a %v and no time: it has no %s", it.field, t, h.part))
		return constNode(false)
	}
	n := &timeNode{field: c.use(g), part: h.part, op: h.op, zone: c.o.zone()}
	if n.op == "" {
		n.op = "eq"
	}
	limits := timeParts[h.part]
	for i := range it.values {
		v := &it.values[i]
		got, err := strconv.ParseInt(strings.TrimSpace(v.text), 10, 64)
		if err != nil || v.kind != intScalar && v.kind != textScalar {
			c.bad(d, it, v, problem.Quote(v.text)+" は整数ではありません", problem.Quote(v.text)+" is not a whole number")
			continue
		}
		if got < limits.least || got > limits.most {
			c.bad(d, it, v, fmt.Sprintf("%s は %d から %d までです", h.part, limits.least, limits.most),
				fmt.Sprintf("%s lies between %d and %d", h.part, limits.least, limits.most))
			continue
		}
		n.values = append(n.values, got)
	}
	return n
}

// beforeNode holds for events before a moment; those without a time are not.
type beforeNode struct {
	field int // @timestamp
	end   time.Time
}

func (n *beforeNode) cost() int { return 1 }

func (n *beforeNode) match(s *scratch) bool {
	f := s.slot(n.field)
	return f.present && f.value().Time().Before(n.end)
}

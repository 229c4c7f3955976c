// Package replay judges recorded events: JSON lines in, one alert per line out.
// It needs no rights, no network and leaves no state behind, and gives the same
// output every time.
//
// Events are taken in the order of their event time. Input that is out of order
// is put in order as far as a buffer of 20,000 events reaches; what comes later
// than that is judged when it comes, and the summary tells how many. Events of
// several hosts may stand in one file: each host is judged as its own agent
// would.
//
// An event without event.id gets one derived from its line and the line's
// number; one without @timestamp happened at event.created, else when the event
// of the line before did. A line that cannot be read is told with its place, the
// others are judged, and Run returns an error.
package replay

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sekisho/internal/alert"
	"sekisho/internal/event"
	"sekisho/internal/judge"
	"sekisho/internal/rules"
)

// Options makes a run.
type Options struct {
	Events  io.Reader
	Name    string // of the events in messages: a file's name, "-" for standard input
	Program *rules.Program
	Refused rules.Problems        // why rules were refused: told on Err
	Enrich  func() judge.Enricher // makes one for each host; nil: events are taken as they are
	Out     io.Writer             // alerts, one JSON object a line
	Err     io.Writer             // messages and the summary
	Lang    string                // of messages: "ja", else English
}

// Summary is what a run did.
type Summary struct {
	Events int // judged
	Bad    int // lines that could not be read
	Hosts  int
	Late   int64 // events too late for the windows of correlations
	Alerts map[alert.Level]int
}

// Limits of the input and of putting it in order. Judgement: 20,000 events are
// some 40 MB.
const (
	maxLine    = event.MaxJSON
	reorder    = 20_000
	reorderMem = 64 << 20 // bytes of JSON
	maxTold    = 20       // bad lines told
)

// InputError is what is wrong with a line of the events.
type InputError struct {
	Name      string
	Line, Col int // from 1, in characters
	Reason    string
}

func (e *InputError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.Name, e.Line, e.Col, e.Reason)
}

// ErrInput says that lines of the input could not be read; each was told on Err.
var ErrInput = errors.New("bad input")

// Run judges the events and writes the alerts in their final form (repeats
// joined), in the order in which they were raised. The error wraps ErrInput
// where lines could not be read.
func Run(ctx context.Context, o Options) (Summary, error) {
	r := &run{o: o, hosts: map[string]*host{}, names: map[string]string{}, out: bufio.NewWriter(o.Out)}
	r.sum.Alerts = map[alert.Level]int{}
	if err := o.Refused.Print(o.Err, o.Lang); err != nil {
		return r.sum, err
	}
	if err := r.read(ctx); err != nil {
		return r.sum, err
	}
	for r.queue.Len() > 0 {
		if err := r.judge(heap.Pop(&r.queue).(queued).e); err != nil {
			return r.sum, err
		}
	}
	if err := r.emit(true); err != nil {
		return r.sum, err
	}
	if err := r.out.Flush(); err != nil {
		return r.sum, fmt.Errorf("write alerts: %w", err)
	}
	for _, h := range r.hosts {
		r.sum.Late += h.judge.Stats().Windows.Late
	}
	r.sum.Hosts = len(r.hosts)
	if err := r.summary(); err != nil {
		return r.sum, err
	}
	if r.sum.Bad > 0 {
		return r.sum, fmt.Errorf("%s: %d lines could not be read: %w", o.Name, r.sum.Bad, ErrInput)
	}
	return r.sum, nil
}

type run struct {
	o     Options
	sum   Summary
	hosts map[string]*host
	names map[string]string // host.name -> host.id, where both were seen
	queue queue
	bytes int       // of JSON in the queue
	last  time.Time // of the line before
	out   *bufio.Writer

	alerts []*pending // raised and not yet written
}

type host struct {
	judge *judge.Judge
	byID  map[string]*pending
}

type pending struct {
	a *alert.Alert
	h *host
}

// queued is an event waiting for its turn.
type queued struct {
	e    *event.Event
	line int
	size int
}

type queue []queued

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if !q[i].e.Time.Equal(q[j].e.Time) {
		return q[i].e.Time.Before(q[j].e.Time)
	}
	return q[i].line < q[j].line
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(queued)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	old[len(old)-1] = queued{}
	*q = old[:len(old)-1]
	return x
}

func (r *run) read(ctx context.Context) error {
	br := bufio.NewReaderSize(r.o.Events, 1<<16)
	for n := 1; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, long, err := readLine(br)
		if err != nil && err != io.EOF {
			return fmt.Errorf("read %s: %w", r.o.Name, err)
		}
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		if long {
			r.bad(n, maxLine+1, fmt.Sprintf("line of more than %d bytes", maxLine))
		} else if len(bytes.TrimSpace(line)) > 0 {
			if e := r.decode(line, n); e != nil {
				heap.Push(&r.queue, queued{e, n, len(line)})
				r.bytes += len(line)
			}
		}
		for r.queue.Len() > reorder || r.bytes > reorderMem {
			q := heap.Pop(&r.queue).(queued)
			r.bytes -= q.size
			if err := r.judge(q.e); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readLine reads a line without its end. A line that is too long is skipped.
func readLine(br *bufio.Reader) (line []byte, long bool, err error) {
	for {
		part, err := br.ReadSlice('\n')
		if !long {
			if len(line)+len(part) > maxLine+2 {
				long, line = true, nil
			} else {
				line = append(line, part...)
			}
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		return bytes.TrimRight(line, "\r\n"), long, err
	}
}

// bad tells a line that cannot be read.
func (r *run) bad(line, col int, reason string) {
	r.sum.Bad++
	switch {
	case r.sum.Bad <= maxTold:
		fmt.Fprintln(r.o.Err, (&InputError{r.o.Name, line, col, reason}).Error())
	case r.sum.Bad == maxTold+1:
		fmt.Fprintln(r.o.Err, r.say("（以降の読めない行は数だけ数えます）", "(further lines that cannot be read are only counted)"))
	}
}

func (r *run) say(ja, en string) string { return say(r.o.Lang, ja, en) }

// say is a text in a language: "ja", else English.
func say(lang, ja, en string) string {
	if lang == "ja" {
		return ja
	}
	return en
}

func (r *run) decode(line []byte, n int) *event.Event {
	e, err := event.Decode(line)
	if err != nil {
		col := 1
		var de *event.DecodeError
		if errors.As(err, &de) {
			col = utf8.RuneCount(line[:min(max(de.Offset, 0), len(line))]) + 1
		}
		r.bad(n, col, visible(err.Error()))
		return nil
	}
	if e.Time.IsZero() {
		e.Time = e.Created
	}
	if e.Time.IsZero() {
		e.Time = r.last
	}
	if e.Time.IsZero() {
		r.bad(n, 1, r.say("@timestamp がなく、前の行にもありません", "no @timestamp, and no event before it to take the time from"))
		return nil
	}
	r.last = e.Time
	if e.ID == "" {
		h := sha256.New()
		fmt.Fprintf(h, "%d:", n)
		h.Write(line)
		d := h.Sum(nil)
		d[6], d[8] = d[6]&0x0f|0x80, d[8]&0x3f|0x80 // a UUID of version 8
		s := hex.EncodeToString(d[:16])
		e.ID = s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
	}
	return e
}

// visible is text that may hold part of the input, harmless for a terminal.
func visible(s string) string {
	return strings.Map(func(c rune) rune {
		if strconv.IsPrint(c) {
			return c
		}
		return '?'
	}, s)
}

// host is whose event it is: by host.id, else by host.name.
func (r *run) host(e *event.Event) *host {
	key := ""
	if e.Host != nil {
		switch {
		case e.Host.ID != "":
			key = "i" + e.Host.ID
			if e.Host.Name != "" {
				r.names[e.Host.Name] = key
			}
		case r.names[e.Host.Name] != "":
			key = r.names[e.Host.Name]
		default:
			key = "n" + e.Host.Name
		}
	}
	h := r.hosts[key]
	if h == nil {
		o := judge.Options{Program: r.o.Program}
		if r.o.Enrich != nil {
			o.Enricher = r.o.Enrich()
		}
		h = &host{judge: judge.New(o), byID: map[string]*pending{}}
		r.hosts[key] = h
	}
	return h
}

func (r *run) judge(e *event.Event) error {
	h := r.host(e)
	r.sum.Events++
	for _, a := range h.judge.Event(e) {
		p := &pending{a, h}
		r.alerts = append(r.alerts, p)
		h.byID[a.ID] = p
	}
	if r.sum.Events%1024 == 0 {
		return r.emit(false)
	}
	return nil
}

// emit writes the alerts at the head of the queue that repeats cannot join any
// more; all of them at the end.
func (r *run) emit(all bool) error {
	for _, h := range r.hosts {
		for _, a := range h.judge.Updates() {
			if p := h.byID[a.ID]; p != nil {
				p.a = a
			}
		}
	}
	n := 0
	for _, p := range r.alerts {
		if !all && !p.h.judge.Settled(p.a) {
			break
		}
		n++
		r.sum.Alerts[p.a.Level]++
		if p.h.byID[p.a.ID] == p {
			delete(p.h.byID, p.a.ID)
		}
		if _, err := r.out.Write(append(p.a.AppendJSON(nil), '\n')); err != nil {
			return fmt.Errorf("write alerts: %w", err)
		}
	}
	r.alerts = r.alerts[n:]
	return nil
}

// summary is the last thing on Err.
func (r *run) summary() error {
	var levels []string
	total := 0
	for l := alert.Critical; ; l-- {
		if n := r.sum.Alerts[l]; n > 0 {
			levels = append(levels, fmt.Sprintf("%s %d", l, n))
			total += n
		}
		if l == alert.Informational {
			break
		}
	}
	by := ""
	if len(levels) > 0 {
		by = " (" + strings.Join(levels, ", ") + ")"
	}
	b := new(strings.Builder)
	fmt.Fprintf(b, r.say("イベント: %d、ホスト: %d、アラート: %d%s\n", "events: %d, hosts: %d, alerts: %d%s\n"), r.sum.Events, r.sum.Hosts, total, by)
	if r.sum.Late > 0 {
		fmt.Fprintf(b, r.say("遅れて届き、集計に入らなかったイベント: %d\n", "events too late for their windows, not counted there: %d\n"), r.sum.Late)
	}
	if n := len(r.o.Refused); n > 0 {
		fmt.Fprintf(b, r.say("ルールの問題: %d（問題のあるルールは動いていません）\n", "problems with rules: %d (those rules did not run)\n"), n)
	}
	if r.sum.Bad > 0 {
		fmt.Fprintf(b, r.say("読めない行: %d\n", "lines that could not be read: %d\n"), r.sum.Bad)
	}
	_, err := io.WriteString(r.o.Err, b.String())
	return err
}

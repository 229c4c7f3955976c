package ship

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"sekisho/internal/endpoint"
	"sekisho/internal/spool"
	"sekisho/internal/wire"
)

// console answers as a collector does: it keeps each row once, and can be told to misbehave.
type console struct {
	mu       sync.Mutex
	rows     []string // kept, in order of arrival
	again    int      // rows that had come before
	requests []request
	policy   int64
	skew     time.Duration // its clock minus ours
	// before may answer instead of the console; nil or a nil answer lets it.
	before func(r *http.Request, b wire.Batch) (*http.Response, error)
	// take limits the rows that are taken of a batch; 0: all.
	take int
}

type request struct {
	at               time.Time
	host             string
	alerts, activity int
	status           bool
}

func (c *console) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := unpack(r)
	if err != nil {
		return nil, err
	}
	var b wire.Batch
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return nil, fmt.Errorf("body is no batch: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, request{time.Now(), r.URL.Host, len(b.Alerts), len(b.Activity), b.Status != nil})
	if c.before != nil {
		resp, err := c.before(r, b)
		if resp != nil || err != nil {
			return resp, err
		}
	}
	return answer(200, c.keep(b)), nil
}

func (c *console) keep(b wire.Batch) wire.BatchReply {
	reply := wire.BatchReply{PolicyVersion: c.policy, Now: time.Now().Add(c.skew)}
	for i, rows := range [][]json.RawMessage{b.Alerts, b.Activity} {
		for _, row := range rows {
			if c.take > 0 && reply.Alerts+reply.Activity == c.take {
				return reply
			}
			if slices.Contains(c.rows, string(row)) {
				c.again++
			} else {
				c.rows = append(c.rows, string(row))
			}
			if i == 0 {
				reply.Alerts++
			} else {
				reply.Activity++
			}
		}
	}
	return reply
}

func unpack(r *http.Request) ([]byte, error) {
	if r.Method != http.MethodPost || r.URL.Path != wire.PathBatches || r.Header.Get("Content-Encoding") != "zstd" {
		return nil, fmt.Errorf("%s %s with encoding %q", r.Method, r.URL.Path, r.Header.Get("Content-Encoding"))
	}
	d, err := zstd.NewReader(r.Body, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

func answer(code int, body any) *http.Response {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &http.Response{
		StatusCode: code, Header: http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}},
		Body: io.NopCloser(bytes.NewReader(b)),
	}
}

func refusal(code int) (*http.Response, error) {
	return answer(code, wire.Error{Code: "COL-99", EN: "no", Now: time.Now()}), nil
}

// rig is a shipper between two spools and a console, in a bubble.
type rig struct {
	*Shipper
	alerts, activity *spool.Spool
	console          *console
	log              *observer.ObservedLogs
	stop             func() // ends Run and waits for it
}

func start(t *testing.T, c *console, change func(*Options)) *rig {
	t.Helper()
	r := prepare(t, c, change)
	r.run(t)
	return r
}

func prepare(t *testing.T, c *console, change func(*Options)) *rig {
	t.Helper()
	dir := t.TempDir()
	core, log := observer.New(zapcore.DebugLevel)
	r := &rig{console: c, log: log, alerts: open(t, filepath.Join(dir, "alerts")), activity: open(t, filepath.Join(dir, "activity"))}
	o := Options{
		Alerts: r.alerts, Activity: r.activity, Client: &http.Client{Transport: c}, URLs: []string{"https://one.example.jp/"},
		Status: func() endpoint.Status { return endpoint.Status{HostName: "pc"} },
		Log:    zap.New(core), Rejected: filepath.Join(dir, "rejected.jsonl"),
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Shipper = s
	return r
}

func (r *rig) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
}

func open(t *testing.T, dir string) *spool.Spool {
	t.Helper()
	s, err := spool.Open(dir, spool.Options{MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func row(i int) string { return fmt.Sprintf(`{"event":{"id":"%d","x":"<&>"}}`, i) }

func add(t *testing.T, q *spool.Spool, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := q.Append(false, []byte(row(i))); err != nil {
			t.Fatal(err)
		}
	}
}

func rowsFrom(from, to int) []string {
	var s []string
	for i := from; i < to; i++ {
		s = append(s, row(i))
	}
	return s
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("%s:\n got %.1000s\nwant %.1000s", what, g, w)
	}
}

func (c *console) kept() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.rows)
}

func (c *console) seen() []request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// set changes the console's behaviour.
func (c *console) set(f func(*console)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

func TestHeartbeatEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := start(t, &console{policy: 7}, nil)
		time.Sleep(150 * time.Second)
		synctest.Wait()
		var at []time.Duration
		for _, q := range r.console.seen() {
			at = append(at, q.at.Sub(began))
			if !q.status || q.alerts+q.activity > 0 {
				t.Errorf("not a heartbeat: %+v", q)
			}
		}
		equal(t, "heartbeats at", at, []time.Duration{0, time.Minute, 2 * time.Minute})
		st := r.State()
		equal(t, "policy, batches, code", []any{st.PolicyVersion, st.Batches, st.Contact.Code, st.Contact.Console},
			[]any{7, 3, "", "https://one.example.jp"})
		equal(t, "last success", st.Contact.LastSuccess.Equal(began.Add(2*time.Minute)), true)
		r.stop()
	})
}

func TestAlertsGoAtOnceActivityGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &console{}, nil)
		synctest.Wait()
		began := time.Now()
		add(t, r.activity, 100, 103)
		time.Sleep(time.Second)
		add(t, r.alerts, 0, 1)
		time.Sleep(5 * time.Millisecond)
		add(t, r.alerts, 1, 3)
		time.Sleep(4900 * time.Microsecond)
		synctest.Wait()
		equal(t, "requests before the alerts are gathered", len(r.console.seen()), 1)
		time.Sleep(100 * time.Microsecond)
		synctest.Wait()
		// The activity goes along, behind.
		equal(t, "rows", r.console.kept(), append(rowsFrom(0, 3), rowsFrom(100, 103)...))
		equal(t, "after", r.console.seen()[1].at.Sub(began), 1010*time.Millisecond)

		began = time.Now()
		add(t, r.activity, 103, 105)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		last := r.console.seen()[2]
		equal(t, "activity alone after", last.at.Sub(began), 2*time.Second)
		equal(t, "requests", len(r.console.seen()), 3)

		began = time.Now()
		add(t, r.activity, 200, 700) // a whole batch does not wait
		synctest.Wait()
		equal(t, "a full batch after", r.console.seen()[3].at.Sub(began), time.Duration(0))
		r.stop()
		equal(t, "left", r.alerts.Len()+r.activity.Len(), 0)
	})
}

func TestABacklogGoesInOrderAndBoundedBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, &console{}, func(o *Options) { o.BatchBytes = 2000 })
		add(t, r.activity, 1000, 1300)
		add(t, r.alerts, 0, 300)
		r.run(t)
		time.Sleep(time.Second)
		synctest.Wait()
		equal(t, "rows", r.console.kept(), append(rowsFrom(0, 300), rowsFrom(1000, 1300)...))
		for _, q := range r.console.seen() {
			if n := (q.alerts + q.activity) * len(row(0)); n > 2000+200 {
				t.Errorf("batch of %d bytes: %+v", n, q)
			}
		}
		st := r.State()
		equal(t, "counted", []uint64{st.Alerts, st.Activity}, []uint64{300, 300})
		r.stop()
	})
}

func TestFailureBacksOffIsLoggedOnceAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := func(*http.Request, wire.Batch) (*http.Response, error) { return refusal(500) }
		r := start(t, &console{before: down}, nil)
		add(t, r.alerts, 0, 5)
		began := time.Now()
		time.Sleep(time.Hour)
		synctest.Wait()
		seen := r.console.seen()
		if n := len(seen); n < 12 || n > 60 {
			t.Errorf("%d attempts in an hour, want backoff up to 5 min", n)
		}
		var longest time.Duration
		for i := range seen[1:] {
			longest = max(longest, seen[i+1].at.Sub(seen[i].at))
		}
		if longest > maxBackoff || longest < time.Minute {
			t.Errorf("longest wait %v, want some minutes and at most %v", longest, maxBackoff)
		}
		st := r.State()
		equal(t, "code", st.Contact.Code, CodeServer)
		equal(t, "error", st.Contact.Error, "the console answered 500 (COL-99: no)")
		equal(t, "since", st.Contact.Since.Equal(began), true)
		equal(t, "warnings", r.log.FilterLevelExact(zap.WarnLevel).Len(), 1)

		r.console.set(func(c *console) { c.before = nil })
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		equal(t, "rows", r.console.kept(), rowsFrom(0, 5))
		equal(t, "recoveries told", r.log.FilterMessage("console answers again").Len(), 1)
		st = r.State()
		equal(t, "trouble after recovery", []any{st.Contact.Code, st.Contact.Error, st.Failures, st.Contact.Since.IsZero()}, []any{"", "", 0, true})
		r.stop()
	})
}

// While the backoff is long, a new alert is tried within seconds.
func TestANewAlertShortensTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &console{before: func(*http.Request, wire.Batch) (*http.Response, error) { return refusal(500) }}, nil)
		for { // until the next wait is a long one
			time.Sleep(time.Second)
			synctest.Wait()
			if st := r.State(); time.Until(st.NextAttempt) > 30*time.Second && time.Since(st.LastAttempt) < 5*time.Second {
				break
			}
		}
		r.console.set(func(c *console) { c.before = nil })
		add(t, r.alerts, 0, 1)
		time.Sleep(alertRetry)
		synctest.Wait()
		equal(t, "rows", r.console.kept(), rowsFrom(0, 1))
		r.stop()
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for what, c := range map[string]struct {
		resp func() *http.Response
		wait time.Duration
	}{
		"seconds in the header": {func() *http.Response {
			r := answer(503, wire.Error{})
			r.Header.Set("Retry-After", "90")
			return r
		}, 90 * time.Second},
		"date in the header": {func() *http.Response {
			r := answer(429, wire.Error{})
			r.Header.Set("Retry-After", time.Now().Add(80*time.Second).UTC().Format(http.TimeFormat))
			return r
		}, 80 * time.Second},
		"in the error": {func() *http.Response { return answer(503, wire.Error{Code: "COL-01", RetryAfter: 70}) }, 70 * time.Second},
		"in a good answer": {func() *http.Response {
			return answer(200, wire.BatchReply{RetryAfter: 65, Now: time.Now()})
		}, 65 * time.Second},
		"for ever": {func() *http.Response { return answer(503, wire.Error{Code: "COL-01", RetryAfter: 1 << 40}) }, time.Hour},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := true
				r := start(t, &console{before: func(*http.Request, wire.Batch) (*http.Response, error) {
					if !first {
						return nil, nil
					}
					first = false
					return c.resp(), nil
				}}, nil)
				synctest.Wait()
				time.Sleep(time.Second)
				add(t, r.alerts, 0, 1) // an alert does not overrule it
				time.Sleep(c.wait - 2*time.Second)
				synctest.Wait()
				equal(t, "requests before", len(r.console.seen()), 1)
				time.Sleep(31 * time.Second)
				synctest.Wait()
				equal(t, "rows after", r.console.kept(), rowsFrom(0, 1))
				r.stop()
			})
		})
	}
}

// An answer that was lost on the way means a second delivery, which the console takes for success.
func TestALostAnswerIsDeliveredAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &console{}
		lose := 3
		c.before = func(_ *http.Request, b wire.Batch) (*http.Response, error) {
			if lose--; lose < 0 {
				return nil, nil
			}
			c.keep(b)
			return nil, errors.New("connection reset")
		}
		r := prepare(t, c, nil)
		add(t, r.alerts, 0, 4)
		r.run(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		equal(t, "rows", c.kept(), rowsFrom(0, 4))
		equal(t, "rows that came again", c.again, 12)
		equal(t, "left", r.alerts.Len(), 0)
		equal(t, "delivered", r.State().Alerts, 4)
		r.stop()
	})
}

func TestOnlyWhatWasTakenIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, &console{take: 3}, nil)
		add(t, r.alerts, 0, 10)
		add(t, r.activity, 10, 20)
		r.run(t)
		time.Sleep(time.Second)
		synctest.Wait()
		equal(t, "rows", r.console.kept(), rowsFrom(0, 20))
		equal(t, "again", r.console.again, 0)
		r.stop()
	})
}

func TestAnswersThatCannotBeTrustedForgetNothing(t *testing.T) {
	for what, resp := range map[string]func() *http.Response{
		"a proxy's page": func() *http.Response {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("<html>sign in</html>"))}
		},
		"another server's JSON": func() *http.Response { return answer(200, map[string]int{"alerts": 2}) },
		"more than was sent":    func() *http.Response { return answer(200, wire.BatchReply{Alerts: 3, Now: time.Now()}) },
		"less than nothing":     func() *http.Response { return answer(200, wire.BatchReply{Alerts: -1, Now: time.Now()}) },
		"a redirect": func() *http.Response {
			r := answer(307, nil)
			r.Header.Set("Location", "https://elsewhere.example.jp/")
			return r
		},
		"an endless answer": func() *http.Response {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(endless{})}
		},
		"not found": func() *http.Response { return answer(404, nil) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := prepare(t, &console{before: func(*http.Request, wire.Batch) (*http.Response, error) { return resp(), nil }}, nil)
				add(t, r.alerts, 0, 2)
				r.run(t)
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				st := r.State()
				equal(t, "code", st.Contact.Code, CodeAnswer)
				equal(t, "left, delivered, refused", []any{r.alerts.Len(), st.Alerts, st.Refused}, []any{2, 0, 0})
				if n := len(r.console.seen()); n > 20 {
					t.Errorf("%d attempts in 10 min", n)
				}
				for _, q := range r.console.seen() {
					equal(t, "host", q.host, "one.example.jp")
				}
				r.stop()
			})
		})
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// One row in a thousand that the console will not take: it is found, kept aside with the reason, counted, and every
// other row arrives.
func TestAPoisonedRowIsFoundAndSetAside(t *testing.T) {
	for _, code := range []int{400, 413, 422} {
		for _, hint := range []bool{false, true} {
			t.Run(fmt.Sprint(code, hint), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					bad := map[string]bool{row(0): true, row(333): true, row(334): true, row(999): true, row(1200): true}
					r := prepare(t, &console{before: func(_ *http.Request, b wire.Batch) (*http.Response, error) {
						for i, x := range slices.Concat(b.Alerts, b.Activity) {
							if bad[string(x)] {
								e := wire.Error{Code: "COL-05", EN: "row has no event.id", Now: time.Now()}
								if hint {
									e.Index = &i
								}
								return answer(code, e), nil
							}
						}
						return nil, nil
					}}, nil)
					add(t, r.alerts, 0, 1000)
					add(t, r.activity, 1000, 1300)
					r.run(t)
					time.Sleep(time.Minute)
					synctest.Wait()
					var want []string
					for _, x := range rowsFrom(0, 1300) {
						if !bad[x] {
							want = append(want, x)
						}
					}
					equal(t, "rows", r.console.kept(), want)
					st := r.State()
					equal(t, "refused, code", []any{st.Refused, st.Contact.Code}, []any{5, ""})
					equal(t, "refused by spool", []uint64{r.alerts.Stats().Dropped.Refused, r.activity.Stats().Dropped.Refused}, []uint64{4, 1})
					lines := readRejected(t, r.o.Rejected)
					equal(t, "lines", len(lines), 5)
					equal(t, "first line", []string{lines[0].Queue, lines[0].Reason, lines[0].Row},
						[]string{"alerts", fmt.Sprintf("the console answered %d (COL-05: row has no event.id)", code), row(0)})
					if n := len(r.console.seen()); n > 60 {
						t.Errorf("%d requests for 5 bad rows in 1300", n)
					}
					r.stop()
				})
			})
		}
	}
}

func readRejected(t *testing.T, path string) []rejected {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []rejected
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 8<<20)
	for sc.Scan() {
		var l rejected
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// A console that refuses everything must not empty the spool into the file of rejected rows.
func TestAConsoleThatRefusesEverythingLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, &console{before: func(*http.Request, wire.Batch) (*http.Response, error) { return refusal(400) }}, nil)
		add(t, r.alerts, 0, 100)
		r.run(t)
		time.Sleep(time.Hour)
		synctest.Wait()
		st := r.State()
		equal(t, "left, refused, code", []any{r.alerts.Len(), st.Refused, st.Contact.Code}, []any{100, 0, CodeRows})
		if n := len(r.console.seen()); n > 150 {
			t.Errorf("%d requests in an hour", n)
		}
		r.console.set(func(c *console) { c.before = nil })
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		equal(t, "rows", r.console.kept(), rowsFrom(0, 100))
		r.stop()
	})
}

// A status that the console refuses does not hold back the rows.
func TestARefusedStatusHoldsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, &console{before: func(_ *http.Request, b wire.Batch) (*http.Response, error) {
			if b.Status != nil {
				return refusal(400)
			}
			return nil, nil
		}}, nil)
		add(t, r.alerts, 0, 20)
		r.run(t)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		equal(t, "rows", r.console.kept(), rowsFrom(0, 20))
		st := r.State()
		equal(t, "refused, code", []any{st.Refused, st.Contact.Code}, []any{0, CodeRows})
		r.stop()
	})
}

func TestRowsNoConsoleTakesNeverLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, &console{}, nil)
		huge := `"` + strings.Repeat("h", wire.MaxRowBytes) + `"`
		for _, x := range []string{"{", row(1), huge, row(2), "]", "{}{}"} {
			if err := r.alerts.Append(true, []byte(x)); err != nil {
				t.Fatal(err)
			}
		}
		r.run(t)
		time.Sleep(time.Second)
		synctest.Wait()
		equal(t, "rows", r.console.kept(), rowsFrom(1, 3))
		var reasons []string
		for _, l := range readRejected(t, r.o.Rejected) {
			reasons = append(reasons, l.Reason)
		}
		equal(t, "reasons", reasons, []string{"not JSON", "1048578 bytes, at most 1048576", "not JSON", "not JSON"})
		equal(t, "refused", r.State().Refused, 4)
		r.stop()
	})
}

func TestTheFileOfRejectedRowsIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.jsonl")
	x := bytes.Repeat([]byte("r"), 1<<20)
	for range 20 {
		if err := reject(path, "alerts", "no", x); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{path, path + ".old"} {
		fi, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Size() > maxRejectedBytes {
			t.Errorf("%s has %d bytes", p, fi.Size())
		}
	}
	if err := reject(path, "alerts", "no", bytes.Repeat(x, 5)); err == nil {
		t.Error("a row over the bound: no error")
	}
}

func TestTheNextAddressIsTriedAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead := map[string]bool{"one.example.jp": true}
		r := prepare(t, &console{before: func(q *http.Request, _ wire.Batch) (*http.Response, error) {
			if dead[q.URL.Host] {
				return nil, errors.New("no route to host")
			}
			return nil, nil
		}}, func(o *Options) { o.URLs = []string{"https://one.example.jp", "https://two.example.jp"} })
		add(t, r.alerts, 0, 1)
		r.run(t)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		add(t, r.alerts, 1, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		equal(t, "rows", r.console.kept(), rowsFrom(0, 2))
		hosts := func() (s []string) {
			for _, q := range r.console.seen() {
				s = append(s, q.host[:3])
			}
			return s
		}
		equal(t, "hosts", hosts(), []string{"one", "two", "two"})
		st := r.State()
		equal(t, "address, failures", []any{st.Contact.Console, st.Failures}, []any{"https://two.example.jp", 0})
		r.console.set(func(*console) { dead["one.example.jp"], dead["two.example.jp"] = false, true })
		add(t, r.alerts, 2, 3)
		time.Sleep(time.Second)
		synctest.Wait()
		equal(t, "hosts", hosts(), []string{"one", "two", "two", "two", "one"})
		r.stop()
	})
}

func TestStopDeliversWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &console{}, func(o *Options) { o.BatchRows = 10 })
		synctest.Wait()
		add(t, r.activity, 100, 125)
		add(t, r.alerts, 0, 25)
		began := time.Now()
		r.stop()
		equal(t, "rows", len(r.console.kept()), 50)
		equal(t, "took", time.Since(began), time.Duration(0))
	})
}

func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(q *http.Request, _ wire.Batch) (*http.Response, error) {
			<-q.Context().Done()
			return nil, q.Context().Err()
		}
		r := start(t, &console{before: hang}, nil)
		add(t, r.alerts, 0, 3)
		time.Sleep(time.Second) // a request is under way
		began := time.Now()
		r.stop()
		equal(t, "took", time.Since(began), 5*time.Second)
		equal(t, "left", r.alerts.Len(), 3)
		equal(t, "lease given back", func() error {
			b, err := r.alerts.Lease(9, 9)
			if err == nil {
				b.Release()
			}
			return err
		}(), nil)
	})
}

// A request under way when the agent is told to stop is finished, so that its rows need not go twice.
func TestStopLetsARequestFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(*http.Request, wire.Batch) (*http.Response, error) {
			time.Sleep(3 * time.Second)
			return nil, nil
		}
		r := prepare(t, &console{before: slow}, nil)
		add(t, r.alerts, 0, 3)
		r.run(t)
		time.Sleep(time.Second)
		r.stop()
		equal(t, "rows", r.console.kept(), rowsFrom(0, 3))
		equal(t, "again", r.console.again, 0)
	})
}

func TestStopWhileTheConsoleAsksToWaitSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, &console{before: func(*http.Request, wire.Batch) (*http.Response, error) {
			return answer(503, wire.Error{Code: "COL-01", RetryAfter: 100}), nil
		}}, nil)
		add(t, r.alerts, 0, 1)
		r.run(t)
		time.Sleep(time.Second)
		r.stop()
		equal(t, "requests", len(r.console.seen()), 1)
		equal(t, "left", r.alerts.Len(), 1)
		equal(t, "code", r.State().Contact.Code, CodeBusy)
	})
}

func TestClocksAreCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &console{skew: time.Hour}, nil)
		add(t, r.alerts, 0, 1)
		time.Sleep(150 * time.Second)
		synctest.Wait()
		st := r.State()
		equal(t, "offset, code, text", []any{st.Contact.ClockOffset, st.Contact.Code, st.Contact.Error},
			[]any{time.Hour, CodeClock, "this PC's clock is 1h0m0s behind the console's"})
		equal(t, "rows arrive all the same", r.console.kept(), rowsFrom(0, 1))
		equal(t, "warnings", r.log.FilterLevelExact(zap.WarnLevel).Len(), 1)
		r.console.set(func(c *console) { c.skew = -time.Minute })
		time.Sleep(time.Minute)
		synctest.Wait()
		st = r.State()
		equal(t, "offset, code", []any{st.Contact.ClockOffset, st.Contact.Code}, []any{-time.Minute, ""})
		// Without a body of ours the Date header tells.
		r.console.set(func(c *console) {
			c.before = func(*http.Request, wire.Batch) (*http.Response, error) {
				resp := answer(502, nil)
				resp.Header.Set("Date", time.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat))
				return resp, nil
			}
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		equal(t, "offset by the header", r.State().Contact.ClockOffset.Round(time.Hour), 24*time.Hour)
		r.stop()
	})
}

func TestEveryAnswerIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []int64
		r := start(t, &console{before: func(*http.Request, wire.Batch) (*http.Response, error) {
			return answer(200, wire.BatchReply{PolicyVersion: 4, Renew: true, Now: time.Now()}), nil
		}}, func(o *Options) { o.OnReply = func(b wire.BatchReply) { got = append(got, b.PolicyVersion) } })
		time.Sleep(90 * time.Second)
		synctest.Wait()
		equal(t, "policy versions", got, []int64{4, 4})
		equal(t, "renewal due", r.State().RenewDue, true)
		r.stop()
	})
}

func TestWrongOptionsAreRefused(t *testing.T) {
	r := prepare(t, &console{}, nil)
	for what, change := range map[string]func(*Options){
		"no address":        func(o *Options) { o.URLs = nil },
		"plain http":        func(o *Options) { o.URLs = []string{"http://one.example.jp"} },
		"no host":           func(o *Options) { o.URLs = []string{"https:///x"} },
		"not an address":    func(o *Options) { o.URLs = []string{"https://[::1"} },
		"no client":         func(o *Options) { o.Client = nil },
		"no alerts spool":   func(o *Options) { o.Alerts = nil },
		"no activity spool": func(o *Options) { o.Activity = nil },
	} {
		o := r.o
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

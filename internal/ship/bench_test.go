package ship

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/internal/spool"
	"sekisho/internal/wire"
)

// One operation is a batch of 500 alerts of some 600 bytes: leased, encoded, compressed, answered in memory, committed on disk.
func BenchmarkBatch500(b *testing.B) {
	dir := b.TempDir()
	var spools [2]*spool.Spool
	for i := range spools {
		s, err := spool.Open(filepath.Join(dir, fmt.Sprint(i)), spool.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		spools[i] = s
	}
	sent, rows := 0, 0
	s, err := New(Options{Alerts: spools[0], Activity: spools[1], URLs: []string{"https://one.example.jp"}, Client: &http.Client{
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				return nil, err
			}
			sent += int(n)
			rows += 500
			body, err := json.Marshal(wire.BatchReply{Alerts: 500, Now: time.Now()})
			if err != nil {
				return nil, err
			}
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
		})}})
	if err != nil {
		b.Fatal(err)
	}
	var recs [][]byte
	for i := range 500 {
		recs = append(recs, fmt.Appendf(nil, `{"@timestamp":"2026-11-21T09:%02d:%02d.123456789Z","event":{"id":"0193%08x-7a2b-7c3d-8e4f-%012x","kind":"alert"},`+
			`"rule":{"id":"5f0c8f0e","name":"USB-3"},"host":{"name":"pc-%04d"},"user":{"name":"user%d"},"file":{"path":"/media/usb/%d/%x.xlsx","size":%d},"message":%q}`,
			i/60%60, i%60, i*7919, i*104729, i%40, i%9, i, i*i, i*4096, strings.Repeat("copied to removable media ", 12)))
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		if err := spools[0].Append(false, recs...); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		s.attempt(context.Background())
		if n := spools[0].Len(); n > 0 {
			b.Fatalf("%d left: %+v", n, s.State())
		}
	}
	b.ReportMetric(float64(sent)/float64(rows), "wire-B/row")
}

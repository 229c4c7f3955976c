package ship

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzAnswer: whatever stands at the console's address, its answer is either a console's or a trouble with a code, words fit
// to be shown and a bounded wait.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "", "", []byte(`{"alerts":1,"now":"2026-01-01T00:00:00Z"}`))
	f.Add(200, "3", "", []byte(`{}`))
	f.Add(503, "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", []byte(`{"code":"COL-01","retry_after":-5}`))
	f.Add(400, "-1", "x", []byte(`{"code":"COL-05","en":"\u202e\u0000","index":-3}`))
	f.Add(101, "99999999999999999999", "", []byte("<html>"))
	f.Fuzz(func(t *testing.T, status int, retry, date string, body []byte) {
		if status < 100 || status > 999 || strings.ContainsAny(retry+date, "\r\n") {
			return
		}
		s := &Shipper{o: Options{URLs: []string{"https://one.example.jp"}, Timeout: 1 << 40, Client: &http.Client{
			Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {retry}, "Date": {date}},
					Body: io.NopCloser(bytes.NewReader(body))}, nil
			}),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}}}
		reply, trouble := s.post(t.Context(), s.o.URLs[0])
		if trouble == nil {
			if status != 200 || reply.Now.IsZero() {
				t.Fatalf("status %d passes for an answer: %+v", status, reply)
			}
			return
		}
		if !strings.HasPrefix(trouble.Code, "SHP-") || trouble.Text == "" || len(trouble.Text) > 1000 || !utf8.ValidString(trouble.Text) {
			t.Fatalf("trouble %q %q", trouble.Code, trouble.Text)
		}
		for _, r := range trouble.Text {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("text %q", trouble.Text)
			}
		}
		if trouble.RetryAfter < 0 || trouble.RetryAfter > maxRetryAfter {
			t.Fatalf("retry after %v", trouble.RetryAfter)
		}
	})
}

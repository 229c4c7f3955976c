package collector

import (
	"errors"
	"net/http"
	"time"

	"sekisho/internal/enroll"
	"sekisho/internal/wire"
)

// The codes of what can go wrong with a request besides identity (ENR-nn). They
// are stable; see docs/errors.md.
const (
	codeBody     = "COL-01"
	codeType     = "COL-02"
	codeLarge    = "COL-03"
	codeRows     = "COL-04"
	codeRow      = "COL-05"
	codeRate     = "COL-06"
	codeBusy     = "COL-07"
	codeFull     = "COL-08"
	codeStore    = "COL-09"
	codePath     = "COL-10"
	codeMethod   = "COL-11"
	codeInternal = "COL-12"
)

// texts are what people read, by code, in Japanese and English.
var texts = map[string][2]string{
	codeBody:     {"本文を読み取れません", "the body cannot be read"},
	codeType:     {"本文の種類は application/json、圧縮は zstd だけを受け付けます", "the body has to be application/json, compressed with zstd or not at all"},
	codeLarge:    {"本文が大きすぎます", "the body is too large"},
	codeRows:     {"1回の送信の行数が多すぎます", "too many rows in one batch"},
	codeRow:      {"受け付けられない行があります", "a row cannot be taken"},
	codeRate:     {"このPCからの要求が多すぎます", "too many requests from this PC"},
	codeBusy:     {"コンソールが混み合っています", "the console is busy"},
	codeFull:     {"コンソールのディスクに空きがありません", "the console's disk is full"},
	codeStore:    {"コンソールが記録を保存できません", "the console cannot store the rows"},
	codePath:     {"この住所には何もありません。ここはエージェント用です", "nothing is here; this address is for agents"},
	codeMethod:   {"POST だけを受け付けます", "only POST is taken"},
	codeInternal: {"コンソール側で問題が起きました", "the console had trouble of its own"},
}

// Codes maps every code of this package to its texts in Japanese and English.
func Codes() map[string][2]string {
	m := make(map[string][2]string, len(texts))
	for c, t := range texts {
		m[c] = t
	}
	return m
}

// failure is an answer that is not 200.
type failure struct {
	status int
	code   string
	retry  int   // seconds; 0: no Retry-After
	index  *int  // of the row that was refused
	err    error // the cause; told to the agent for 400 and 422 only, logged always
}

func (f *failure) Error() string {
	if f.err != nil {
		return f.err.Error()
	}
	return f.wire(time.Time{}).EN
}

func (f *failure) Unwrap() error { return f.err }

func (f *failure) wire(now time.Time) wire.Error {
	e := enroll.Wire(f.code, now)
	if t, ok := texts[f.code]; ok {
		e.JA, e.EN = t[0], t[1]
	}
	e.Index = f.index
	if f.err != nil && (f.status == http.StatusBadRequest || f.status == http.StatusUnprocessableEntity || f.status == http.StatusUnsupportedMediaType) {
		cause := cutText(f.err.Error(), 500)
		e.JA, e.EN = e.JA+": "+cause, e.EN+": "+cause
	}
	return e
}

func refuse(status int, code string, cause ...error) error {
	return &failure{status: status, code: code, err: errors.Join(cause...)}
}

func refuseLater(status int, code string, seconds int, cause error) error {
	return &failure{status: status, code: code, retry: seconds, err: cause}
}

// busy sends a request away for a while.
func busy(code string, seconds int) error {
	status := http.StatusServiceUnavailable
	if code == codeRate {
		status = http.StatusTooManyRequests
	}
	return &failure{status: status, code: code, retry: seconds}
}

func asFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	return &failure{status: http.StatusInternalServerError, code: codeInternal, err: err}
}
